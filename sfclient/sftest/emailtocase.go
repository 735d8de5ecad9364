package sftest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// EmailToCase makes an Org do with its mail what Email-to-Case does after the 250. It needs the mode Whole.
// With it, Options.Recipients are not looked at: the routing addresses are the known ones.
type EmailToCase struct {
	Routing []RoutingAddress
	// Clock is the time of the loop rule and of all records; nil: time.Now.
	Clock func() time.Time
	// Bounces is the host:port to which NDRs go by SMTP, without TLS; empty: they are only kept.
	Bounces string
}

// RoutingAddress is one entry of the Email-to-Case settings.
type RoutingAddress struct {
	// Address is the long Email Services Address. RCPT to any other is refused (550 5.1.1).
	Address string
	// Public is the address that customers write to. It, or Address, must be named in To, Cc or Bcc;
	// empty: not checked.
	Public string
	// AcceptFrom lists the addresses and domains whose mail (by its From) is taken; empty: all.
	AcceptFrom []string
	// BounceUnauthorized is the failure response to other senders: an NDR; otherwise the mail is discarded.
	BounceUnauthorized bool
	// CaseOrigin is the Origin of its Cases; empty: "Email".
	CaseOrigin string
}

// Case is what one mail, or one copy of it to one routing address, opened.
type Case struct {
	Number         string // "00001001"
	Subject        string
	Origin         string
	RoutingAddress string
	// Token is what an agent's reply carries in its subject or body, "thread::...::".
	Token   string
	Created time.Time
}

// EmailMessage is one mail of a Case. Texts are decoded; HtmlBody may be cut at its end.
type EmailMessage struct {
	ID                string
	CaseNumber        string
	MessageIdentifier string // the Message-ID with its angle brackets
	FromAddress       string // without the display name
	ToAddress         string // the addresses, separated by "; "
	CcAddress         string
	Subject           string
	TextBody          string
	HtmlBody          string //nolint:revive // the field is named so in Salesforce
	Headers           string // as they came
	// ClientThreadIdentifier is the first 22 bytes of Thread-Index in base64; empty without the header.
	ClientThreadIdentifier string
	HasAttachment          bool
	Incoming               bool
	Created                time.Time
}

// Reason says which rule kept a mail from becoming a Case.
type Reason string

// The reasons.
const (
	TooLarge     Reason = "size"          // bounces
	LongText     Reason = "text body"     // bounces
	LongHeaders  Reason = "headers"       // bounces
	LongSubject  Reason = "subject"       // bounces
	LongFrom     Reason = "from"          // bounces
	LongTo       Reason = "to"            // bounces
	LongCc       Reason = "cc"            // bounces
	Malformed    Reason = "malformed"     // bounces
	Unauthorized Reason = "accept list"   // is dropped, or bounces
	AutoResponse Reason = "auto-response" // is dropped
	Loop         Reason = "loop"          // is dropped
	NotAddressed Reason = "not addressed" // is dropped
)

// Dropped is a mail, or its copy to one routing address, that vanished after its 250.
type Dropped struct {
	Reason         Reason
	MessageID      string
	RoutingAddress string
	// NullSender says that it would have bounced, but has no envelope sender.
	NullSender bool
}

// Bounce is an NDR to the envelope sender of a mail.
type Bounce struct {
	Reason    Reason
	To        string // the envelope sender
	MessageID string // of the mail that bounced
	Raw       []byte // shared: do not change it
	// Err says why the NDR could not be sent; nil also if there was nowhere to send it.
	Err error
}

// caseDesk holds what Email-to-Case made of the mails. One goroutine of the Org works through its queue.
type caseDesk struct {
	opts     EmailToCase
	hostname string
	stop     context.CancelFunc
	done     chan struct{}

	mu        sync.Mutex
	queue     []Mail
	queued    chan struct{} // holds one token if there may be mails in the queue
	processed int
	progress  chan struct{} // closed and replaced with each processed mail
	seen      map[[32]byte][]time.Time
	cases     []Case
	messages  []EmailMessage
	dropped   []Dropped
	bounces   []Bounce
}

// newCaseDesk starts the desk; it ends with ctx or with close.
func newCaseDesk(ctx context.Context, opts EmailToCase, hostname string) *caseDesk {
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	ctx, cancel := context.WithCancel(ctx)
	d := &caseDesk{
		opts:     opts,
		hostname: hostname,
		stop:     cancel,
		done:     make(chan struct{}),
		queued:   make(chan struct{}, 1),
		progress: make(chan struct{}),
		seen:     map[[32]byte][]time.Time{},
	}
	go d.work(ctx)
	return d
}

func (d *caseDesk) close() {
	d.stop()
	<-d.done
}

func (d *caseDesk) hand(m Mail) {
	d.mu.Lock()
	d.queue = append(d.queue, m)
	d.mu.Unlock()
	select {
	case d.queued <- struct{}{}:
	default:
	}
}

func (d *caseDesk) work(ctx context.Context) {
	defer close(d.done)
	for {
		select {
		case <-d.queued:
		case <-ctx.Done():
			return
		}
		for m, ok := d.next(); ok && ctx.Err() == nil; m, ok = d.next() {
			d.process(ctx, m)
			d.mu.Lock()
			d.processed++
			close(d.progress)
			d.progress = make(chan struct{})
			d.mu.Unlock()
		}
	}
}

func (d *caseDesk) next() (Mail, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) == 0 {
		return Mail{}, false
	}
	m := d.queue[0]
	d.queue = d.queue[1:]
	return m, true
}

// known says whether a RCPT is one of the routing addresses.
func (e *EmailToCase) known(address string) bool {
	return slices.ContainsFunc(e.Routing, func(r RoutingAddress) bool { return strings.EqualFold(r.Address, address) })
}

// WaitProcessed returns once Email-to-Case is done with n of the accepted mails, their NDRs sent included.
func (o *Org) WaitProcessed(ctx context.Context, n int) error {
	if o.desk == nil {
		return errors.New("this org has no Email-to-Case")
	}
	for {
		o.desk.mu.Lock()
		processed, progress := o.desk.processed, o.desk.progress
		o.desk.mu.Unlock()
		if processed >= n {
			return nil
		}
		select {
		case <-progress:
		case <-o.closing:
			return fmt.Errorf("closed after %d of %d mails were processed", processed, n)
		case <-ctx.Done():
			return fmt.Errorf("%d of %d mails were processed: %w", processed, n, ctx.Err())
		}
	}
}

// Cases returns the Cases so far, the oldest first.
func (o *Org) Cases() []Case {
	return records(o.desk, func(d *caseDesk) []Case { return d.cases })
}

// EmailMessages returns the mails of all Cases so far, the oldest first.
func (o *Org) EmailMessages() []EmailMessage {
	return records(o.desk, func(d *caseDesk) []EmailMessage { return d.messages })
}

// Dropped returns the mails that vanished without a Case and without an NDR.
func (o *Org) Dropped() []Dropped {
	return records(o.desk, func(d *caseDesk) []Dropped { return d.dropped })
}

// Bounces returns the NDRs so far.
func (o *Org) Bounces() []Bounce {
	return records(o.desk, func(d *caseDesk) []Bounce { return d.bounces })
}

func records[T any](d *caseDesk, of func(*caseDesk) []T) []T {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(of(d))
}

// AddReply records a mail that an agent sent from a Case, so that answers to its Message-ID (with its angle
// brackets) find the Case.
func (o *Org) AddReply(caseNumber, messageID string) error {
	if o.desk == nil {
		return errors.New("this org has no Email-to-Case")
	}
	d := o.desk
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.ContainsFunc(d.cases, func(c Case) bool { return c.Number == caseNumber }) {
		return fmt.Errorf("there is no Case %q", caseNumber)
	}
	d.messages = append(d.messages, EmailMessage{
		ID:                d.nextMessageID(),
		CaseNumber:        caseNumber,
		MessageIdentifier: messageID,
		Created:           d.opts.Clock().UTC(),
	})
	return nil
}

func (d *caseDesk) nextMessageID() string { return fmt.Sprintf("02s%015d", len(d.messages)+1) }
