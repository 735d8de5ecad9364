package blob_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"sealpost/storage/blob"
	"sealpost/storage/blob/blobtest"
	"sealpost/storage/storagetest"
)

const day = blobtest.Day

// metric returns the sum of a metric's values that have the label value, or of all if it is empty.
func metric(t *testing.T, registry *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			found := label == ""
			for _, pair := range m.GetLabel() {
				found = found || pair.GetValue() == label
			}
			if found {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// onRetry is a log that calls do for each retry, with its reason.
func onRetry(do func(reason string)) *slog.Logger { return slog.New(retryHandler(do)) }

type retryHandler func(string)

func (retryHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h retryHandler) WithAttrs([]slog.Attr) slog.Handler     { return h }
func (h retryHandler) WithGroup(string) slog.Handler          { return h }
func (h retryHandler) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "reason" {
			h(a.Value.String())
		}
		return true
	})
	return nil
}

// chunked calls do each time that another so many bytes have been read.
type chunked struct {
	io.Reader
	every, read int
	do          func(total int)
}

func (c *chunked) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p[:min(len(p), c.every)])
	before := c.read / c.every
	c.read += n
	if c.read/c.every > before {
		c.do(c.read)
	}
	return n, err
}

func mustPut(t *testing.T, s blob.Store, name string, body []byte) {
	t.Helper()
	if n, err := s.Put(t.Context(), name, bytes.NewReader(body)); err != nil || n != int64(len(body)) {
		t.Fatalf("Put: %d, %v", n, err)
	}
}

func wantBody(t *testing.T, s blob.Store, name string, want []byte) {
	t.Helper()
	r, err := s.Get(t.Context(), name, 0, -1)
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	got, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("Get gave %d bytes (%v), want the %d that were put", len(got), err, len(want))
	}
}

// wantOnly checks that the store has one object, and no unfinished upload is left.
func wantOnly(t *testing.T, server *storagetest.S3, s blob.Store, names ...string) {
	t.Helper()
	n := 0
	for info, err := range s.List(t.Context(), day) {
		if err != nil || !strings.Contains(strings.Join(names, " "), info.Name) {
			t.Errorf("List: %+v, %v", info, err)
		}
		n++
	}
	if n != len(names) {
		t.Errorf("there are %d objects, want %d", n, len(names))
	}
	out, err := server.Client().ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: aws.String(server.Bucket)})
	if err != nil || len(out.Uploads) != 0 {
		t.Errorf("unfinished uploads: %d, %v", len(out.Uploads), err)
	}
}

func is(method, query string) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.Method == method && r.URL.Query().Has(query) }
}

// A server that fails or is overloaded is asked again, and each retry is counted.
func TestS3RetriesServerErrors(t *testing.T) {
	server := storagetest.StartS3(t)
	faulty := storagetest.StartHTTPFaults(t, server.Endpoint)
	slow := `<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>`
	for name, match := range map[string]func(*http.Request) bool{
		"PutObject":               func(r *http.Request) bool { return r.Method == http.MethodPut && !r.URL.Query().Has("partNumber") },
		"CreateMultipartUpload":   is(http.MethodPost, "uploads"),
		"UploadPart":              is(http.MethodPut, "partNumber"),
		"CompleteMultipartUpload": is(http.MethodPost, "uploadId"),
		"GetObject":               func(r *http.Request) bool { return r.Method == http.MethodGet && !r.URL.Query().Has("list-type") },
		"ListObjectsV2":           is(http.MethodGet, "list-type"),
		"HeadObject":              func(r *http.Request) bool { return r.Method == http.MethodHead },
		"DeleteObject":            func(r *http.Request) bool { return r.Method == http.MethodDelete },
	} {
		t.Run(name, func(t *testing.T) {
			faulty.Heal()
			registry := prometheus.NewRegistry()
			o := options(t, server, faulty.URL)
			o.Registerer = registry
			s := openS3(t, o)
			failed := faulty.Add(storagetest.HTTPFault{Match: match, Status: http.StatusInternalServerError, Body: `<Error><Code>InternalError</Code></Error>`})
			throttled := faulty.Add(storagetest.HTTPFault{Match: match, Times: 2, Status: http.StatusServiceUnavailable, Body: slow})
			small, large := blobtest.Name(day), blobtest.Name(day)
			body := blobtest.Body(6 << 20)
			mustPut(t, s, small, body[:100])
			mustPut(t, s, large, body)
			wantBody(t, s, large, body)
			if _, err := s.Stat(t.Context(), small); err != nil {
				t.Error(err)
			}
			wantOnly(t, server, s, small, large)
			for _, name := range []string{small, large} {
				if err := s.Delete(t.Context(), name); err != nil {
					t.Error(err)
				}
			}
			if failed() != 1 || throttled() != 2 {
				t.Errorf("%d and %d requests were hit, want 1 and 2", failed(), throttled())
			}
			const retries = "sealpost_s3_retries_total"
			if server, slow := metric(t, registry, retries, "server"), metric(t, registry, retries, "throttled"); server != 1 || slow != 2 {
				t.Errorf("%v and %v retries are counted, want 1 and 2", server, slow)
			}
		})
	}
}

// An answer that is lost says nothing of the object: it is ours if it carries our token.
func TestS3SettlesALostAnswer(t *testing.T) {
	server := storagetest.StartS3(t)
	faulty := storagetest.StartHTTPFaults(t, server.Endpoint)
	for name, test := range map[string]struct {
		match    func(*http.Request) bool
		size     int
		after    int64
		attempts int
		settled  float64 // versitygw answers a repeated Complete as it did before, so that nothing is to be settled
	}{
		"PutObject":                            {func(r *http.Request) bool { return r.Method == http.MethodPut }, 100, 0, 4, 1},
		"PutObject without retry":              {func(r *http.Request) bool { return r.Method == http.MethodPut }, 100, 0, 1, 1},
		"CompleteMultipartUpload":              {is(http.MethodPost, "uploadId"), 6 << 20, 0, 4, 0},
		"CompleteMultipartUpload, half answer": {is(http.MethodPost, "uploadId"), 6 << 20, 30, 4, 0},
		"CompleteMultipartUpload, no retry":    {is(http.MethodPost, "uploadId"), 6 << 20, 30, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			o := options(t, server, faulty.URL)
			o.Prefix, o.Registerer, o.Attempts = "settle"+blobtest.Name(day)[9:20], registry, test.attempts
			s := openS3(t, o)
			hits := faulty.Add(storagetest.HTTPFault{Match: test.match, LoseAnswer: true, AfterBytes: test.after})
			object, body := blobtest.Name(day), blobtest.Body(test.size)
			mustPut(t, s, object, body)
			if settled := metric(t, registry, "sealpost_s3_settled_puts_total", ""); hits() != 1 || settled != test.settled {
				t.Errorf("%d answers were lost, %v settled; want 1 and %v", hits(), settled, test.settled)
			}
			wantOnly(t, server, s, object)
			wantBody(t, s, object, body)
			if _, err := s.Put(t.Context(), object, strings.NewReader("other")); !errors.Is(err, blob.ErrExist) {
				t.Errorf("another Put: %v, want ErrExist", err)
			}
			wantBody(t, s, object, body)
		})
	}
}

// A Put that the caller gave up after the server had carried it out leaves nothing either.
func TestS3CancelledPutIsUndone(t *testing.T) {
	server := storagetest.StartS3(t)
	faulty := storagetest.StartHTTPFaults(t, server.Endpoint)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := options(t, server, faulty.URL)
	o.Logger = onRetry(func(string) { cancel() })
	s := openS3(t, o)
	faulty.Add(storagetest.HTTPFault{Match: func(r *http.Request) bool { return r.Method == http.MethodPut }, LoseAnswer: true})
	if _, err := s.Put(ctx, blobtest.Name(day), strings.NewReader("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("Put: %v, want context.Canceled", err)
	}
	wantOnly(t, server, s)
}

func TestS3ConnectionCutInAPart(t *testing.T) {
	server := storagetest.StartS3(t)
	proxy := storagetest.StartProxy(t, strings.TrimPrefix(server.Endpoint, "http://"))
	registry := prometheus.NewRegistry()
	o := options(t, server, "http://"+proxy.Addr)
	o.Registerer = registry
	s := openS3(t, o)
	name, body := blobtest.Name(day), blobtest.Body(17<<20)
	proxy.CutAfter(7<<20, -1)
	mustPut(t, s, name, body)
	if metric(t, registry, "sealpost_s3_retries_total", "network") == 0 {
		t.Error("nothing was cut")
	}
	wantOnly(t, server, s, name)
	wantBody(t, s, name, body)
}

// A part that gets stuck is cut by the time-out, counted and sent again.
func TestS3StalledUpload(t *testing.T) {
	server := storagetest.StartS3(t)
	proxy := storagetest.StartProxy(t, strings.TrimPrefix(server.Endpoint, "http://"))
	registry := prometheus.NewRegistry()
	o := options(t, server, "http://"+proxy.Addr)
	o.Registerer, o.Stall = registry, 500*time.Millisecond
	o.Logger = onRetry(func(reason string) {
		if strings.Contains(reason, "no progress") {
			proxy.Heal()
		}
	})
	s := openS3(t, o)
	name, body := blobtest.Name(day), blobtest.Body(17<<20)
	mustPut(t, s, name, nil)
	if err := s.Delete(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	n, err := s.Put(t.Context(), name, &chunked{Reader: bytes.NewReader(body), every: 6 << 20, do: func(total int) {
		if total < 12<<20 {
			proxy.Stall()
		}
	}})
	if err != nil || n != int64(len(body)) {
		t.Fatalf("Put: %d, %v", n, err)
	}
	if metric(t, registry, "sealpost_s3_retries_total", "stalled") == 0 {
		t.Error("no stall is counted")
	}
	wantOnly(t, server, s, name)
	wantBody(t, s, name, body)
}

func TestS3ServerRestartsInAnUpload(t *testing.T) {
	server := storagetest.StartS3(t)
	o := options(t, server, server.Endpoint)
	o.Attempts = 200 // until it is back
	s := openS3(t, o)
	name, body := blobtest.Name(day), blobtest.Body(17<<20)
	n, err := s.Put(t.Context(), name, &chunked{Reader: bytes.NewReader(body), every: 11 << 20, do: func(int) {
		server.Kill()
		server.Start(t)
	}})
	if err != nil || n != int64(len(body)) {
		t.Fatalf("Put: %d, %v", n, err)
	}
	wantOnly(t, server, s, name)
	wantBody(t, s, name, body)
}

// While the server is away, nothing is taken for absent and nothing for stored.
func TestS3Outage(t *testing.T) {
	server := storagetest.StartS3(t)
	proxy := storagetest.StartProxy(t, strings.TrimPrefix(server.Endpoint, "http://"))
	o := options(t, server, "http://"+proxy.Addr)
	o.Attempts = 2
	s := openS3(t, o)
	name := blobtest.Name(day)
	mustPut(t, s, name, []byte("x"))
	proxy.Refuse()
	other := blobtest.Name(day)
	for what, do := range map[string]func() error{
		"Put":    func() error { _, err := s.Put(t.Context(), other, bytes.NewReader(blobtest.Body(6<<20))); return err },
		"Get":    func() error { _, err := s.Get(t.Context(), name, 0, -1); return err },
		"Stat":   func() error { _, err := s.Stat(t.Context(), name); return err },
		"Delete": func() error { return s.Delete(t.Context(), name) },
		"Days":   func() error { _, err := s.Days(t.Context()); return err },
		"Check":  func() error { return s.Check(t.Context()) },
	} {
		err := do()
		if err == nil || errors.Is(err, blob.ErrNotExist) || errors.Is(err, blob.ErrExist) || errors.Is(err, blob.ErrFull) {
			t.Errorf("%s during an outage: %v", what, err)
			continue
		}
		if text := err.Error(); strings.Contains(text, name[9:]) || strings.Contains(text, other[9:]) || strings.Contains(text, "://") {
			t.Errorf("%s: the error names an object or a URL: %v", what, err)
		}
	}
	proxy.Heal()
	wantOnly(t, server, s, name)
	mustPut(t, s, other, []byte("x"))
}

// An upload that was cancelled or whose body broke off leaves no parts.
func TestS3CancelAbortsTheUpload(t *testing.T) {
	server := storagetest.StartS3(t)
	s := openS3(t, options(t, server, server.Endpoint))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.Put(ctx, blobtest.Name(day), &chunked{Reader: bytes.NewReader(blobtest.Body(30 << 20)), every: 18 << 20, do: func(int) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Put: %v, want context.Canceled", err)
	}
	wantOnly(t, server, s)
	if _, err := s.Put(t.Context(), blobtest.Name(day), io.MultiReader(bytes.NewReader(blobtest.Body(12<<20)), broken{})); !errors.Is(err, errBroken) {
		t.Errorf("Put: %v, want the body's error", err)
	}
	wantOnly(t, server, s)
}

var errBroken = errors.New("the body broke off")

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errBroken }

// wantNoGoroutines checks that nothing of the store is running.
func wantNoGoroutines(t *testing.T) {
	t.Helper()
	var stacks bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 2); err != nil {
		t.Fatal(err)
	}
	for _, stack := range strings.Split(stacks.String(), "\n\n") {
		if strings.Contains(stack, "sealpost/storage/blob.") {
			t.Errorf("still running:\n%s", stack)
		}
	}
}

// TestS3MemoryIsBounded has twenty uploads of 64 MiB share eight buffers of 5 MiB.
func TestS3MemoryIsBounded(t *testing.T) {
	const uploads, size, parts = 20, 64 << 20, 8
	server := storagetest.StartS3(t)
	registry := prometheus.NewRegistry()
	o := options(t, server, server.Endpoint)
	o.PartBuffers, o.Registerer = parts, registry
	s := openS3(t, o)
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	var peak, most atomic.Int64
	look := func(int) {
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		peak.Store(max(peak.Load(), int64(now.HeapAlloc)-int64(before.HeapAlloc)))
		most.Store(max(most.Load(), int64(metric(t, registry, "sealpost_s3_part_buffers_in_use", ""))))
	}
	group, ctx := errgroup.WithContext(t.Context())
	for range uploads {
		group.Go(func() error {
			body := &chunked{Reader: io.LimitReader(zeros{}, size), every: 1 << 20, do: look}
			name := blobtest.Name(day)
			if n, err := s.Put(ctx, name, body); err != nil || n != size {
				return errors.Join(errors.New("an upload failed"), err)
			}
			return s.Delete(ctx, name)
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	const slack = 40 << 20
	if peak.Load() > parts*5<<20+slack {
		t.Errorf("the heap grew by %d MiB, want at most %d", peak.Load()>>20, (parts*5<<20+slack)>>20)
	}
	if most.Load() > parts || most.Load() == 0 {
		t.Errorf("%d buffers were in use, want at most %d", most.Load(), parts)
	}
	if left := metric(t, registry, "sealpost_s3_part_buffers_in_use", ""); left != 0 {
		t.Errorf("%v buffers were not given back", left)
	}
	wantNoGoroutines(t)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A caller who waits for a buffer can give up.
func TestS3WaitForABufferEndsWithTheContext(t *testing.T) {
	server := storagetest.StartS3(t)
	o := options(t, server, server.Endpoint)
	o.PartBuffers = 2
	s := openS3(t, o)
	holding, release := make(chan struct{}), make(chan struct{})
	var group errgroup.Group
	for range 2 {
		group.Go(func() error {
			told := false
			_, err := s.Put(t.Context(), blobtest.Name(day), &chunked{Reader: bytes.NewReader(blobtest.Body(1 << 20)), every: 128 << 10, do: func(int) {
				if !told {
					told = true
					holding <- struct{}{}
					<-release
				}
			}})
			return err
		})
	}
	<-holding
	<-holding
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.Put(ctx, blobtest.Name(day), &chunked{Reader: bytes.NewReader(blobtest.Body(1 << 20)), every: 64 << 10, do: func(int) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Put: %v, want context.Canceled", err)
	}
	mustPut(t, s, blobtest.Name(day), []byte("a small one needs no part buffer"))
	close(release)
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}
