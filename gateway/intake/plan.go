package intake

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"sealpost/crypto"
	"sealpost/gateway"
	"sealpost/gateway/policy"
	"sealpost/gateway/rewrite"
)

// growth is more than a rewritten mail can be larger than it came: quoted-printable makes three bytes of one.
const growth = 4

// makePlan plans the mail, so that Salesforce takes what goes on: where its size or its header is too much, it is sealed
// whole; what is still over a limit then holds the deliveries. It is all known before anything is sealed.
func (t *transaction) makePlan(message *rewrite.Message, judged whole) error {
	if err := t.planAs(message, judged); err != nil || !t.toSalesforce() {
		return err
	}
	if err := t.findLimits(message); err != nil {
		return err
	}
	if i := slices.IndexFunc(t.findings, func(f policy.Finding) bool { return f.Whole != "" }); judged.reason == "" && i >= 0 {
		if err := t.planAs(message, whole{t.findings[i].Whole, rewrite.CauseTooLarge}); err != nil {
			return err
		}
		if err := t.findLimits(message); err != nil {
			return err
		}
	}
	t.hold()
	return nil
}

func (t *transaction) planAs(message *rewrite.Message, judged whole) (err error) {
	rules := t.options.Rules
	rules.PortalURL = t.firstRoute().PortalURL
	if judged.reason != "" {
		t.plan, err = rewrite.NewWholePlan(message, rules, judged.reason, judged.cause)
	} else {
		t.plan, err = rewrite.NewPlan(message, rules)
	}
	if err != nil {
		return fmt.Errorf("plan the mail: %w", err)
	}
	if t.options.IsOurs != nil {
		t.dropped, err = t.plan.Drop(func(name, value string) bool {
			return name == "authentication-results" && t.options.IsOurs(value)
		})
	}
	return err
}

// findLimits compares what would go on with Salesforce's limits. The text is within its own: a longer one is sealed, and
// of a longer page a copy.
func (t *transaction) findLimits(message *rewrite.Message) error {
	draft := t.draft(message)
	m := policy.Outgoing{Size: message.Size(), Header: int64(len(draft.Trace))}
	if m.Size > policy.MaxSize/growth {
		written, err := t.plan.Write(io.Discard, draft)
		if err != nil {
			return fmt.Errorf("measure the mail that would go on: %w", err)
		}
		m.Size = written.Size
	}
	authors := 0
	err := message.Fields(func(name, _ string, _ int64) {
		if name == "from" {
			authors++
		}
	})
	if err != nil {
		return err
	}
	err = t.plan.Fields(func(name, _ string, size int64) {
		m.Header += size
		switch value := size - int64(len(name)) - 4; name { // ": " and CRLF
		case "subject":
			m.Subject += value
		case "from":
			m.From += value
		case "to":
			m.To += value
		case "cc":
			m.Cc += value
		}
	})
	m.FromLost = authors > 0 && m.From == 0
	t.findings = policy.Salesforce(m)
	return err
}

// draft is what would be added to the mail, with a link that opens nothing, but is as long as the true one.
func (t *transaction) draft(message *rewrite.Message) rewrite.Output {
	output := rewrite.Output{Trace: t.trace(message)}
	if items := t.plan.Items(); len(items) > 0 {
		output.Notice = t.emptyNotice(crypto.Link{Portal: t.firstRoute().PortalURL})
		for _, item := range items {
			output.Notice.Files = append(output.Notice.Files, rewrite.File{Name: item.Name, Size: item.Size})
		}
	}
	return output
}

// hold holds the deliveries that Salesforce would bounce.
func (t *transaction) hold() {
	for i := range t.deliveries {
		if isEmailToCase(t.deliveries[i].Route) {
			t.deliveries[i].Hold = reasons(t.findings)
		}
	}
}

// held tells that a delivery waits for an admin.
func (t *transaction) held() bool {
	return slices.ContainsFunc(t.deliveries, func(d gateway.NewDelivery) bool { return d.Hold != "" })
}

// reasons says why the mail must not go to Salesforce as it is; empty: it may.
func reasons(findings []policy.Finding) string {
	var all []string
	for _, f := range findings {
		all = append(all, f.Message)
	}
	return strings.Join(all, "; ")
}

func (t *transaction) toSalesforce() bool {
	return slices.ContainsFunc(t.deliveries, func(d gateway.NewDelivery) bool { return isEmailToCase(d.Route) })
}

// isEmailToCase tells a route to a Case from an ordinary mailbox: the postmaster's, and the way back.
func isEmailToCase(route gateway.Route) bool {
	return !route.IsReturn() && route.Address != "postmaster"
}
