package relay

import (
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"sealpost/gateway"
)

// TestAcceptedDuringALongOutageIsNotSentTwice: what the next hop took while the queue was away for longer than the lease
// lasts is recorded once the queue is back.
func TestAcceptedDuringALongOutageIsNotSentTwice(t *testing.T) {
	hop := &scriptedHop{}
	gate := make(chan struct{})
	hop.hold = gate
	d := newDelivery(1, len(smallMail))
	q := newQueue(d)
	r := run(t, Options{LeaseTTL: 300 * time.Millisecond}, q, fakeCopies{d.Mail: text(smallMail)}, hop.start(t))
	<-q.renewed // the attempt runs
	q.mu.Lock()
	q.away, q.failures = true, 5 // 0.75 s
	q.mu.Unlock()
	close(gate)
	got := r.result(t)
	r.end(t)
	if got.Event != gateway.EventAccepted || len(hop.took()) != 1 {
		t.Errorf("got %s, %d copies", got.Event, len(hop.took()))
	}
}

// TestSilentQueueIsAskedAgain: a connection to the database on which no answer comes does not use up the time there is.
func TestSilentQueueIsAskedAgain(t *testing.T) {
	hop := &scriptedHop{}
	d := newDelivery(1, len(smallMail))
	q := newQueue(d)
	q.silent = 2
	r := run(t, Options{QueueTimeout: 20 * time.Millisecond}, q, fakeCopies{d.Mail: text(smallMail)}, hop.start(t))
	if got := r.result(t); got.Event != gateway.EventAccepted || len(hop.took()) != 1 {
		t.Errorf("got %s, %d copies", got.Event, len(hop.took()))
	}
}

// TestQueueTimeout: each try has ten seconds unless somebody says otherwise.
func TestQueueTimeout(t *testing.T) {
	if got := withDefaults(Options{}).QueueTimeout; got != 10*time.Second {
		t.Error(got)
	}
}

// TestCutAttemptIsRecordedInSpiteOfTheQueue: an attempt that the end of the grace time cut is still recorded when the queue
// fails at first.
func TestCutAttemptIsRecordedInSpiteOfTheQueue(t *testing.T) {
	hop := &scriptedHop{at: stageMail, fault: hangs}
	d := newDelivery(1, len(smallMail))
	q := newQueue(d)
	q.failures = 3
	opened := make(chan struct{})
	open := func() (io.ReadCloser, error) {
		close(opened)
		return text(smallMail)()
	}
	r := run(t, Options{Grace: 20 * time.Millisecond}, q, fakeCopies{d.Mail: open}, hop.start(t))
	<-opened
	r.end(t)
	if got := r.result(t); got.Event != gateway.EventDeferred || got.state != gateway.Pending {
		t.Errorf("got %v, %s", got.Attempt, got.state)
	}
}

// TestTakenDeliveryIsLeftAlone: what another has taken meanwhile is not recorded, and the trying ends.
func TestTakenDeliveryIsLeftAlone(t *testing.T) {
	hop := &scriptedHop{}
	d := newDelivery(1, len(smallMail))
	opened, gate := make(chan struct{}), make(chan struct{})
	hop.hold = gate
	q := newQueue(d)
	open := func() (io.ReadCloser, error) {
		close(opened)
		return text(smallMail)()
	}
	r := run(t, Options{}, q, fakeCopies{d.Mail: open}, hop.start(t))
	<-opened
	q.mu.Lock()
	taken := q.leased[d.ID]
	taken.Lease.Fence++
	q.leased[d.ID] = taken
	q.mu.Unlock()
	close(gate)
	r.end(t)
	if len(q.done) != 0 || len(hop.took()) != 1 {
		t.Errorf("%d attempts were recorded, %d copies", len(q.done), len(hop.took()))
	}
}

// newDispatcher makes one that starts nothing, with a queue that is looked at once an hour.
func newDispatcher(q *fakeQueue) *dispatcher {
	opts := Options{Workers: 1, Look: time.Hour, Logger: slog.New(slog.DiscardHandler)}
	return &dispatcher{Relay: New(opts, q, fakeCopies{}), start: func(gateway.LeasedDelivery, lane) {}}
}

// TestQueueErrorIsAskedAgainSoon: after an error the next look does not wait until it would be due without.
func TestQueueErrorIsAskedAgainSoon(t *testing.T) {
	seconds := []time.Duration{1, 2, 4, 5, 5}
	for name, fail := range map[string]func(*fakeQueue){
		"what is due": func(q *fakeQueue) { q.away = true },
		"leasing":     func(q *fakeQueue) { q.failing = public },
	} {
		t.Run(name, func(t *testing.T) {
			q := newQueue(newDelivery(1, 1))
			fail(q)
			d := newDispatcher(q)
			for i, want := range seconds {
				if pause, blocked := d.round(t.Context()); pause != want*time.Second || blocked {
					t.Errorf("round %d: %v, %v", i, pause, blocked)
				}
			}
			q.away, q.failing = false, ""
			if _, blocked := d.round(t.Context()); !blocked || d.troubles != 0 {
				t.Error("what is due was not leased when the queue was back")
			}
			q.away = true
			if pause, _ := d.round(t.Context()); pause != time.Second {
				t.Errorf("the next trouble begins with a pause of %v", pause)
			}
		})
	}
}

// TestErrorBesideDeliveries: an error that tells of others does not hide that all slots are taken.
func TestErrorBesideDeliveries(t *testing.T) {
	q := newQueue(newDelivery(1, 1), newDelivery(2, 1))
	q.beside = errAway
	if _, blocked := newDispatcher(q).round(t.Context()); !blocked || len(q.leased) != 1 {
		t.Errorf("%d are leased, blocked: %v", len(q.leased), blocked)
	}
}

// TestManyReturnDomainsForgetNoHop: who writes to us chooses the domains of senders, but not what is forgotten.
func TestManyReturnDomainsForgetNoHop(t *testing.T) {
	s := newSlots(20, 1000)
	ours, busy := lane{destination: destination{domain: "ours.test"}}, lane{destination{domain: "busy.test"}, true}
	known := lane{destination{domain: "known.test"}, true}
	take := func(l lane, f feedback) {
		t.Helper()
		if s.reserve(l, 2) == 0 {
			t.Fatalf("%v has no slot", l)
		}
		s.done(l, f)
	}
	take(ours, unreachable)
	s.reserve(busy, 2)
	for i := range 3 * maxHops {
		take(lane{destination{domain: fmt.Sprint(i)}, true}, good)
		take(known, unreachable)
	}
	for l, want := range map[lane]hop{ours: {limit: 1}, busy: {active: 1, limit: firstLimit}, known: {limit: 1}} {
		if h := s.hops[l.destination]; h == nil || h.active != want.active || h.limit != want.limit {
			t.Errorf("%v: %+v", l, h)
		}
	}
	if n := len(s.hops); n > maxHops {
		t.Errorf("%d destinations are remembered", n)
	}
	if s.hops[destination{domain: fmt.Sprint(3*maxHops - 1)}] == nil {
		t.Error("the last one is forgotten")
	}
}

// TestManyHopsAreBounded: of the admin's own the least recently used goes, one at a time.
func TestManyHopsAreBounded(t *testing.T) {
	s := newSlots(20, 1000)
	for i := range maxHops + 2 {
		s.get(lane{destination: destination{domain: fmt.Sprint(i)}})
	}
	if len(s.hops) != maxHops || s.hops[destination{domain: "1"}] != nil || s.hops[destination{domain: "2"}] == nil {
		t.Errorf("%d are remembered", len(s.hops))
	}
}
