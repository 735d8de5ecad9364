// Package policy holds the pure rules that decide what becomes of a part of a mail.
//
// The default, in this order:
//
//  1. The machine-readable parts of a report (RFC 6522), directly below its multipart/report, stay, even as
//     an "attachment": agents and Salesforce need them to understand a bounce. They must be what such parts
//     are: text in no binary encoding, of at most 64 KiB, without a name or with one ending in .txt or .eml
//     or without an extension. Anything else under their type may be a file.
//  2. Whatever is called "attachment" or has a file name is sealed.
//  3. The text of a mail stays: text/plain, text/html, text/enriched, text/richtext, and the alternatives
//     text/x-amp-html and text/watch-html.
//  4. Everything else is sealed: pictures, forwarded messages, signatures, types nobody knows.
//
// A disposition that is neither "inline" nor "attachment" counts as "inline" for text, since a body must not
// vanish for a sender's misspelling. The rules know neither the mail's bytes nor the world: the same part always gets the same verdict.
package policy

import (
	"strings"

	"sealpost/gateway"
)

// maxReport is the most bytes of the encoded body of a report part. Returned headers are the largest of them.
const maxReport = 64 << 10

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

// Judge returns Keep or Seal for a leaf of a mail, and why, in words for an admin.
func (p *Policy) Judge(part gateway.Part) (verdict gateway.Verdict, why string) {
	switch {
	case p.isReport(part):
		return gateway.Keep, "a machine-readable part of a report"
	case part.Disposition == "attachment":
		return gateway.Seal, "it is called an attachment"
	case !part.Filename.IsZero():
		return gateway.Seal, "it has a file name"
	case p.bodies[part.Type]:
		return gateway.Keep, "the text of the mail"
	}
	return gateway.Seal, "it is no text of a mail"
}

func (p *Policy) isReport(part gateway.Part) bool {
	return part.InReport && p.reports[part.Type] && part.Size <= maxReport && isTextEncoding(part.Encoding) &&
		isTextName(part.Filename.Reveal())
}

// isTextEncoding reports whether a body in this transfer encoding reads as text (RFC 3464 section 2.1 asks
// for 7bit, and RFC 6533 allows what UTF-8 needs).
func isTextEncoding(encoding string) bool {
	switch encoding {
	case "", "7bit", "8bit", "binary", "quoted-printable":
		return true
	}
	return false
}

// isTextName reports whether nobody's computer takes a file of this name for more than text or a mail.
func isTextName(name string) bool {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return true
	}
	ext := strings.ToLower(name[i:])
	return ext == ".txt" || ext == ".eml"
}

func set(types ...string) map[string]bool {
	m := make(map[string]bool, len(types))
	for _, t := range types {
		m[t] = true
	}
	return m
}
