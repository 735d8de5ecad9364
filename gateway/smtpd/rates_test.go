package smtpd

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"sealpost/gateway"
)

// TestMailsPerClient: over the limit MAIL is refused for a while. What was refused through our fault does not count.
func TestMailsPerClient(t *testing.T) {
	ts := startServer(t, func(o *Options) { o.Limits.MailsPerClient = 2 })
	refuse := true
	ts.accept = func(context.Context, gateway.Envelope, gateway.Spooled) (string, error) {
		if refuse {
			return "", gateway.Errorf(gateway.CodeUnavailable, nil, "a fault of ours")
		}
		return "", nil
	}
	mail := func(c *client, want string) {
		c.talk("> MAIL FROM:<>", "< 250 2.1.0 sender ok", "> RCPT TO:<support@example.com>", "< 250 2.1.5 recipient ok",
			"> DATA", data354, "> .", "< "+want)
	}
	const slow = "< 451 4.7.1 too many mails from your address; try again later"
	c, other := ts.hello(t), ts.hello(t)
	for range 3 {
		mail(c, "451 4.3.0 a fault of ours")
	}
	refuse = false
	mail(c, "250 2.0.0 accepted as ID1")
	mail(other, "250 2.0.0 accepted as ID2")
	c.talk("> MAIL FROM:<>", slow, "> RCPT TO:<support@example.com>", "< 503 5.5.1 Missing MAIL FROM command.", "> NOOP", "< 250 2.0.0 ok")
	ts.hello(t).talk("> MAIL FROM:<>", slow)
	if n := ts.counter(t, "sealpost_smtp_refused_total", "busy"); n != 2 {
		t.Errorf("%v refusals were counted", n)
	}
}

// TestRefusedMailsCount: mails that are refused for their text cost as much as others, and are bounded as they are.
func TestRefusedMailsCount(t *testing.T) {
	ts := startServer(t, func(o *Options) { o.Limits.MailsPerClient = 2 })
	ts.accept = func(context.Context, gateway.Envelope, gateway.Spooled) (string, error) {
		return "", gateway.Errorf(gateway.CodeRejected, nil, "policy")
	}
	c := ts.hello(t)
	for range 2 {
		c.talk("> MAIL FROM:<>", "< 250 2.1.0 sender ok", "> RCPT TO:<support@example.com>", "< 250 2.1.5 recipient ok",
			"> DATA", data354, "> .", "< 550 5.7.1 policy")
	}
	c.talk("> MAIL FROM:<>", "< 451 4.7.1 too many mails from your address; try again later")
}

func TestTrustedRelaysSendAsManyMailsAsTheyLike(t *testing.T) {
	ts := startServer(t, func(o *Options) {
		o.Limits.MailsPerClient = 1
		o.TrustedRelays = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	c := ts.hello(t)
	for i := range 5 {
		c.talk("> MAIL FROM:<>", "< 250 2.1.0 sender ok", "> RCPT TO:<support@example.com>", "< 250 2.1.5 recipient ok",
			"> DATA", data354, "> .", fmt.Sprintf("< 250 2.0.0 accepted as ID%d", i+1))
	}
	if n := len(ts.rates.clients); n != 0 {
		t.Errorf("%d clients are remembered", n)
	}
}

// TestRatesAreBounded: of very many clients, those that sent the longest ago are forgotten.
func TestRatesAreBounded(t *testing.T) {
	r := newRates(1)
	key := func(i int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
	}
	for i := range maxRatedClients + 500 {
		r.count(key(i))
		if i%100 == 0 {
			r.count(key(0)) // goes on sending
		}
	}
	if len(r.clients) != maxRatedClients || r.recent.Len() != maxRatedClients {
		t.Errorf("%d clients are remembered", len(r.clients))
	}
	if r.allow(key(0)) || r.allow(key(maxRatedClients)) || !r.allow(key(1)) || !r.allow(key(maxRatedClients+1000)) {
		t.Error("the wrong clients were forgotten")
	}
}

// TestRatesForgetClientsAsGoodAsNew: who has its whole allowance again takes no memory.
func TestRatesForgetClientsAsGoodAsNew(t *testing.T) {
	r := newRates(60_000_000) // a mail is forgiven within a microsecond
	for i := range 1000 {
		r.count(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32))
	}
	if n := len(r.clients); n > 500 {
		t.Errorf("%d clients are remembered", n)
	}
}
