package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"sealpost/gateway"
	"sealpost/gateway/config"
	"sealpost/storage/meta"
)

// traceLimit bounds how many mails with one Message-ID are told of.
const traceLimit = 20

type traceCommand struct {
	configFlag
	MessageID string `arg:"" name:"message-id" help:"The Message-ID as the mail has it, with or without its angle brackets, or the ID of the mail."`
}

// Run tells the way of each mail with this Message-ID, refused ones included.
func (c *traceCommand) Run(ctx context.Context, std streams) error {
	return c.withStores(ctx, func(_ *config.Config, s *stores) error {
		ids, refusals, err := c.find(ctx, s)
		if err != nil {
			return err
		}
		for _, refusal := range refusals {
			if err := traceRefusal(std.out, refusal); err != nil {
				return err
			}
		}
		for _, id := range ids {
			if err := traceMail(ctx, std.out, s, id); err != nil {
				return err
			}
		}
		if len(ids)+len(refusals) == 0 {
			return errors.New("no mail with this Message-ID has come; if it was refused before its text came, the log says so under \"recipients refused\" or \"connection refused\"")
		}
		return nil
	})
}

func (c *traceCommand) find(ctx context.Context, s *stores) ([]gateway.PackageID, []gateway.Refusal, error) {
	if id, err := gateway.ParsePackageID(c.MessageID); err == nil {
		return []gateway.PackageID{id}, nil, nil
	}
	messageID := gateway.NewSecret("<" + strings.Trim(strings.TrimSpace(c.MessageID), "<>") + ">")
	ids, err := s.meta.FindMails(ctx, messageID, traceLimit)
	if err != nil {
		return nil, nil, err
	}
	refusals, err := s.meta.FindRefusals(ctx, messageID, traceLimit)
	return ids, refusals, err
}

// teller writes lines and remembers the first failure.
type teller struct {
	w   io.Writer
	err error
}

func (t *teller) say(at time.Time, format string, args ...any) {
	if t.err != nil {
		return
	}
	_, t.err = fmt.Fprintf(t.w, "%s  %s\n", at.UTC().Format("2006-01-02 15:04:05"), fmt.Sprintf(format, args...))
}

func traceRefusal(w io.Writer, r gateway.Refusal) error {
	t := &teller{w: w}
	how := "for good"
	if r.Temporary {
		how = "for now; its sender tries again"
	}
	t.say(r.At, "%s", cameFrom(r.Envelope.Client.String(), r.Envelope.Hello, r.Envelope.Protocol, r.Envelope.TLS, r.Envelope.TrustedRelay))
	var to []string
	for _, recipient := range r.Envelope.Recipients {
		to = append(to, "<"+printable(recipient.Address)+">")
	}
	t.say(r.At, "it was from <%s> to %s", printable(r.Envelope.MailFrom), strings.Join(to, ", "))
	t.authentication(r.At, r.Authentication)
	t.scan(r.At, r.Scan)
	t.say(r.At, "it was refused %s: %s (%s)", how, printable(r.Reason), r.Code)
	return t.err
}

func cameFrom(client, hello, protocol, tls string, relay bool) string {
	text := fmt.Sprintf("a mail came from %s", client)
	if hello != "" {
		text += fmt.Sprintf(", which calls itself %s", printable(hello))
	}
	if relay {
		text += ", a trusted relay"
	}
	return text + fmt.Sprintf(", by %s, %s", protocol, choose(tls == "", "without TLS", "with "+tls))
}

func (t *teller) authentication(at time.Time, a gateway.Authentication) {
	if a.SPF == "" && a.DKIM == "" && a.DMARC == "" {
		return
	}
	word := func(r gateway.AuthResult) string { return choose(r == "", "not judged", string(r)) }
	text := fmt.Sprintf("its sender: SPF %s, DKIM %s, DMARC %s", word(a.SPF), word(a.DKIM), word(a.DMARC))
	if a.DMARCPolicy != "" {
		text += fmt.Sprintf(" (the domain asks for %s)", a.DMARCPolicy)
	}
	t.say(at, "%s%s", text, choose(a.ByRelay, ", as the relay in front of us judged", ""))
}

func (t *teller) scan(at time.Time, s gateway.Scan) {
	switch s.Verdict {
	case gateway.ScanClean:
		t.say(at, "the virus scanner found nothing")
	case gateway.ScanInfected:
		t.say(at, "the virus scanner found %s", printable(s.Signature))
	case gateway.ScanUnscanned:
		t.say(at, "the virus scanner could not look at it")
	}
}

func traceMail(ctx context.Context, w io.Writer, s *stores, id gateway.PackageID) error {
	mail, err := s.meta.Mail(ctx, id)
	if err != nil {
		return err
	}
	t := &teller{w: w}
	t.arrival(mail)
	deliveries, err := s.meta.ListDeliveries(ctx, meta.DeliveryFilter{Mail: id})
	if err != nil {
		return err
	}
	now, err := s.meta.Now(ctx)
	if err != nil {
		return err
	}
	for _, d := range deliveries {
		_, attempts, err := s.meta.GetDelivery(ctx, d.ID)
		if err != nil {
			return err
		}
		told, err := told(ctx, s, d, attempts)
		if err != nil {
			return err
		}
		t.delivery(d, attempts, told, now)
	}
	return t.err
}

func (t *teller) arrival(m meta.Mail) {
	at := m.Created
	recipients := make([]string, len(m.Recipients))
	for i, recipient := range m.Recipients {
		recipients[i] = "<" + printable(recipient.Reveal()) + ">"
	}
	t.say(at, "%s", cameFrom(m.Client.Reveal(), m.Hello.Reveal(), m.Protocol, m.TLS, m.TrustedRelay))
	t.say(at, "it was from <%s> to %s", printable(m.Sender.Reveal()), strings.Join(recipients, ", "))
	t.authentication(at, m.Authentication)
	t.scan(at, m.Scan)
	if m.HasPackage {
		t.say(at, "%d files were sealed, a Secure Link took their place", m.Items)
	} else {
		t.say(at, "nothing had to be sealed")
	}
	t.say(at, "it was accepted as %s (250)", m.ID)
	if m.Repeats > 0 {
		t.say(at, "it came again %d times, since our answer had been lost; that was answered, and delivered once", m.Repeats)
	}
}

func (t *teller) delivery(d gateway.Delivery, attempts []gateway.Attempt, told string, now time.Time) {
	for _, a := range attempts {
		answer := fmt.Sprintf("answered %d: %s", a.Code, printable(a.Reply.Reveal()))
		if a.Code == 0 {
			answer = "gave no answer: " + printable(a.Reply.Reveal())
		}
		t.say(a.Ended, "attempt %d for %s: %s, %s, %s", a.Number, d.Route, choose(a.Hop == "", "no server", a.Hop),
			choose(a.TLS == "", "without TLS", "with "+a.TLS), answer)
	}
	t.say(now, "for %s it is %s: %s", d.Route, d.State, meaning(d, told, now))
}
