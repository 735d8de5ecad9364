package portal

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRanges(t *testing.T) {
	h := newHouse(t)
	cookie := h.cookie()
	grant := h.grant(cookie)
	size := len(h.data)
	tests := []struct {
		spec         string
		status       int
		start, end   int
		contentRange string
	}{
		{"", 200, 0, size, ""},
		{"bytes=0-0", 206, 0, 1, "bytes 0-0/100000"},
		{"bytes=10-19", 206, 10, 20, "bytes 10-19/100000"},
		{"bytes=99990-", 206, 99990, size, "bytes 99990-99999/100000"},
		{"bytes=99990-200000", 206, 99990, size, "bytes 99990-99999/100000"},
		{"bytes=-5", 206, size - 5, size, "bytes 99995-99999/100000"},
		{"bytes=-200000", 206, 0, size, "bytes 0-99999/100000"},
		{"Bytes = 1-2", 206, 1, 3, "bytes 1-2/100000"},
		{"bytes=100000-", 416, 0, 0, "bytes */100000"},
		{"bytes=-0", 416, 0, 0, "bytes */100000"},
		{"bytes=5-1", 200, 0, size, ""},
		{"bytes=0-1,5-6", 200, 0, size, ""},
		{"bytes=a-b", 200, 0, size, ""},
		{"bytes=+1-2", 200, 0, size, ""},
		{"bytes=99999999999999999999-", 200, 0, size, ""},
		{"bytes=", 200, 0, size, ""},
		{"lines=1-2", 200, 0, size, ""},
	}
	for _, test := range tests {
		t.Run(test.spec, func(t *testing.T) {
			r := h.do("GET", h.objectPath(), "", cookie, grant, header{"Range", test.spec})
			if r.status != test.status || r.header.Get("Content-Range") != test.contentRange {
				t.Fatalf("%d %q, want %d %q", r.status, r.header.Get("Content-Range"), test.status, test.contentRange)
			}
			if test.status == http.StatusRequestedRangeNotSatisfiable {
				return
			}
			if !bytes.Equal([]byte(r.body), h.data[test.start:test.end]) || r.length != int64(len(r.body)) {
				t.Errorf("%d bytes came, %d declared, want %d", len(r.body), r.length, test.end-test.start)
			}
			if r.header.Get("Accept-Ranges") != "bytes" || r.header.Get("Content-Type") != "application/octet-stream" {
				t.Errorf("header is %v", r.header)
			}
		})
	}
	r := h.do("GET", h.objectPath(), "", cookie, grant, header{"Range", "bytes=1-2"}, header{"If-Range", `"x"`})
	if r.status != http.StatusOK {
		t.Errorf("If-Range without a validator of ours: %d", r.status)
	}
}

func TestHeadOfAnObject(t *testing.T) {
	h := newHouse(t)
	cookie := h.cookie()
	grant := h.grant(cookie)
	r := h.do("HEAD", h.objectPath(), "", cookie, grant)
	if r.status != http.StatusOK || r.length != int64(len(h.data)) || r.body != "" {
		t.Errorf("HEAD: %d, length %d", r.status, r.length)
	}
}

// An object that storage cannot give to its end is a broken connection, never a short body.
func TestCutObjectBreaksTheConnection(t *testing.T) {
	h := newHouse(t)
	cookie := h.cookie()
	grant := h.grant(cookie)
	server := httptest.NewServer(h.handler)
	defer server.Close()
	h.store.cut = 10
	get := func(method, path, body string, headers ...header) error {
		r, err := http.NewRequest(method, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		for _, f := range headers {
			r.Header.Set(f.name, f.value)
		}
		response, err := server.Client().Do(r)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		_, err = io.Copy(io.Discard, response.Body)
		return err
	}
	if err := get("GET", h.objectPath(), "", cookie, grant); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the object came with %v", err)
	}
	if err := get("POST", h.openPath(), proofBody(h.proof), cookie); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the head came with %v", err)
	}
	server.Close()
	if !strings.Contains(h.logs.String(), "portal request failed") {
		t.Error("it was not logged")
	}
}

func TestMissingObjectIsOurFault(t *testing.T) {
	h := newHouse(t)
	cookie := h.cookie()
	grant := h.grant(cookie)
	delete(h.store.blobs, h.segment)
	if r := h.do("GET", h.objectPath(), "", cookie, grant); r.status != http.StatusInternalServerError {
		t.Errorf("missing object: %d", r.status)
	}
	delete(h.store.blobs, h.head)
	if r := h.do("POST", h.openPath(), proofBody(h.proof), cookie); r.status != http.StatusInternalServerError {
		t.Errorf("missing head: %d", r.status)
	}
}
