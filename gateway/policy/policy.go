// Package policy holds the pure rules that decide what becomes of a part of a mail.
//
// The default, in this order:
//
//  1. The machine-readable parts of a report (RFC 6522), directly below its multipart/report, stay, whatever
//     they are called: agents and Salesforce need them to understand a bounce.
//  2. Whatever is called "attachment" or has a file name is sealed.
//  3. The text of a mail stays: text/plain, text/html, text/enriched, text/richtext, and the alternatives
//     text/x-amp-html and text/watch-html.
//  4. Everything else is sealed: pictures, forwarded messages, signatures, types nobody knows.
//
// A disposition that is neither "inline" nor "attachment" counts as "inline" for text, since a body must not
// vanish for a sender's misspelling. The rules know neither the mail's bytes nor the world: the same part always gets the same verdict.
package policy

import "sealpost/gateway"

// Policy gives verdicts. It is immutable and safe for concurrent use.
type Policy struct {
	bodies  map[string]bool
	reports map[string]bool
}

// Default returns the policy of a gateway whose admin has set nothing.
func Default() *Policy {
	return &Policy{
		bodies: set("text/plain", "text/html", "text/enriched", "text/richtext", "text/x-amp-html", "text/watch-html"),
		reports: set("message/delivery-status", "message/global-delivery-status", "message/disposition-notification",
			"message/feedback-report", "text/rfc822-headers", "message/global-headers"),
	}
}

// Judge returns Keep or Seal for a leaf of a mail.
func (p *Policy) Judge(part gateway.Part) gateway.Verdict {
	switch {
	case part.InReport && p.reports[part.Type]:
		return gateway.Keep
	case part.Disposition == "attachment" || !part.Filename.IsZero():
		return gateway.Seal
	case p.bodies[part.Type]:
		return gateway.Keep
	}
	return gateway.Seal
}

func set(types ...string) map[string]bool {
	m := make(map[string]bool, len(types))
	for _, t := range types {
		m[t] = true
	}
	return m
}
