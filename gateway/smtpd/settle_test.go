package smtpd

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"sealpost/gateway"
)

// sent sends a mail and reads its 250.
func (ts *testServer) sent(t testing.TB) *client {
	c := ts.ready(t)
	c.talk("> DATA", data354, "> .", "< 250 2.0.0 accepted as ID1")
	return c
}

// TestSettle: once is once. The Handler learns whether the client heard the 250, each mail exactly once;
// that nothing is forgotten and nothing told twice is checked whenever a test's server stops.
func TestSettle(t *testing.T) {
	const next = ">> MAIL FROM:<>\\r\\nRCPT TO:<support@example.com>\\r\\n"
	for name, tt := range map[string]struct {
		then func(*testServer, *client)
		want string
	}{
		"quit":            {func(_ *testServer, c *client) { c.talk("> QUIT", "< 221 2.0.0 Bye") }, "ID1 heard"},
		"a bad command":   {func(_ *testServer, c *client) { c.talk("> XYZW", "< 500 5.5.2 command not recognized") }, "ID1 heard"},
		"connection ends": {func(_ *testServer, c *client) { _ = c.Close() }, "ID1 lost"},
		"reset": {func(_ *testServer, c *client) {
			if tcp, ok := c.Conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = c.Close()
		}, "ID1 lost"},
		"shutdown": {func(ts *testServer, c *client) {
			result := ts.shutdown(context.Background())
			c.talk("< "+goingDown, "closed")
			if err := <-result; err != nil {
				c.t.Errorf("Shutdown: %v", err)
			}
		}, "ID1 lost"},
		"hard stop": {func(ts *testServer, c *client) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if err := <-ts.shutdown(ctx); err != nil && !errors.Is(err, context.Canceled) { // nil if all was over before
				c.t.Errorf("Shutdown: %v", err)
			}
		}, "ID1 lost"},
		"second mail": {func(_ *testServer, c *client) {
			c.talk(next, "< 250 2.1.0 sender ok", "< 250 2.1.5 recipient ok", "> DATA", data354, "> .", "< 250 2.0.0 accepted as ID2")
		}, "ID1 heard, ID2 lost"},
		"starttls": {func(_ *testServer, c *client) {
			c.startTLS().talk(next, "< 250 2.1.0 sender ok", "< 250 2.1.5 recipient ok", ">> BDAT 0 LAST\\r\\n", "< 250 2.0.0 accepted as ID2")
		}, "ID1 heard, ID2 lost"},
	} {
		t.Run(name, func(t *testing.T) {
			ts := startServer(t, withTLS)
			c := ts.sent(t)
			if got := ts.fates(); got != "" {
				t.Errorf("settled early: %s", got)
			}
			tt.then(ts, c)
			_ = c.Close()
			ts.stop(t)
			if got := ts.fates(); got != tt.want {
				t.Errorf("settled %q, want %q", got, tt.want)
			}
		})
	}
}

func TestSettleAfterTimeout(t *testing.T) {
	ts := startServer(t, func(o *Options) { o.Limits.CommandIdle = 50 * time.Millisecond })
	c := ts.sent(t)
	c.talk("< 421 4.4.2 mx.test timed out waiting for you; closing", "closed")
	ts.stop(t)
	if got := ts.fates(); got != "ID1 lost" {
		t.Errorf("settled %q", got)
	}
}

// TestPipelinedCommandProvesNothing: what was sent before the 250 does not show that it was heard.
func TestPipelinedCommandProvesNothing(t *testing.T) {
	ts := startServer(t, nil)
	c := ts.ready(t)
	c.talk("> DATA", data354, ">> x\\r\\n.\\r\\nQUIT\\r\\n", "< 250 2.0.0 accepted as ID1", "< 221 2.0.0 Bye", "closed")
	ts.stop(t)
	if got := ts.fates(); got != "ID1 lost" {
		t.Errorf("settled %q", got)
	}
}

// TestLateCommandFromBefore250ProvesNothing: so it is when that waited in the socket, and not with us.
func TestLateCommandFromBefore250ProvesNothing(t *testing.T) {
	for _, secured := range []bool{false, true} {
		ts := startServer(t, withTLS)
		accepting, release := make(chan struct{}), make(chan struct{})
		ts.accept = func(context.Context, gateway.Envelope, gateway.Spooled) (string, error) {
			close(accepting)
			<-release
			return "", nil
		}
		c := ts.hello(t)
		if secured {
			c = c.startTLS()
		}
		c.talk("> MAIL FROM:<>", "< 250 2.1.0 sender ok", "> RCPT TO:<support@example.com>", "< 250 2.1.5 recipient ok", "> DATA", data354, "> .")
		<-accepting
		c.send("QUIT\r\n")
		close(release)
		c.talk("< 250 2.0.0 accepted as ID1", "< 221 2.0.0 Bye", "closed")
		ts.stop(t)
		if got := ts.fates(); got != "ID1 lost" {
			t.Errorf("secured %v: settled %q", secured, got)
		}
	}
}

// TestSecondMailDoesNotWaitForTheFirst: a mail that the same client sent behind another is none that it repeats.
func TestSecondMailDoesNotWaitForTheFirst(t *testing.T) {
	ts := startServer(t, nil)
	settledFirst := ""
	ts.accept = func(context.Context, gateway.Envelope, gateway.Spooled) (string, error) {
		settledFirst = ts.fates()
		return "", nil
	}
	c := ts.hello(t)
	const mail = "MAIL FROM:<>\r\nRCPT TO:<support@example.com>\r\nBDAT 1 LAST\r\nx"
	c.send(mail + mail)
	c.talk("< 250 2.1.0 sender ok", "< 250 2.1.5 recipient ok", "< 250 2.0.0 accepted as ID1",
		"< 250 2.1.0 sender ok", "< 250 2.1.5 recipient ok", "< 250 2.0.0 accepted as ID2")
	if settledFirst != "ID1 heard" {
		t.Errorf("settled %q", settledFirst)
	}
}

type panickingSpool struct{ memorySpool }

func (*panickingSpool) Close() error { panic("close") }

// TestSettleAfterPanic: a mail that is safe while its 250 is lost in a panic is settled too.
func TestSettleAfterPanic(t *testing.T) {
	ts := startServer(t, func(o *Options) {
		o.NewSpooled = func() (gateway.Spooled, error) { return &panickingSpool{}, nil }
	})
	c := ts.ready(t)
	c.talk("> DATA", data354, "> .", "< 421 4.0.0 Internal server error", "closed")
	ts.stop(t)
	if got := ts.fates(); got != "ID1 lost" {
		t.Errorf("settled %q", got)
	}
}

func TestRefusedMailIsNotSettled(t *testing.T) {
	ts := startServer(t, nil)
	ts.accept = func(context.Context, gateway.Envelope, gateway.Spooled) (string, error) { return "", errors.New("no") }
	c := ts.ready(t)
	c.talk("> DATA", data354, "> .", "< 451 4.3.0 internal failure, nothing was accepted; try again later", "> QUIT", "< 221 2.0.0 Bye")
	ts.stop(t)
	if got := ts.fates(); got != "" {
		t.Errorf("settled %q", got)
	}
}

func TestTrustedRelayInTheEnvelope(t *testing.T) {
	for _, network := range []string{"127.0.0.0/8", "192.0.2.0/24"} {
		ts := startServer(t, func(o *Options) { o.TrustedRelays = []netip.Prefix{netip.MustParsePrefix(network)} })
		ts.sent(t)
		if got := ts.taken()[0].envelope.TrustedRelay; got != (network == "127.0.0.0/8") {
			t.Errorf("%s: trusted %v", network, got)
		}
	}
}
