package smtpd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"sealpost/gateway"
)

func TestSizeLimit(t *testing.T) {
	const limit = 1000
	ts := startServer(t, func(o *Options) { o.MaxMessageSize = limit })
	c := ts.hello(t)
	for _, tt := range []struct{ text, want string }{
		{strings.Repeat("x", limit-2) + "\r\n", "250 2.0.0 accepted as ID1"},
		{"..." + strings.Repeat("x", limit-4) + "\r\n", "250 2.0.0 accepted as ID2"}, // 1000 once the dot is unstuffed
		{strings.Repeat("x", limit-1) + "\r\n", "552 5.3.4 message is larger than 1000 octets"},
		{strings.Repeat("x\r\n", 100000), "552 5.3.4 message is larger than 1000 octets"},
	} {
		c.talk("> MAIL FROM:<>", "< 250 2.1.0 sender ok", "> RCPT TO:<support@example.com>", "< 250 2.1.5 recipient ok", "> DATA", data354)
		c.send(tt.text + ".\r\n")
		c.expect(tt.want)
	}
	c.talk("> NOOP", "< 250 2.0.0 ok")
}

func TestLoops(t *testing.T) {
	for _, tt := range []struct {
		text string
		loop bool
	}{
		{strings.Repeat("Received: x\r\n", 100) + "\r\nReceived: body\r\n", false},
		{strings.Repeat("Received: x\r\n", 101), true},
		{strings.Repeat("rEcEiVeD : x\r\n\tReceived: folded\r\n", 101), true},
		{strings.Repeat("X: x\r\n\tReceived: folded\r\n", 101), false},
		{strings.Repeat("Received-SPF: x\r\nXReceived: x\r\nReceived\r\n", 101), false},
	} {
		for _, bdat := range []bool{false, true} {
			c := startServer(t, nil).ready(t)
			if bdat {
				c.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(tt.text), tt.text))
			} else {
				c.talk("> DATA", data354)
				c.send(tt.text + ".\r\n")
			}
			want := "250 2.0.0 accepted as ID1"
			if tt.loop {
				want = "554 5.4.6 mail loop: more than 100 Received fields"
			}
			c.expect(want)
			c.talk("> NOOP", "< 250 2.0.0 ok")
		}
	}
}

// TestManyRecipients: beyond the limit the Router is not asked, and nothing is kept in memory.
func TestManyRecipients(t *testing.T) {
	const total, most = 10000, 1 << 20
	asked := 0
	ts := startServer(t, func(o *Options) {
		o.Router = routerFunc(func(from, address string) (gateway.Route, error) {
			asked++
			return testRouter(from, address)
		})
	})
	c := ts.hello(t)
	c.talk("> MAIL FROM:<>", "< 250 2.1.0 sender ok")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	go func() {
		_, _ = c.Write([]byte(strings.Repeat("RCPT TO:<support@example.com>\r\n", total)))
	}()
	for i := range total {
		want := "250 2.1.5 recipient ok"
		if i >= 100 {
			want = "452 4.5.3 Maximum limit of 100 recipients reached"
		}
		c.expect(want)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := int64(after.HeapAlloc) - int64(before.HeapAlloc); n > most {
		t.Errorf("%d octets are kept of %d recipients", n, total)
	}
	c.talk("> DATA", data354, "> .", "< 250 2.0.0 accepted as ID1")
	if n := len(ts.taken()[0].envelope.Recipients); n != 100 || asked != 100 {
		t.Errorf("%d recipients, the router was asked %d times", n, asked)
	}
}

func TestConnectionLimits(t *testing.T) {
	const busy = "421 4.7.0 mx.test too many connections; try again later"
	for name, change := range map[string]func(*Options){
		"all":        func(o *Options) { o.Limits.Connections = 2 },
		"per client": func(o *Options) { o.Limits.ConnectionsPerClient = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			ts := startServer(t, change)
			first := ts.dial(t, greeting)
			ts.dial(t, greeting)
			ts.dial(t, busy).closed()
			first.talk("> QUIT", "< 221 2.0.0 Bye", "closed")
			_ = first.Close()
			// The place is free once the server has let go of it, which the client cannot see.
			for {
				nc, line := tryDial(t, ts)
				if line == greeting {
					break
				}
				_ = nc.Close()
			}
		})
	}
}

func TestTrustedRelaysHaveNoLimitOfTheirOwn(t *testing.T) {
	ts := startServer(t, func(o *Options) {
		o.Limits.ConnectionsPerClient = 1
		o.TrustedRelays = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	for range 3 {
		ts.dial(t, greeting)
	}
}

func tryDial(t *testing.T, ts *testServer) (*client, string) {
	t.Helper()
	nc, err := net.Dial("tcp", ts.address)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, nc)
	return c, c.line()
}

func TestAllowFrom(t *testing.T) {
	ts := startServer(t, func(o *Options) { o.AllowFrom = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
	ts.dial(t, "554 5.7.1 mx.test access denied").closed()
	ts = startServer(t, func(o *Options) {
		o.AllowFrom = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8")}
	})
	ts.dial(t, greeting)
}

func TestClientKey(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
	} {
		if got := clientKey(netip.MustParseAddr(address)).String(); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
	if got := clientKey(netip.Addr{}); got != (netip.Prefix{}) {
		t.Errorf("no address: %s", got)
	}
}

func TestTimeouts(t *testing.T) {
	const (
		soon   = 50 * time.Millisecond
		answer = "421 4.4.2 mx.test timed out waiting for you; closing"
	)
	idle := func(o *Options) { o.Limits.CommandIdle = soon }
	dataIdle := func(o *Options) { o.Limits.DataIdle = soon }
	dataTotal := func(o *Options) { o.Limits.DataTotal = soon }
	for name, tt := range map[string]struct {
		change func(*Options)
		send   string
		before string
	}{
		"command":           {idle, "", ""},
		"half a command":    {idle, "NOO", ""},
		"data":              {dataIdle, "DATA\r\nhalf", data354[2:]},
		"data at the start": {dataIdle, "DATA\r\n", data354[2:]},
		"data total":        {dataTotal, "DATA\r\nhalf\r\n", data354[2:]},
		"chunk":             {dataIdle, "BDAT 100 LAST\r\nhalf", ""},
		"chunk total":       {dataTotal, "BDAT 100 LAST\r\nhalf", ""},
		"between chunks":    {dataTotal, "BDAT 4\r\nhalf", "250 2.0.0 continue"},
		"refused chunk":     {dataIdle, "RSET\r\nBDAT 100 LAST\r\nhalf", "250 2.0.0 Session reset|503 5.5.1 Missing RCPT TO command."},
		"tls command":       {idle, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			ts := startServer(t, func(o *Options) {
				withTLS(o)
				tt.change(o)
			})
			var c *client
			if strings.HasPrefix(name, "tls") {
				c = ts.hello(t).startTLS()
			} else {
				c = ts.ready(t)
			}
			c.send(tt.send)
			for _, want := range strings.Split(tt.before, "|") {
				if want != "" {
					c.expect(want)
				}
			}
			c.talk("< "+answer, "closed")
			ts.stop(t)
			if len(ts.taken()) != 0 {
				t.Errorf("mails %q", texts(ts.taken()))
			}
		})
	}
}

func TestTooManyErrors(t *testing.T) {
	ts := startServer(t, func(o *Options) { o.Limits.Errors = 2 })
	c := ts.ready(t)
	const no = "< 550 5.1.1 no such mailbox here"
	c.talk("> RCPT TO:<a@example.com>", no, "> RCPT TO:<b@example.com>", no, "> DATA", data354, "> .", "< 250 2.0.0 accepted as ID1",
		"> MAIL FROM:<>", "< 250 2.1.0 sender ok", "> RCPT TO:<a@example.com>", no, "> RCPT TO:<b@example.com>", no,
		"> RCPT TO:<c@example.com>", no, "< 421 4.7.0 mx.test too many errors; closing", "closed")
}

func TestOverlongCommand(t *testing.T) {
	for _, command := range []string{
		"NOOP " + strings.Repeat("x", maxCommandLine) + "\r\n", "NOOP " + strings.Repeat("x", 200<<10),
		"MAIL FROM:<" + strings.Repeat("x", maxCommandLine) + "@sender.test>\r\n",
	} {
		c := startServer(t, nil).hello(t)
		c.send(command)
		c.talk("< 500 5.4.0 Too long line, closing connection", "closed")
	}
}

func TestIntakeTimeout(t *testing.T) {
	ts := startServer(t, func(o *Options) { o.Limits.Intake = time.Millisecond })
	ts.accept = func(ctx context.Context, _ gateway.Envelope, _ gateway.Spooled) (string, error) {
		<-ctx.Done()
		return "", fmt.Errorf("store: %w", ctx.Err())
	}
	c := ts.ready(t)
	c.talk("> DATA", data354, "> .", "< 451 4.3.0 storing the mail took too long, nothing was accepted; try again later",
		"> NOOP", "< 250 2.0.0 ok")
}

type countingSpool struct{ size int64 }

func (c *countingSpool) Write(p []byte) (int, error) {
	c.size += int64(len(p))
	return len(p), nil
}
func (c *countingSpool) ReadAt([]byte, int64) (int, error) { return 0, errors.New("never read") }
func (c *countingSpool) Size() int64                       { return c.size }
func (c *countingSpool) Close() error                      { return nil }

// TestMemoryIsBounded: promise 7. A mail of 64 MiB passes with less than 2 MiB allocated in all.
func TestMemoryIsBounded(t *testing.T) {
	const size, most = 64 << 20, 2 << 20
	line := []byte(strings.Repeat("x", 76) + "\r\n")
	block := []byte(strings.Repeat(string(line), 1<<20/len(line)))
	for _, bdat := range []bool{false, true} {
		ts := startServer(t, func(o *Options) {
			o.MaxMessageSize = 2 * size
			o.NewSpooled = func() (gateway.Spooled, error) { return &countingSpool{}, nil }
		})
		got := int64(0)
		ts.accept = func(_ context.Context, _ gateway.Envelope, mail gateway.Spooled) (string, error) {
			got = mail.Size()
			return "BIG", nil
		}
		c := ts.ready(t)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		want := size / len(block) * len(block)
		if bdat {
			c.send(fmt.Sprintf("BDAT %d LAST\r\n", want))
		} else {
			c.talk("> DATA", data354)
		}
		for range size / len(block) {
			if _, err := c.Write(block); err != nil {
				t.Fatal(err)
			}
		}
		if !bdat {
			c.send(".\r\n")
		}
		c.expect("250 2.0.0 accepted as BIG")
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > most {
			t.Errorf("bdat %v: %d octets were allocated for a mail of %d", bdat, n, size)
		}
		if got != int64(want) {
			t.Errorf("bdat %v: %d octets arrived of %d", bdat, got, want)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	good := testOptions(&testServer{recorder: &recorder{}, log: &lockedBuffer{}})
	for name, change := range map[string]func(*Options){
		"host name": func(o *Options) { o.Hostname = "" },
		"size":      func(o *Options) { o.MaxMessageSize = 0 },
		"router":    func(o *Options) { o.Router = nil },
		"spool":     func(o *Options) { o.NewSpooled = nil },
		"handler":   func(o *Options) { o.Handler = nil },
	} {
		bad := good
		change(&bad)
		if _, err := New(bad); err == nil {
			t.Errorf("options without a %s were taken", name)
		}
	}
}
