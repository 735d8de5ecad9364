package relay

import (
	"crypto/tls"
	"errors"
	"net"
	"net/textproto"
	"slices"
	"strings"
	"testing"

	"github.com/foxcpp/go-mockdns"

	"sealpost/gateway"
)

// TestProbeSendsNoMail: a probe goes by the route's own servers, TLS and log-in, up to RCPT and no further.
func TestProbeSendsNoMail(t *testing.T) {
	cert, pool := certificate(t)
	hop := &scriptedHop{tls: &tls.Config{Certificates: []tls.Certificate{cert}}, offers: []string{"SIZE 1000", "AUTH LOGIN"}, login: "235 2.7.0 ok"}
	next := hop.start(t)
	next.ImplicitTLS, next.TLS, next.User, next.Password = true, gateway.TLSVerify, "user", gateway.NewSecret("pass")
	route := gateway.Route{ForwardTo: forwardTo, NextHop: next}
	if _, err := Probe(t.Context(), Options{Hostname: "mx.example.com"}, route); err == nil {
		t.Error("a certificate is trusted that nobody vouches for")
	}
	got, err := Probe(t.Context(), Options{Hostname: "mx.example.com", Roots: pool}, route)
	if err != nil || !strings.HasPrefix(got.Hop, "127.0.0.1:") || !strings.HasPrefix(got.TLS, "TLS1.3 ") {
		t.Errorf("got %+v, %v", got, err)
	}
	want := []string{"EHLO mx.example.com", "AUTH LOGIN dXNlcg==", "cGFzcw==", "MAIL FROM:<>", "RCPT TO:<" + forwardTo + ">", "RSET", "QUIT"}
	if heard := hop.heard(); !slices.Equal(heard, want) {
		t.Errorf("said %q, want %q", heard, want)
	}
}

// TestProbeGoesByMX: the second server is asked when the first is away; what refuses is told with its reply.
func TestProbeGoesByMX(t *testing.T) {
	hop := &scriptedHop{at: stageRcpt, fault: "550 5.1.1 no such mailbox"}
	port := hop.start(t).Port
	zones := map[string]mockdns.Zone{
		mxDomain:     {MX: []net.MX{{Host: "b.test.", Pref: 10}, {Host: "a.test.", Pref: 20}}},
		"a.test.":    {A: []string{"127.0.0.1"}},
		"b.test.":    {A: []string{"127.0.0.2"}}, // nobody listens
		"null.test.": {MX: []net.MX{{Host: ".", Pref: 0}}},
	}
	opts := Options{Hostname: "mx.example.com", Resolver: &mockdns.Resolver{Zones: zones}}
	got, err := Probe(t.Context(), opts, gateway.Route{ForwardTo: forwardTo, NextHop: gateway.NextHop{Port: port}})
	var refused *textproto.Error
	if !errors.As(err, &refused) || refused.Code != 550 || refused.Msg != "5.1.1 no such mailbox" || !strings.HasPrefix(got.Hop, "a.test:") {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := Probe(t.Context(), opts, gateway.Route{ForwardTo: "x@null.test"}); !errors.Is(err, ErrNullMX) {
		t.Errorf("null MX: %v", err)
	}
	if got, err := Probe(t.Context(), opts, gateway.Route{ForwardTo: "x@gone.test"}); !errors.Is(err, errNoMX) && err == nil || got.Hop != "gone.test:25" {
		t.Errorf("no server: %+v, %v", got, err)
	}
}

// TestProbeHidesTheCredentials: what a hop says of our log-in is shown without them.
func TestProbeHidesTheCredentials(t *testing.T) {
	hop := &scriptedHop{offers: []string{"AUTH PLAIN"}, login: "535 5.7.8 not AHJlbGF5dXNlcgBzM2NyZXQ= for relayuser"}
	next := hop.start(t)
	next.User, next.Password = "relayuser", gateway.NewSecret("s3cret")
	_, err := Probe(t.Context(), Options{}, gateway.Route{ForwardTo: forwardTo, NextHop: next})
	var refused *textproto.Error
	if !errors.As(err, &refused) || refused.Msg != "5.7.8 not [hidden]= for [hidden]" {
		t.Errorf("got %v", err)
	}
}
