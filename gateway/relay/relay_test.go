package relay

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealpost/gateway"
	"sealpost/sfclient/sftest"
)

// TestBacksOffUntilAccepted: what is deferred is tried again when it is due, and delivered once.
func TestBacksOffUntilAccepted(t *testing.T) {
	org, err := sftest.Start(t.Context(), sftest.Options{FailFirst: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = org.Close() }()
	registry := prometheus.NewRegistry()
	d := newDelivery(1, len(smallMail))
	q := newQueue(d)
	opts := Options{Workers: 1, Metrics: registry, Rand: func() float64 { return 0.5 }}
	r := run(t, opts, q, fakeCopies{d.Mail: text(smallMail)}, hopOf(org.Addr()))
	for i := range 3 {
		got := r.result(t)
		now, _ := q.Now(t.Context())
		if got.Event != gateway.EventDeferred || got.Number != i+1 || got.Code != 451 || got.next.Sub(now) != DefaultSchedule().Delays[i] {
			t.Errorf("attempt %d: %v, next after %v", i+1, got.Attempt, got.next.Sub(now))
		}
		q.moveTo(got.next)
		r.wake <- struct{}{}
	}
	if got := r.result(t); got.state != gateway.Sent || got.Number != 4 {
		t.Errorf("got %v", got.Attempt)
	}
	r.end(t)
	if n := len(org.Mails()); n != 1 {
		t.Errorf("%d mails arrived", n)
	}
	want := map[string]float64{"deferred": 3, "accepted": 1, "sent": 1, "new": 1, "reused": 3, "": 4 * float64(len(smallMail))}
	for label, value := range counters(t, registry) {
		if value != want[label] && label != "lost" {
			t.Errorf("counter %q is %v, want %v", label, value, want[label])
		}
	}
}

// counters returns the relay's counters by their label.
func counters(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			label := ""
			if len(m.GetLabel()) > 0 {
				label = m.GetLabel()[0].GetValue()
			}
			if strings.Contains(f.GetName(), "leases_lost") {
				label = "lost"
			}
			values[label] = m.GetCounter().GetValue()
		}
	}
	return values
}

func TestGivesUpAfterFiveDays(t *testing.T) {
	hop := &scriptedHop{at: stageRcpt, fault: replies4}
	d := newDelivery(1, len(smallMail))
	q := newQueue()
	d.Since = q.clock.Add(-5 * 24 * time.Hour)
	q.waiting = append(q.waiting, d)
	got := run(t, Options{}, q, fakeCopies{d.Mail: text(smallMail)}, hop.start(t)).result(t)
	if got.Event != gateway.EventGaveUp || got.state != gateway.Dead || got.Code != 450 {
		t.Errorf("got %v, %s", got.Attempt, got.state)
	}
}

// TestLostReplyIsSentAgain: a mail whose 250 was lost may arrive twice, but is not lost.
func TestLostReplyIsSentAgain(t *testing.T) {
	org, err := sftest.Start(t.Context(), sftest.Options{DropAfterData: 1, Mode: sftest.Digest})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = org.Close() }()
	d := newDelivery(1, len(smallMail))
	q := newQueue(d)
	r := run(t, Options{}, q, fakeCopies{d.Mail: text(smallMail)}, hopOf(org.Addr()))
	first := r.result(t)
	q.moveTo(first.next)
	r.wake <- struct{}{}
	if second := r.result(t); first.Event != gateway.EventDeferred || second.Event != gateway.EventAccepted {
		t.Errorf("got %s, then %s", first.Event, second.Event)
	}
	if n := len(org.Mails()); n != 2 {
		t.Errorf("%d copies arrived, want 2", n)
	}
}

// TestLostLeaseBreaksOff: who lost the lease sends no more and records nothing.
func TestLostLeaseBreaksOff(t *testing.T) {
	hop := &scriptedHop{at: stageRcpt, fault: hangs}
	d := newDelivery(1, len(smallMail))
	q := newQueue(d)
	q.lose = true
	registry := prometheus.NewRegistry()
	r := run(t, Options{LeaseTTL: 60 * time.Millisecond, Workers: 1, Metrics: registry}, q,
		fakeCopies{d.Mail: text(smallMail)}, hop.start(t))
	// The only worker is free again when the next delivery is taken.
	q.mu.Lock()
	next := newDelivery(2, 1)
	next.Route = "gone@example.com"
	q.waiting = append(q.waiting, next)
	q.mu.Unlock()
	if got := r.result(t); got.delivery != next.ID {
		t.Errorf("delivery %s was recorded", got.delivery)
	}
	r.end(t)
	if counters(t, registry)["lost"] != 1 || len(hop.took()) != 0 {
		t.Errorf("counted %v, %d mails taken", counters(t, registry), len(hop.took()))
	}
}

func TestLongAttemptKeepsItsLease(t *testing.T) {
	hop := &scriptedHop{}
	gate := make(chan struct{})
	d := newDelivery(1, len(smallMail))
	q := newQueue(d)
	slow := func() (io.ReadCloser, error) {
		<-gate
		return text(smallMail)()
	}
	r := run(t, Options{LeaseTTL: 300 * time.Millisecond}, q, fakeCopies{d.Mail: slow}, hop.start(t))
	for range 5 {
		<-q.renewed
	}
	close(gate)
	if got := r.result(t); got.Event != gateway.EventAccepted {
		t.Errorf("got %v", got.Attempt)
	}
}

// TestUnrecordedAcceptIsNotSentTwice: a queue that is away for a moment does not make a second copy.
func TestUnrecordedAcceptIsNotSentTwice(t *testing.T) {
	hop := &scriptedHop{}
	d := newDelivery(1, len(smallMail))
	q := newQueue(d)
	q.failures = 2
	got := run(t, Options{}, q, fakeCopies{d.Mail: text(smallMail)}, hop.start(t)).result(t)
	if got.Event != gateway.EventAccepted || len(hop.took()) != 1 {
		t.Errorf("got %s, %d copies", got.Event, len(hop.took()))
	}
}

func TestShutdownLetsAttemptsFinish(t *testing.T) {
	hop := &scriptedHop{}
	opened, gate := make(chan struct{}), make(chan struct{})
	d := newDelivery(1, len(smallMail))
	q := newQueue(d)
	slow := func() (io.ReadCloser, error) {
		close(opened)
		<-gate
		return text(smallMail)()
	}
	r := run(t, Options{Grace: time.Hour}, q, fakeCopies{d.Mail: slow}, hop.start(t))
	<-opened
	r.stop()
	q.mu.Lock()
	q.waiting = append(q.waiting, newDelivery(2, 1)) // too late
	q.mu.Unlock()
	close(gate)
	r.end(t)
	if got := r.result(t); got.Event != gateway.EventAccepted || len(hop.took()) != 1 {
		t.Errorf("got %s, %d mails", got.Event, len(hop.took()))
	}
	if len(q.done) != 0 {
		t.Error("something was leased after the end")
	}
}

func TestShutdownCutsAfterTheGraceTime(t *testing.T) {
	hop := &scriptedHop{at: stageMail, fault: hangs}
	d := newDelivery(1, len(smallMail))
	q := newQueue(d)
	opened := make(chan struct{})
	open := func() (io.ReadCloser, error) {
		close(opened)
		return text(smallMail)()
	}
	r := run(t, Options{Grace: 50 * time.Millisecond}, q, fakeCopies{d.Mail: open}, hop.start(t))
	<-opened
	r.end(t)
	got := r.result(t)
	now, _ := q.Now(t.Context())
	if got.Event != gateway.EventDeferred || !got.next.Equal(now) || len(hop.took()) != 0 {
		t.Errorf("got %v, due again %v", got.Attempt, got.next)
	}
}

func TestTarpitIsCutByTheTotal(t *testing.T) {
	hop := &scriptedHop{at: stageHello, fault: drips}
	got := attemptOnce(t, Options{Timeouts: Timeouts{Total: 100 * time.Millisecond}}, smallMail, hop.start(t))
	if got.Event != gateway.EventDeferred || !strings.Contains(got.Reply.Reveal(), errTooLong.Error()) {
		t.Errorf("got %s, %q", got.Event, got.Reply.Reveal())
	}
}

// TestLeasesNoMoreThanFreeWorkers: nothing waits leased, and all is delivered.
func TestLeasesNoMoreThanFreeWorkers(t *testing.T) {
	org, err := sftest.Start(t.Context(), sftest.Options{Mode: sftest.Sink})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = org.Close() }()
	const mails, workers = 40, 3
	q, copies := newQueue(), fakeCopies{}
	for i := range mails {
		d := newDelivery(byte(i), len(smallMail))
		q.waiting = append(q.waiting, d)
		copies[d.Mail] = text(smallMail)
	}
	r := run(t, Options{Workers: workers}, q, copies, hopOf(org.Addr()))
	for range mails {
		if got := r.result(t); got.Event != gateway.EventAccepted {
			t.Errorf("got %v", got.Attempt)
		}
	}
	if _, err := org.Wait(context.Background(), mails); err != nil {
		t.Error(err)
	}
	r.end(t)
	for _, limit := range q.limits {
		if limit < 1 || limit > workers {
			t.Errorf("%d were asked for with %d workers", limit, workers)
		}
	}
}

func TestClosedWakeDoesNotSpin(t *testing.T) {
	wake := make(chan struct{})
	close(wake)
	var closedWake <-chan struct{} = wake
	ctx, cancel := context.WithCancel(t.Context())
	finished := make(chan struct{}, 1)
	finished <- struct{}{}
	time.AfterFunc(10*time.Millisecond, cancel)
	if freed := wait(ctx, &closedWake, time.Hour, finished, false); freed != 1 || closedWake != nil {
		t.Errorf("freed %d, wake %v", freed, closedWake)
	}
}
