// Package relay carries committed mails to their next hops: it leases due deliveries from the queue,
// attempts each over SMTP (RFC 5321), records what came of it, and backs off.
//
// What it decides:
//
//   - A reply of the next hop to MAIL, RCPT, DATA or the final dot judges the mail: 2xx accepts it, 4xx
//     defers it, 5xx rejects it, which makes the delivery dead. Before MAIL it judges us or the hop, and is
//     read as Postfix reads it: a 5xx greeting is deferred (smtp_skip_5xx_greeting), a 5xx to EHLO is tried
//     again as HELO, and a 5xx to that rejects. Whatever fails about TLS is deferred.
//   - Where no reply comes (network, time-out, a reply to the final dot that was lost) the mail is deferred.
//     It may then arrive twice, but never not at all.
//   - A mail is sent unchanged or not at all: a next hop that lacks 8BITMIME or SMTPUTF8 where the mail
//     needs it, or whose SIZE limit is below the mail's size, rejects it.
//   - A copy that fails to open, ends early or turns out altered is never finished with a dot: the
//     connection is cut, so the next hop discards what it got, and the delivery is deferred.
//   - TLS is opportunistic (RFC 7435) unless the route requires it: certificates are not verified, and a hop
//     whose TLS is broken is tried again in plaintext. With RequireTLS the certificate is verified.
//   - A deferred delivery is given up once five days have passed since it was made, or since an admin last
//     retried it. The last attempt falls on that moment.
//   - While an attempt runs its lease is renewed. Who loses the lease breaks off and records nothing.
//
// The dialogue is spoken on net/textproto. Neither client library serves: emersion/go-smtp can only reach
// STARTTLS by greeting as "localhost" first, net/smtp replaces the reply to EHLO by that to HELO, and both
// take EHLO keywords in upper case only and bound neither the size of a reply nor the time of a write.
//
// Replies are recorded scrubbed of forward_to, and are never logged: only their codes are.
package relay

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"sealpost/gateway"
)

// Queue is where deliveries wait. Its clock rules: all times but an attempt's own are by Now.
type Queue interface {
	// LeaseDeliveries takes up to limit due deliveries for owner, the longest due first.
	LeaseDeliveries(ctx context.Context, owner string, limit int, ttl time.Duration) ([]gateway.LeasedDelivery, error)
	// RenewLease prolongs a lease, or fails with CodeConflict when it was lost.
	RenewLease(ctx context.Context, lease gateway.Lease, ttl time.Duration) (gateway.Lease, error)
	// FinishAttempt records an attempt and ends its lease, or fails with CodeConflict when that was lost.
	// next is when a deferred delivery is due again.
	FinishAttempt(ctx context.Context, lease gateway.Lease, attempt gateway.Attempt, next time.Time, awaitCase bool) error
	// NextDue tells when there will be something to lease; false if nothing waits.
	NextDue(ctx context.Context) (time.Time, bool, error)
	Now(ctx context.Context) (time.Time, error)
}

// Copies opens the encrypted copies of waiting mails.
type Copies interface {
	// Open streams the plaintext mail. A copy that was altered or cut ends in an error before io.EOF.
	// The caller closes the reader.
	Open(ctx context.Context, mail gateway.QueuedMail) (io.ReadCloser, error)
}

// Options are a relay's settings. Zero values take the defaults that are named.
type Options struct {
	// Hostname is our name in EHLO.
	Hostname string
	// Owner names this process in its leases; no two running relays may share one.
	Owner string
	// Workers is the number of attempts at a time; 10.
	Workers int
	// LeaseTTL is how long a delivery stays ours without a sign of life; 2 minutes.
	LeaseTTL time.Duration
	// Schedule says when a deferred delivery is due again; DefaultSchedule.
	Schedule Schedule
	// AwaitCase tells the queue to keep a mail's copy after delivery, until its Case is found.
	AwaitCase bool
	// Route finds the current route of a public address.
	Route func(address string) (gateway.Route, bool)
	// TLS is what STARTTLS starts from: versions and, where the route requires TLS, roots. TLS 1.2 up.
	TLS *tls.Config
	// Timeouts bound each stage of an attempt.
	Timeouts Timeouts
	// Grace is how long running attempts may go on after Run's context has ended; 30 s.
	Grace time.Duration
	// Look is the longest time between two looks into the queue; 5 s.
	Look time.Duration
	// Wake signals that something may have become due. It may be nil.
	Wake <-chan struct{}
	// Logger may be nil.
	Logger *slog.Logger
	// Metrics may be nil: then nothing is registered.
	Metrics prometheus.Registerer
	// Rand returns a number in [0,1) for the jitter; math/rand.
	Rand func() float64
	// Clock is the local clock; time.Now.
	Clock func() time.Time
}

// minPause keeps a queue that calls something due, but leases nothing, from being asked in a tight loop.
const minPause = 100 * time.Millisecond

// errShutdown is why an attempt was cut after the grace time.
var errShutdown = errors.New("the gateway is shutting down")

// Relay delivers what is due. It has no state of its own: everything is in the queue.
type Relay struct {
	opts    Options
	queue   Queue
	copies  Copies
	log     *slog.Logger
	metrics *metrics
}

// New makes a relay; Run starts it.
func New(opts Options, queue Queue, copies Copies) *Relay {
	opts = withDefaults(opts)
	return &Relay{opts: opts, queue: queue, copies: copies, log: opts.Logger, metrics: newMetrics(opts.Metrics)}
}

// Run delivers until ctx ends. It then leases nothing more, lets the running attempts finish within the
// grace time, cuts those that do not (they are deferred), and returns nil when all have ended. A queue that
// fails is logged and asked again.
func (r *Relay) Run(ctx context.Context) error {
	work, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	var workers errgroup.Group
	finished := make(chan struct{}, r.opts.Workers)
	start := func(d gateway.LeasedDelivery) {
		workers.Go(func() error {
			r.deliver(work, d)
			finished <- struct{}{}
			return nil
		})
	}
	r.dispatch(ctx, start, finished)

	grace := time.AfterFunc(r.opts.Grace, func() { cut(errShutdown) })
	defer grace.Stop()
	return workers.Wait()
}

// dispatch leases deliveries and starts them, as many at a time as there are workers, until ctx ends.
// Each started delivery sends to finished when it is done.
func (r *Relay) dispatch(ctx context.Context, start func(gateway.LeasedDelivery), finished <-chan struct{}) {
	busy, wake := 0, r.opts.Wake
	for ctx.Err() == nil {
		free := r.opts.Workers - busy
		leased, err := r.queue.LeaseDeliveries(ctx, r.opts.Owner, free, r.opts.LeaseTTL)
		if err != nil && ctx.Err() == nil {
			r.log.Error("deliveries cannot be leased", "error", err)
		}
		for _, d := range leased {
			start(d)
		}
		busy += len(leased)
		pause := r.opts.Look
		if err == nil && busy < r.opts.Workers {
			pause = r.untilDue(ctx)
		}
		busy -= wait(ctx, &wake, pause, finished, busy == r.opts.Workers)
	}
}

// wait returns when ctx has ended, or when it is time to lease again: after a wake-up or the pause, and if
// the workers were all busy, when one of them is free. It returns how many have become free.
func wait(ctx context.Context, wake *<-chan struct{}, pause time.Duration, finished <-chan struct{}, allBusy bool) int {
	freed := 0
	if allBusy {
		select {
		case <-ctx.Done():
			return 0
		case <-finished:
			return 1 + drain(finished)
		}
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return freed
		case <-timer.C:
			return freed + drain(finished)
		case _, open := <-*wake:
			if open {
				return freed + drain(finished)
			}
			*wake = nil
		case <-finished:
			freed++
		}
	}
}

func drain(finished <-chan struct{}) int {
	for n := 0; ; n++ {
		select {
		case <-finished:
		default:
			return n
		}
	}
}

// untilDue returns how long nothing will be due, as far as the queue knows.
func (r *Relay) untilDue(ctx context.Context) time.Duration {
	due, waiting, err := r.queue.NextDue(ctx)
	if err == nil && !waiting {
		return r.opts.Look
	}
	var now time.Time
	if err == nil {
		now, err = r.queue.Now(ctx)
	}
	if err != nil {
		if ctx.Err() == nil {
			r.log.Error("the queue's next time cannot be read", "error", err)
		}
		return r.opts.Look
	}
	return min(max(due.Sub(now), minPause), r.opts.Look)
}

func withDefaults(o Options) Options {
	o.Workers = max(cmp.Or(o.Workers, 10), 1)
	o.LeaseTTL = cmp.Or(o.LeaseTTL, 2*time.Minute)
	o.Grace = cmp.Or(o.Grace, 30*time.Second)
	o.Look = cmp.Or(o.Look, 5*time.Second)
	o.Hostname = cmp.Or(o.Hostname, "localhost")
	o.Owner = cmp.Or(o.Owner, o.Hostname)
	o.Timeouts = o.Timeouts.withDefaults()
	if len(o.Schedule.Delays) == 0 {
		o.Schedule = DefaultSchedule()
	}
	if o.Route == nil {
		o.Route = func(string) (gateway.Route, bool) { return gateway.Route{}, false }
	}
	if o.TLS == nil {
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return o
}
