package intake

import (
	"context"
	"strings"
	"time"

	"sealpost/gateway"
	"sealpost/gateway/policy"
	"sealpost/gateway/rewrite"
)

// outgoing measures what Salesforce has limits for. The text is within its own: a longer one is sealed.
func outgoing(message *rewrite.Message, size int64, trace int) (policy.Outgoing, error) {
	m := policy.Outgoing{Size: size, Header: int64(trace)}
	err := message.Fields(func(name, _ string, size int64) {
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
	return m, err
}

// reasons says why the mail must not go to Salesforce as it is; empty: it may.
func reasons(findings []policy.Finding) string {
	var all []string
	for _, f := range findings {
		all = append(all, f.Message)
	}
	return strings.Join(all, "; ")
}

// watch warns of what makes Salesforce drop a mail without a word.
func (t *transaction) watch(ctx context.Context, message *rewrite.Message) error {
	from, subject, auto := "", "", false
	err := message.Fields(func(name, value string, _ int64) {
		switch name {
		case "from":
			from = value
		case "subject":
			subject = value
		case "x-sfdc-autoresponse":
			auto = true
		}
	})
	if err != nil {
		return err
	}
	if auto {
		t.metrics.autoresponse.Inc()
		t.options.Logger.WarnContext(ctx, "the mail has X-SFDC-AutoResponse; Salesforce drops it silently", "mail", t.id.String())
	}
	digest, err := likeness(from, subject, message)
	if err != nil {
		return err
	}
	if t.loops.suspects(digest, time.Now()) {
		t.metrics.loopSuspected.Inc()
		t.options.Logger.WarnContext(ctx, "more than 15 alike within a minute; Salesforce takes them for a loop and makes no Case", "mail", t.id.String())
	}
	return nil
}

// isEmailToCase tells a route to a Case from an ordinary mailbox: the postmaster's, and the way back.
func isEmailToCase(route gateway.Route) bool {
	return !route.IsReturn() && route.Address != "postmaster"
}
