package rewrite

import (
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io"
	"slices"
	"strings"
	texttemplate "text/template"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"
)

const (
	// maxFilled is the most bytes that a template may give before it is stopped.
	maxFilled = 64 << 10
	// maxNoticeLine is the most octets of a line of the notice, below the 998 of RFC 5322 section 2.1.1.
	maxNoticeLine = 990
)

// Template is an admin's own text of the notice. It may be used by many mails at once.
type Template struct {
	text *texttemplate.Template
	page *htmltemplate.Template
}

// templateFields are what a template may use.
type templateFields struct {
	Link    string
	Files   []shownFile // those that are named: Name and Size, in words
	More    int         // files that are not named
	Count   int         // all files
	Expires string      // the day, in the notice's language
	Reason  string      // why files were taken out, and whatever else the mail must tell, in the notice's language
}

// ParseTemplate makes a template of one for plain text (text/template) and one for a piece of HTML (html/template), whose
// fields are .Link .Files (each .Name .Size) .More .Count .Expires .Reason. Line ends may be LF or CRLF. It is tried with
// sample mails: each result has the link, exactly, and at most 2,000 characters with 20 names; the HTML stands by itself
// and loads nothing. The error says which of the two is wrong, and where.
func ParseTemplate(text, page string) (*Template, error) {
	var t Template
	var err error
	if t.text, err = texttemplate.New("text").Option("missingkey=error").Parse(text); err != nil {
		return nil, fmt.Errorf("the notice's text template: %w", err)
	}
	if t.page, err = htmltemplate.New("HTML").Option("missingkey=error").Parse(page); err != nil {
		return nil, fmt.Errorf("the notice's HTML template: %w", err)
	}
	for _, sample := range sampleNotices() {
		named := len(sample.names)
		if err := t.fill(sample); err != nil {
			return nil, fmt.Errorf("%w (tried with %d files)", err, sample.count)
		}
		if len(sample.names) < named {
			return nil, fmt.Errorf("the notice's template gives over %d characters, or a line of over %d octets, with %d names", maxNotice, maxNoticeLine, maxNames)
		}
	}
	return &t, nil
}

// sampleNotices are notices without a named file, with one and with many, and one whose names are hostile.
func sampleNotices() []*notice {
	words := english()
	base := notice{
		words: words, link: "https://files.example.com/p/00112233445566778899aabbccddeeff#AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA-_",
		until: words.date(time.Date(2030, 9, 30, 0, 0, 0, 0, time.UTC)),
	}
	var samples []*notice
	add := func(count int, names ...string) {
		n := base
		n.leads, n.count, n.more = []string{words.lead(count, aboutFiles)}, count, count-len(names)
		for _, name := range names {
			n.names = append(n.names, shownFile{shownName(name), words.size(1234567)})
		}
		samples = append(samples, &n)
	}
	add(3)
	add(1, "invoice.pdf")
	add(30, slices.Repeat([]string{"invoice 2030-09-30 (copy).pdf"}, maxNames)...)
	add(4, "--boundary", `"><script>alert(1)</script>.html`, "begin 644 a.exe", "\u6771\u4eac \u202efdp.exe\r\n</div></table>")
	return samples
}

// fill gives n its text and page. Names that make them too long are left out.
func (t *Template) fill(n *notice) error {
	all := *n
	for {
		text, page, err := t.execute(n)
		if err == nil && fits(text, page) {
			n.text, n.page = text, page
			return nil
		}
		if err == nil && len(n.names) == 0 {
			err = fmt.Errorf("the notice's template gives over %d characters, or a line of over %d octets", maxNotice, maxNoticeLine)
		}
		if err != nil {
			*n = all
			return err
		}
		n.names = n.names[:len(n.names)-1]
		n.more++
	}
}

func fits(text, page string) bool {
	return utf8.RuneCountInString(text) <= maxNotice && visible(page) <= maxNotice && len(page) <= maxPageNotice && shortLines(text) && shortLines(page)
}

// execute returns what the templates give, with CRLF.
func (t *Template) execute(n *notice) (text, page string, err error) {
	fields := templateFields{Link: n.link, Files: n.names, More: n.more, Count: n.count, Expires: n.until, Reason: strings.Join(n.leads, " ")}
	var out limitedText
	if err := t.text.Execute(&out, fields); err != nil {
		return "", "", fmt.Errorf("the notice's text template: %w", err)
	}
	text = lines(out.String())
	if err := checkText(text, n.link); err != nil {
		return "", "", fmt.Errorf("the notice's text template: %w", err)
	}
	out = limitedText{}
	if err := t.page.Execute(&out, fields); err != nil {
		return "", "", fmt.Errorf("the notice's HTML template: %w", err)
	}
	page = "\r\n" + lines(entities(strings.ToValidUTF8(out.String(), "?")))
	if err := checkPage(page, n.link); err != nil {
		return "", "", fmt.Errorf("the notice's HTML template: %w", err)
	}
	return text, page, nil
}

// limitedText stops a template that does not end.
type limitedText struct{ strings.Builder }

func (l *limitedText) Write(p []byte) (int, error) {
	if l.Len()+len(p) > maxFilled {
		return 0, io.ErrShortBuffer
	}
	return l.Builder.Write(p)
}

// lines gives text CRLF at the end of each line, and takes white space away from there (RFC 3676 would join the lines). A
// line that could be taken for a boundary line or for the beginning of an encoded file, since a sender chose the names,
// begins with a space.
func lines(text string) string {
	text = strings.Trim(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(strings.ToValidUTF8(text, "?")), "\n")
	var b strings.Builder
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimRightFunc(line, unicode.IsSpace)
		for _, start := range []string{"--", "begin", "=ybegin"} {
			if strings.HasPrefix(line, start) {
				line = " " + line
			}
		}
		b.WriteString(line + "\r\n")
	}
	return b.String()
}

func shortLines(text string) bool {
	for line := range strings.SplitSeq(text, "\r\n") {
		if len(line) > maxNoticeLine {
			return false
		}
	}
	return true
}

// checkText finds the link, which nothing may lengthen, and no control characters.
func checkText(text, link string) error {
	for i, r := range text {
		if unicode.IsControl(r) && !strings.ContainsRune("\t\r\n", r) {
			return fmt.Errorf("line %d has a control character", 1+strings.Count(text[:i], "\n"))
		}
	}
	for rest := text; ; {
		_, after, ok := strings.Cut(rest, link)
		if !ok {
			return errors.New("the link, {{.Link}}, must be in it, with white space or > behind it")
		}
		if strings.ContainsRune(" \t\r\n>", rune((after + "\n")[0])) {
			return nil
		}
		rest = after
	}
}

// checkPage finds the link in an <a href>, and nothing that loads anything or reaches beyond the notice.
func checkPage(page, link string) error {
	z := html.NewTokenizer(strings.NewReader(page))
	var open []string
	linked := false
	for line := 0; ; {
		kind := z.Next()
		at := fmt.Sprintf("line %d", max(line, 1))
		line += strings.Count(string(z.Raw()), "\n")
		token := z.Token()
		switch kind {
		case html.ErrorToken:
			return endOfPage(z, open, linked)
		case html.StartTagToken, html.SelfClosingTagToken:
			if err := checkTag(token); err != nil {
				return fmt.Errorf("%s: %w", at, err)
			}
			linked = linked || token.Data == "a" && slices.ContainsFunc(token.Attr, func(a html.Attribute) bool { return a.Key == "href" && a.Val == link })
			if !isVoid(token.Data) {
				open = append(open, token.Data)
			}
		case html.EndTagToken:
			if len(open) == 0 || open[len(open)-1] != token.Data {
				return fmt.Errorf("%s: </%s> ends nothing that is open", at, token.Data)
			}
			open = open[:len(open)-1]
		case html.CommentToken, html.DoctypeToken:
			return fmt.Errorf("%s: a comment or a declaration", at)
		case html.TextToken:
		}
	}
}

func endOfPage(z *html.Tokenizer, open []string, linked bool) error {
	switch {
	case !errors.Is(z.Err(), io.EOF):
		return fmt.Errorf("parse it: %w", z.Err())
	case len(z.Raw()) > 0:
		return errors.New("a tag does not end")
	case len(open) > 0:
		return fmt.Errorf("<%s> is not closed", open[len(open)-1])
	case !linked:
		return errors.New("the link must be in it as <a href=\"{{.Link}}\">")
	}
	return nil
}

// checkTag knows the elements of a short text, and lets an attribute name only a link to follow or a picture that is in it.
func checkTag(tag html.Token) error {
	const known = " a abbr b blockquote br caption center code dd div dl dt em font h1 h2 h3 h4 h5 h6 hr i img li ol p pre s small " +
		"span strong sub sup table tbody td tfoot th thead tr u ul wbr "
	if !strings.Contains(known, " "+tag.Data+" ") {
		return fmt.Errorf("<%s> cannot be used in a notice", tag.Data)
	}
	for _, a := range tag.Attr {
		value := strings.ToLower(strings.TrimSpace(a.Val))
		ok := true
		switch a.Key {
		case "href":
			ok = strings.HasPrefix(value, "https://") || strings.HasPrefix(value, "http://") || strings.HasPrefix(value, "mailto:")
		case "src":
			ok = strings.HasPrefix(value, "data:image/")
		case "style":
			ok = !strings.ContainsAny(value, `\@`) && !strings.Contains(value, "url(") && !strings.Contains(value, "image")
		case "align", "alt", "bgcolor", "border", "cellpadding", "cellspacing", "class", "color", "colspan", "dir", "face", "height", "id",
			"lang", "rel", "role", "rowspan", "size", "target", "title", "valign", "width":
		default:
			ok = false
		}
		if !ok {
			return fmt.Errorf("%s of <%s> cannot be used in a notice, or not with this value", a.Key, tag.Data)
		}
	}
	return nil
}

func isVoid(name string) bool {
	switch name {
	case "area", "base", "basefont", "bgsound", "br", "col", "embed", "frame", "hr", "img", "input", "keygen", "link", "meta", "param", "source", "track", "wbr":
		return true
	}
	return false
}

// visible counts the characters of a page that are no tags.
func visible(page string) int {
	z := html.NewTokenizer(strings.NewReader(page))
	count := 0
	for {
		switch z.Next() {
		case html.ErrorToken:
			return count
		case html.TextToken:
			count += utf8.RuneCountInString(z.Token().Data)
		}
	}
}
