package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"sealpost/gateway"
	"sealpost/gateway/config"
	"sealpost/storage/meta"
)

type queueCommand struct {
	List  queueListCommand  `cmd:"" help:"List deliveries, the oldest first."`
	Show  queueShowCommand  `cmd:"" help:"Show one mail: who, where to, and every attempt with its reply."`
	Retry queueRetryCommand `cmd:"" help:"Try a dead delivery again."`

	Hold    queueHoldCommand    `cmd:"" help:"Keep a waiting mail from being delivered."`
	Release queueReleaseCommand `cmd:"" help:"Let a held mail go."`
	Drop    queueDropCommand    `cmd:"" help:"Give up a mail for good; its files stay. Asks who and why."`
}

type queueListCommand struct {
	configFlag
	State     string `help:"Only deliveries in this state." enum:",pending,sending,held,sent,confirmed,unconfirmed,dead,dropped" default:"" placeholder:"STATE"`
	MessageID string `help:"Only the mail with this Message-ID." placeholder:"<ID>"`
	Return    bool   `help:"What goes back to senders, notices and bounces, instead of what goes to the routes."`
	Limit     int    `help:"At most this many." default:"100"`
}

// Run lists deliveries as a table. What goes back to senders is listed apart: outsiders cause it, and it waits for no admin.
func (c *queueListCommand) Run(ctx context.Context, std streams) error {
	return c.withStores(ctx, func(_ *config.Config, s *stores) error {
		filter := meta.DeliveryFilter{State: gateway.DeliveryState(c.State), Limit: c.Limit}
		if c.MessageID != "" {
			filter.MessageID = gateway.NewSecret(c.MessageID)
		}
		deliveries, err := c.find(ctx, s, filter)
		if err != nil {
			return err
		}
		now, err := s.meta.Now(ctx)
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(std.out, 0, 8, 2, ' ', 0)
		_, _ = fmt.Fprint(table, "MAIL\tROUTE\tSTATE\tAGE\tATTEMPTS\tNEXT\tLAST REPLY\n")
		for _, d := range deliveries {
			_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", d.Mail, d.Route, d.State,
				age(now.Sub(d.Created)), d.Attempts, next(d, now), firstLine(d.LastReply.Reveal(), 60))
		}
		return table.Flush()
	})
}

// find looks further until there are as many as are asked for.
func (c *queueListCommand) find(ctx context.Context, s *stores, filter meta.DeliveryFilter) ([]gateway.Delivery, error) {
	limit := max(c.Limit, 1)
	for filter.Limit = limit; ; filter.Limit *= 4 {
		all, err := s.meta.ListDeliveries(ctx, filter)
		if err != nil {
			return nil, err
		}
		complete := len(all) < filter.Limit
		found := slices.DeleteFunc(all, func(d gateway.Delivery) bool { return (d.Route == gateway.ReturnRoute) != c.Return })
		if complete || len(found) >= limit {
			return found[:min(len(found), limit)], nil
		}
	}
}

type queueShowCommand struct {
	configFlag
	Mail string `arg:"" help:"The ID of the mail, as the log, the Received field and list show it."`
}

// Run shows everything that is known of one mail.
func (c *queueShowCommand) Run(ctx context.Context, std streams) error {
	return c.withStores(ctx, func(_ *config.Config, s *stores) error {
		id, err := gateway.ParsePackageID(c.Mail)
		if err != nil {
			return usageError{err.Error()}
		}
		mail, err := s.meta.Mail(ctx, id)
		if err != nil {
			return err
		}
		if err := showMail(std.out, mail); err != nil {
			return err
		}
		deliveries, err := s.meta.ListDeliveries(ctx, meta.DeliveryFilter{Mail: id})
		if err != nil {
			return err
		}
		for _, d := range deliveries {
			if err := showDelivery(ctx, std.out, s, d.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

func showMail(w io.Writer, m meta.Mail) error {
	recipients := make([]string, len(m.Recipients))
	for i, recipient := range m.Recipients {
		recipients[i] = printable(recipient.Reveal())
	}
	_, err := fmt.Fprintf(w, "mail        %s\nreceived    %s\nmessage-id  %s\nfrom        <%s>\nto          %s\nsize        %s as it goes on\npackage     %s\ncopy        %s\n",
		m.ID, m.Created.Format(time.RFC3339), printable(m.MessageID.Reveal()), printable(m.Sender.Reveal()), strings.Join(recipients, ", "),
		humanSize(m.Size), choose(m.HasPackage, "files were sealed", "nothing had to be sealed"),
		choose(m.HasCopy, "kept, encrypted", "erased"))
	return err
}

func showDelivery(ctx context.Context, w io.Writer, s *stores, id string) error {
	d, attempts, err := s.meta.GetDelivery(ctx, id)
	if err != nil {
		return err
	}
	now, err := s.meta.Now(ctx)
	if err != nil {
		return err
	}
	told, err := told(ctx, s, d, attempts)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "\ndelivery    %s\nroute       %s -> %s\nstate       %s: %s\n", d.ID, d.Route, d.ForwardTo, d.State, meaning(d, told, now)); err != nil {
		return err
	}
	for _, a := range attempts {
		if _, err := fmt.Fprintf(w, "  %2d  %s  %s  %s  %s\n      %s\n", a.Number, a.Started.Format(time.RFC3339), a.Hop,
			choose(a.TLS == "", "no TLS", a.TLS), a.Event, printable(a.Reply.Reveal())); err != nil {
			return err
		}
	}
	return nil
}

func because(d gateway.Delivery) string {
	if d.Reason.IsZero() {
		return ""
	}
	return " (" + printable(d.Reason.Reveal()) + ")"
}

// told says what the sender knows of a dead delivery. A notice that bounces causes none itself: only here it shows.
func told(ctx context.Context, s *stores, d gateway.Delivery, attempts []gateway.Attempt) (string, error) {
	if d.Told != gateway.NoticeFailed {
		return "its sender was not told" + choose(d.Untold == "", "", ": "+d.Untold), nil
	}
	for _, a := range slices.Backward(attempts) {
		if a.Event != gateway.EventRejected && a.Event != gateway.EventGaveUp {
			continue
		}
		notices, err := s.meta.ListDeliveries(ctx, meta.DeliveryFilter{Mail: gateway.NoticeID(d.ID, a.Number)})
		if err != nil {
			return "", err
		}
		for _, notice := range notices {
			return toldBy(notice.State), nil
		}
		break
	}
	return "a notice to its sender was made; what became of it is not kept any more", nil
}

// toldBy says what the sender knows by a notice in a state.
func toldBy(state gateway.DeliveryState) string {
	switch state {
	case gateway.Dead, gateway.Dropped:
		return "its sender could not be told: the notice bounced"
	case gateway.Sent, gateway.Confirmed, gateway.Unconfirmed:
		return "its sender was told"
	}
	return "its sender was told, by a notice that is on its way"
}

// meaning says in words what a state means for the mail. told is what its sender knows if it is dead.
func meaning(d gateway.Delivery, told string, now time.Time) string {
	switch d.State {
	case gateway.Pending:
		return "it waits; the next attempt is " + next(d, now)
	case gateway.Sending:
		return "an attempt is under way"
	case gateway.Held:
		return "it is held" + because(d) + "; `sealpost queue release` lets it go"
	case gateway.Sent:
		return "the next hop has taken it"
	case gateway.Confirmed:
		return "its Case was found"
	case gateway.Unconfirmed:
		return "the next hop has taken it; no Case was found in time"
	case gateway.Dead:
		if d.Route == gateway.ReturnRoute {
			return "it cannot be returned to the sender, and nobody is told of that; it is kept for five days, then erased"
		}
		return "it cannot be delivered; it is kept until `sealpost queue retry` or `drop`; " + told
	case gateway.Dropped:
		return "an admin has dropped it" + because(d)
	}
	return ""
}

func next(d gateway.Delivery, now time.Time) string {
	switch {
	case d.State != gateway.Pending:
		return "-"
	case !d.NextAttempt.After(now):
		return "now"
	}
	return "in " + age(d.NextAttempt.Sub(now))
}

// age writes a duration with the one unit that matters.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func firstLine(text string, most int) string {
	runes := []rune(printable(text))
	if len(runes) > most {
		runes = append(runes[:most-1], '…')
	}
	return string(runes)
}

func choose(condition bool, yes, no string) string {
	if condition {
		return yes
	}
	return no
}
