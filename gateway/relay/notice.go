package relay

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"sealpost/gateway"
)

const (
	maxHeader  = 32 << 10 // of a mail's header section in a notice
	noticeKept = 30 * 24 * time.Hour
	nullSender = "null sender"
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
			key, err := r.queue.QueueKey(ctx, now)
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

// notice makes the mail to the sender.
func (r *Relay) notice(ctx context.Context, d gateway.LeasedDelivery, out *outcome, kind gateway.NoticeKind,
	key gateway.QueueKey, now time.Time) (*gateway.Notice, error) {
	id, sender := gateway.NewPackageID(), d.Copy.MailFrom.Reveal()
	report := gateway.Report{
		Kind: kind, ID: id, Date: now, To: sender,
		EnvelopeID: d.EnvelopeID.Reveal(), OriginalRecipient: d.DSN.OriginalRecipient.Reveal(), Recipient: d.Route,
		Status: status(kind, out), Code: out.code, Remote: out.code != 0,
		Diagnostic: Scrub(out.words(), d.ForwardTo, d.Route),
		Arrived:    arrived(d), RetryUntil: d.Since.Add(r.opts.Schedule.GiveUp),
	}
	if header := r.header(ctx, d.Copy); len(header) > 0 {
		report.Header = bytes.NewReader(header)
	}
	write := func(w io.Writer) error { return r.opts.Reporter.Write(w, report) }
	sealed, err := r.copies.Seal(ctx, id, now, key, "", write)
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

// words are what the sender is told: the next hop's, or ours, which name no server of ours.
func (o *outcome) words() string {
	switch {
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

// header reads the header section of a mail, as far as it fits into maxHeader and up to a line's end. A copy
// that cannot be read has none.
func (r *Relay) header(ctx context.Context, mail gateway.QueuedMail) []byte {
	body, err := r.copies.Open(ctx, mail)
	if err != nil {
		return nil
	}
	defer func() { _ = body.Close() }()
	text, err := io.ReadAll(io.LimitReader(body, maxHeader))
	if err != nil {
		return nil
	}
	if bytes.HasPrefix(text, []byte("\r\n")) {
		return nil
	}
	if end := bytes.Index(text, []byte("\r\n\r\n")); end >= 0 {
		return text[:end+2]
	}
	return text[:bytes.LastIndexByte(text, '\n')+1]
}
