package smtpd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealpost/gateway"
)

// patience is how long a test waits for what must come. No test measures it.
const patience = 30 * time.Second

type routerFunc func(mailFrom, address string) (gateway.Route, error)

func (f routerFunc) Route(mailFrom, address string) (gateway.Route, error) {
	return f(mailFrom, address)
}

// testRouter knows support@example.com, sales@example.com and postmaster.
func testRouter(_, address string) (gateway.Route, error) {
	folded := strings.ToLower(address)
	switch {
	case folded == "support@example.com", folded == "sales@example.com", folded == "postmaster":
		return gateway.Route{Address: folded, ForwardTo: "secret-hop@salesforce.example"}, nil
	case strings.HasSuffix(folded, "@example.com"):
		return gateway.Route{}, gateway.Errorf(gateway.CodeUnknownRecipient, nil, "unknown: %s", address)
	}
	return gateway.Route{}, gateway.Errorf(gateway.CodeRelayDenied, nil, "foreign: %s", address)
}

type memorySpool struct {
	bytes.Buffer
	closed func()
}

func (m *memorySpool) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m.Bytes()).ReadAt(p, off)
}
func (m *memorySpool) Size() int64 { return int64(m.Len()) }
func (m *memorySpool) Close() error {
	m.closed()
	return nil
}

type acceptedMail struct {
	envelope gateway.Envelope
	text     string
}

// recorder is a Handler that keeps what it accepts. accept, if set, decides instead.
type recorder struct {
	accept func(context.Context, gateway.Envelope, gateway.Spooled) (string, error)

	mu      sync.Mutex
	mails   []acceptedMail
	safe    []string // the queue IDs that were returned
	settled []string // those that were settled, with " heard" or " lost"
}

func (r *recorder) Accept(ctx context.Context, envelope gateway.Envelope, mail gateway.Spooled) (string, error) {
	id, err := r.keep(ctx, envelope, mail)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.safe = append(r.safe, id)
	}
	return id, err
}

func (r *recorder) Settle(queueID string, heard bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	word := " lost"
	if heard {
		word = " heard"
	}
	r.settled = append(r.settled, queueID+word)
}

// fates returns what Settle was told, in its order.
func (r *recorder) fates() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.settled, ", ")
}

func (r *recorder) keep(ctx context.Context, envelope gateway.Envelope, mail gateway.Spooled) (string, error) {
	if r.accept != nil {
		if id, err := r.accept(ctx, envelope, mail); err != nil || id != "" {
			return id, err
		}
	}
	text, err := io.ReadAll(io.NewSectionReader(mail, 0, mail.Size()))
	if err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mails = append(r.mails, acceptedMail{envelope, string(text)})
	return "ID" + strconv.Itoa(len(r.mails)), nil
}

func (r *recorder) taken() []acceptedMail {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]acceptedMail(nil), r.mails...)
}

// settledIDs returns the sorted queue IDs that Settle was called for.
func (r *recorder) settledIDs() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := make([]string, 0, len(r.settled))
	for _, s := range r.settled {
		id, _, _ := strings.Cut(s, " ")
		ids = append(ids, id)
	}
	return slices.Sorted(slices.Values(ids))
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type testServer struct {
	*Server
	*recorder
	address string
	log     *lockedBuffer
	metrics *prometheus.Registry
	served  chan error
	mu      sync.Mutex
	spools  int // that are open
}

func testOptions(ts *testServer) Options {
	return Options{
		Hostname: "mx.test", MaxMessageSize: 4 << 20,
		Router: routerFunc(testRouter), Handler: ts.recorder,
		NewSpooled: func() (gateway.Spooled, error) {
			ts.mu.Lock()
			defer ts.mu.Unlock()
			ts.spools++
			return &memorySpool{closed: func() {
				ts.mu.Lock()
				defer ts.mu.Unlock()
				ts.spools--
			}}, nil
		},
		Logger:  slog.New(slog.NewTextHandler(ts.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Metrics: ts.metrics,
	}
}

func startServer(t testing.TB, change func(*Options)) *testServer {
	t.Helper()
	ts := &testServer{
		recorder: &recorder{}, log: &lockedBuffer{}, metrics: prometheus.NewRegistry(), served: make(chan error, 1),
	}
	opts := testOptions(ts)
	if change != nil {
		change(&opts)
	}
	var err error
	if ts.Server, err = New(opts); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ts.address = l.Addr().String()
	go func() { ts.served <- ts.Serve(l) }()
	t.Cleanup(func() { ts.stop(t) })
	return ts
}

// stop shuts down and checks that nothing is left.
func (ts *testServer) stop(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := ts.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	select {
	case err := <-ts.served:
		ts.served <- nil
		if err != nil {
			t.Errorf("Serve: %v", err)
		}
	case <-ctx.Done():
		t.Error("Serve has not returned")
	}
	if safe := slices.Sorted(slices.Values(ts.safe)); !slices.Equal(safe, ts.settledIDs()) {
		t.Errorf("mails %q were accepted, and settled: %q", safe, ts.fates())
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.spools != 0 {
		t.Errorf("%d spooled mails were not closed", ts.spools)
	}
}

type client struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func newClient(t testing.TB, nc net.Conn) *client {
	t.Helper()
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return &client{t, nc, bufio.NewReader(nc)}
}

// dial connects and, unless the test wants to see it, reads the greeting.
func (ts *testServer) dial(t testing.TB, greeting string) *client {
	t.Helper()
	nc, err := net.Dial("tcp", ts.address)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, nc)
	c.expect(greeting)
	return c
}

const greeting = "220 mx.test ESMTP Service Ready"

// hello connects and says EHLO.
func (ts *testServer) hello(t testing.TB) *client {
	t.Helper()
	c := ts.dial(t, greeting)
	c.send("EHLO client.test\r\n")
	c.capabilities()
	return c
}

// ready goes on until a mail may be sent.
func (ts *testServer) ready(t testing.TB) *client {
	t.Helper()
	c := ts.hello(t)
	c.talk("> MAIL FROM:<alice@sender.test>", "< 250 2.1.0 sender ok",
		"> RCPT TO:<support@example.com>", "< 250 2.1.5 recipient ok")
	return c
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, s); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

func (c *client) line() string {
	c.t.Helper()
	s, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("read a reply: %v (after %q)", err, s)
	}
	return strings.TrimSuffix(s, "\r\n")
}

func (c *client) expect(want string) {
	c.t.Helper()
	if got := c.line(); got != want {
		c.t.Fatalf("reply %q, want %q", got, want)
	}
}

// capabilities reads the reply to EHLO.
func (c *client) capabilities() map[string]bool {
	c.t.Helper()
	found := make(map[string]bool)
	c.expect("250-mx.test")
	for {
		s := c.line()
		found[s[4:]] = true
		if s[3] == ' ' {
			return found
		}
	}
}

// closed checks that the server has ended the connection. A reset counts as an end.
func (c *client) closed() {
	c.t.Helper()
	s, err := c.r.ReadString('\n')
	var timeout net.Error
	if err == nil || s != "" || errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Fatalf("connection still open: %q %v", s, err)
	}
}

// talk plays a dialogue: "> " sends a line with CRLF, ">> " sends the rest after Go's escapes are
// resolved, "< " expects a line, "closed" expects the end.
func (c *client) talk(dialogue ...string) {
	c.t.Helper()
	for _, s := range dialogue {
		switch kind, rest, _ := strings.Cut(s, " "); kind {
		case ">":
			c.send(rest + "\r\n")
		case ">>":
			raw, err := strconv.Unquote(`"` + rest + `"`)
			if err != nil {
				c.t.Fatalf("bad script line %q: %v", s, err)
			}
			c.send(raw)
		case "<":
			c.expect(rest)
		case "closed":
			c.closed()
		default:
			c.t.Fatalf("bad script line %q", s)
		}
	}
}

// texts returns the texts of the accepted mails.
func texts(mails []acceptedMail) []string {
	list := make([]string, len(mails))
	for i, m := range mails {
		list[i] = m.text
	}
	return list
}

// counter returns a counter's value, the one with that label value if it has any.
func (ts *testServer) counter(t testing.TB, name, label string) float64 {
	t.Helper()
	families, err := ts.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}
