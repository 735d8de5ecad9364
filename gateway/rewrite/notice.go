package rewrite

import (
	"fmt"
	"strings"
	"time"
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
	// Language is "en" or "de"; anything else is English.
	Language string
	// Place is where the notice stands in a body; "" is PlaceAuto.
	Place Place
	// Template takes the place of our own text; nil is our own.
	Template *Template

	// What the plan knows of the mail.
	imitated  bool
	originals int // texts that are among the files, and stay masked
	unsigned  int // signed messages that are among the files, and whose parts are too
}

// Place is where the notice stands in the bodies that carry it.
type Place string

// The places. Whatever is asked for, the notice stands on top of a long text, which Email-to-Case cuts or bounces, and
// of a page that would hide it at its end.
const (
	// PlaceAuto is below the text, but above one with a signature, behind which readers hide it.
	PlaceAuto   Place = "auto"
	PlaceTop    Place = "top"
	PlaceBottom Place = "bottom"
)

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
	aboutPersonal  // its text holds personal data
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

// notice is the text of a Notice, made once and written in any form.
type notice struct {
	words phrases
	place Place
	leads []string // a sentence or two each
	names []shownFile
	more  int // files that are not named; 0 if none is
	count int // of all files
	until string
	link  string

	text, page string // as plain text, and as HTML in ASCII; both with CRLF
	failed     bool   // the template did
}

// shownFile is a file as the notice names it.
type shownFile struct{ Name, Size string }

func (f shownFile) String() string { return f.Name + " (" + f.Size + ")" }

// newNotice names as many files as fit. copies are how many of the files stay in the mail.
func newNotice(n Notice, about kind, copies int) *notice {
	words := phrasesIn(n.Language)
	t := &notice{words: words, place: n.Place, link: n.Link, until: words.date(n.Expires), count: len(n.Files)}
	if taken := len(n.Files) - copies - n.unsigned - n.originals; taken > 0 {
		t.leads = append(t.leads, words.lead(taken, about))
	}
	for _, more := range []struct {
		tell bool
		lead string
	}{{copies > 0, words.cut}, {n.originals > 0, words.masked}, {n.unsigned > 0, words.signed}, {n.imitated, words.imitated}} {
		if more.tell {
			t.leads = append(t.leads, more.lead)
		}
	}
	if n.ShowNames {
		t.nameFiles(n.Files)
	}
	if n.Template != nil {
		err := n.Template.fill(t)
		if err == nil {
			return t
		}
		t.failed = true
	}
	t.text, t.page = t.ownText(), t.ownPage()
	return t
}

// nameFiles names the first files, as many as fit into our own text.
func (t *notice) nameFiles(files []File) {
	left := maxNotice - 100
	for _, text := range append([]string{t.words.trust, t.words.open, t.words.until, t.until, t.link}, t.leads...) {
		left -= utf8.RuneCountInString(text) + 4
	}
	for i, file := range files {
		shown := shownFile{shownName(file.Name), t.words.size(file.Size)}
		left -= utf8.RuneCountInString(shown.String()) + 4
		if i == maxNames || left < 0 {
			t.more = len(files) - i
			return
		}
		t.names = append(t.names, shown)
	}
}

// list is the lines that name files.
func (t *notice) list() []string {
	var lines []string
	for _, file := range t.names {
		lines = append(lines, file.String())
	}
	if t.more > 0 {
		lines = append(lines, fmt.Sprintf(t.words.more, t.more))
	}
	return lines
}

// ownText returns our own text. No line begins or ends with a space, so that it is the same in format=flowed (RFC 3676).
func (t *notice) ownText() string {
	var b strings.Builder
	for _, lead := range t.leads {
		b.WriteString("[" + lead + "]\r\n")
	}
	b.WriteString("\r\n")
	for _, line := range t.list() {
		b.WriteString("* " + line + "\r\n")
	}
	if len(t.list()) > 0 {
		b.WriteString("\r\n")
	}
	b.WriteString(t.words.open + "\r\n" + t.link + "\r\n\r\n" + t.expires() + " " + t.words.trust + "\r\n")
	return b.String()
}

func (t *notice) expires() string { return fmt.Sprintf(t.words.until, t.until) }

// ownPage returns our own text as HTML, for any page whose charset contains ASCII.
func (t *notice) ownPage() string {
	var b strings.Builder
	b.WriteString("\r\n<div role=\"note\" lang=\"" + t.words.lang + "\" dir=\"ltr\" style=\"margin:1em 0;padding:0.5em 1em;border:1px solid #767676\">\r\n")
	for _, lead := range t.leads {
		b.WriteString("<p>" + escape(lead) + "</p>\r\n")
	}
	if lines := t.list(); len(lines) > 0 {
		b.WriteString("<ul>\r\n")
		for _, line := range lines {
			b.WriteString("<li>" + escape(line) + "</li>\r\n")
		}
		b.WriteString("</ul>\r\n")
	}
	link := escape(t.link)
	b.WriteString("<p>" + escape(t.words.open) + "<br>\r\n<a href=\"" + link + "\">" + link + "</a></p>\r\n")
	b.WriteString("<p>" + escape(t.expires()) + " " + escape(t.words.trust) + "</p>\r\n</div>\r\n")
	return b.String()
}

// plain returns the notice as text, with CRLF.
func (t *notice) plain() string { return t.text }

// html returns the notice as HTML in ASCII, with CRLF.
func (t *notice) html() string { return t.page }

// ascii reports whether plain returns ASCII only.
func (t *notice) ascii() bool { return !isWide([]byte(t.text)) }

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
