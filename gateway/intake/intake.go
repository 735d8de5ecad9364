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
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealpost/crypto"
	"sealpost/gateway"
	"sealpost/gateway/policy"
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
	// Repeated returns the mail with this fingerprint that was accepted within a day and whose 250 may have been lost,
	// and counts the repeat.
	Repeated(ctx context.Context, fingerprint []byte) (gateway.PackageID, bool, error)
	// SettleMail says whether the 250 of a mail was heard. It does not wait for the disk.
	SettleMail(id gateway.PackageID, heard bool)
	// RecordRefusal remembers a mail that was refused after its text had come.
	RecordRefusal(ctx context.Context, refusal gateway.Refusal) error
}

// Returner writes a bounce so that its sender may see it: without a trace of what is behind us. trace is put above
// what is passed on as it came. gateway.ErrNothingToTell ends a mail that is no bounce: it is accepted, and goes nowhere.
type Returner interface {
	Return(ctx context.Context, w io.Writer, to string, mail io.ReaderAt, size int64, trace []byte) error
}

// Options say how mails are taken in.
type Options struct {
	Hostname      string
	ShowFilenames bool
	// NoticePlace is where the notice stands in a body, and NoticeTemplate the admin's own text of it; nil: ours.
	NoticePlace    rewrite.Place
	NoticeTemplate *rewrite.Template
	Limits         rewrite.Limits
	// Rules hold for every mail; PortalURL in them is that of its route.
	Rules rewrite.Rules
	// Authenticator and Scanner may be nil: then nobody is asked.
	Authenticator Authenticator
	Scanner       Scanner
	// OnVirus is Reject, or Seal: the mail is sealed whole, and who opens it is warned.
	OnVirus gateway.Verdict
	// ScannerDown is Defer, or Keep: the mail passes unscanned.
	ScannerDown gateway.Verdict
	// IsOurs tells an Authentication-Results field that claims to be ours; such fields are forged and do not go on.
	IsOurs func(value string) bool
	// Returner is for mails that go back to a sender; without it there is no way back.
	Returner Returner
	// ReturnDomain is the domain of the return paths that we give mails (SRS); empty: none.
	ReturnDomain string
	// FingerprintKey makes the hashes by which repeats are known; empty: none is.
	FingerprintKey []byte
	Logger         *slog.Logger
	Metrics        prometheus.Registerer
}

// Intake is the way of every mail. Its methods may be called concurrently.
type Intake struct {
	options Options
	sealer  *crypto.Sealer
	blobs   blob.Store
	store   Store
	copies  *Copies
	loops   loops
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
	if t.repeated {
		in.options.Logger.InfoContext(ctx, "mail came again", "mail", t.id.String())
		return t.id.String(), nil
	}
	if t.ended {
		in.options.Logger.InfoContext(ctx, "an automatic answer to a sender ended here: it names what is behind us and is no bounce", "mail", t.id.String())
		return t.id.String(), nil
	}
	t.log(ctx, mail.Size(), time.Since(began))
	return t.id.String(), nil
}

// transaction is the state of one mail on its way in.
type transaction struct {
	*Intake
	envelope       gateway.Envelope
	id             gateway.PackageID
	started        time.Time
	deliveries     []gateway.NewDelivery
	fingerprint    []byte
	alike          [sha256.Size]byte // what the mail has in common with those that Salesforce takes for the same
	findings       []policy.Finding
	repeated       bool // id is that of the mail that this one repeats
	ended          bool // it is accepted, and goes nowhere
	authentication gateway.Authentication
	results        []byte // the Authentication-Results field
	virus          gateway.Scan
	silent         string
	autoresponse   bool // it says that it is an automatic answer of Salesforce's own
	dropped        int  // forged fields that do not go on
	plan           *rewrite.Plan
	sealed         *crypto.Sealed // nil when nothing had to be sealed
	stored         recorder
	timings        timings
}

// timings are how long the steps took.
type timings struct{ structure, judges, seal, write, commit time.Duration }

func (t *transaction) run(ctx context.Context, mail gateway.Spooled) error {
	var err error
	if t.started, err = t.store.Now(ctx); err != nil {
		return fmt.Errorf("ask the database's clock: %w", err)
	}
	t.deliveries = distinct(t.envelope.Recipients)
	t.stored.Store = t.blobs
	message, err := t.scan(mail)
	if err != nil {
		return err
	}
	accepted, err := t.prepare(ctx, mail, message)
	if err == nil && t.repeated {
		return nil
	}
	if errors.Is(err, gateway.ErrNothingToTell) {
		t.ended = true
		return t.stored.discard(ctx)
	}
	if err != nil {
		t.refused(ctx, t.messageID(message), err)
		return errors.Join(err, t.stored.discard(ctx))
	}
	err = t.timed(&t.timings.commit, func() error { return t.store.CommitMail(ctx, accepted) })
	switch {
	case err == nil:
		t.warn(ctx)
	case gateway.ErrorCode(err) == gateway.CodeStorageFull:
		err = errors.Join(err, t.stored.discard(ctx)) // or each new try would take more of what room is left
	default:
		t.store.SettleMail(t.id, false) // if it was committed after all, the next try is a repeat
	}
	return err
}

// findFirst asks whether the mail was accepted before, judged alike and from the same place. Else whoever has a copy of
// it could send that first, to see it sealed or silenced, and the true one would count as its repeat.
func (t *transaction) findFirst(ctx context.Context, message *rewrite.Message) error {
	if err := t.digest(message); err != nil || t.fingerprint == nil {
		return err
	}
	before, repeated, err := t.store.Repeated(ctx, t.fingerprint)
	if err != nil {
		return fmt.Errorf("look for the mail's first coming: %w", err)
	}
	if repeated {
		t.id, t.repeated = before, true
	}
	return nil
}

// prepare does everything up to the commit. What it stored is recorded in t.stored.
func (t *transaction) prepare(ctx context.Context, mail gateway.Spooled, message *rewrite.Message) (gateway.AcceptedMail, error) {
	none := gateway.AcceptedMail{}
	if err := t.timed(&t.timings.judges, func() error { return t.judge(ctx, mail) }); err != nil {
		return none, err
	}
	if err := t.findFirst(ctx, message); err != nil || t.repeated {
		return none, err
	}
	queued, err := t.carryOut(ctx, mail, message, t.decide)
	if errors.Is(err, rewrite.ErrPlan) {
		queued, err = t.carryOutWhole(ctx, mail, message, err)
	}
	if err != nil {
		return none, err
	}
	if err := t.blobs.Commit(ctx, t.stored.names...); err != nil {
		return none, fmt.Errorf("make the objects durable: %w", storageError(err))
	}
	return gateway.AcceptedMail{
		ID: t.id, Started: t.started, MessageID: gateway.NewSecret(t.messageID(message)), Envelope: t.envelope,
		Authentication: t.authentication, Scan: t.virus, Silence: t.silent, Fingerprint: t.fingerprint,
		Package: t.pack(), Copy: queued, Deliveries: t.deliveries,
	}, nil
}

// carryOut decides what becomes of the mail, and does it.
func (t *transaction) carryOut(ctx context.Context, mail gateway.Spooled, message *rewrite.Message,
	decide func(*rewrite.Message) error,
) (gateway.QueuedMail, error) {
	if err := decide(message); err != nil {
		return gateway.QueuedMail{}, err
	}
	if err := t.timed(&t.timings.seal, func() error { return t.seal(ctx) }); err != nil {
		return gateway.QueuedMail{}, fmt.Errorf("seal the parts: %w", storageError(err))
	}
	queued, err := t.write(ctx, mail, message)
	if err != nil {
		return gateway.QueuedMail{}, fmt.Errorf("write the mail that goes on: %w", storageError(err))
	}
	return queued, nil
}

// carryOutWhole seals a mail whole that could not be taken apart: else its sender would try for days, and in vain.
func (t *transaction) carryOutWhole(ctx context.Context, mail gateway.Spooled, message *rewrite.Message, failed error) (gateway.QueuedMail, error) {
	if err := t.stored.discard(ctx); err != nil {
		return gateway.QueuedMail{}, err
	}
	t.stored.names, t.sealed = nil, nil
	queued, err := t.carryOut(ctx, mail, message, t.decideWhole)
	if err == nil {
		t.options.Logger.WarnContext(ctx, "a mail could not be taken apart as planned: it is sealed whole", "mail", t.id.String(), "error", failed)
	}
	return queued, err
}

// decideWhole seals the mail as one file, since it could not be taken apart.
func (t *transaction) decideWhole(message *rewrite.Message) error {
	return t.makePlan(message, whole{reason: "it could not be taken apart as planned"})
}

// decide makes the plan from what the judges, the policy and Salesforce's limits say.
func (t *transaction) decide(message *rewrite.Message) error {
	judged, err := t.judged()
	if err != nil {
		return err
	}
	if t.silent, err = t.silence(message); err != nil {
		return err
	}
	t.tellFailuresOnly()
	if t.returns() {
		return t.needReturner()
	}
	return t.makePlan(message, judged)
}

func (t *transaction) needReturner() error {
	if t.options.Returner == nil {
		return gateway.Errorf(gateway.CodeUnavailable, nil, "bounces are not taken now; try again later")
	}
	return nil
}

func (t *transaction) scan(mail gateway.Spooled) (message *rewrite.Message, err error) {
	err = t.timed(&t.timings.structure, func() error {
		if message, err = rewrite.Scan(mail, t.options.Limits); err != nil {
			return fmt.Errorf("scan the mail: %w", err)
		}
		return nil
	})
	return message, err
}

// seal seals what the plan takes out.
func (t *transaction) seal(ctx context.Context) error {
	if t.plan == nil || len(t.plan.Items()) == 0 {
		return nil
	}
	pack, err := t.sealer.Begin(crypto.ID(t.id), t.started, string(gateway.SourceMail))
	if err != nil {
		return err
	}
	for _, item := range t.plan.Items() {
		if _, err := pack.AddItem(ctx, &t.stored, item.Name, item.Type, item.Open()); err != nil {
			return err
		}
	}
	sealed, err := pack.Finish(ctx, &t.stored)
	t.sealed = &sealed
	return err
}

// write writes the mail that goes on into its encrypted copy.
func (t *transaction) write(ctx context.Context, mail Mail, message *rewrite.Message) (gateway.QueuedMail, error) {
	key, err := t.store.QueueKey(ctx, t.started)
	if err != nil {
		return gateway.QueuedMail{}, fmt.Errorf("get the queue key: %w", err)
	}
	queued := gateway.QueuedMail{ID: t.id, MailFrom: gateway.NewSecret(t.envelope.MailFrom), Key: key}
	var written rewrite.Written
	err = t.timed(&t.timings.write, func() error {
		return t.copies.put(ctx, &t.stored, &queued, t.started, func(w io.Writer) (err error) {
			if t.plan == nil {
				meter := rewrite.NewMeter(w)
				to := t.deliveries[0].Route.ForwardTo
				err = t.options.Returner.Return(ctx, meter, to, mail, mail.Size(), t.trace(message))
				written = meter.Written()
				return err
			}
			written, err = t.plan.Write(w, rewrite.Output{Trace: t.trace(message), Notice: t.notice()})
			return err
		})
	})
	queued.Size, queued.EightBit = written.Size, written.EightBit
	queued.UTF8 = (t.envelope.UTF8 || t.plan == nil) && (written.HeaderUTF8 || !ascii(t.envelope.MailFrom))
	return queued, err
}

func (t *transaction) timed(into *time.Duration, step func() error) error {
	began := time.Now()
	defer func() { *into = time.Since(began) }()
	return step()
}

// distinct returns one delivery for each ForwardTo: two public addresses of one mailbox are one delivery, kept for the
// longer of their times, and its sender hears what it wants to hear of either.
func distinct(recipients []gateway.Recipient) []gateway.NewDelivery {
	at := map[string]int{}
	var deliveries []gateway.NewDelivery
	for _, recipient := range recipients {
		mailbox := crypto.CanonicalAddress(recipient.Route.ForwardTo)
		i, seen := at[mailbox]
		if !seen {
			at[mailbox] = len(deliveries)
			deliveries = append(deliveries, gateway.NewDelivery{Route: recipient.Route, DSN: recipient.DSN})
			continue
		}
		d := &deliveries[i]
		d.Route.ExpireAfter = max(d.Route.ExpireAfter, recipient.Route.ExpireAfter)
		d.DSN.Notify = union(d.DSN.Notify, recipient.DSN.Notify)
	}
	return deliveries
}

// union joins two NOTIFY parameters (RFC 3461 section 4.1). What is not given wins, since it means the usual.
func union(a, b string) string {
	if a == "" || b == "" {
		return ""
	}
	var words []string
	for _, word := range []string{"SUCCESS", "FAILURE", "DELAY"} {
		if slices.Contains(strings.Split(a+","+b, ","), word) {
			words = append(words, word)
		}
	}
	return cmp.Or(strings.Join(words, ","), "NEVER")
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
