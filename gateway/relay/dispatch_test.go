package relay

import (
	"fmt"
	"net"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/foxcpp/go-mockdns"

	"sealpost/gateway"
)

// many adds n deliveries of smallMail by a route.
func many(q *fakeQueue, copies fakeCopies, route string, n int) {
	for range n {
		d := newDelivery(0, len(smallMail))
		d.Mail = gateway.NewPackageID()
		d.ID, d.Copy.ID, d.Route = d.Mail.String(), d.Mail, route
		q.waiting = append(q.waiting, d)
		copies[d.Mail] = text(smallMail)
	}
}

// TestSlowHopDoesNotSlowAnother: the slow hop answers nothing before all mails of the fast one have arrived.
func TestSlowHopDoesNotSlowAnother(t *testing.T) {
	const fastRoute, slow, fast = "fast@example.com", 1000, 100
	held := make(chan struct{})
	slowHop, fastHop := &scriptedHop{hold: held}, &scriptedHop{}
	hops := map[string]gateway.NextHop{public: slowHop.start(t), fastRoute: fastHop.start(t)}
	q, copies := newQueue(), fakeCopies{}
	many(q, copies, public, slow)
	many(q, copies, fastRoute, fast)
	opts := Options{Workers: 10, Route: func(address string) (gateway.Route, bool) {
		hop, ok := hops[address]
		return gateway.Route{Address: address, ForwardTo: forwardTo, NextHop: hop}, ok
	}}
	r := run(t, opts, q, copies, gateway.NextHop{})
	for range fast {
		if got := r.result(t); got.Event != gateway.EventAccepted || got.Hop == fmt.Sprintf("%s:%d", hops[public].Host, hops[public].Port) {
			t.Fatalf("got %v", got.Attempt)
		}
	}
	if n := slowHop.dialed(); n > firstLimit {
		t.Errorf("%d connections to a hop that answers nothing", n)
	}
	close(held)
	for range slow {
		r.result(t)
	}
	r.end(t)
	if len(slowHop.took()) != slow || len(fastHop.took()) != fast {
		t.Errorf("%d and %d mails arrived", len(slowHop.took()), len(fastHop.took()))
	}
}

// TestSlowReturnDomainDoesNotSlowAnother: on the way back to senders too, a domain whose server answers nothing holds
// up no other, and holds no more connections than one destination may.
func TestSlowReturnDomainDoesNotSlowAnother(t *testing.T) {
	const slow, fast = 1000, 100
	held := make(chan struct{})
	slowHop := &scriptedHop{hold: held}
	port := slowHop.start(t).Port
	fastHop := &scriptedHop{listen: fmt.Sprintf("127.0.0.2:%d", port)}
	fastHop.start(t)
	q, copies := newQueue(), fakeCopies{}
	many(q, copies, gateway.ReturnRoute, slow+fast)
	for i := range q.waiting {
		q.waiting[i].ForwardTo = "customer@slow.example"
		if i >= slow {
			q.waiting[i].ForwardTo = "customer@fast.example"
		}
	}
	opts := Options{Workers: 10, AllowPrivateReturns: true, ReturnHop: gateway.NextHop{Port: port}, Resolver: &mockdns.Resolver{Zones: map[string]mockdns.Zone{
		"slow.example.": {A: []string{"127.0.0.1"}}, "fast.example.": {A: []string{"127.0.0.2"}},
	}}}
	r := run(t, opts, q, copies, gateway.NextHop{})
	for range fast {
		if got := r.result(t); got.Event != gateway.EventAccepted {
			t.Fatalf("got %v", got.Attempt)
		}
	}
	if n := slowHop.dialed(); n > firstLimit {
		t.Errorf("%d connections to a domain that answers nothing", n)
	}
	close(held)
	for range slow {
		r.result(t)
	}
	r.end(t)
	if len(slowHop.took()) != slow || len(fastHop.took()) != fast {
		t.Errorf("%d and %d mails arrived", len(slowHop.took()), len(fastHop.took()))
	}
}

// TestReturnDomainIsProbedByOne: what was learnt of a sender's domain shows in what is leased for it.
func TestReturnDomainIsProbedByOne(t *testing.T) {
	q, copies := newQueue(), fakeCopies{}
	many(q, copies, gateway.ReturnRoute, 12)
	for i := range q.waiting {
		q.waiting[i].ForwardTo = "customer@gone.example"
	}
	opts := Options{AllowPrivateReturns: true, ReturnHop: gateway.NextHop{Port: unused(t)}, Resolver: &mockdns.Resolver{Zones: map[string]mockdns.Zone{
		"gone.example.": {A: []string{"127.0.0.1"}},
	}}}
	r := run(t, opts, q, copies, gateway.NextHop{})
	for range 12 {
		if got := r.result(t); got.Event != gateway.EventDeferred {
			t.Errorf("got %v", got.Attempt)
		}
	}
	r.end(t)
	if last := q.limits[len(q.limits)-1]; q.limits[0] != firstLimit || last != 1 {
		t.Errorf("asked for %v", q.limits)
	}
}

func TestConcurrencyAdapts(t *testing.T) {
	s, d := newSlots(8, 1000), lane{destination: destination{domain: "example.test"}}
	step := func(f feedback, want int) {
		t.Helper()
		if n := s.reserve(d, 1000); n != want {
			t.Fatalf("%d slots, want %d", n, want)
		}
		s.release(d, want-1)
		s.done(d, f)
	}
	for i, f := range []feedback{good, good, good, good, refused, refused, refused, good, unreachable, neutral, good, neutral} {
		step(f, []int{5, 6, 7, 8, 8, 4, 2, 1, 2, 1, 1, 2}[i])
	}
}

// TestSlotsLeaveRoom: no destination takes more workers than it leaves.
func TestSlotsLeaveRoom(t *testing.T) {
	s, free := newSlots(20, 16), 16
	for i := range 5 {
		d := lane{destination: destination{domain: fmt.Sprint(i)}}
		for range 40 {
			s.done(d, good)
		}
		s.hops[d.destination].active = 0
		n := s.reserve(d, free)
		if n == 0 || n > free-n {
			if free > 1 {
				t.Errorf("destination %d got %d of %d free workers", i, n, free)
			}
		}
		free -= n
	}
}

// TestUnreachableHopIsProbedByOne: what was learnt of a hop shows in the number that is asked for.
func TestUnreachableHopIsProbedByOne(t *testing.T) {
	q, copies := newQueue(), fakeCopies{}
	many(q, copies, public, 12)
	r := run(t, Options{}, q, copies, gateway.NextHop{Host: "127.0.0.1", Port: unused(t)})
	for range 12 {
		if got := r.result(t); got.Event != gateway.EventDeferred {
			t.Errorf("got %v", got.Attempt)
		}
	}
	r.end(t)
	if last := q.limits[len(q.limits)-1]; q.limits[0] != firstLimit || last != 1 {
		t.Errorf("asked for %v", q.limits)
	}
}

func TestConnectionIsReused(t *testing.T) {
	hop := &scriptedHop{}
	q, copies := newQueue(), fakeCopies{}
	many(q, copies, public, 150)
	r := run(t, Options{Workers: 1}, q, copies, hop.start(t))
	for range 150 {
		r.result(t)
	}
	r.end(t)
	quits := 0
	for _, line := range hop.heard() {
		if line == "QUIT" {
			quits++
		}
	}
	if hop.dialed() != 2 || quits != 2 || len(hop.took()) != 150 {
		t.Errorf("%d connections, %d QUIT, %d mails", hop.dialed(), quits, len(hop.took()))
	}
}

// TestDeadConnectionIsReplaced: a reused connection that is dead costs no attempt, and no mail arrives twice.
func TestDeadConnectionIsReplaced(t *testing.T) {
	hop := &scriptedHop{hangUp: true}
	q, copies := newQueue(), fakeCopies{}
	many(q, copies, public, 5)
	r := run(t, Options{Workers: 1}, q, copies, hop.start(t))
	for range 5 {
		if got := r.result(t); got.Event != gateway.EventAccepted || got.Number != 1 {
			t.Errorf("got %v, %q", got.Attempt, got.Reply.Reveal())
		}
	}
	r.end(t)
	if hop.dialed() != 5 || len(hop.took()) != 5 {
		t.Errorf("%d connections, %d mails", hop.dialed(), len(hop.took()))
	}
}

// TestRefusedRecipientLeavesACleanConnection: what was refused is reset before the next mail.
func TestRefusedRecipientLeavesACleanConnection(t *testing.T) {
	hop := &scriptedHop{at: stageRcpt, fault: replies5}
	q, copies := newQueue(), fakeCopies{}
	many(q, copies, public, 2)
	r := run(t, Options{Workers: 1}, q, copies, hop.start(t))
	for range 2 {
		if got := r.result(t); got.Event != gateway.EventRejected {
			t.Errorf("got %v", got.Attempt)
		}
	}
	r.end(t)
	if !slices.Contains(hop.heard(), "RSET") || hop.dialed() != 1 {
		t.Errorf("%d connections, said %q", hop.dialed(), hop.heard())
	}
	if n := strings.Count(r.log.String(), "level=ERROR"); n != 2 {
		t.Errorf("%d dead deliveries were logged as errors", n)
	}
}

// TestIdleConnectionEnds: the pool is bounded, forgets what is idle for too long, and keeps nothing once closed.
func TestIdleConnectionEnds(t *testing.T) {
	p, d := newPool(2, 3), destination{domain: "a.test"}
	park := func(d destination) bool {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { _ = theirs.Close() })
		s := &session{raw: ours, conn: ours, text: textproto.NewConn(ours), dest: d, idle: true}
		s.bind(t.Context())
		return p.put(s)
	}
	for i, want := range []bool{true, true, false} {
		if ok := park(d); ok != want {
			t.Errorf("session %d of a destination is kept: %v", i, ok)
		}
	}
	other := destination{domain: "b.test"}
	for i, want := range []bool{true, false} {
		if ok := park(other); ok != want {
			t.Errorf("session %d of another destination is kept: %v", i, ok)
		}
	}
	old := p.take(other)
	if old == nil || p.take(other) != nil {
		t.Fatal("a session is taken once")
	}
	p.idle[d][0].parked = time.Now().Add(-idleLimit)
	if gone := p.expired(time.Now().Add(-idleLimit)); len(gone) != 1 || p.count != 1 {
		t.Errorf("%d sessions expired, %d are left", len(gone), p.count)
	}
	p.idle[d][0].idle = false // no QUIT: nobody answers
	p.close()
	if park(d) || p.count != 0 {
		t.Error("a session is kept after the end")
	}
}

func TestWornConnectionIsNotKept(t *testing.T) {
	p := newPool(2, 3)
	for name, s := range map[string]*session{
		"in a transaction":   {},
		"worn":               {idle: true, mails: mailsLimit, stop: func() bool { return true }},
		"cut with its owner": {idle: true, stop: func() bool { return false }},
	} {
		if p.put(s) {
			t.Errorf("%s: kept", name)
		}
	}
}
