package rewrite

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

const (
	// maxImitation is how much of a text is looked through for imitations: who wants to be read comes to the point.
	maxImitation = 1 << 20
	// imitationWindow is longer than any mark of a notice, and than a link.
	imitationWindow = 512
	// maxSender is how far behind the sender of an answered mail its date stands at most.
	maxSender = 400
)

// imitations looks for what a reader could take for a notice of ours in a mail that has not come to us yet: a sentence of
// the notice in any language, or a Secure Link. What is quoted does not count, since an answer quotes the true one. A
// page is told to text, tag and named, which may be called on nil.
type imitations struct {
	marks  []string // lower-cased
	portal string   // what Secure Links begin with, lower-cased; "" if that is not known
	found  bool
	window []byte // the last that was said: lower-cased, and each run of white space as one space
	line   []byte // of plain text
	quotes int    // open quotations of a page
	rest   bool   // the rest is a quotation
}

func newImitations(portal string) *imitations {
	m := &imitations{marks: append(english().marks, german().marks...), window: make([]byte, 0, 16*imitationWindow)}
	if portal != "" {
		m.portal = strings.ToLower(strings.TrimRight(portal, "/")) + "/p/"
	}
	return m
}

// Imitates reports whether the mail came with text that looks like a notice of ours.
func (p *Plan) Imitates() bool { return p.imitated }

// findImitations looks through the first text/plain and the first text/html that stay.
func (p *Plan) findImitations() error {
	for _, q := range p.bodies() {
		if q == nil || p.fates[q] == replaced || !knownEncoding(q.encoding) {
			continue
		}
		found, err := p.imitates(q)
		if err != nil {
			return fmt.Errorf("look for imitations: %w", err)
		}
		p.imitated = p.imitated || found
	}
	return nil
}

func (p *Plan) imitates(q *part) (bool, error) {
	text := decoder(p.msg.src, q)
	if coding := exactly(q.charset); coding != nil {
		text = coding.NewDecoder().Reader(text)
	}
	text = io.LimitReader(text, maxImitation)
	m := newImitations(p.rules.PortalURL)
	var err error
	if q.typ == "text/html" {
		err = (&htmlPlace{said: m}).find(text)
	} else {
		_, err = io.Copy(m, text)
		m.endLine()
	}
	m.look()
	if errors.Is(err, errDirty) {
		err = nil // what could be read was looked at
	}
	return m.found, err
}

// Write takes plain text.
func (m *imitations) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		line, more, ended := bytes.Cut(rest, []byte{'\n'})
		rest = more
		if m.line = append(m.line, line...); ended || len(m.line) > imitationWindow {
			m.endLine()
		}
	}
	return len(p), nil
}

func (m *imitations) endLine() {
	line := bytes.TrimSpace(m.line)
	m.line = m.line[:0]
	m.rest = m.rest || beginsQuotation(line)
	if bytes.HasPrefix(line, []byte{'>'}) || bytes.HasPrefix(line, []byte{'|'}) {
		return
	}
	m.text(append(line, ' '))
}

// beginsQuotation reports whether what follows a line is a mail that is answered or forwarded, without marks of its own.
func beginsQuotation(line []byte) bool {
	if len(line) == 0 || line[0] != '-' && line[0] != '_' && line[0]|0x20 != 'b' {
		return false
	}
	lower := bytes.ToLower(line)
	ruled := bytes.HasPrefix(lower, []byte("-----")) &&
		(bytes.Contains(lower, []byte("message")) || bytes.Contains(lower, []byte("nachricht")) || bytes.Contains(lower, []byte("mail")))
	return ruled || bytes.HasPrefix(lower, []byte("begin forwarded message:")) || bytes.HasPrefix(lower, []byte("____________________"))
}

// text takes what is said.
func (m *imitations) text(text []byte) {
	if m == nil || m.found || m.quoted() {
		return
	}
	for _, c := range text {
		switch {
		case c >= 'A' && c <= 'Z':
			c |= 0x20
		case c == '\t', c == '\r', c == '\n':
			c = ' '
		}
		if c == ' ' && len(m.window) > 0 && m.window[len(m.window)-1] == ' ' {
			continue
		}
		if m.window = append(m.window, c); len(m.window) == cap(m.window) {
			m.look()
			m.window = m.window[:copy(m.window, m.window[max(0, len(m.window)-imitationWindow):])]
		}
	}
}

// look looks through the window; at the end of a text it is to be called once more.
func (m *imitations) look() {
	if at := answered(m.window); at >= 0 {
		m.window, m.rest = m.window[:at], true
	}
	said := bytes.ReplaceAll(bytes.ReplaceAll(m.window, []byte("&nbsp;"), []byte{' '}), []byte("\u00a0"), []byte{' '})
	for _, mark := range m.marks {
		m.found = m.found || bytes.Contains(said, []byte(mark))
	}
	m.found = m.found || m.isLink(m.window)
}

// rule is a line above a mail that is answered, in any language.
var rule = regexp.MustCompile(`-{4,} ?[\pL' ]{5,60}-{4,}`)

// answered returns where a mail begins that is answered and stands below without marks of its own, as Outlook writes it: a
// rule, or who sent it and when. It is negative if there is none. The text is lower-cased.
func answered(text []byte) int {
	if at := rule.FindIndex(text); at != nil {
		return at[0]
	}
	for _, sender := range []string{"from: ", "von: ", "de: ", "de : ", "da: ", "van: "} {
		for at := 0; ; at++ {
			i := bytes.Index(text[at:], []byte(sender))
			if i < 0 {
				break
			}
			if at += i; (at == 0 || !isAlphanumeric(text[at-1])) && hasDate(text[at:min(len(text), at+maxSender)]) {
				return at
			}
		}
	}
	return -1
}

func hasDate(text []byte) bool {
	for _, date := range []string{" sent: ", " gesendet: ", " date: ", " datum: ", "envoy\u00e9 : ", "envoy\u00e9: ", " enviado", " inviato: ", " verzonden: "} {
		if bytes.Contains(text, []byte(date)) {
			return true
		}
	}
	return false
}

// address takes the target of a link in a page.
func (m *imitations) address(value []byte) {
	if m.isLink(bytes.ToLower(value)) {
		m.look() // it may stand in a mail that is answered
		m.found = m.found || !m.quoted()
	}
}

// isLink reports whether a Secure Link stands in text, which is lower-cased.
func (m *imitations) isLink(text []byte) bool {
	if m.portal == "" {
		return false
	}
	for {
		_, after, found := bytes.Cut(text, []byte(m.portal))
		if !found {
			return false
		}
		digits := 0
		for digits < len(after) && unhex(after[digits]) >= 0 {
			digits++
		}
		if digits >= 32 {
			return true
		}
		text = after
	}
}

func (m *imitations) quoted() bool { return m.rest || m.quotes > 0 }

// tag takes a tag of a page.
func (m *imitations) tag(name string, start bool) {
	switch {
	case m == nil:
	case name == "br" || name == "p" || name == "div" || name == "td" || name == "li":
		m.text([]byte{' '})
	case name != "blockquote":
	case start:
		m.quotes++
	default:
		m.quotes = max(0, m.quotes-1)
	}
}

// named takes the id or the class of an element: mail programs so mark where the mail begins that is answered.
func (m *imitations) named(value string) {
	if m == nil {
		return
	}
	lower := strings.ToLower(value)
	for _, mark := range []string{"gmail_quote", "moz-forward-container", "protonmail_quote", "divrplyfwdmsg", "appendonsend", "yahoo_quoted", "moz-cite-prefix", "outlookmessageheader"} {
		m.rest = m.rest || strings.Contains(lower, mark)
	}
}
