// Package intake takes one mail from the spool to the commit after which DATA may be answered with 250.
//
// Accept scans the mail, lets the policy judge its parts, seals what must be sealed into the blob store,
// writes the mail that goes on, and commits all of it in one transaction. A failure before the commit
// removes the objects it can; a crash, or a commit whose outcome is unknown, leaves at most objects that
// nothing refers to. Those, and whatever the database no longer needs, are removed by the Sweeper, which
// is here because it is the other half of that promise. Copies keep a mail that waits for delivery, and
// are read by the relay.
package intake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealpost/crypto"
	"sealpost/gateway"
	"sealpost/gateway/rewrite"
	"sealpost/storage/blob"
)

// Store is what intake needs of the database.
type Store interface {
	// Now is the database's clock.
	Now(ctx context.Context) (time.Time, error)
	// QueueKey returns the key for mails that wait since the day of now.
	QueueKey(ctx context.Context, now time.Time) (gateway.QueueKey, error)
	// CommitMail makes the mail ours, in one transaction. It is not retried, since the sender will try
	// again. After CodeStorageFull nothing is committed; after any other error that may be unknown.
	CommitMail(ctx context.Context, mail gateway.AcceptedMail) error
}

// Options say how mails are taken in.
type Options struct {
	Hostname string
	// PortalURL is what Secure Links begin with.
	PortalURL     string
	ShowFilenames bool
	Limits        rewrite.Limits
	Judge         rewrite.Judge
	Logger        *slog.Logger
	Metrics       prometheus.Registerer
}

// Intake is the way of every mail. Its methods may be called concurrently.
type Intake struct {
	options Options
	sealer  *crypto.Sealer
	blobs   blob.Store
	store   Store
	copies  *Copies
	metrics metrics
}

// New returns an Intake.
func New(options Options, sealer *crypto.Sealer, blobs blob.Store, store Store) *Intake {
	return &Intake{
		options: options, sealer: sealer, blobs: blobs, store: store,
		copies: NewCopies(blobs), metrics: newMetrics(options.Metrics),
	}
}

// Accept takes the mail over. When it returns nil everything is durable and the returned ID names the
// mail; otherwise nothing of it is kept, but for objects that the sweep removes.
func (in *Intake) Accept(ctx context.Context, envelope gateway.Envelope, mail gateway.Spooled) (string, error) {
	began := time.Now()
	t := &transaction{Intake: in, envelope: envelope, id: gateway.NewPackageID()}
	err := t.run(ctx, mail)
	t.metrics.observe(t, err)
	if err != nil {
		return "", fmt.Errorf("take in mail %s: %w", t.id, err)
	}
	t.log(ctx, mail.Size(), time.Since(began))
	return t.id.String(), nil
}

// transaction is the state of one mail on its way in.
type transaction struct {
	*Intake
	envelope gateway.Envelope
	id       gateway.PackageID
	started  time.Time
	routes   []gateway.Route
	plan     *rewrite.Plan
	sealed   *crypto.Sealed // nil when nothing had to be sealed
	stored   recorder
	timings  timings
}

// timings are how long the steps took.
type timings struct{ scan, seal, write, commit time.Duration }

func (t *transaction) run(ctx context.Context, mail gateway.Spooled) error {
	var err error
	if t.started, err = t.store.Now(ctx); err != nil {
		return fmt.Errorf("ask the database's clock: %w", err)
	}
	t.routes = distinct(t.envelope.Recipients)
	t.stored.Store = t.blobs
	accepted, err := t.prepare(ctx, mail)
	if err != nil {
		return errors.Join(err, t.stored.discard(ctx))
	}
	err = t.timed(&t.timings.commit, func() error { return t.store.CommitMail(ctx, accepted) })
	if gateway.ErrorCode(err) == gateway.CodeStorageFull {
		err = errors.Join(err, t.stored.discard(ctx)) // or each new try would take more of what room is left
	}
	return err
}

// prepare does everything up to the commit. What it stored is recorded in t.stored.
func (t *transaction) prepare(ctx context.Context, mail gateway.Spooled) (gateway.AcceptedMail, error) {
	none := gateway.AcceptedMail{}
	message, err := t.scan(mail)
	if err != nil {
		return none, err
	}
	if err := t.timed(&t.timings.seal, func() error { return t.seal(ctx) }); err != nil {
		return none, fmt.Errorf("seal the parts: %w", storageError(err))
	}
	queued, err := t.write(ctx, message)
	if err != nil {
		return none, fmt.Errorf("write the mail that goes on: %w", storageError(err))
	}
	if err := t.blobs.Commit(ctx, t.stored.names...); err != nil {
		return none, fmt.Errorf("make the objects durable: %w", storageError(err))
	}
	return gateway.AcceptedMail{
		ID: t.id, Started: t.started, MessageID: gateway.NewSecret(t.messageID(message)),
		Envelope: t.envelope, Package: t.pack(), Copy: queued, Routes: t.routes,
	}, nil
}

func (t *transaction) scan(mail gateway.Spooled) (message *rewrite.Message, err error) {
	err = t.timed(&t.timings.scan, func() error {
		if message, err = rewrite.Scan(mail, t.options.Limits); err != nil {
			return fmt.Errorf("scan the mail: %w", err)
		}
		if t.plan, err = rewrite.NewPlan(message, t.options.Judge); err != nil {
			return fmt.Errorf("plan the mail: %w", err)
		}
		return nil
	})
	return message, err
}

// seal seals what the plan takes out.
func (t *transaction) seal(ctx context.Context) error {
	items := t.plan.Items()
	if len(items) == 0 {
		return nil
	}
	pack, err := t.sealer.Begin(crypto.ID(t.id), t.started, string(gateway.SourceMail))
	if err != nil {
		return err
	}
	for _, item := range items {
		if _, err := pack.AddItem(ctx, &t.stored, item.Name, item.Type, item.Open()); err != nil {
			return err
		}
	}
	sealed, err := pack.Finish(ctx, &t.stored)
	t.sealed = &sealed
	return err
}

// write writes the mail that goes on into its encrypted copy.
func (t *transaction) write(ctx context.Context, message *rewrite.Message) (gateway.QueuedMail, error) {
	key, err := t.store.QueueKey(ctx, t.started)
	if err != nil {
		return gateway.QueuedMail{}, fmt.Errorf("get the queue key: %w", err)
	}
	queued := gateway.QueuedMail{ID: t.id, MailFrom: gateway.NewSecret(t.envelope.MailFrom), Key: key}
	var written rewrite.Written
	output := rewrite.Output{Trace: t.trace(message), Notice: t.notice()}
	err = t.timed(&t.timings.write, func() error {
		return t.copies.put(ctx, &t.stored, &queued, t.started, func(w io.Writer) (err error) {
			written, err = t.plan.Write(w, output)
			return err
		})
	})
	queued.Size, queued.EightBit = written.Size, written.EightBit
	queued.UTF8 = t.envelope.UTF8 && (written.HeaderUTF8 || !ascii(t.envelope.MailFrom))
	return queued, err
}

func (t *transaction) timed(into *time.Duration, step func() error) error {
	began := time.Now()
	defer func() { *into = time.Since(began) }()
	return step()
}

// distinct returns one route for each ForwardTo: two public addresses of one mailbox are one delivery, kept
// for the longer of their times.
func distinct(recipients []gateway.Recipient) []gateway.Route {
	at := map[string]int{}
	var routes []gateway.Route
	for _, recipient := range recipients {
		mailbox := crypto.CanonicalAddress(recipient.Route.ForwardTo)
		i, seen := at[mailbox]
		if !seen {
			at[mailbox] = len(routes)
			routes = append(routes, recipient.Route)
			continue
		}
		routes[i].ExpireAfter = max(routes[i].ExpireAfter, recipient.Route.ExpireAfter)
	}
	return routes
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// storageError gives a full blob store the code that tells the sender to wait.
func storageError(err error) error {
	if errors.Is(err, blob.ErrFull) {
		return gateway.Errorf(gateway.CodeStorageFull, err, "insufficient system storage")
	}
	return err
}
