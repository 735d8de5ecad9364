package storagetest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// echo runs a server that sends back what it gets, until the test ends.
func echo(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	return l.Addr().String()
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

const text = "hello"

// there sends text and returns what comes back of it.
func there(conn net.Conn) (string, error) {
	if _, err := io.WriteString(conn, text); err != nil {
		return "", err
	}
	back := make([]byte, len(text))
	n, err := io.ReadFull(conn, back)
	return string(back[:n]), err
}

func TestProxyFaults(t *testing.T) {
	p := StartProxy(t, echo(t)) // closed before the server
	conn := dial(t, p.Addr)
	if got, err := there(conn); got != text || err != nil {
		t.Fatalf("healthy: %q, %v", got, err)
	}
	p.Corrupt(1)
	if got, err := there(conn); got != "h\x9allo" || err != nil {
		t.Errorf("corrupt: %q, %v", got, err)
	}
	if got, err := there(conn); got != text || err != nil {
		t.Errorf("corrupt once: %q, %v", got, err)
	}
	p.Delay(50 * time.Millisecond)
	began := time.Now()
	if got, err := there(conn); got != text || err != nil || time.Since(began) < 100*time.Millisecond {
		t.Errorf("delay: %q, %v after %v", got, err, time.Since(began))
	}
	p.Heal()
	p.CutAfter(-1, 3)
	if got, err := there(conn); len(got) > 3 || err == nil {
		t.Errorf("cut down: %q, %v", got, err)
	}
	conn = dial(t, p.Addr)
	p.CutAfter(4, -1)
	if got, err := there(conn); err == nil {
		t.Errorf("cut up: %q, %v", got, err)
	}
	conn = dial(t, p.Addr)
	if got, err := there(conn); got != text || err != nil {
		t.Errorf("after a cut: %q, %v", got, err)
	}
	p.Refuse()
	if got, err := there(conn); err == nil {
		t.Errorf("refuse a connection that is open: %q", got)
	}
	if conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.Addr); err == nil {
		if got, err := there(conn); err == nil {
			t.Errorf("refuse a new connection: %q", got)
		}
		_ = conn.Close()
	}
	p.Heal()
	conn = dial(t, p.Addr)
	if got, err := there(conn); got != text || err != nil {
		t.Errorf("healed: %q, %v", got, err)
	}
	if p.Connections() != 5 || p.Live() != 1 {
		t.Errorf("%d connections, %d live; want 5 and 1", p.Connections(), p.Live())
	}
}

func TestProxyStallsUntilHealed(t *testing.T) {
	p := StartProxy(t, echo(t))
	conn := dial(t, p.Addr)
	p.Stall()
	answer := make(chan string, 1)
	go func() {
		got, _ := there(conn) // what it got tells
		answer <- got
	}()
	select {
	case got := <-answer:
		t.Errorf("a proxy that stalls passed %q", got)
	case <-time.After(50 * time.Millisecond):
	}
	p.Heal()
	if got := <-answer; got != text {
		t.Errorf("healed: %q", got)
	}
	p.Stall()
	p.Close()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection outlived the proxy")
	}
}

// One side that has nothing more to say must not cut the other off.
func TestProxyPassesHalfCloseOn(t *testing.T) {
	p := StartProxy(t, echo(t))
	conn := dial(t, p.Addr).(*net.TCPConn)
	body := bytes.Repeat([]byte("x"), 1<<20)
	go func() {
		_, _ = conn.Write(body)
		_ = conn.CloseWrite()
	}()
	if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
}

func TestHTTPFaults(t *testing.T) {
	seen := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen++
		_, _ = io.WriteString(w, "Host "+r.Host+" "+r.URL.RequestURI())
	}))
	t.Cleanup(server.Close)
	h := StartHTTPFaults(t, server.URL)
	get := func(path string) (string, error) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.URL+path, nil)
		if err != nil {
			return "", err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return "", err
		}
		body, err := io.ReadAll(response.Body)
		return response.Status + ": " + string(body), errors.Join(err, response.Body.Close())
	}
	whole := "200 OK: Host " + strings.TrimPrefix(h.URL, "http://") + " /a%2Fb?x=%20&y"
	hits := h.Add(HTTPFault{Match: func(r *http.Request) bool { return r.URL.Path == "/c" }, Skip: 1, Times: 2, Status: 503, Body: "slow"})
	lost := h.Add(HTTPFault{Match: func(r *http.Request) bool { return r.URL.Path == "/d" }, Times: -1, LoseAnswer: true})
	quiet := h.Add(HTTPFault{Match: func(r *http.Request) bool { return r.URL.Path == "/e" }, LoseAnswer: true, AfterBytes: 4, Quiet: true})
	for _, step := range []struct {
		path, want string
		fails      bool
	}{
		{"/a%2Fb?x=%20&y", whole, false},
		{"/c", "", false},
		{"/c", "503 Service Unavailable: slow", false},
		{"/c", "503 Service Unavailable: slow", false},
		{"/c", "", false},
		{"/d", "", true},
		{"/e", "200 OK: Host", false},
	} {
		got, err := get(step.path)
		if (err != nil) != step.fails || step.want != "" && got != step.want {
			t.Errorf("%s: %q, %v; want %q", step.path, got, err, step.want)
		}
	}
	if hits() != 2 || quiet() != 1 || lost() == 0 || seen < 5 {
		t.Errorf("hit %d, %d, %d; the server saw %d", hits(), lost(), quiet(), seen)
	}
}
