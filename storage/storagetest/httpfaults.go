package storagetest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"testing"
)

// HTTPFaults stands before an HTTP server and answers chosen requests wrongly. All others pass unaltered, the
// Host that the client signed included.
type HTTPFaults struct {
	// URL is where it listens.
	URL string

	server *httptest.Server
	proxy  *httputil.ReverseProxy
	mu     sync.Mutex
	faults []*fault
}

// HTTPFault says what is wrong with some requests.
type HTTPFault struct {
	// Match chooses the requests; nil chooses all.
	Match func(*http.Request) bool
	// Skip is how many of these pass first, and Times how many are hit then: 0 means one, -1 all.
	Skip, Times int

	// Status is what the request is answered with, Body the answer, and Header what is set beside. The server
	// does not see the request.
	Status int
	Body   string
	Header http.Header

	// LoseAnswer lets the server carry the request out and then cuts the connection, when so many bytes of the
	// answer's body have passed; with Quiet the answer ends there in good order, as if it had no more.
	LoseAnswer bool
	AfterBytes int64
	Quiet      bool
}

type fault struct {
	HTTPFault
	seen, hit int
}

// StartHTTPFaults listens until the test ends. target is the server's URL.
func StartHTTPFaults(t testing.TB, target string) *HTTPFaults {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableCompression: true}
	h := &HTTPFaults{proxy: &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}}
	h.server = httptest.NewServer(h)
	h.URL = h.server.URL
	t.Cleanup(func() {
		h.server.CloseClientConnections()
		h.server.Close()
		transport.CloseIdleConnections()
	})
	return h
}

// Add puts a fault in force. hits tells how many requests it has hit.
func (h *HTTPFaults) Add(f HTTPFault) (hits func() int) {
	if f.Times == 0 {
		f.Times = 1
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	added := &fault{HTTPFault: f}
	h.faults = append(h.faults, added)
	return func() int {
		h.mu.Lock()
		defer h.mu.Unlock()
		return added.hit
	}
}

// Heal ends all faults.
func (h *HTTPFaults) Heal() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = nil
}

// choose returns the fault that hits the request, or nil.
func (h *HTTPFaults) choose(r *http.Request) *fault {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.faults {
		if f.Match != nil && !f.Match(r) {
			continue
		}
		f.seen++
		if f.seen > f.Skip && (f.Times < 0 || f.hit < f.Times) {
			f.hit++
			return f
		}
	}
	return nil
}

// ServeHTTP implements http.Handler.
func (h *HTTPFaults) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := h.choose(r)
	switch {
	case f == nil:
		h.proxy.ServeHTTP(w, r)
	case f.LoseAnswer:
		h.lose(w, r, f)
	default:
		_, _ = io.Copy(io.Discard, r.Body) // an answer before the body's end may not reach the client
		for name, values := range f.Header {
			w.Header()[name] = values
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(f.Body)))
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, f.Body) // the client may be gone
	}
}

// lose has the server answer, and passes on only the beginning of it.
func (h *HTTPFaults) lose(w http.ResponseWriter, r *http.Request, f *fault) {
	h.proxy.ServeHTTP(&shortWriter{ResponseWriter: w, left: f.AfterBytes, quiet: f.Quiet}, r)
	if !f.Quiet {
		panic(http.ErrAbortHandler) // cuts the connection
	}
}

// shortWriter passes on an answer's status and its first bytes.
type shortWriter struct {
	http.ResponseWriter
	left  int64
	quiet bool
}

// WriteHeader implements http.ResponseWriter. If nothing of the body is to pass, neither does the status.
func (s *shortWriter) WriteHeader(status int) {
	if s.quiet {
		s.Header().Set("Content-Length", strconv.FormatInt(s.left, 10))
	}
	if s.quiet || s.left > 0 {
		s.ResponseWriter.WriteHeader(status)
	}
}

func (s *shortWriter) Write(p []byte) (int, error) {
	pass := p[:min(int64(len(p)), s.left)]
	s.left -= int64(len(pass))
	if len(pass) > 0 {
		if n, err := s.ResponseWriter.Write(pass); err != nil {
			return n, err
		}
		if err := http.NewResponseController(s.ResponseWriter).Flush(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
