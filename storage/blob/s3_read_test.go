package blob_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealpost/storage/blob/blobtest"
	"sealpost/storage/storagetest"
)

// A body that ends early, breaks off or stalls is taken up where it ended.
func TestS3BrokenReads(t *testing.T) {
	server := storagetest.StartS3(t)
	faulty := storagetest.StartHTTPFaults(t, server.Endpoint)
	proxy := storagetest.StartProxy(t, strings.TrimPrefix(faulty.URL, "http://"))
	registry := prometheus.NewRegistry()
	o := options(t, server, "http://"+proxy.Addr)
	o.Registerer, o.Stall, o.Attempts = registry, 500*time.Millisecond, 3
	s := openS3(t, o)
	name, body := blobtest.Name(day), blobtest.Body(9<<20)
	mustPut(t, s, name, body)
	get := func(r *http.Request) bool { return r.Method == http.MethodGet }
	for _, f := range []storagetest.HTTPFault{
		{Match: get, LoseAnswer: true, AfterBytes: 1 << 20},
		{Match: get, LoseAnswer: true, AfterBytes: 1 << 20, Quiet: true},
	} {
		faulty.Heal()
		f.Times = 2
		hits := faulty.Add(f)
		wantBody(t, s, name, body)
		if hits() != 2 {
			t.Errorf("%d answers were cut, want 2", hits())
		}
		faulty.Heal()
		f.Times = -1
		faulty.Add(f)
		r, err := s.Get(t.Context(), name, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if !errors.Is(err, io.ErrUnexpectedEOF) || len(got) >= len(body) {
			t.Errorf("a body that is cut each time: %d bytes, %v; want io.ErrUnexpectedEOF", len(got), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	faulty.Heal()
	r, err := s.Get(t.Context(), name, 10, int64(len(body))-20)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := io.CopyN(&got, r, 100); err != nil {
		t.Fatal(err)
	}
	resumed := metric(t, registry, "sealpost_s3_resumed_reads_total", "")
	proxy.CutAfter(-1, 100<<10)
	if _, err := got.ReadFrom(r); err != nil || !bytes.Equal(got.Bytes(), body[10:len(body)-10]) {
		t.Errorf("a range that broke off: %d bytes, %v", got.Len(), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if metric(t, registry, "sealpost_s3_resumed_reads_total", "") != resumed+1 {
		t.Error("nothing was resumed")
	}
}

func TestS3StalledRead(t *testing.T) {
	server := storagetest.StartS3(t)
	proxy := storagetest.StartProxy(t, strings.TrimPrefix(server.Endpoint, "http://"))
	o := options(t, server, "http://"+proxy.Addr)
	o.Stall, o.Attempts = 300*time.Millisecond, 2
	s := openS3(t, o)
	name, body := blobtest.Name(day), blobtest.Body(20<<20)
	mustPut(t, s, name, body)
	r, err := s.Get(t.Context(), name, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	proxy.Stall()
	n, err := io.Copy(io.Discard, r)
	var timeout interface{ Timeout() bool }
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("a read that stalls: %d bytes, %v; want a time-out", n, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	proxy.Heal()
	wantBody(t, s, name, body)
}

// An object that was replaced must not be read as half of one and half of the other.
func TestS3ResumesTheSameObjectOnly(t *testing.T) {
	server := storagetest.StartS3(t)
	faulty := storagetest.StartHTTPFaults(t, server.Endpoint)
	s := openS3(t, options(t, server, faulty.URL))
	name := blobtest.Name(day)
	mustPut(t, s, name, blobtest.Body(2<<20))
	faulty.Add(storagetest.HTTPFault{Match: func(r *http.Request) bool { return r.Method == http.MethodGet }, LoseAnswer: true, AfterBytes: 1 << 20})
	r, err := s.Get(t.Context(), name, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, name, blobtest.Body(2<<20))
	if n, err := io.Copy(io.Discard, r); err == nil {
		t.Errorf("%d bytes of two objects were read", n)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
