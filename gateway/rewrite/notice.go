package rewrite

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"mime/quotedprintable"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// maxNotice is the most characters that a reader sees of the notice, and maxNames the most names.
	maxNotice = 2000
	maxNames  = 20
	// maxName is the most characters that are shown of a name.
	maxName = 80
)

// Notice is what the mail tells of what was taken out.
type Notice struct {
	// Link is the Secure Link, in ASCII. It is written into the mail and nowhere else.
	Link      string
	Files     []File
	ShowNames bool
	Expires   time.Time
}

// File is one file that the notice may name, by its exact name; it is made safe to show here.
type File struct {
	Name string
	Size int64
}

// kind says what the notice is about.
type kind int

const (
	aboutFiles kind = iota
	aboutText
	aboutAmbiguous // it could not be taken apart
	aboutDisowned
	aboutUnproven
	aboutVirus
	aboutTooLarge
)

// aboutWhole is what the notice of a mail that was sealed whole is about.
func aboutWhole(cause Cause) kind {
	switch cause {
	case CauseDisowned:
		return aboutDisowned
	case CauseUnproven:
		return aboutUnproven
	case CauseVirus:
		return aboutVirus
	case CauseTooLarge:
		return aboutTooLarge
	}
	return aboutAmbiguous
}

// cutLead is what the notice tells where a page stays that Email-to-Case cuts.
const cutLead = "The formatted text of this mail is long and may be cut off at its end. All of it is also in message.html, in a secure place."

// notice is the text of a Notice, made once and written in any form.
type notice struct {
	leads         []string // a sentence or two each
	open, expires string
	names         []string
	more          string
	link          string
}

// newNotice names as many files as fit. copies are how many of the files stay in the mail.
func newNotice(n Notice, about kind, copies int) *notice {
	t := &notice{
		link:    n.Link,
		open:    "To open, follow this link and log in:",
		expires: "Available until " + n.Expires.UTC().Format("2 January 2006") + ".",
	}
	if taken := len(n.Files) - copies; taken > 0 {
		t.leads = append(t.leads, lead(taken, about))
	}
	if copies > 0 {
		t.leads = append(t.leads, cutLead)
	}
	if !n.ShowNames {
		return t
	}
	left := maxNotice - 100 - len(strings.Join(t.leads, "")) - len(t.open) - len(t.link) - len(t.expires)
	for i, file := range n.Files {
		name := fmt.Sprintf("%s (%s)", shownName(file.Name), shownSize(file.Size))
		left -= utf8.RuneCountInString(name) + 4
		if i == maxNames || left < 0 {
			t.more = fmt.Sprintf("and %d more", len(n.Files)-i)
			break
		}
		t.names = append(t.names, name)
	}
	return t
}

func lead(files int, about kind) string {
	switch {
	case about == aboutAmbiguous:
		return "This mail could not be taken apart safely, so all of it was moved to a secure place."
	case about == aboutDisowned:
		return "The domain of this mail's sender says that it did not send it: it may be forged. All of it was moved to a secure place."
	case about == aboutUnproven:
		return "It could not be checked who sent this mail: it may be forged. All of it was moved to a secure place."
	case about == aboutVirus:
		return "A virus scanner found something in this mail. Open it only if you must. All of it was moved to a secure place."
	case about == aboutTooLarge:
		return "This mail is too large for Salesforce, so all of it was moved to a secure place."
	case about == aboutText && files == 1:
		return "The text of this mail is too long to be shown here, so it was moved to a secure place."
	case files == 1:
		return "1 file was taken out of this mail and moved to a secure place."
	}
	return fmt.Sprintf("%d files were taken out of this mail and moved to a secure place.", files)
}

// plain returns the notice as text, with CRLF. No line begins or ends with a space, so that it is the same
// in format=flowed (RFC 3676).
func (t *notice) plain() string {
	var b strings.Builder
	for _, lead := range t.leads {
		b.WriteString("[" + lead + "]\r\n")
	}
	b.WriteString("\r\n")
	for _, name := range t.names {
		b.WriteString("* " + name + "\r\n")
	}
	if t.more != "" {
		b.WriteString("* " + t.more + "\r\n")
	}
	if len(t.names) > 0 || t.more != "" {
		b.WriteString("\r\n")
	}
	b.WriteString(t.open + "\r\n" + t.link + "\r\n\r\n" + t.expires + "\r\n")
	return b.String()
}

// ascii reports whether plain returns ASCII only.
func (t *notice) ascii() bool {
	for _, name := range t.names {
		for i := range len(name) {
			if name[i] >= utf8.RuneSelf {
				return false
			}
		}
	}
	return true
}

// html returns the notice as HTML in ASCII, with CRLF, for any page whose charset contains ASCII.
func (t *notice) html() string {
	var b strings.Builder
	b.WriteString("\r\n<div role=\"note\" lang=\"en\" dir=\"ltr\" style=\"margin:1em 0;padding:0.5em 1em;border:1px solid #767676\">\r\n")
	for _, lead := range t.leads {
		b.WriteString("<p>" + escape(lead) + "</p>\r\n")
	}
	if len(t.names) > 0 || t.more != "" {
		b.WriteString("<ul>\r\n")
		for _, name := range t.names {
			b.WriteString("<li>" + escape(name) + "</li>\r\n")
		}
		if t.more != "" {
			b.WriteString("<li>" + escape(t.more) + "</li>\r\n")
		}
		b.WriteString("</ul>\r\n")
	}
	link := escape(t.link)
	b.WriteString("<p>" + escape(t.open) + "<br>\r\n<a href=\"" + link + "\">" + link + "</a></p>\r\n")
	b.WriteString("<p>" + escape(t.expires) + "</p>\r\n</div>\r\n")
	return b.String()
}

// part returns the notice as a text/plain entity of its own: fields of RFC 2045, empty line, body.
func (t *notice) part() ([]byte, error) {
	body, encoding, err := t.encoded()
	if err != nil {
		return nil, err
	}
	return append([]byte("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: "+encoding+"\r\n\r\n"), body...), nil
}

// encoded returns plain in a transfer encoding that every next hop takes.
func (t *notice) encoded() (body []byte, encoding string, err error) {
	if t.ascii() {
		return []byte(t.plain()), "7bit", nil
	}
	body, err = quote(t.plain())
	return body, "quoted-printable", err
}

// quote encodes text in quoted-printable; its CRLFs stay line ends.
func quote(text string) ([]byte, error) {
	var b bytes.Buffer
	w := quotedprintable.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		return nil, fmt.Errorf("quote the notice: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("quote the notice: %w", err)
	}
	return b.Bytes(), nil
}

// escape makes text safe in HTML, and ASCII.
func escape(text string) string {
	var b strings.Builder
	for _, r := range html.EscapeString(text) {
		if r < utf8.RuneSelf {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "&#%d;", r)
		}
	}
	return b.String()
}

// shownName makes a name safe to show: what is invisible or turns the direction of writing becomes
// visible, path separators become "_" so that it is no link either, and a long name loses its middle.
func shownName(name string) string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(name, "?") {
		switch {
		case r == '/' || r == '\\':
			b.WriteByte('_')
		case r == ' ' || unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "[U+%04X]", r)
		}
	}
	runes := []rune(b.String())
	if len(runes) <= maxName {
		return string(runes)
	}
	return string(runes[:maxName-20]) + "..." + string(runes[len(runes)-17:])
}

// shownSize is a size as people say it.
func shownSize(size int64) string {
	if size < 1000 {
		return fmt.Sprintf("%d bytes", size)
	}
	n, unit := float64(size)/1000, "kB"
	for _, next := range []string{"MB", "GB", "TB"} {
		if n < 999.5 {
			break
		}
		n, unit = n/1000, next
	}
	if n < 9.95 {
		return fmt.Sprintf("%.1f %s", n, unit)
	}
	return fmt.Sprintf("%.0f %s", n, unit)
}
