package rewrite

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/gabriel-vasile/mimetype"
)

const (
	// maxMeta is how much is kept of what a URI says of its data.
	maxMeta = 2048
	// maxProse is how long a text may be that begins like a URI and gives no media type, so that it may be prose.
	maxProse = 16 << 10
)

// dataURI is a data: URI (RFC 2397) in a page.
type dataURI struct {
	// The URI is [start, end) of the decoded page in bytes; its data begins at payload.
	start, payload, end int64
	typ                 string // the media type that it declares, lower-cased; "" if none is valid
	base64              bool
	broken              bool // it is not base64 although it says so
	wrapped             bool // there are line ends in it
	quote               letter
	size                int64 // of its data, decoded
	head                []byte
}

// isFile reports whether u must not stay: it holds anything but a small picture.
func (u *dataURI) isFile(limit int64) bool {
	switch {
	case u.size == 0 && !u.broken:
		return false
	case !u.broken && u.size <= limit && isPictureType(u.typ) && isPicture(u.head):
		return false
	}
	return u.base64 || u.typ != "" && u.quote.b != 0 || u.size > maxProse
}

// instead returns what takes the place of u: a picture, or an empty URI. The base64 of an empty one says what it was.
func (u *dataURI) instead() (string, error) {
	text := "data:;base64,"
	if strings.HasPrefix(u.typ, "image/") {
		picture, err := placeholder()
		if err != nil {
			return "", err
		}
		text = "data:image/png;base64,"
		if u.wrapped {
			text += "\r\n"
		}
		text += base64.StdEncoding.EncodeToString(picture)
	}
	if u.wrapped { // lines stay short
		text += "\r\n"
	}
	return text, nil
}

// uriItem is the nth file that was taken out of pages.
func (p *Plan) uriItem(q *part, u *dataURI, n int) Item {
	name := fmt.Sprintf("data-%d", n)
	if u.broken {
		return Item{Name: name + ".txt", Type: "text/plain", Size: u.end - u.start, open: func() io.Reader {
			return p.textBetween(q, u.start, u.end)
		}}
	}
	item := Item{Name: name, Type: u.typ, Size: u.size, open: func() io.Reader {
		return u.data(p.textBetween(q, u.payload, u.end))
	}}
	if item.Type == "" {
		item.Type = "text/plain" // RFC 2397 section 2
	}
	ext := extension(item.Type)
	if ext == "" {
		ext = mimetype.Detect(u.head).Extension()
	}
	if ext == "" {
		ext = ".bin"
	}
	item.Name += ext
	u.head = nil // it is not needed any more
	return item
}

// data decodes the payload of u.
func (u *dataURI) data(payload io.Reader) io.Reader {
	r := &uriReader{page: newPageReader(payload), digits: u.base64}
	if u.base64 {
		return base64.NewDecoder(base64.RawStdEncoding, r)
	}
	return r
}

// uriReader reads the bytes that a URI stands for, or the digits of its base64.
type uriReader struct {
	page   *pageReader
	digits bool
}

func (r *uriReader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		l, ok := r.page.nextInURI()
		if !ok {
			if r.page.err != nil {
				return n, r.page.err
			}
			return n, io.EOF
		}
		if !r.digits || !l.isSpace() && l.b != '=' {
			p[n] = l.b
			n++
		}
	}
	return n, nil
}

// nextInURI is next with percent-encoding (RFC 3986 section 2.1) decoded.
func (r *pageReader) nextInURI() (letter, bool) {
	l, ok := r.next()
	if !ok || l.b != '%' || r.pending != "" {
		return l, ok
	}
	text := r.peek(2)
	if len(text) < 2 || unhex(text[0]) < 0 || unhex(text[1]) < 0 {
		return l, true
	}
	b := byte(unhex(text[0])<<4 | unhex(text[1]))
	n, _ := r.in.Discard(2) // they were peeked at
	r.at += int64(n)
	return letter{b, true}, true
}

// uriFinder finds data: URIs wherever they stand in a page, tag or not: how a browser would parse a broken page is not
// known well enough to leave anything out.
type uriFinder struct {
	page *pageReader
	// before is the last letter that is no space, and joined tells that it stands directly before and could belong to the
	// name of a scheme.
	before letter
	joined bool
}

// findDataURIs reads a page to its end and returns the first limit of its data: URIs that take wants, in their order, and
// whether there are more. They do not overlap. Memory does not depend on the page. An error is the reader's.
func findDataURIs(r io.Reader, limit int, take func(*dataURI) bool) ([]dataURI, bool, error) {
	f := &uriFinder{page: newPageReader(r)}
	var found []dataURI
	for {
		start, ok := f.scheme()
		if !ok {
			break
		}
		u := &dataURI{start: start, quote: f.quote()}
		if !f.meta(u) {
			continue
		}
		f.measure(u)
		if f.page.err != nil {
			break
		}
		if !take(u) {
			continue
		}
		if len(found) == limit {
			return found, true, nil
		}
		found = append(found, *u)
	}
	return found, false, f.page.err
}

// scheme finds the next "data:", in any case of letters and with line ends and tabs in it, which browsers pass over (URL
// Standard section 4.4), and returns where it begins.
func (f *uriFinder) scheme() (int64, bool) {
	const name = "data:"
	f.page.css = true
	matched, gap, start := 0, false, int64(0)
	before, joined := f.before, f.joined
	for {
		if matched == 0 {
			f.note(f.page.skipTo("dD&\\"))
			before, joined = f.before, f.joined
		}
		at := f.page.at
		l, ok := f.page.next()
		if !ok {
			return 0, false
		}
		switch lower := l.b | 0x20; {
		case matched > 0 && (l.b == '\t' || l.b == '\r' || l.b == '\n'):
			gap = true
			continue
		case matched > 0 && (lower == name[matched] || l.b == name[matched]):
			matched++
		case lower == 'd' && (matched == 0 && !joined || gap):
			matched, start, gap = 1, at, false
			if f.before.b != l.b || !f.joined {
				before = f.before
			}
		default:
			matched, gap = 0, false
		}
		if matched == len(name) {
			f.before, f.joined = before, false
			return start, true
		}
		f.noteLetter(l)
	}
}

func (f *uriFinder) note(text []byte) {
	for i := len(text) - 1; i >= 0; i-- {
		if text[i] > ' ' { // control characters before a URI are passed over, too (URL Standard section 4.4)
			f.before = letter{b: text[i]}
			f.joined = i == len(text)-1 && isSchemeByte(text[i])
			return
		}
	}
	if len(text) > 0 {
		f.joined = false
	}
}

func (f *uriFinder) noteLetter(l letter) {
	f.joined = isSchemeByte(l.b)
	if l.b > ' ' {
		f.before = l
	}
}

// isSchemeByte reports whether b can stand before "data:" in the name of another scheme (RFC 3986 section 3.1).
func isSchemeByte(b byte) bool { return isAlphanumeric(b) || b == '+' || b == '-' || b == '.' }

// quote returns what surrounds a URI behind before: a quotation mark, a parenthesis, the equals sign of an attribute
// without, the comma of a list, or the semicolon behind which a page says where to go; else nothing, as in text.
func (f *uriFinder) quote() letter {
	switch f.before.b {
	case '"', '\'', '(', '=', ',', ';':
		return f.before
	}
	return letter{}
}

// ends reports whether l stands behind a URI, and next after l. An attribute without quotation marks can have them, and
// tags, in its value (HTML Standard section 13.1.2.3); but one that has them may hold an equals sign.
func (u *dataURI) ends(l letter, next []byte) bool {
	tag := !l.escaped && (l.b == '<' || l.b == '>')
	mark := l.b == '"' || l.b == '\''
	switch u.quote.b {
	case '"', '\'':
		return l.b == u.quote.b && (!l.escaped || u.quote.escaped) || u.base64 && mark && !l.escaped
	case '(':
		return l.b == ')' || l.isSpace() || mark || tag
	case '=':
		if !u.base64 && (mark || l.b == '<') {
			return mark && (len(next) == 0 || isSpace(next[0]) || next[0] == '>' || string(next) == "/>")
		}
	}
	return l.isSpace() || mark || tag
}

// meta reads what stands before the comma, false if this is no URI.
func (f *uriFinder) meta(u *dataURI) bool {
	var text []byte
	for {
		l, ok := f.page.next()
		if !ok {
			return false
		}
		if l.b == ',' {
			break
		}
		if u.ends(l, f.page.peek(2)) {
			f.noteLetter(l)
			return false
		}
		if len(text) == maxMeta { // only the beginning and the end matter
			text = append(text[:maxMeta/2], text[maxMeta*3/4:]...)
		}
		text = append(text, l.b)
	}
	u.payload = f.page.at
	u.describe(strings.ToLower(string(text)))
	return true
}

// describe reads the lower-cased text before the comma as browsers do (Fetch Standard section 6).
func (u *dataURI) describe(text string) {
	text = strings.Map(func(r rune) rune {
		if r == '\t' || r == '\r' || r == '\n' {
			return -1
		}
		return r
	}, text)
	text = strings.TrimSpace(percentDecode(text))
	if front, ok := strings.CutSuffix(text, "base64"); ok {
		if front, ok = strings.CutSuffix(strings.TrimRight(front, " "), ";"); ok {
			u.base64, text = true, front
		}
	}
	typ, _, _ := strings.Cut(text, ";")
	typ = strings.TrimSpace(typ)
	main, sub, ok := strings.Cut(typ, "/")
	switch {
	case ok && isName([]byte(typ)) && main != "" && sub != "" && !strings.ContainsAny(typ, `()<>@,;:\"[]?=`):
		u.typ = typ
	case text == "" || text[0] == ';':
		u.typ = "text/plain" // RFC 2397 section 2
	}
}

// measure reads the data of u to its end.
func (f *uriFinder) measure(u *dataURI) {
	f.page.css = false
	count := &uriCount{u: u}
	u.end = u.payload
	for {
		at := f.page.at
		if u.quote.b == '"' || u.quote.b == '\'' {
			if f.page.pending == "" && isSpace(first(f.page.peek(1))) && isDescriptor(f.page.peek(16)) {
				break
			}
		}
		raw := first(f.page.peek(1))
		l, ok := f.page.nextInURI()
		if !ok {
			break
		}
		isMarkup := !u.base64 && u.size == 0 && u.quote.b != 0 && l.b == '<' // an SVG or a page as it stands
		if raw != '%' && !isMarkup && u.ends(l, f.page.peek(2)) {
			if f.page.pending == "" {
				u.end = max(u.end, at)
			}
			f.noteLetter(l)
			break
		}
		u.wrapped = u.wrapped || l.b == '\n' || l.b == '\r'
		count.take(l)
		u.end = f.page.at
	}
	count.finish()
}

func first(text []byte) byte {
	if len(text) == 0 {
		return 0
	}
	return text[0]
}

// isDescriptor reports whether the white space that text begins with ends a URI in a list of pictures (HTML Standard,
// srcset): a width or a density comes next.
func isDescriptor(text []byte) bool {
	rest := strings.TrimLeft(string(text), " \t\r\n\f")
	number := strings.TrimLeft(rest, "0123456789.")
	if len(number) == len(rest) || number == "" || number[0] != 'x' && number[0] != 'w' {
		return false
	}
	number = strings.TrimLeft(number[1:], " \t\r\n\f")
	return number != "" && strings.ContainsRune(`,"'`, rune(number[0]))
}

// uriCount measures the data of a URI.
type uriCount struct {
	u      *dataURI
	digits int64
	pads   int
	text   []byte // the first digits
}

func (c *uriCount) take(l letter) {
	if !c.u.base64 {
		c.u.size++
		if len(c.u.head) < maxHead {
			c.u.head = append(c.u.head, l.b)
		}
		return
	}
	_, ok := base64Digit(l.b)
	switch {
	case l.isSpace():
	case l.b == '=':
		c.pads++
	case !ok || c.pads > 0:
		c.u.broken = true
	default:
		c.digits++
		if len(c.text) < maxHead/3*4 {
			c.text = append(c.text, l.b)
		}
	}
}

func (c *uriCount) finish() {
	if !c.u.base64 {
		return
	}
	c.u.size = c.digits/4*3 + max(0, c.digits%4-1)
	c.u.broken = c.u.broken || c.digits%4 == 1 || c.pads > 2
	head, err := base64.RawStdEncoding.DecodeString(string(c.text))
	var corrupt base64.CorruptInputError
	c.u.broken = c.u.broken || errors.As(err, &corrupt) && c.digits == int64(len(c.text))
	c.u.head = head
}
