// Package dsn writes delivery status notifications (RFC 3461 to 3464, RFC 6522, RFC 6533), both ways: our own
// notices to the sender of a mail, and what remains of a bounce from a server behind us once nothing in it names where the
// mail was forwarded to. It is a package of its own since the queue writes the first kind and the front door the
// second, and both must keep the same secret: to an outsider the recipient is the public address.
//
// Decisions:
//   - The output is 7-bit always, so that any server takes it. Texts and, where needed, returned header fields are
//     quoted-printable; text/rfc822-headers allows that (RFC 6522 section 4), and more readers know it than
//     message/global-headers. Addresses outside ASCII are of RFC 6533's utf-8 type, in its 7-bit spelling; in
//     the To field they are an empty group that names them (RFC 6857 section 3.1.4).
//   - Remote-MTA is never written: it would name what is behind us.
//   - A returned delivery report is written anew from the fields that are known, with at most 50 recipients. Any other bounce
//     is passed on byte for byte when a search of it, raw and decoded, finds nothing to hide and
//     could look everywhere; otherwise a report of ours takes its place. 4 MiB of a mail are looked through.
//   - Only what may be a bounce becomes a report. An automatic answer from behind us that cannot be passed on ends: a report
//     would say that the mail was lost.
package dsn

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"regexp"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/idna"
)

const (
	maxHeader = 32 << 10 // of returned header fields, as they are written
	maxLine   = 76
	maxWord   = 400
	maxValue  = 1000
)

var statusCode = regexp.MustCompile(`^[245]\.[0-9]{1,3}\.[0-9]{1,3}$`)

// recipientStatus is one block of per-recipient fields (RFC 3464 section 2.3).
type recipientStatus struct {
	original, final    string // original: "type;address"; final: an address
	action, status     string
	diagnostic         string // "smtp; text"
	lastTry, retryTill time.Time
}

// composed is a notification before it is written.
type composed struct {
	id, hostname, from, to string
	date                   time.Time
	subject, text          string
	envelopeID             string
	arrived                time.Time
	recipients             []recipientStatus
	header                 []byte // the returned fields; nil: none
}

// write writes the whole mail. Every value is made harmless here, whatever it came from.
func (c composed) write(out io.Writer) error {
	var b bytes.Buffer // bounded: the fields, a short text, at most 32 KiB of header
	boundary := "=_sealpost-" + c.id
	from := c.from
	if from == "" {
		from = "postmaster@" + c.hostname
	}
	field(&b, "From", "Mail Delivery System <"+ascii(from)+">")
	field(&b, "To", toField(c.to))
	field(&b, "Date", c.date.Format(time.RFC1123Z))
	field(&b, "Message-ID", "<"+ascii(c.id)+"@"+ascii(c.hostname)+">")
	field(&b, "Subject", ascii(c.subject))
	field(&b, "Auto-Submitted", "auto-replied")
	field(&b, "MIME-Version", "1.0")
	b.WriteString("Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"" + boundary + "\"\r\n\r\n")
	b.WriteString("This is a delivery status notification in MIME format.\r\n")
	b.WriteString("\r\n--" + boundary + "\r\nContent-Description: Notification\r\nContent-Type: text/plain; charset=utf-8\r\n")
	b.WriteString("Content-Transfer-Encoding: quoted-printable\r\n\r\n")
	if err := quoted(&b, c.text); err != nil {
		return err
	}
	b.WriteString("\r\n--" + boundary + "\r\nContent-Description: Delivery report\r\nContent-Type: message/delivery-status\r\n\r\n")
	c.writeStatus(&b)
	if len(c.header) > 0 {
		b.WriteString("\r\n--" + boundary + "\r\nContent-Description: Header of the mail\r\n")
		if err := writeHeader(&b, c.header); err != nil {
			return err
		}
	}
	b.WriteString("\r\n--" + boundary + "--\r\n")
	if _, err := out.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write the notification: %w", err)
	}
	return nil
}

func (c composed) writeStatus(b *bytes.Buffer) {
	field(b, "Reporting-MTA", "dns; "+ascii(c.hostname))
	field(b, "Original-Envelope-Id", ascii(c.envelopeID))
	dateField(b, "Arrival-Date", c.arrived)
	for _, r := range c.recipients {
		b.WriteString("\r\n")
		if kind, address, ok := strings.Cut(r.original, ";"); ok {
			field(b, "Original-Recipient", typed(kind, strings.TrimSpace(address)))
		}
		field(b, "Final-Recipient", typed("rfc822", r.final))
		field(b, "Action", r.action)
		field(b, "Status", r.status)
		field(b, "Diagnostic-Code", ascii(r.diagnostic))
		dateField(b, "Last-Attempt-Date", r.lastTry)
		dateField(b, "Will-Retry-Until", r.retryTill)
	}
}

func writeHeader(b *bytes.Buffer, header []byte) error {
	if sevenBit(header) {
		b.WriteString("Content-Type: text/rfc822-headers\r\n\r\n")
		b.Write(header)
		return nil
	}
	b.WriteString("Content-Type: text/rfc822-headers; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n")
	return quoted(b, string(fitting(header)))
}

// fitting returns the whole lines of header that are no longer than maxHeader when they are quoted-printable: an octet that needs
// it takes three.
func fitting(header []byte) []byte {
	size, end := 0, 0
	for i, c := range header {
		size++
		if c > 126 || c < ' ' && c != '\r' && c != '\n' || c == '=' {
			size += 2
		}
		if c != '\n' {
			continue
		}
		if size+size/(maxLine-3)*3 > maxHeader { // with its soft line breaks
			break
		}
		end = i + 1
	}
	return header[:end]
}

func quoted(b *bytes.Buffer, text string) error {
	w := quotedprintable.NewWriter(b)
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("encode the notification: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("encode the notification: %w", err)
	}
	return nil
}

// sevenBit reports whether text needs no encoding (RFC 2045 section 2.7).
func sevenBit(text []byte) bool {
	line := 0
	for _, c := range text {
		if c == '\n' {
			line = 0
			continue
		}
		if line++; line > 998 || c > 126 || c == 0 {
			return false
		}
	}
	return true
}

// field writes one field, folded at blanks. An empty value is not written.
func field(b *bytes.Buffer, name, value string) {
	if value == "" {
		return
	}
	b.WriteString(name + ":")
	column := len(name) + 1
	for word := range strings.FieldsSeq(value) {
		for word != "" {
			piece := word[:min(len(word), maxWord)]
			word = word[len(piece):]
			if column > len(name)+1 && column+1+len(piece) > maxLine {
				b.WriteString("\r\n")
				column = 0
			}
			b.WriteString(" " + piece)
			column += 1 + len(piece)
		}
	}
	b.WriteString("\r\n")
}

func dateField(b *bytes.Buffer, name string, t time.Time) {
	if !t.IsZero() {
		field(b, name, t.Format(time.RFC1123Z))
	}
}

// ascii makes a value fit for a field of a 7-bit mail: no control characters, at most 1,000 characters.
func ascii(s string) string {
	s = strings.Map(func(c rune) rune {
		switch {
		case unicode.IsSpace(c), unicode.IsControl(c):
			return ' '
		case c > '~':
			return '?'
		}
		return c
	}, s)
	return strings.TrimSpace(s[:min(len(s), maxValue)])
}

// typed writes an address with its type, which is utf-8 for one outside ASCII (RFC 6533 section 3).
func typed(kind, address string) string {
	if address == "" {
		return ""
	}
	foreign := false
	var b strings.Builder
	for _, c := range address {
		switch {
		case unicode.IsControl(c), c == ' ', c == unicode.ReplacementChar:
			b.WriteByte('?')
		case c > '~':
			foreign = true
			fmt.Fprintf(&b, `\x{%X}`, c)
		default:
			b.WriteRune(c)
		}
	}
	if foreign {
		kind = "utf-8"
	}
	return ascii(kind) + "; " + ascii(b.String())
}

// toField writes the reader's address.
func toField(address string) string {
	address = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || c == '<' || c == '>' {
			return -1
		}
		return c
	}, strings.ToValidUTF8(address, "?"))
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		if domain, err := idna.Lookup.ToASCII(address[at+1:]); err == nil {
			address = address[:at+1] + domain
		}
	}
	if address == ascii(address) && address != "" {
		return "<" + address + ">"
	}
	return mime.QEncoding.Encode("utf-8", clip(address)) + " :;"
}

// clip bounds an address that is to be encoded.
func clip(s string) string {
	if runes := []rune(s); len(runes) > 320 {
		return string(runes[:320])
	}
	return s
}

func validStatus(status, otherwise string) string {
	if statusCode.MatchString(status) {
		return status
	}
	return otherwise
}
