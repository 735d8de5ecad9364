// Package relay carries committed mails to their next hops: it leases due deliveries from the queue,
// attempts each over SMTP (RFC 5321), records what came of it, and backs off.
//
// What it decides:
//
//   - A reply of the next hop to MAIL, RCPT, DATA or the final dot judges the mail: 2xx accepts it, 4xx
//     defers it, 5xx rejects it, which makes the delivery dead. Before MAIL it judges us or the hop, and is
//     read as Postfix reads it: a 5xx greeting is deferred (smtp_skip_5xx_greeting), a 5xx to EHLO is tried
//     again as HELO, and a 5xx to that rejects. Whatever fails about TLS is deferred, and so is a 5xx up to MAIL that
//     a hop answers in plaintext because its TLS failed. 530, 534 and 538 ask for TLS or a log-in, and defer always.
//   - Where no reply comes (network, time-out, a reply to the final dot that was lost) the mail is deferred.
//     It may then arrive twice, but never not at all.
//   - For a next hop that lacks 8BITMIME or SMTPUTF8 where the mail needs it, the mail is converted where that
//     is exact, and rejected where it is not, or where the hop's SIZE limit is below its size.
//   - A copy that fails to open, ends early or turns out altered is never finished with a dot: the
//     connection is cut, so the next hop discards what it got, and the delivery is deferred.
//   - TLS is by the route: opportunistic (RFC 7435: certificates are not verified, and a hop whose TLS is broken
//     is tried again in plaintext), required (never plaintext, any certificate), or verified. A password is sent
//     under TLS or to loopback only, and one that is refused defers: an admin mends it.
//   - A hop without a host is the MX of the address (RFC 5321 section 5.1). What fails for now at one server
//     goes on to the next within the attempt; a 5xx about the mail, or the loss of the reply to the final dot,
//     ends it. A domain without mail servers rejects what goes back to a sender, and defers what an admin routed.
//   - Concurrency is by destination: a hop, and the domain when found by MX. It grows with success, halves when
//     the hop refuses us, and is one after it could not be reached. A destination may hold as many workers as it
//     leaves to the others, so that slow ones leave room for the rest. What goes back to senders is leased by its
//     domain, so that one domain does not hold up the others there either; all of it together may hold a quarter of
//     the workers, since outsiders choose the domains.
//   - What goes back to senders never leads into our own network: only public addresses count, unless an admin named
//     the server. Its server is not recorded.
//   - A mail goes to where its route leads by now. One whose sender cannot be rewritten goes out with it as it is.
//   - Of several servers that fail, the last that replied is recorded, else the last.
//   - A session is kept for the next mail for a while. One that is found dead, or refuses for good, before MAIL was
//     accepted is replaced by a new one within the attempt; what that one says counts.
//   - Notices to senders (RFC 3461) are committed with the attempt that causes them. NOTIFY=SUCCESS is passed on
//     only when the return path is ours: the next hop's report would name forward_to to an outsider.
//   - A deferred delivery is given up once five days have passed since it was made, or since an admin last
//     retried it. The last attempt falls on that moment. The delays begin anew then, too.
//   - While an attempt runs and is recorded its lease is renewed. Who loses the lease breaks off and records nothing.
//     What the next hop answered is recorded nevertheless if the queue was away and nobody has taken the delivery: it is
//     tried until the queue is back, ten minutes at most, or ten seconds after the grace time of a shutdown.
//   - A queue that fails is asked again after 1 to 5 seconds, however long the pause between two looks is.
//
// The dialogue is spoken on net/textproto. Neither client library serves: emersion/go-smtp can only reach
// STARTTLS by greeting as "localhost" first, net/smtp replaces the reply to EHLO by that to HELO, and both
// take EHLO keywords in upper case only and bound neither the size of a reply nor the time of a write.
//
// Replies are recorded scrubbed of forward_to and of what logs us in, and are never logged: only their codes are. Of a
// delivery back to a sender not even the server is logged, which may give the correspondent away. Senders are told
// replies from MAIL on; what a hop says before is about us.
package relay

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealpost/gateway"
)

// Queue is where deliveries wait. Its clock rules: all times are by Now.
type Queue interface {
	// Due tells of each lane with waiting deliveries when the first of them is due.
	Due(ctx context.Context) ([]gateway.Due, error)
	// LeaseDeliveries takes up to limit due deliveries of a lane for owner, the longest due first. An error may come
	// beside deliveries, which are leased all the same: it tells of others.
	LeaseDeliveries(ctx context.Context, owner, lane string, limit int, ttl time.Duration) ([]gateway.LeasedDelivery, error)
	// RenewLease prolongs a lease, or fails with CodeConflict when it was lost.
	RenewLease(ctx context.Context, lease gateway.Lease, ttl time.Duration) (gateway.Lease, error)
	// FinishAttempt records an attempt, with the notice that it causes, and ends its lease, or fails with
	// CodeConflict when that was lost.
	FinishAttempt(ctx context.Context, lease gateway.Lease, result gateway.AttemptResult) error
	// QueueKey returns the key of now's day, under which a notice waits.
	QueueKey(ctx context.Context, now time.Time) (gateway.QueueKey, error)
	Now(ctx context.Context) (time.Time, error)
}

// Copies opens the encrypted copies of waiting mails, and makes those of notices.
type Copies interface {
	// Open streams the plaintext mail. A copy that was altered or cut ends in an error before io.EOF.
	// The caller closes the reader.
	Open(ctx context.Context, mail gateway.QueuedMail) (io.ReadCloser, error)
	// Seal encrypts what write writes.
	Seal(ctx context.Context, id gateway.PackageID, started time.Time, key gateway.QueueKey, mailFrom string,
		write func(io.Writer) error) (gateway.QueuedMail, error)
}

// Reporter writes a notice as a mail (RFC 3464).
type Reporter interface {
	Write(w io.Writer, r gateway.Report) error
}

// Downgrade reads a mail through open, and returns how it is written for a hop that lacks 8BITMIME (eightBit) or
// SMTPUTF8 (utf8), or fails when that cannot be exact. write opens the mail anew.
type Downgrade func(open func() (io.ReadCloser, error), eightBit, utf8 bool) (write func(io.Writer) error, err error)

// Options are a relay's settings. Zero values take the defaults that are named.
type Options struct {
	// Hostname is our name in EHLO.
	Hostname string
	// Owner names this process in its leases; no two running relays may share one.
	Owner string
	// Workers is the number of attempts at a time; 100.
	Workers int
	// HopConnections is the largest number of attempts at a time to one destination; 20.
	HopConnections int
	// Resolver finds mail servers; net.DefaultResolver.
	Resolver Resolver
	// ReturnPath rewrites a sender's address for the next hop (SRS); nil: it stays as it is.
	ReturnPath func(mailFrom string) (string, error)
	// ReturnHop takes what goes back to senders; without a Host, the MX of the sender's domain does.
	ReturnHop gateway.NextHop
	// AllowPrivateReturns lets what goes back to senders reach private and loopback addresses that DNS, or the
	// sender's address itself, names; for tests.
	AllowPrivateReturns bool
	// Reporter writes the notices to senders; nil: there are none.
	Reporter Reporter
	// DelayAfter is the age of a mail at which its sender is told of a delay; 0: never.
	DelayAfter time.Duration
	// Downgrade converts a mail for a hop that lacks 8BITMIME or SMTPUTF8; nil: such a mail is rejected.
	Downgrade Downgrade
	// DowngradeAddress writes an address in ASCII, or returns false; nil: none can be.
	DowngradeAddress func(address string) (string, bool)
	// LeaseTTL is how long a delivery stays ours without a sign of life; 2 minutes.
	LeaseTTL time.Duration
	// QueueTimeout bounds each try to renew a lease or to record an attempt; 10 s.
	QueueTimeout time.Duration
	// Schedule says when a deferred delivery is due again; DefaultSchedule.
	Schedule Schedule
	// AwaitCase tells whether the queue is to keep the copy of a route's mail after delivery, until its Case is
	// found; nil: of none. What goes back to senders never becomes a Case.
	AwaitCase func(route string) bool
	// Route finds the current route of a public address.
	Route func(address string) (gateway.Route, bool)
	// TLS is what STARTTLS starts from. TLS 1.2 up.
	TLS *tls.Config
	// Roots are trusted where a route wants TLS verified; nil: those of TLS, or else the system's.
	Roots *x509.CertPool
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

// Relay delivers what is due. Only connections and what it learnt of hops are its own: all else is in the queue.
type Relay struct {
	opts    Options
	queue   Queue
	copies  Copies
	log     *slog.Logger
	metrics *metrics
	slots   *slots
	pool    *pool
	headed  headed
}

// New makes a relay; Run starts it.
func New(opts Options, queue Queue, copies Copies) *Relay {
	opts = withDefaults(opts)
	return &Relay{
		opts: opts, queue: queue, copies: copies, log: opts.Logger, metrics: newMetrics(opts.Metrics),
		slots: newSlots(opts.HopConnections, opts.Workers), pool: newPool(opts.HopConnections, opts.Workers),
	}
}

// Run delivers until ctx ends. It then leases nothing more, lets the running attempts finish within the
// grace time, cuts those that do not (they are deferred), and returns nil when all have ended. A queue that
// fails is logged and asked again.
func (r *Relay) Run(ctx context.Context) error {
	work, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	var workers, reaper sync.WaitGroup
	finished := make(chan struct{}, r.opts.Workers)
	start := func(d gateway.LeasedDelivery, l lane) {
		workers.Go(func() {
			r.slots.done(l, r.deliver(work, d, l))
			finished <- struct{}{}
		})
	}
	idle, stop := context.WithCancel(work)
	reaper.Go(func() { r.pool.reap(idle) })
	(&dispatcher{Relay: r, start: start, finished: finished}).run(ctx)

	grace := time.AfterFunc(r.opts.Grace, func() { cut(errShutdown) })
	defer grace.Stop()
	workers.Wait()
	stop()
	reaper.Wait()
	r.pool.close()
	return nil
}

func withDefaults(o Options) Options {
	o.Workers = max(cmp.Or(o.Workers, 100), 1)
	o.HopConnections = max(cmp.Or(o.HopConnections, 20), 1)
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	o.LeaseTTL = cmp.Or(o.LeaseTTL, 2*time.Minute)
	o.QueueTimeout = cmp.Or(o.QueueTimeout, 10*time.Second)
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
	if o.Roots != nil {
		o.TLS = o.TLS.Clone()
		o.TLS.RootCAs = o.Roots
	}
	if o.AwaitCase == nil {
		o.AwaitCase = func(string) bool { return false }
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
