package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foxcpp/go-mockdns"

	"sealpost/gateway"
)

// TestManyReturnDomainsLeaveRoomForRoutes: outsiders choose the domains of senders. A hundred of them whose servers
// answer nothing hold no more than a quarter of the workers, and a route's mails go out meanwhile.
func TestManyReturnDomainsLeaveRoomForRoutes(t *testing.T) {
	const workers, domains, mails = 20, 100, 40
	held := make(chan struct{})
	slow, fast := &scriptedHop{hold: held}, &scriptedHop{}
	port, next := slow.start(t).Port, fast.start(t)
	q, copies, zones := newQueue(), fakeCopies{}, map[string]mockdns.Zone{}
	many(q, copies, gateway.ReturnRoute, domains)
	for i := range q.waiting {
		domain := fmt.Sprintf("slow%d.example", i)
		q.waiting[i].ForwardTo = "customer@" + domain
		zones[domain+"."] = mockdns.Zone{A: []string{"127.0.0.1"}}
	}
	many(q, copies, public, mails)
	opts := Options{
		Workers: workers, ReturnHop: gateway.NextHop{Port: port}, AllowPrivateReturns: true, Resolver: &mockdns.Resolver{Zones: zones},
	}
	r := run(t, opts, q, copies, next)
	for range mails {
		if got := r.result(t); got.Event != gateway.EventAccepted || got.Hop == sendersServer {
			t.Fatalf("got %v", got.Attempt)
		}
	}
	if n := slow.dialed(); n > workers/4 {
		t.Errorf("%d of %d workers wait for senders' servers", n, workers)
	}
	close(held)
	for range domains {
		r.result(t)
	}
	r.end(t)
	if len(slow.took()) != domains || len(fast.took()) != mails {
		t.Errorf("%d and %d mails arrived", len(slow.took()), len(fast.took()))
	}
}

// TestReturnSlots: all lanes back together take a quarter of the workers, at least one, and give them back.
func TestReturnSlots(t *testing.T) {
	for workers, want := range map[int]int{1: 1, 7: 1, 100: 25} {
		s := newSlots(20, workers)
		take := func() (taken []lane) {
			for i := range 1000 {
				l := lane{destination{domain: fmt.Sprint(i)}, true}
				for range s.reserve(l, workers-len(taken)) {
					taken = append(taken, l)
				}
			}
			return taken
		}
		taken := take()
		if len(taken) != want || s.reserve(lane{destination: destination{domain: "route"}}, workers) == 0 {
			t.Errorf("%d workers: %d for returns, want %d", workers, len(taken), want)
		}
		for i, l := range taken {
			if i%2 == 0 {
				s.release(l, 1)
			} else {
				s.done(l, neutral)
			}
		}
		if again := take(); len(again) != want {
			t.Errorf("%d workers: %d for returns after all were given back, want %d", workers, len(again), want)
		}
	}
}

// TestReturnsStayOutside: no sender makes us speak to our own network, by an address literal, an MX or an address record;
// what an admin named is another matter.
func TestReturnsStayOutside(t *testing.T) {
	zones := map[string]mockdns.Zone{
		"private.example.":  {MX: []net.MX{{Host: "in.example.", Pref: 10}}},
		"implicit.example.": {A: []string{"10.0.0.5"}},
		"in.example.":       {A: []string{"192.168.1.1"}, AAAA: []string{"fd00::1"}},
		"mixed.example.":    {A: []string{"127.0.0.1", "192.0.2.7"}},
	}
	r := New(Options{Hostname: "mx.example.com", Resolver: &mockdns.Resolver{Zones: zones}}, newQueue(), fakeCopies{})
	for _, c := range []struct {
		to        string
		hop       gateway.NextHop
		returning bool
		want      string
		refused   bool
	}{
		{"root@[127.0.0.1]", gateway.NextHop{}, true, "", true},
		{"root@[10.0.0.5]", gateway.NextHop{}, true, "", true},
		{"root@[IPv6:::1]", gateway.NextHop{}, true, "", true},
		{"root@[IPv6:::ffff:127.0.0.1]", gateway.NextHop{}, true, "", true},
		{"root@[169.254.169.254]", gateway.NextHop{}, true, "", true},
		{"root@private.example", gateway.NextHop{}, true, "", true},
		{"root@implicit.example", gateway.NextHop{}, true, "", true},
		{"root@mixed.example", gateway.NextHop{}, true, "192.0.2.7", false},
		{"root@[192.0.2.7]", gateway.NextHop{}, true, "192.0.2.7", false},
		{"root@private.example", gateway.NextHop{Host: "127.0.0.1"}, true, "127.0.0.1", false},
		{"support@implicit.example", gateway.NextHop{}, false, "10.0.0.5", false},
	} {
		dest := destinationOf(c.hop, c.to)
		hosts, err := r.hosts(t.Context(), dest, c.returning)
		if err != nil || len(hosts) != 1 {
			t.Fatalf("%s: %v, %v", c.to, hosts, err)
		}
		list, err := r.addresses(t.Context(), dest, hosts[0], c.returning)
		if strings.Join(list, " ") != c.want || errors.Is(err, unreachableSender()) != c.refused {
			t.Errorf("%s: %v, %v", c.to, list, err)
		}
	}
}

func TestPublicAddresses(t *testing.T) {
	for address, want := range map[string]bool{
		"192.0.2.1": true, "2001:db8::1": true, "8.8.8.8": true, "::ffff:8.8.8.8": true, "64:ff9b::808:808": true,
		"127.0.0.1": false, "127.9.9.9": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.0.1": false, "169.254.169.254": false,
		"0.0.0.0": false, "0.1.2.3": false, "100.64.0.1": false, "224.0.0.1": false, "255.255.255.255": false, "240.0.0.1": false,
		"::": false, "::1": false, "fe80::1%eth0": false, "fd00::1": false, "ff02::1": false, "::ffff:10.0.0.1": false, "::ffff:100.64.0.1": false,
		"64:ff9b::7f00:1": false, "64:ff9b:1::1": false,
		"2002:808:808::1": true, "2002:7f00:1::1": false, "2002:a00:5::": false, "2002:a9fe:a9fe::1": false, "2002:6440:1::": false,
		"::127.0.0.1": false, "::8.8.8.8": false, "192.0.0.8": false, "192.0.1.1": true, "198.18.0.1": false, "198.19.255.255": false,
		"198.20.0.1": true, "2001::7f00:1": false, "2001:1::1": true, "fec0::1": false,
	} {
		if got := isPublic(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}

// TestReturnToOurselvesEnds: such a bounce is dead at once, since it would be no better in five days.
func TestReturnToOurselvesEnds(t *testing.T) {
	hop := &scriptedHop{}
	port := hop.start(t).Port
	d := newDelivery(1, len(smallMail))
	d.Route, d.ForwardTo = gateway.ReturnRoute, "root@[127.0.0.1]"
	r := run(t, Options{ReturnHop: gateway.NextHop{Port: port}}, newQueue(d), fakeCopies{d.Mail: text(smallMail)}, gateway.NextHop{})
	got := r.result(t)
	r.end(t)
	if got.state != gateway.Dead || hop.dialed() != 0 || got.Hop != sendersServer || got.Reply.Reveal() != "5.4.4 "+unreachableSender().text {
		t.Errorf("got %s, %v, %q, %d connections", got.state, got.Attempt, got.Reply.Reveal(), hop.dialed())
	}
}

// asked records the names that addresses are looked up for.
type asked struct {
	Resolver
	mu    sync.Mutex
	names []string
}

func (a *asked) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.names = append(a.names, host)
	return a.Resolver.LookupIPAddr(ctx, host)
}

// TestNamesFromDNSAreAbsolute: a search list must not lead a mail elsewhere; what an admin wrote may use one.
func TestNamesFromDNSAreAbsolute(t *testing.T) {
	zones := map[string]mockdns.Zone{mxDomain: {MX: []net.MX{{Host: "a.test.", Pref: 10}}}}
	for host, want := range map[string]string{"": "a.test.", "relay": "relay"} {
		resolver := &asked{Resolver: &mockdns.Resolver{Zones: zones}}
		attemptOnce(t, Options{Resolver: resolver}, smallMail, gateway.NextHop{Host: host})
		if !slices.Equal(resolver.names, []string{want}) {
			t.Errorf("hop %q: asked for %q, want %q", host, resolver.names, want)
		}
	}
}

// TestOnlyRoutesAwaitACase: the copy of what goes back to a sender, or to the postmaster, is erased once it is sent.
func TestOnlyRoutesAwaitACase(t *testing.T) {
	const postmaster = "postmaster"
	await := func(route string) bool { return route != postmaster }
	hop := &scriptedHop{}
	next := hop.start(t)
	for route, want := range map[string]bool{public: true, postmaster: false, gateway.ReturnRoute: false} {
		d := newDelivery(1, len(smallMail))
		d.Route = route
		opts := Options{AwaitCase: await, ReturnHop: next, Route: func(string) (gateway.Route, bool) {
			return gateway.Route{ForwardTo: forwardTo, NextHop: next}, true
		}}
		r := run(t, opts, newQueue(d), fakeCopies{d.Mail: text(smallMail)}, next)
		if got := r.result(t); got.Event != gateway.EventAccepted || got.awaitCase != want {
			t.Errorf("%s: %v, a Case is awaited: %v", route, got.Attempt, got.awaitCase)
		}
		r.end(t)
	}
}

// TestLaneLearnsOnlyOfItself: when a route has moved since it was leased, what its new server taught is not taken for
// its old one.
func TestLaneLearnsOnlyOfItself(t *testing.T) {
	hop := gateway.NextHop{Host: "127.0.0.1", Port: unused(t)}
	route := func(string) (gateway.Route, bool) { return gateway.Route{ForwardTo: forwardTo, NextHop: hop}, true }
	d := newDelivery(1, len(smallMail))
	r := New(Options{Route: route}, newQueue(), fakeCopies{d.Mail: text(smallMail)})
	out := r.attempt(t.Context(), d, lane{destination: destination{domain: "old.example"}})
	defer out.cancel()
	if out.stage != stageConnect || out.learnt != neutral {
		t.Errorf("stage %s, the lane learns %v", out.stage, out.learnt)
	}
	if got := r.slots.get(lane{destination: destination{hop: hop}}).limit; got != 1 {
		t.Errorf("the new server may have %d connections", got)
	}
}

// TestScheduleBeginsAnewAfterAnEvent: an admin's retry after many attempts waits a minute first, and not for hours.
func TestScheduleBeginsAnewAfterAnEvent(t *testing.T) {
	s := DefaultSchedule()
	for _, random := range []float64{0, 0.5, 0.999} {
		since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		now, attempts := since, 36
		for i, want := range append(s.Delays, s.Delays[len(s.Delays)-1]) {
			next, again := s.Next(since, now, attempts+i, random)
			if delay := next.Sub(now); !again || delay < want*9/10-time.Second || delay > want*11/10+time.Second {
				t.Errorf("deferral %d after the retry waits %v, want %v", i+1, delay, want)
			}
			now = next
		}
	}
}

// TestReplyCountsMoreThanARefusedConnection: of several servers that which said something is recorded.
func TestReplyCountsMoreThanARefusedConnection(t *testing.T) {
	first := &scriptedHop{at: stageRcpt, fault: "450 4.2.2 mailbox full"}
	port := first.start(t).Port
	for name, hosts := range map[string][]string{"reply first": {"a.test.", "b.test."}, "reply last": {"b.test.", "a.test."}} {
		resolver := &mockdns.Resolver{Zones: map[string]mockdns.Zone{
			mxDomain:  {MX: []net.MX{{Host: hosts[0], Pref: 10}, {Host: hosts[1], Pref: 20}}},
			"a.test.": {A: []string{"127.0.0.1"}},
			"b.test.": {A: []string{"127.0.0.2"}}, // nobody listens
		}}
		got := attemptOnce(t, Options{Resolver: resolver}, smallMail, gateway.NextHop{Port: port})
		if got.Event != gateway.EventDeferred || got.Code != 450 || !strings.HasPrefix(got.Hop, "a.test:") {
			t.Errorf("%s: got %v, %q", name, got.Attempt, got.Reply.Reveal())
		}
	}
}

// TestOneLaneThatFailsStopsNoOther: what cannot be leased of one lane is logged, and the others go on.
func TestOneLaneThatFailsStopsNoOther(t *testing.T) {
	const other = "zz@example.com" // after the lane that fails
	hop := &scriptedHop{}
	next := hop.start(t)
	q, copies := newQueue(), fakeCopies{}
	many(q, copies, public, 1)
	many(q, copies, other, 5)
	q.failing = public
	opts := Options{Workers: 1, Look: time.Hour, Route: func(address string) (gateway.Route, bool) {
		return gateway.Route{Address: address, ForwardTo: forwardTo, NextHop: next}, true
	}}
	r := run(t, opts, q, copies, next)
	for range 5 {
		if got := r.result(t); got.Event != gateway.EventAccepted {
			t.Errorf("got %v", got.Attempt)
		}
	}
	r.end(t)
	if !strings.Contains(r.log.String(), "deliveries cannot be leased") {
		t.Errorf("nothing was logged:\n%s", r.log.String())
	}
}
