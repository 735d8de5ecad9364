package senderauth

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foxcpp/go-mockdns"

	"sealpost/gateway"
)

// fakeDNS answers TXT by a function and counts.
type fakeDNS struct {
	mockdns.Resolver
	mu     sync.Mutex
	asked  int
	answer func(ctx context.Context, name string) ([]string, error)
}

func (f *fakeDNS) LookupTXT(ctx context.Context, name string) ([]string, error) {
	f.mu.Lock()
	f.asked++
	f.mu.Unlock()
	return f.answer(ctx, name)
}

func servfail(context.Context, string) ([]string, error) { return nil, errServfail }

func notFound(context.Context, string) ([]string, error) {
	return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
}

func newTestGuard(dns *fakeDNS) (*guard, func(time.Duration)) {
	g := newGuard(dns, "mx.gate.example")
	now := time.Unix(1_700_000_000, 0)
	g.now = func() time.Time { return now }
	return g, func(d time.Duration) { now = now.Add(d) }
}

func isTemporary(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.Temporary() && !dns.IsNotFound
}

func TestBreakerOpensAndTriesAgain(t *testing.T) {
	dns := &fakeDNS{answer: servfail}
	g, advance := newTestGuard(dns)
	look := func() error { _, err := g.LookupTXT(context.Background(), "a.example"); return err }
	for range breakAfter {
		if err := look(); !isTemporary(err) {
			t.Fatalf("got %v", err)
		}
	}
	if dns.asked != breakAfter+1 { // and the probe
		t.Fatalf("asked %d times", dns.asked)
	}
	for range 100 {
		if err := look(); !isTemporary(err) {
			t.Fatalf("got %v", err)
		}
	}
	if dns.asked != breakAfter+1 {
		t.Errorf("an open breaker let %d look-ups through", dns.asked-breakAfter-1)
	}
	advance(breakFor)
	_ = look() // one try, and the probe
	_ = look()
	if dns.asked != breakAfter+3 {
		t.Errorf("asked %d times after the pause", dns.asked-breakAfter-1)
	}
	advance(breakFor)
	dns.answer = notFound
	if err := look(); !isNotFound(err) {
		t.Errorf("got %v", err)
	}
	if err := look(); !isNotFound(err) {
		t.Errorf("still open after an answer: %v", err)
	}
}

func TestBreakerIsNotOpenedByDeadSenderDomains(t *testing.T) {
	dns := &fakeDNS{answer: func(ctx context.Context, name string) ([]string, error) {
		if strings.HasSuffix(name, "evil.example.") {
			return servfail(ctx, name)
		}
		return notFound(ctx, name)
	}}
	g, _ := newTestGuard(dns)
	for range 20 {
		_, _ = g.LookupTXT(context.Background(), "a.evil.example")
	}
	if _, err := g.LookupTXT(context.Background(), "good.example"); !isNotFound(err) {
		t.Errorf("got %v", err)
	}
}

func TestBreakerDoesNotCountMissingNamesAndEndedMails(t *testing.T) {
	dns := &fakeDNS{answer: notFound}
	g, _ := newTestGuard(dns)
	for range 3 * breakAfter {
		_, _ = g.LookupTXT(context.Background(), "a.example")
	}
	ended, cancel := context.WithCancel(context.Background())
	dns.answer = func(context.Context, string) ([]string, error) {
		cancel()
		return nil, context.Canceled
	}
	_, _ = g.LookupTXT(ended, "a.example")
	if g.failures != 0 || dns.asked != 3*breakAfter+1 {
		t.Errorf("%d failures, asked %d times", g.failures, dns.asked)
	}
}

// silent is a resolver that never answers.
func silent(ctx context.Context, _ string) ([]string, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestDNSTimeoutIsTempError(t *testing.T) {
	a := New(Options{AuthservID: "mx.gate.example", Resolver: &fakeDNS{answer: silent}})
	a.dns.limit = time.Millisecond
	mail := sign(t, plain("x@sender.example"), "sender.example", "rsa")
	want := gateway.Authentication{SPF: gateway.AuthTempError, DKIM: gateway.AuthTempError, DMARC: gateway.AuthTempError}
	if got, _ := judge(t, a, envelopeFrom("a@sender.example"), mail); got != want {
		t.Errorf("got %+v", got)
	}
}

func TestTimeoutOfTheWholeMail(t *testing.T) {
	a := New(Options{AuthservID: "mx.gate.example", Resolver: &fakeDNS{answer: silent}, Timeout: time.Millisecond})
	if got, _ := judge(t, a, envelopeFrom("a@sender.example"), plain("x@sender.example")); got.DMARC != gateway.AuthTempError {
		t.Errorf("got %+v", got)
	}
}

func TestSlowSenderDomainsCannotHideTheAuthorsPolicy(t *testing.T) {
	_, records := keys()
	dns := &fakeDNS{}
	dns.answer = func(ctx context.Context, name string) ([]string, error) {
		switch {
		case name == "_dmarc.victim.example.":
			return []string{"v=DMARC1; p=reject"}, nil
		case strings.HasSuffix(name, ".evil.example."):
			return silent(ctx, name)
		case strings.HasPrefix(name, "rsa._domainkey."):
			return []string{records["rsa"]}, nil
		}
		return notFound(ctx, name)
	}
	// The first dead name uses up all the time there is.
	a := New(Options{AuthservID: "mx.gate.example", Resolver: dns, Timeout: 200 * time.Millisecond})
	mail := plain("ceo@victim.example")
	for _, d := range []string{"a.evil.example", "b.evil.example", "c.evil.example", "d.evil.example"} {
		mail = sign(t, mail, d, "rsa")
	}
	got, _ := judge(t, a, envelopeFrom("x@e.evil.example"), mail)
	want := gateway.Authentication{SPF: gateway.AuthTempError, DKIM: gateway.AuthTempError, DMARC: gateway.AuthFail, DMARCPolicy: "reject"}
	if got != want {
		t.Errorf("got %+v", got)
	}
}
