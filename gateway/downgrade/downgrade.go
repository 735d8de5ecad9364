// Package downgrade makes a mail fit a next hop that lacks 8BITMIME (RFC 6152 section 3) or SMTPUTF8 (RFC 6531), as
// long as its reader is given exactly the same. It is a package of its own since it needs a streaming view of a mail that is
// neither the front door's nor the queue's, and may change nothing but transfer encodings and the spelling of fields.
//
// Decisions:
//   - The first pass over the mail finds what must change and whether that is exact; only the second writes.
//   - A leaf with octets over 127 becomes quoted-printable if it is text, else base64; a text that quoted-printable
//     would break (very long lines, a boundary within a line) becomes base64 too. What has no such octets stays byte for byte.
//   - Containers labelled 8bit or binary are labelled 7bit. A MIME-Version field is added where none is, since without one no
//     encoding counts.
//   - Not exact, and refused: octets over 127 in what is signed or encrypted, in message/global, in a leaf that is encoded
//     already, in a preamble or epilogue, in bare-LF mails, in a header section over 128 KiB; in fields that are neither
//     text, addresses nor MIME parameters; in local parts; in fields that hold encoded words besides.
//   - A hop without 8BITMIME has no SMTPUTF8 either (RFC 6531 section 3.1), so its header fields are converted as well.
package downgrade

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// ErrNotExact tells that a mail cannot be converted without a change of its content.
var ErrNotExact = errors.New("the mail cannot be converted exactly for a next hop without 8BITMIME or SMTPUTF8")

// Plan reads the mail and returns how it is written for a hop that lacks 8BITMIME (eightBit), SMTPUTF8 (utf8) or both,
// or ErrNotExact. open gives the mail from its beginning each time; Plan calls it once, and write once each time.
func Plan(open func() (io.ReadCloser, error), eightBit, utf8 bool) (write func(io.Writer) error, err error) {
	first := &converter{out: io.Discard, eightBit: eightBit, utf8: utf8 || eightBit}
	if err := pass(open, first); err != nil {
		return nil, err
	}
	if first.bareLF && first.changes {
		return nil, ErrNotExact
	}
	return func(w io.Writer) error {
		return pass(open, &converter{out: w, eightBit: first.eightBit, utf8: first.utf8, plan: first.entities, writing: true})
	}, nil
}

func pass(open func() (io.ReadCloser, error), c *converter) (err error) {
	mail, err := open()
	if err != nil {
		return fmt.Errorf("open the mail: %w", err)
	}
	defer func() {
		if closeErr := mail.Close(); closeErr != nil && err == nil {
			err = fmt.Errorf("close the mail: %w", closeErr)
		}
	}()
	return c.run(mail)
}

// Address returns the envelope address in ASCII: its domain in A-labels (RFC 5890). It is false when the local part is
// not ASCII, or the domain none.
func Address(address string) (string, bool) {
	if isASCII(address) {
		return address, true
	}
	at := strings.LastIndexByte(address, '@')
	if at < 1 || !isASCII(address[:at]) || !utf8.ValidString(address) {
		return "", false
	}
	domain, err := idna.Lookup.ToASCII(address[at+1:])
	if err != nil || domain == "" || !isASCII(domain) {
		return "", false
	}
	return address[:at+1] + domain, true
}

func isASCII[T string | []byte](text T) bool {
	for i := range len(text) {
		if text[i] > 127 {
			return false
		}
	}
	return true
}

// field is one header field with its folding and line end.
type field struct {
	raw []byte
}

func (f field) name() string {
	name, _, _ := bytes.Cut(f.raw, []byte(":"))
	return strings.ToLower(strings.TrimSpace(string(name)))
}

// value is the unfolded value without surrounding blanks (RFC 5322 section 2.2.3).
func (f field) value() string {
	_, value, _ := strings.Cut(string(f.raw), ":")
	return strings.Trim(strings.ReplaceAll(value, "\r\n", ""), " \t\r\n")
}

// split cuts a header section without its empty line into fields.
func split(header []byte) (fields []field) {
	for line := range bytes.SplitAfterSeq(header, []byte("\n")) {
		switch {
		case len(line) == 0:
		case (line[0] == ' ' || line[0] == '\t') && len(fields) > 0:
			last := &fields[len(fields)-1]
			last.raw = append(last.raw[:len(last.raw):len(last.raw)], line...)
		default:
			fields = append(fields, field{line})
		}
	}
	return fields
}
