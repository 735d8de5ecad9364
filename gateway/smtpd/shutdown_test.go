package smtpd

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealpost/gateway"
)

const goingDown = "421 4.3.2 mx.test shutting down; try again later"

// shutdown begins to shut down and returns the channel that tells its result.
func (ts *testServer) shutdown(ctx context.Context) chan error {
	result := make(chan error, 1)
	go func() { result <- ts.Shutdown(ctx) }()
	return result
}

// TestShutdownLetsTransactionsFinish: whoever is idle hears 421 at once, whoever sends a mail may finish it.
func TestShutdownLetsTransactionsFinish(t *testing.T) {
	ts := startServer(t, withTLS)
	accepting, release := make(chan struct{}, 1), make(chan struct{})
	ts.accept = func(_ context.Context, e gateway.Envelope, _ gateway.Spooled) (string, error) {
		if e.MailFrom == "alice@sender.test" && e.Hello == "client.test" {
			accepting <- struct{}{}
			<-release
		}
		return "", nil
	}
	fresh, idle, secured, begun := ts.dial(t, greeting), ts.hello(t), ts.hello(t).startTLS(), ts.ready(t)
	inAccept := ts.ready(t)
	inAccept.talk("> DATA", data354, "> x", "> .")
	<-accepting
	inData := ts.ready(t)
	inData.talk("> RSET", "< 250 2.0.0 Session reset", "> MAIL FROM:<>", "< 250 2.1.0 sender ok",
		"> RCPT TO:<support@example.com>", "< 250 2.1.5 recipient ok", "> DATA", data354, "> x")
	inChunk := ts.ready(t)
	inChunk.talk("> RSET", "< 250 2.0.0 Session reset", "> MAIL FROM:<>", "< 250 2.1.0 sender ok",
		"> RCPT TO:<support@example.com>", "< 250 2.1.5 recipient ok", `>> BDAT 3\r\nx\r\n`, "< 250 2.0.0 continue")

	result := ts.shutdown(context.Background())
	for _, c := range []*client{fresh, idle, secured, begun} {
		c.talk("< "+goingDown, "closed")
	}
	if nc, err := net.Dial("tcp", ts.address); err == nil {
		_ = nc.Close()
		t.Error("a new connection was taken")
	}
	inData.talk("> .")
	if got := inData.line(); !strings.HasPrefix(got, "250 2.0.0 accepted as ") {
		t.Errorf("DATA under way: %q", got)
	}
	inData.talk("< "+goingDown, "closed")
	inChunk.talk("> BDAT 0 LAST")
	if got := inChunk.line(); !strings.HasPrefix(got, "250 2.0.0 accepted as ") {
		t.Errorf("BDAT under way: %q", got)
	}
	inChunk.talk("< "+goingDown, "closed")
	select {
	case err := <-result:
		t.Fatalf("Shutdown did not wait for the mail that is being accepted: %v", err)
	default:
	}
	close(release)
	if got := inAccept.line(); !strings.HasPrefix(got, "250 2.0.0 accepted as ") {
		t.Errorf("mail being accepted: %q", got)
	}
	inAccept.talk("< "+goingDown, "closed")
	if err := <-result; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if n := len(ts.taken()); n != 3 {
		t.Errorf("%d mails, want 3", n)
	}
}

// TestHardStop: when its context ends, Shutdown cuts connections, ends the Handler's context, and waits.
func TestHardStop(t *testing.T) {
	ts := startServer(t, nil)
	accepting := make(chan struct{})
	ts.accept = func(ctx context.Context, _ gateway.Envelope, _ gateway.Spooled) (string, error) {
		close(accepting)
		<-ctx.Done()
		return "", ctx.Err()
	}
	inAccept, inData := ts.ready(t), ts.ready(t)
	inData.talk("> DATA", data354, "> half")
	inAccept.talk("> DATA", data354, "> .")
	<-accepting
	ctx, cancel := context.WithCancel(context.Background())
	result := ts.shutdown(ctx)
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	inData.closed()
	if reply, err := inAccept.r.ReadString('\n'); err == nil && !strings.HasPrefix(reply, "451 4.3.0 ") {
		t.Errorf("reply %q", reply)
	}
	if len(ts.taken()) != 0 {
		t.Error("a mail was accepted")
	}
}

func TestShutdownLeavesNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 5 {
		ts := startServer(t, withTLS)
		ts.hello(t).startTLS().talk(`>> MAIL FROM:<>\r\nRCPT TO:<support@example.com>\r\nBDAT 0\r\nRSET\r\n`,
			"< 250 2.1.0 sender ok", "< 250 2.1.5 recipient ok", "< 250 2.0.0 continue", "< 250 2.0.0 Session reset")
		ts.ready(t).talk("> DATA", data354, "> .", "< 250 2.0.0 accepted as ID1")
		ts.stop(t)
	}
	// One that has just closed its last channel may still be counted for a moment.
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("goroutines are left\n%s", stacks[:runtime.Stack(stacks, true)])
		}
	}
}

func TestShutdownWithoutServe(t *testing.T) {
	ts := &testServer{recorder: &recorder{}, log: &lockedBuffer{}, metrics: prometheus.NewRegistry()}
	s, err := New(testOptions(ts))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Errorf("Serve after Shutdown: %v", err)
	}
}

func TestServeTellsOfABrokenListener(t *testing.T) {
	ts := &testServer{recorder: &recorder{}, log: &lockedBuffer{}, metrics: prometheus.NewRegistry()}
	s, err := New(testOptions(ts))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err == nil {
		t.Error("Serve returned nil")
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}
