// Package policy holds the pure rules that decide what becomes of a part of a mail.
//
// The rules, in this order:
//
//  1. A forwarded message whose own parts can be judged one by one stays; one called "attachment" is sealed, since its
//     sender says that it is a file. An admin may want all to stay, or none.
//  2. What is called a text and whose bytes are a file is sealed, and so is what has a transfer encoding for files.
//  3. The machine-readable parts of a report (RFC 6522), anywhere in its multipart/report, stay, even as
//     an "attachment": agents and Salesforce need them to understand a bounce. They must be what such parts
//     are: text of at most 64 KiB, in an encoding that everybody knows, without a name or with one ending in .txt,
//     or .eml for headers, or without an extension. Anything else under their type may be a file.
//  4. Half of a Macintosh file is sealed.
//  5. A text of a type that the admin keeps stays, with a name of that type too.
//  6. Whatever is called "attachment" or has a file name is sealed.
//  7. The text of a mail stays: text/plain, text/html, text/enriched, text/richtext, and the alternatives
//     text/x-amp-html and text/watch-html.
//  8. Everything else is sealed: pictures, messages that are not walked, signatures, types nobody knows.
//
// A disposition that is neither "inline" nor "attachment" counts as "inline" for text, since a body must not
// vanish for a sender's misspelling. The rules know neither the mail's bytes nor the world: the same part always gets the same verdict.
package policy

import (
	"fmt"
	"slices"
	"strings"

	"sealpost/gateway"
)

// maxReport is the most bytes of the encoded body of a report part. Returned headers are the largest of them.
const maxReport = 64 << 10

// Options say what an admin changed of the default policy.
type Options struct {
	// KeepTypes are text types besides those of bodies that stay in the mail, such as "text/calendar". A part of such a
	// type stays with a file name too, since calendars have names, unless the name is not one of its type: then it is a
	// file like any other.
	KeepTypes []string
	// Forwarded is what becomes of forwarded messages that can be walked; "" is ForwardedWalk.
	Forwarded Forwarded
}

// Forwarded says which forwarded messages stay, to be judged part by part. The others are sealed as one file each.
type Forwarded string

// What becomes of forwarded messages.
const (
	ForwardedWalk    Forwarded = "walk"     // those stay that are not called an attachment
	ForwardedWalkAll Forwarded = "walk-all" // all stay
	ForwardedSeal    Forwarded = "seal"     // none stays
)

// Policy gives verdicts. It is immutable and safe for concurrent use.
type Policy struct {
	bodies  map[string]bool
	reports map[string]bool
	kept    map[string]bool
	// forwarded is never "".
	forwarded Forwarded
}

// Default returns the policy of a gateway whose admin has set nothing.
func Default() *Policy {
	return &Policy{
		bodies: set("text/plain", "text/html", "text/enriched", "text/richtext", "text/x-amp-html", "text/watch-html"),
		reports: set("message/delivery-status", "message/global-delivery-status", "message/disposition-notification",
			"message/feedback-report", "text/rfc822-headers", "message/global-headers"),
		forwarded: ForwardedWalk,
	}
}

// New returns a policy. The error says what of the options makes no sense.
func New(options Options) (*Policy, error) {
	p := Default()
	switch options.Forwarded {
	case "":
	case ForwardedWalk, ForwardedWalkAll, ForwardedSeal:
		p.forwarded = options.Forwarded
	default:
		return nil, fmt.Errorf("forwarded: %q is nothing that can become of forwarded messages", options.Forwarded)
	}
	p.kept = make(map[string]bool, len(options.KeepTypes))
	for _, typ := range options.KeepTypes {
		name := strings.ToLower(strings.TrimSpace(typ))
		main, sub, _ := strings.Cut(name, "/")
		switch {
		case main != "text" || sub == "" || strings.ContainsAny(sub, "/*;, "):
			return nil, fmt.Errorf("keep_types: %q cannot be kept: only text types can, such as text/calendar", typ)
		case p.bodies[name]:
			return nil, fmt.Errorf("keep_types: %q need not be named: as the text of a mail it stays, as a file it never does", typ)
		}
		p.kept[name] = true
	}
	return p, nil
}

// Judge returns Keep or Seal for a leaf of a mail, or a forwarded message, and why, in words for an admin.
func (p *Policy) Judge(part gateway.Part) (verdict gateway.Verdict, why string) {
	switch {
	case part.Walked:
		return p.judgeForwarded(part)
	case part.Content != "":
		return gateway.Seal, "it is called a text, and its bytes are " + part.Content
	case isFileEncoding(part.Encoding):
		return gateway.Seal, "its transfer encoding is one for files"
	case p.isReport(part):
		return gateway.Keep, "a machine-readable part of a report"
	case part.InMacFile:
		return gateway.Seal, "it is half of a Macintosh file"
	case p.isKept(part):
		return gateway.Keep, "a text of a type that is kept"
	case part.Disposition == "attachment":
		return gateway.Seal, "it is called an attachment"
	case !part.Filename.IsZero():
		return gateway.Seal, "it has a file name"
	case p.bodies[part.Type]:
		return gateway.Keep, "the text of the mail"
	}
	return gateway.Seal, "it is no text of a mail"
}

func (p *Policy) judgeForwarded(part gateway.Part) (verdict gateway.Verdict, why string) {
	switch {
	case p.forwarded == ForwardedSeal:
		return gateway.Seal, "a forwarded message"
	case p.forwarded == ForwardedWalk && part.Disposition == "attachment":
		return gateway.Seal, "a forwarded message that is called an attachment"
	}
	return gateway.Keep, "a forwarded message; what is in it is judged part by part"
}

func (p *Policy) isReport(part gateway.Part) bool {
	return part.InReport && p.reports[part.Type] && part.Size <= maxReport && isTextEncoding(part.Encoding) &&
		isTextName(part.Filename.Reveal(), part.Type)
}

// isKept reports whether the part stays because the admin said so of its type.
func (p *Policy) isKept(part gateway.Part) bool {
	if !p.kept[part.Type] || part.Unclear {
		return false
	}
	name := part.Filename.Reveal()
	i := strings.LastIndexByte(name, '.')
	return i < 0 || slices.Contains(extensions(part.Type), strings.ToLower(name[i:]))
}

// extensions returns those that names of a text type have (RFC 5545, 6350, 4180, 7303; the type's own name for others).
func extensions(typ string) []string {
	switch typ {
	case "text/calendar":
		return []string{".ics", ".ical", ".ifb"}
	case "text/vcard", "text/x-vcard", "text/directory":
		return []string{".vcf", ".vcard"}
	case "text/markdown":
		return []string{".md", ".markdown", ".txt"}
	case "text/rfc822-headers":
		return []string{".txt", ".hdr", ".eml"}
	}
	_, sub, _ := strings.Cut(typ, "/")
	return []string{"." + sub, ".txt"}
}

// isFileEncoding reports whether some readers decode a body in this transfer encoding, which no standard knows, as a file.
func isFileEncoding(encoding string) bool {
	for _, name := range []string{"uue", "uuencode", "yenc", "binhex", "gzip", "deflate", "compress", "base85", "ascii85"} {
		if strings.Contains(encoding, name) {
			return true
		}
	}
	return false
}

// isTextEncoding reports whether everybody decodes a body in this transfer encoding alike. RFC 3464 section 2.1 asks for
// 7bit, RFC 6533 allows what UTF-8 needs, and some encode all they send.
func isTextEncoding(encoding string) bool {
	switch encoding {
	case "", "7bit", "8bit", "binary", "quoted-printable", "base64":
		return true
	}
	return false
}

// isTextName reports whether nobody's computer takes a file of this name for more than a text, or a header for more than
// that of a mail.
func isTextName(name, typ string) bool {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return true
	}
	ext := strings.ToLower(name[i:])
	return ext == ".txt" || ext == ".eml" && strings.HasSuffix(typ, "headers")
}

func set(types ...string) map[string]bool {
	m := make(map[string]bool, len(types))
	for _, t := range types {
		m[t] = true
	}
	return m
}
