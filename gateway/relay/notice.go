package relay

import (
	"cmp"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"sealpost/gateway"
)

const (
	maxHeaded  = 10_000 // mails
	noticeKept = 30 * 24 * time.Hour
	nullSender = "null sender"
	// noticeLimit bounds the making of a notice, for which the mail may be read from the blob store.
	noticeLimit = 30 * time.Second
)

// tell settles, once, whether the attempt causes a notice. Only the queue's errors are returned, so that it can be
// asked again; any other fault leaves the sender untold.
func (r *Relay) tell(ctx context.Context, d gateway.LeasedDelivery, out *outcome, now time.Time) error {
	if out.told {
		return nil
	}
	kind := r.noticeKind(d, out, now)
	if kind != "" {
		untold := r.silence(d, kind)
		if untold == "" {
			key, err := ask(ctx, r.opts.QueueTimeout, func(ctx context.Context) (gateway.QueueKey, error) {
				return r.queue.QueueKey(ctx, now)
			})
			if err != nil {
				return err
			}
			if out.notice, out.noticeFault = r.notice(ctx, d, out, kind, key, now); out.noticeFault != nil {
				untold = "the notice could not be made"
			}
		}
		if kind == gateway.NoticeFailed {
			out.untold = untold
		}
	}
	out.told = true
	return nil
}

// noticeKind returns what there is to tell of an attempt, or "".
func (r *Relay) noticeKind(d gateway.LeasedDelivery, out *outcome, now time.Time) gateway.NoticeKind {
	switch out.event {
	case gateway.EventRejected, gateway.EventGaveUp:
		return gateway.NoticeFailed
	case gateway.EventAccepted:
		if d.DSN.Wants(gateway.NoticeRelayed) && !out.handedOn {
			return gateway.NoticeRelayed
		}
	case gateway.EventDeferred:
		if r.opts.DelayAfter > 0 && d.Told == "" && !out.cut && now.Sub(arrived(d)) >= r.opts.DelayAfter {
			return gateway.NoticeDelayed
		}
	}
	return ""
}

func arrived(d gateway.LeasedDelivery) time.Time {
	if d.Received.IsZero() {
		return d.Created
	}
	return d.Received
}

// silence returns why the sender is not told, or "".
func (r *Relay) silence(d gateway.LeasedDelivery, kind gateway.NoticeKind) string {
	switch {
	case d.Silence != "":
		return d.Silence
	case d.Route == gateway.ReturnRoute || d.Copy.MailFrom.IsZero():
		return nullSender
	case !d.DSN.Wants(kind):
		return "the sender asked for none"
	case r.opts.Reporter == nil:
		return "notices are switched off"
	}
	return ""
}

// notice makes the mail to the sender. Rather than to leave him untold it goes without the header of his mail.
func (r *Relay) notice(ctx context.Context, d gateway.LeasedDelivery, out *outcome, kind gateway.NoticeKind,
	key gateway.QueueKey, now time.Time) (*gateway.Notice, error) {
	ctx, cancel := context.WithTimeout(ctx, noticeLimit)
	defer cancel()
	id, sender := gateway.NoticeID(d.ID, d.Attempts), d.Copy.MailFrom.Reveal()
	report := gateway.Report{
		Kind: kind, ID: id, Date: now, To: sender,
		EnvelopeID: d.EnvelopeID.Reveal(), OriginalRecipient: d.DSN.OriginalRecipient.Reveal(), Recipient: d.Route,
		Status: status(kind, out), Diagnostic: out.hide.scrub(out.words()),
		Arrived: arrived(d), RetryUntil: d.Since.Add(r.opts.Schedule.GiveUp),
	}
	if out.repeatable() {
		report.Code, report.Remote = out.code, out.code != 0
	}
	write := func(w io.Writer) error { return r.opts.Reporter.Write(w, report) }
	sealed, err := gateway.QueuedMail{}, errNoHeader
	if r.headed.first(d.Mail, kind) {
		sealed, err = r.withHeader(ctx, d.Copy, &report, func() (gateway.QueuedMail, error) {
			return r.copies.Seal(ctx, id, now, key, "", write)
		})
	}
	if err != nil {
		sealed, err = r.copies.Seal(ctx, id, now, key, "", write)
	}
	if err != nil {
		return nil, errors.New("seal the notice: " + gateway.ErrorMessage(err)) // the cause may name the sender
	}
	return &gateway.Notice{Kind: kind, Mail: gateway.AcceptedMail{
		ID: id, Started: now, MessageID: gateway.NewSecret("<" + id.String() + "@" + r.opts.Hostname + ">"),
		Envelope: gateway.Envelope{Received: now},
		Silence:  nullSender,
		Copy:     sealed,
		Deliveries: []gateway.NewDelivery{{Route: gateway.Route{
			Address: gateway.ReturnRoute, ForwardTo: sender, NextHop: r.opts.ReturnHop, ExpireAfter: noticeKept,
		}}},
	}}, nil
}

var errNoHeader = errors.New("the mail's header is not returned")

// withHeader makes a notice with the header of the mail in report while seal runs.
func (r *Relay) withHeader(ctx context.Context, mail gateway.QueuedMail, report *gateway.Report,
	seal func() (gateway.QueuedMail, error)) (gateway.QueuedMail, error) {
	body, err := r.copies.Open(ctx, mail)
	if err != nil {
		return gateway.QueuedMail{}, errNoHeader
	}
	defer func() { _ = body.Close() }() // it was only read
	report.Header = body
	defer func() { report.Header = nil }()
	return seal()
}

// headed remembers of which mails the header went out with a notice. A mail to many routes may cause as many notices,
// and whoever names another as its sender shall not have the header sent to him that often. It is forgotten with the process.
type headed struct {
	mu    sync.Mutex
	seen  map[returnedHeader]bool
	order []returnedHeader
}

type returnedHeader struct {
	mail gateway.PackageID
	kind gateway.NoticeKind
}

// first reports whether no notice of this kind about the mail had the header.
func (h *headed) first(mail gateway.PackageID, kind gateway.NoticeKind) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	of := returnedHeader{mail, kind}
	if h.seen[of] {
		return false
	}
	if h.seen == nil {
		h.seen = map[returnedHeader]bool{}
	}
	if len(h.order) == maxHeaded {
		delete(h.seen, h.order[0])
		h.order = h.order[1:]
	}
	h.seen[of] = true
	h.order = append(h.order, of)
	return true
}

// repeatable reports whether a sender may be told the reply: what a hop says before MAIL is about us.
func (o *outcome) repeatable() bool {
	switch o.stage {
	case stageGreeting, stageHello, stageTLS, stageAuth, stageReset:
		return false
	}
	return true
}

// words are what the sender is told: the next hop's, or ours, which name no server of ours.
func (o *outcome) words() string {
	switch {
	case !o.repeatable():
		return "the next mail server could not be spoken to"
	case o.code != 0, o.status != "":
		return o.reply
	case o.stage == stageConnect, o.stage == stageDNS:
		return "the next mail server could not be reached"
	}
	return "the next mail server could not take the mail"
}

// status returns the enhanced code of a notice (RFC 3463): the one that was given if it is of the class that
// the notice is of, else one that says as much as is known.
func status(kind gateway.NoticeKind, out *outcome) string {
	class, other := "5", "5.0.0"
	switch {
	case out.event == gateway.EventGaveUp:
		return "5.4.7"
	case kind == gateway.NoticeDelayed:
		class, other = "4", "4.4.7"
	case kind == gateway.NoticeRelayed:
		class, other = "2", "2.0.0"
	}
	given := cmp.Or(out.status, enhancedCode(out.reply))
	if strings.HasPrefix(given, class+".") {
		return given
	}
	return other
}
