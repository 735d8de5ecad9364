package blob_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"sealpost/storage/blob"
	"sealpost/storage/blob/blobtest"
	"sealpost/storage/storagetest"
)

// A disk that is full says so, for a small object and in a multipart upload, and nothing is left.
func TestS3FullDisk(t *testing.T) {
	server := storagetest.StartS3In(t, smallDisk(t, "24m"))
	s := openS3(t, options(t, server, server.Endpoint))
	kept := blobtest.Name(day)
	mustPut(t, s, kept, []byte("x"))
	for _, size := range []int{40 << 20, 4 << 20} {
		_, err := s.Put(t.Context(), blobtest.Name(day), bytes.NewReader(blobtest.Body(size)))
		if size > 24<<20 && !errors.Is(err, blob.ErrFull) {
			t.Errorf("Put on a full disk: %v, want ErrFull", err)
		}
		if size < 24<<20 && err != nil {
			t.Errorf("the room was not given back: %v", err)
		}
	}
	faulty := storagetest.StartHTTPFaults(t, server.Endpoint)
	s = openS3(t, options(t, server, faulty.URL))
	for code, status := range map[string]int{"QuotaExceeded": 403, "XMinioStorageFull": 507, "InsufficientStorage": 507} {
		faulty.Heal()
		faulty.Add(storagetest.HTTPFault{Times: -1, Status: status, Match: is(http.MethodPut, "x-id"), Body: "<Error><Code>" + code + "</Code></Error>"})
		if _, err := s.Put(t.Context(), blobtest.Name(day), strings.NewReader("x")); !errors.Is(err, blob.ErrFull) {
			t.Errorf("%s: %v, want ErrFull", code, err)
		}
	}
}

// A list of more than one page is whole, and what is not ours in it is left out.
func TestS3ListsAllPages(t *testing.T) {
	const objects = 2100
	server := storagetest.StartS3(t)
	s := openS3(t, options(t, server, server.Endpoint))
	dir := filepath.Join(server.Dir, server.Bucket, "objects", day)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for range objects {
		name := blobtest.Name(day)
		want[name] = true
		if err := os.WriteFile(filepath.Join(dir, name[9:]), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "README"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n := 0
	for info, err := range s.List(t.Context(), day) {
		if err != nil || !want[info.Name] {
			t.Fatalf("List: %+v, %v", info, err)
		}
		n++
	}
	if n != objects {
		t.Errorf("List has %d objects, want %d", n, objects)
	}
}

func TestS3AbortUploads(t *testing.T) {
	server := storagetest.StartS3(t)
	s := openS3(t, options(t, server, server.Endpoint))
	client := server.Client()
	foreign := "elsewhere/" + blobtest.Name(day)
	for _, key := range []string{"objects/" + blobtest.Name(day), "objects/" + blobtest.Name(day), foreign} {
		if _, err := client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &server.Bucket, Key: aws.String(key)}); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.AbortUploads(t.Context(), time.Now().Add(-time.Hour)); n != 0 || err != nil {
		t.Errorf("%d fresh uploads were ended, %v", n, err)
	}
	if n, err := s.AbortUploads(t.Context(), time.Now().Add(time.Hour)); n != 2 || err != nil {
		t.Errorf("%d old uploads were ended, %v; want 2", n, err)
	}
	out, err := client.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &server.Bucket})
	if err != nil || len(out.Uploads) != 1 || aws.ToString(out.Uploads[0].Key) != foreign {
		t.Errorf("unfinished uploads: %+v, %v; want the one that is not ours", out, err)
	}
}

func TestS3Presign(t *testing.T) {
	server := storagetest.StartS3(t)
	s := openS3(t, options(t, server, server.Endpoint))
	name, body := blobtest.Name(day), blobtest.Body(1000)
	mustPut(t, s, name, body)
	signed, err := s.Presign(t.Context(), name, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for span, want := range map[string][]byte{"": body, "bytes=10-19": body[10:20]} {
		request, err := http.NewRequest(http.MethodGet, signed.Reveal(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if span != "" {
			request.Header.Set("Range", span)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(response.Body)
		if err := errors.Join(err, response.Body.Close()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("GET of a signed URL, range %q: %s, %d bytes, %v", span, response.Status, len(got), err)
		}
	}
	asJSON, err := json.Marshal(signed)
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range []string{fmt.Sprint(signed), fmt.Sprintf("%+v", signed), fmt.Sprintf("%#v", signed), string(asJSON)} {
		if strings.Contains(printed, "http") || strings.Contains(printed, "Signature") {
			t.Errorf("a signed URL prints as %s", printed)
		}
	}
	for _, ttl := range []time.Duration{0, time.Millisecond, 8 * 24 * time.Hour} {
		if _, err := s.Presign(t.Context(), name, ttl); err == nil {
			t.Errorf("a URL was signed for %v", ttl)
		}
	}
	if _, err := s.Presign(t.Context(), "../x", time.Minute); !errors.Is(err, blob.ErrName) {
		t.Errorf("a malformed name: %v, want ErrName", err)
	}
}

func TestS3CheckCORS(t *testing.T) {
	const origin = "https://files.example.com"
	server := storagetest.StartS3(t)
	s := openS3(t, options(t, server, server.Endpoint))
	if err := s.CheckCORS(t.Context(), origin); err == nil || !strings.Contains(err.Error(), origin) {
		t.Errorf("a bucket without rules: %v, want an error that says the rule", err)
	}
	for name, test := range map[string]struct {
		rule types.CORSRule
		says string
	}{
		"right":         {types.CORSRule{AllowedOrigins: []string{origin}, AllowedMethods: []string{"GET"}, AllowedHeaders: []string{"range"}}, ""},
		"star":          {types.CORSRule{AllowedOrigins: []string{"*"}, AllowedMethods: []string{"GET", "HEAD"}, AllowedHeaders: []string{"*"}}, ""},
		"other origin":  {types.CORSRule{AllowedOrigins: []string{"https://example.org"}, AllowedMethods: []string{"GET"}, AllowedHeaders: []string{"range"}}, "AllowedOrigins"},
		"other method":  {types.CORSRule{AllowedOrigins: []string{origin}, AllowedMethods: []string{"PUT"}, AllowedHeaders: []string{"range"}}, "AllowedMethods"},
		"other headers": {types.CORSRule{AllowedOrigins: []string{origin}, AllowedMethods: []string{"GET"}, AllowedHeaders: []string{"x-other"}}, "AllowedHeaders"},
	} {
		_, err := server.Client().PutBucketCors(t.Context(), &s3.PutBucketCorsInput{Bucket: &server.Bucket,
			CORSConfiguration: &types.CORSConfiguration{CORSRules: []types.CORSRule{test.rule}}})
		if err != nil {
			t.Fatalf("%s: set the rule: %v", name, err)
		}
		err = s.CheckCORS(t.Context(), origin)
		if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %q", name, err, test.says)
		}
	}
}

// What a server that is not versitygw may answer to a preflight.
func TestS3CheckCORSAnswers(t *testing.T) {
	const origin = "https://files.example.com"
	var answer http.Header
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodOptions || r.URL.RawQuery != "" || r.Header.Get("Origin") != origin {
			t.Errorf("not a preflight: %s %s", r.Method, r.URL)
		}
		for name, values := range answer {
			w.Header()[name] = values
		}
		w.WriteHeader(status)
	}))
	defer server.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	s := openS3(t, blob.S3Options{Bucket: "mails", Endpoint: server.URL, PathStyle: true})
	for says, test := range map[string]struct {
		status                  int
		origin, methods, header string
	}{
		"":                            {200, origin, "PUT, GET", "Range"},
		"answered 403":                {403, origin, "GET", "range"},
		"origin is not allowed":       {200, "", "GET", "range"},
		"GET is not allowed":          {204, "*", "PUT", "*"},
		"header Range is not allowed": {200, "*", "GET", "x-range"},
	} {
		status, answer = test.status, http.Header{"Access-Control-Allow-Origin": {test.origin},
			"Access-Control-Allow-Methods": {test.methods}, "Access-Control-Allow-Headers": {test.header}}
		err := s.CheckCORS(t.Context(), origin)
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}

func TestS3Check(t *testing.T) {
	server := storagetest.StartS3(t)
	faulty := storagetest.StartHTTPFaults(t, server.Endpoint)
	s := openS3(t, options(t, server, faulty.URL))
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
	if days, err := s.Days(t.Context()); err != nil {
		t.Error(err)
	} else {
		for _, day := range days {
			for info, err := range s.List(t.Context(), day) {
				t.Errorf("Check left %+v, %v", info, err)
			}
		}
	}
	denied := `<Error><Code>AccessDenied</Code><Message>hush: the key is objects/secret</Message></Error>`
	for says, f := range map[string]storagetest.HTTPFault{
		"s3:ListBucket":                 {Match: is(http.MethodGet, "list-type"), Status: 403, Body: denied},
		"s3:ListBucketMultipartUploads": {Match: is(http.MethodGet, "uploads"), Status: 403, Body: denied},
		"s3:AbortMultipartUpload":       {Match: is(http.MethodDelete, "uploadId"), Status: 403, Body: denied},
		"s3:PutObject":                  {Match: is(http.MethodPut, "x-id"), Status: 403, Body: denied},
		"s3:GetObject":                  {Match: func(r *http.Request) bool { return r.URL.Query().Get("x-id") == "GetObject" }, Status: 403, Body: denied},
		"s3:DeleteObject":               {Match: func(r *http.Request) bool { return r.URL.Query().Get("x-id") == "DeleteObject" }, Status: 403, Body: denied},
		"If-None-Match":                 {Match: is(http.MethodPut, "x-id"), Skip: 1, Status: 200},
		"noncurrent versions": {Match: func(r *http.Request) bool { return r.URL.Query().Get("x-id") == "DeleteObject" }, Status: 204,
			Header: http.Header{"X-Amz-Delete-Marker": {"true"}}},
		"500 InternalError": {Times: -1, Status: 500, Body: "<Error><Code>InternalError</Code></Error>"},
	} {
		faulty.Heal()
		faulty.Add(f)
		err := s.Check(t.Context())
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want an error that says %q", err, says)
		}
		if err != nil && (strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), "://")) {
			t.Errorf("the error quotes the server or a URL: %v", err)
		}
	}
}

// Wrong or missing credentials give an error that says so and neither repeats nor waits for them.
func TestS3Credentials(t *testing.T) {
	server := storagetest.StartS3(t)
	o := options(t, server, server.Endpoint)
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hush")
	err := openS3(t, o).Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "403") || strings.Contains(err.Error(), "hush") {
		t.Errorf("a wrong secret: %v", err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	err = openS3(t, o).Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "credentials") {
		t.Errorf("no credentials: %v", err)
	}
}

func TestS3Settings(t *testing.T) {
	server := storagetest.StartS3(t)
	o := options(t, server, server.Endpoint)
	t.Setenv("AWS_REGION", "")
	for what, broken := range map[string]func(o *blob.S3Options){
		"bucket":      func(o *blob.S3Options) { o.Bucket = "" },
		"region":      func(o *blob.S3Options) { o.Endpoint = "" },
		"certificate": func(o *blob.S3Options) { o.CA = os.DevNull },
		"CA":          func(o *blob.S3Options) { o.CA = "/nowhere/ca.pem" },
	} {
		bad := o
		broken(&bad)
		if _, err := blob.OpenS3(t.Context(), bad); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want an error about the %s", err, what)
		}
	}
}

// Objects travel over TLS with a CA of the admin's, and carry the encryption that was asked for.
func TestS3OverTLSWithItsOwnCA(t *testing.T) {
	server := storagetest.StartS3(t)
	to, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	var asked sync.Map // what was asked for, by header
	header := func(name string) string {
		value, _ := asked.Load(name)
		return fmt.Sprint(value)
	}
	const encryption, key = "X-Amz-Server-Side-Encryption", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"
	front := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host
		if r.In.Method == http.MethodPut {
			asked.Store(encryption, r.In.Header.Get(encryption))
			asked.Store(key, r.In.Header.Get(key))
		}
	}})
	front.Config.ErrorLog = log.New(io.Discard, "", 0) // it says that the CA is unknown
	front.StartTLS()
	defer front.Close()
	o := options(t, server, front.URL)
	name, body := blobtest.Name(day), blobtest.Body(6<<20)
	o.Attempts = 1
	var unknown x509.UnknownAuthorityError
	if _, err := openS3(t, o).Put(t.Context(), name, bytes.NewReader(body)); !errors.As(err, &unknown) {
		t.Errorf("an unknown CA: %v", err)
	}
	o.CA = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(o.CA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openS3(t, o)
	mustPut(t, s, name, body)
	wantBody(t, s, name, body)
	if header(encryption) != "" {
		t.Errorf("encryption %q was asked for", header(encryption))
	}
	o.SSE, o.KMSKey = "aws:kms", "alias/mails"
	// Whether the server can do it does not matter here.
	_, err = openS3(t, o).Put(t.Context(), blobtest.Name(day), strings.NewReader("x"))
	if header(encryption) != "aws:kms" || header(key) != "alias/mails" {
		t.Errorf("encryption %q with key %q was asked for (%v)", header(encryption), header(key), err)
	}
}

func benchmark(b *testing.B, do func(b *testing.B, s blob.Store, body []byte)) {
	server := storagetest.StartS3(b)
	dir, err := blob.NewDir(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	for kind, s := range map[string]blob.Store{"Dir": dir, "S3": openS3(b, options(b, server, server.Endpoint))} {
		for label, size := range map[string]int{"64KiB": 64 << 10, "32MiB": 32 << 20} {
			b.Run(kind+"/"+label, func(b *testing.B) {
				b.SetBytes(int64(size))
				do(b, s, blobtest.Body(size))
			})
		}
	}
}

func BenchmarkPut(b *testing.B) {
	benchmark(b, func(b *testing.B, s blob.Store, body []byte) {
		for b.Loop() {
			name := blobtest.Name(day)
			if _, err := s.Put(b.Context(), name, bytes.NewReader(body)); err != nil {
				b.Fatal(err)
			}
			if err := s.Commit(b.Context(), name); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := s.Delete(b.Context(), name); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
}

func BenchmarkGet(b *testing.B) {
	benchmark(b, func(b *testing.B, s blob.Store, body []byte) {
		name := blobtest.Name(day)
		if _, err := s.Put(b.Context(), name, bytes.NewReader(body)); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			r, err := s.Get(b.Context(), name, 0, -1)
			if err != nil {
				b.Fatal(err)
			}
			n, err := io.Copy(io.Discard, r)
			if err := errors.Join(err, r.Close()); err != nil || n != int64(len(body)) {
				b.Fatal(n, err)
			}
		}
	})
}
