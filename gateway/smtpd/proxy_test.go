package smtpd

import (
	"crypto/tls"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

func withBalancer(o *Options) {
	o.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
}

// proxyV2 makes a header of version 2.
func proxyV2(t *testing.T, command proxyproto.ProtocolVersionAndCommand, source string) string {
	t.Helper()
	address := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(source))
	h := proxyproto.HeaderProxyFromAddrs(2, address, net.TCPAddrFromAddrPort(netip.AddrPortFrom(address.AddrPort().Addr(), 25)))
	h.Command = command
	if command == proxyproto.LOCAL {
		h.TransportProtocol = proxyproto.UNSPEC
	}
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// connect opens a connection and sends something before the greeting.
func (ts *testServer) connect(t *testing.T, first string) *client {
	t.Helper()
	nc, err := net.Dial("tcp", ts.address)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, nc)
	c.send(first)
	return c
}

// TestProxyHeader: the source of the header is the client.
func TestProxyHeader(t *testing.T) {
	for name, tt := range map[string]struct{ header, client string }{
		"v1":            {"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n", "192.0.2.7"},
		"v1 IPv6":       {"PROXY TCP6 2001:db8::7 2001:db8::1 40000 25\r\n", "2001:db8::7"},
		"v1 unknown":    {"PROXY UNKNOWN\r\n", "127.0.0.1"},
		"v2":            {proxyV2(t, proxyproto.PROXY, "192.0.2.7:40000"), "192.0.2.7"},
		"v2 IPv6":       {proxyV2(t, proxyproto.PROXY, "[2001:db8::7]:40000"), "2001:db8::7"},
		"v2 mapped":     {proxyV2(t, proxyproto.PROXY, "[::ffff:192.0.2.7]:40000"), "192.0.2.7"},
		"v2 local":      {proxyV2(t, proxyproto.LOCAL, "192.0.2.7:40000"), "127.0.0.1"},
		"v1 and mapped": {"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 40000 25\r\n", "192.0.2.7"},
	} {
		t.Run(name, func(t *testing.T) {
			ts := startServer(t, func(o *Options) {
				withBalancer(o)
				withTLS(o)
				o.TrustedRelays = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
			})
			c := ts.connect(t, tt.header+"EHLO early.test\r\n")
			c.expect(greeting)
			c.capabilities()
			c = c.startTLS()
			c.talk("> MAIL FROM:<>", "< 250 2.1.0 sender ok", "> RCPT TO:<support@example.com>", "< 250 2.1.5 recipient ok",
				"> DATA", data354, "> .", "< 250 2.0.0 accepted as ID1")
			e := ts.taken()[0].envelope
			if e.Client.String() != tt.client || e.TrustedRelay != (tt.client == "192.0.2.7") {
				t.Errorf("client %s, trusted %v", e.Client, e.TrustedRelay)
			}
		})
	}
}

// TestBadProxyHeader: a balancer's connection that does not begin with a proper header is closed without a word.
func TestBadProxyHeader(t *testing.T) {
	v2 := proxyV2(t, proxyproto.PROXY, "192.0.2.7:40000")
	for name, first := range map[string]string{
		"missing":        "EHLO client.test\r\n",
		"v1 bad address": "PROXY TCP4 192.0.2.777 198.51.100.1 40000 25\r\n",
		"v1 bad port":    "PROXY TCP4 192.0.2.7 198.51.100.1 99999 25\r\n",
		"v1 words":       "PROXY TCP4 192.0.2.7\r\n",
		"v1 bare LF":     "PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\n",
		"v1 too long":    "PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n",
		"v2 bad command": v2[:12] + "\x2f" + v2[13:],
		"v2 bad family":  v2[:13] + "\x13" + v2[14:],
		"v2 datagram":    v2[:13] + "\x12" + v2[14:],
		"v2 too short":   v2[:14] + "\x00\x01" + v2[16:],
		"v2 too long":    v2[:14] + "\xff\xff" + v2[16:] + strings.Repeat("x", 70000),
		"lower case":     "proxy TCP4 192.0.2.7 198.51.100.1 40000 25\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			ts := startServer(t, withBalancer)
			nc, err := net.Dial("tcp", ts.address)
			if err != nil {
				t.Fatal(err)
			}
			c := newClient(t, nc)
			_, _ = c.Write([]byte(first)) // the server may close while it is sent
			c.closed()
			_ = c.Close()
			ts.stop(t)
			if ts.counter(t, "sealpost_smtp_connections_total", "proxy") != 1 || strings.Contains(ts.log.String(), "192.0.2.7") {
				t.Errorf("log: %s", ts.log.String())
			}
		})
	}
}

// TestSlowProxyHeader: who sends no header is let go in time, and never delays others or a shutdown.
func TestSlowProxyHeader(t *testing.T) {
	ts := startServer(t, withBalancer)
	silent := ts.connect(t, "")
	other := ts.connect(t, "PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n")
	other.expect(greeting)
	ts.stop(t)
	silent.closed()
	ts = startServer(t, func(o *Options) {
		withBalancer(o)
		o.Limits.CommandIdle = 50 * time.Millisecond
	})
	ts.connect(t, "").closed()
	ts.connect(t, proxyV2(t, proxyproto.PROXY, "192.0.2.7:40000")[:20]).closed()
}

// TestSpoofedProxyHeader: from anyone but a balancer a header is a bad command, and changes nothing.
func TestSpoofedProxyHeader(t *testing.T) {
	ts := startServer(t, func(o *Options) { o.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
	c := ts.connect(t, "PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n")
	c.talk("< "+greeting, "< 501 5.5.2 Bad command", "> HELO client.test", "< 250 mx.test",
		"> MAIL FROM:<>", "< 250 2.1.0 sender ok", "> RCPT TO:<support@example.com>", "< 250 2.1.5 recipient ok",
		"> DATA", data354, "> .", "< 250 2.0.0 accepted as ID1")
	if got := ts.taken()[0].envelope.Client.String(); got != "127.0.0.1" {
		t.Errorf("client %s", got)
	}
}

// TestProxiedClientIsLimited: AllowFrom and the limits of one client look at the source.
func TestProxiedClientIsLimited(t *testing.T) {
	ts := startServer(t, func(o *Options) {
		withBalancer(o)
		o.AllowFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		o.Limits.ConnectionsPerClient = 1
	})
	from := func(address string) *client {
		return ts.connect(t, "PROXY TCP4 "+address+" 198.51.100.1 40000 25\r\n")
	}
	from("192.0.2.1").expect(greeting)
	from("192.0.2.2").expect(greeting)
	from("192.0.2.1").talk("< 421 4.7.0 mx.test too many connections; try again later", "closed")
	from("203.0.113.1").talk("< 554 5.7.1 mx.test access denied", "closed")
	ts.connect(t, "PROXY UNKNOWN\r\n").talk("< 554 5.7.1 mx.test access denied", "closed")
	ts.stop(t)
	if len(ts.clients) != 0 || len(ts.sockets) != 0 {
		t.Errorf("places are left: %v %v", ts.clients, ts.sockets)
	}
}

// TestProxyHeaderBeforeImplicitTLS: the header comes in plaintext, also in one packet with what follows.
func TestProxyHeaderBeforeImplicitTLS(t *testing.T) {
	ts := startServer(t, func(o *Options) {
		withBalancer(o)
		withTLS(o)
	})
	ts.address = ts.listenTLS(t)
	c := ts.connect(t, proxyV2(t, proxyproto.PROXY, "192.0.2.7:40000"))
	c = newClient(t, tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true}))
	c.talk("< "+greeting, "> HELO client.test", "< 250 mx.test",
		"> MAIL FROM:<>", "< 250 2.1.0 sender ok", "> RCPT TO:<support@example.com>", "< 250 2.1.5 recipient ok",
		"> DATA", data354, "> .", "< 250 2.0.0 accepted as ID1")
	if got := ts.taken()[0].envelope.Client.String(); got != "192.0.2.7" {
		t.Errorf("client %s", got)
	}
}
