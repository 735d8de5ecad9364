package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sealpost/gateway"
)

const (
	public    = "support@example.com"
	forwardTo = "caseinbox@x-1a2b3c.case.salesforce.test"
	sender    = "customer@marker.example"
)

var errAway = gateway.Errorf(gateway.CodeUnavailable, nil, "the database is away")

// finished is one call of FinishAttempt that was accepted.
type finished struct {
	gateway.Attempt
	delivery string
	next     time.Time
	state    gateway.DeliveryState
	notice   *gateway.Notice
	untold   string

	awaitCase bool
}

// fakeQueue is a Queue in memory, with a clock that stands until it is moved.
type fakeQueue struct {
	mu       sync.Mutex
	clock    time.Time
	waiting  []gateway.LeasedDelivery
	leased   map[string]gateway.LeasedDelivery
	fence    int64
	limits   []int // of each LeaseDeliveries
	done     chan finished
	renewed  chan struct{} // one for each renewal, as far as there is room
	lose     bool          // renewals fail with CodeConflict
	failing  string        // the lane that cannot be leased
	away     bool          // Due and renewals fail as if the database were away
	beside   error         // comes beside what is leased
	failures int           // so many FinishAttempt fail as if the database were away
	silent   int           // so many never answer
	unheard  int           // so many take effect and fail nevertheless, as if the database had gone away after them
}

func newQueue(deliveries ...gateway.LeasedDelivery) *fakeQueue {
	return &fakeQueue{
		clock:   time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		waiting: deliveries,
		leased:  map[string]gateway.LeasedDelivery{},
		done:    make(chan finished, 1000),
		renewed: make(chan struct{}, 1),
	}
}

func (q *fakeQueue) LeaseDeliveries(_ context.Context, owner, lane string, limit int, ttl time.Duration) ([]gateway.LeasedDelivery, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if lane == q.failing {
		return nil, errAway
	}
	q.limits = append(q.limits, limit)
	var taken []gateway.LeasedDelivery
	q.waiting = slices.DeleteFunc(q.waiting, func(d gateway.LeasedDelivery) bool {
		if len(taken) == limit || laneOf(d) != lane || d.NextAttempt.After(q.clock) {
			return false
		}
		q.fence++
		d.Attempts++
		d.State = gateway.Sending
		d.Lease = gateway.Lease{Delivery: d.ID, Owner: owner, Fence: q.fence, Until: q.clock.Add(ttl)}
		if d.Since.IsZero() {
			d.Since = q.clock
		}
		q.leased[d.ID] = d
		taken = append(taken, d)
		return true
	})
	return taken, q.beside
}

func (q *fakeQueue) RenewLease(_ context.Context, lease gateway.Lease, ttl time.Duration) (gateway.Lease, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.lose {
		return lease, gateway.Errorf(gateway.CodeConflict, nil, "lost")
	}
	if q.away {
		return lease, errAway
	}
	lease.Until = q.clock.Add(ttl)
	select {
	case q.renewed <- struct{}{}:
	default:
	}
	return lease, nil
}

func (q *fakeQueue) FinishAttempt(ctx context.Context, lease gateway.Lease, result gateway.AttemptResult) error {
	a, next := result.Attempt, result.Next
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failures > 0 {
		q.failures--
		return errAway
	}
	if q.silent > 0 {
		q.silent--
		<-ctx.Done()
		return ctx.Err()
	}
	d, ok := q.leased[lease.Delivery]
	if !ok || d.Lease.Fence != lease.Fence {
		return gateway.Errorf(gateway.CodeConflict, nil, "lost")
	}
	state, err := d.State.Next(a.Event)
	if err != nil {
		return err
	}
	delete(q.leased, d.ID)
	if result.Notice != nil {
		d.Told = result.Notice.Kind
	}
	if d.State = state; state == gateway.Pending {
		d.NextAttempt = next
		q.waiting = append(q.waiting, d)
	}
	q.done <- finished{a, d.ID, next, state, result.Notice, result.Untold, result.AwaitCase}
	if q.unheard > 0 {
		q.unheard--
		return errAway
	}
	return nil
}

func (q *fakeQueue) Due(context.Context) ([]gateway.Due, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.away {
		return nil, errAway
	}
	first := map[string]gateway.Due{}
	for _, d := range q.waiting {
		lane := laneOf(d)
		if known, ok := first[lane]; !ok || d.NextAttempt.Before(known.Next) {
			first[lane] = gateway.Due{Route: d.Route, Lane: lane, Next: d.NextAttempt}
		}
	}
	var due []gateway.Due
	for _, lane := range slices.Sorted(maps.Keys(first)) {
		due = append(due, first[lane])
	}
	return due, nil
}

// laneOf is the lane of a delivery: by its domain where it goes back to a sender.
func laneOf(d gateway.LeasedDelivery) string {
	if d.Route != gateway.ReturnRoute {
		return d.Route
	}
	return d.Route + " " + domainOf(d.ForwardTo)
}

func (q *fakeQueue) QueueKey(_ context.Context, now time.Time) (gateway.QueueKey, error) {
	return gateway.QueueKey{Day: now.Format("20060102"), Key: gateway.NewSecret(strings.Repeat("k", 32))}, nil
}

func (q *fakeQueue) Now(context.Context) (time.Time, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.clock, nil
}

func (q *fakeQueue) moveTo(now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.clock = now
}

// fakeCopies holds mails in the clear.
type fakeCopies map[gateway.PackageID]func() (io.ReadCloser, error)

func (c fakeCopies) Open(_ context.Context, mail gateway.QueuedMail) (io.ReadCloser, error) {
	if open, ok := c[mail.ID]; ok {
		return open()
	}
	return nil, errors.New("no such copy")
}

// Seal keeps what was written in Inline, in the clear.
func (c fakeCopies) Seal(_ context.Context, id gateway.PackageID, _ time.Time, key gateway.QueueKey, from string,
	write func(io.Writer) error) (gateway.QueuedMail, error) {
	var mail bytes.Buffer
	if err := write(&mail); err != nil {
		return gateway.QueuedMail{}, err
	}
	return gateway.QueuedMail{
		ID: id, MailFrom: gateway.NewSecret(from), Key: key, Inline: mail.Bytes(), Size: int64(mail.Len()),
	}, nil
}

func text(s string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
}

// newDelivery makes a delivery of a mail of the given size.
func newDelivery(n byte, size int) gateway.LeasedDelivery {
	var d gateway.LeasedDelivery
	d.ID = fmt.Sprintf("%032x", n)
	d.Mail[0] = n
	d.State, d.Route, d.ForwardTo = gateway.Pending, public, forwardTo
	d.Copy = gateway.QueuedMail{ID: d.Mail, MailFrom: gateway.NewSecret(sender), Size: int64(size)}
	return d
}

// lockedBuffer is a log that can be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// running is a relay under test.
type running struct {
	queue *fakeQueue
	wake  chan struct{}
	log   *lockedBuffer
	stop  context.CancelFunc
	ended chan struct{} // closed when Run has returned err
	err   error
}

// run starts a relay whose public route leads to hop.
func run(t *testing.T, opts Options, queue *fakeQueue, copies Copies, hop gateway.NextHop) *running {
	t.Helper()
	r := &running{queue: queue, wake: make(chan struct{}, 1), log: &lockedBuffer{}, ended: make(chan struct{})}
	opts.Wake = r.wake
	opts.Logger = slog.New(slog.NewTextHandler(r.log, nil))
	opts.Hostname = "mx.example.com"
	if opts.Route == nil {
		opts.Route = func(address string) (gateway.Route, bool) {
			return gateway.Route{Address: public, ForwardTo: forwardTo, NextHop: hop}, address == public
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	relay := New(opts, queue, copies)
	go func() {
		defer close(r.ended)
		r.err = relay.Run(ctx)
	}()
	t.Cleanup(func() { r.end(t) })
	return r
}

// end stops the relay and checks what must hold at the end of every test: it leaves no goroutine of its own
// behind and has logged nothing that is secret.
func (r *running) end(t *testing.T) {
	t.Helper()
	r.stop()
	if <-r.ended; r.err != nil {
		t.Errorf("Run: %v", r.err)
	}
	checkNoGoroutine(t)
	for _, secret := range []string{forwardTo, "caseinbox", sender, "customer", "remote words"} {
		if strings.Contains(r.log.String(), secret) {
			t.Errorf("the log holds %q:\n%s", secret, r.log.String())
		}
	}
}

// result waits for the next recorded attempt.
func (r *running) result(t *testing.T) finished {
	t.Helper()
	var f finished
	select {
	case f = <-r.queue.done:
	case <-r.ended:
		select {
		case f = <-r.queue.done:
		default:
			t.Fatalf("the relay ended without recording an attempt: %v", r.err)
		}
	}
	if strings.Contains(strings.ToLower(f.Reply.Reveal()), forwardTo) {
		t.Errorf("the recorded reply holds forward_to: %q", f.Reply.Reveal())
	}
	return f
}

// attemptOnce delivers one mail of the given text to hop and returns what was recorded.
func attemptOnce(t *testing.T, opts Options, mail string, hop gateway.NextHop) finished {
	t.Helper()
	d := newDelivery(1, len(mail))
	r := run(t, opts, newQueue(d), fakeCopies{d.Mail: text(mail)}, hop)
	defer r.end(t)
	return r.result(t)
}
