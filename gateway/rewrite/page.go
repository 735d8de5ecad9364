package rewrite

import (
	"bufio"
	"bytes"
	"errors"
	"html"
	"io"
	"unicode"
)

// pageReader reads the characters of a page as an attribute or a style sheet has them, and knows where each stands.
type pageReader struct {
	in *bufio.Reader
	// at is where the next character stands.
	at int64
	// css also takes the escapes of a style sheet. A browser knows where it must; taking them anywhere finds more.
	css bool

	pending string // the rest of a character that was escaped
	err     error
}

func newPageReader(r io.Reader) *pageReader {
	return &pageReader{in: bufio.NewReaderSize(r, bufferSize/2)}
}

// letter is a byte of a character.
type letter struct {
	b       byte
	escaped bool
}

func (l letter) isSpace() bool { return isSpace(l.b) }

func isSpace(b byte) bool { return b == ' ' || b == '\t' || b == '\r' || b == '\n' || b == '\f' }

// next returns the next byte, false at the end of the page or after an error.
func (r *pageReader) next() (letter, bool) {
	if r.pending != "" {
		b := r.pending[0]
		r.pending = r.pending[1:]
		return letter{b, true}, true
	}
	b, err := r.in.ReadByte()
	if err != nil {
		if !errors.Is(err, io.EOF) {
			r.err = err
		}
		return letter{}, false
	}
	r.at++
	switch {
	case b == '&':
		if text, n := r.reference(); n > 0 {
			return r.escape(text, n), true
		}
	case b == '\\' && r.css:
		if text, n := r.cssEscape(); n > 0 {
			return r.escape(text, n), true
		}
	}
	return letter{b: b}, true
}

// escape takes n bytes of the page that stand for text.
func (r *pageReader) escape(text string, n int) letter {
	n, _ = r.in.Discard(n) // they were peeked at
	r.at += int64(n)
	r.pending = text[1:]
	return letter{text[0], true}
}

// peek returns up to n bytes of what comes, fewer at the end only.
func (r *pageReader) peek(n int) []byte {
	text, _ := r.in.Peek(n) // the error comes again with the next read
	return text
}

// reference returns what a character reference stands for, and its length behind the "&"; 0 if it is none.
func (r *pageReader) reference() (string, int) {
	name := r.peek(40)
	if len(name) > 1 && name[0] == '#' {
		return r.number()
	}
	n := 0
	for n < len(name) && isAlphanumeric(name[n]) {
		n++
	}
	if n == 0 || n == len(name) || name[n] != ';' {
		return "", 0 // without a semicolon it stands for itself in an attribute
	}
	whole := "&" + string(name[:n+1])
	text := html.UnescapeString(whole)
	if text == whole || text == "" {
		return "", 0
	}
	return text, n + 1
}

// number is reference for one by number. Any number of zeros may stand in front.
func (r *pageReader) number() (string, int) {
	text := r.peek(4096)
	n, base := 1, 10
	if text[n]|0x20 == 'x' {
		n, base = 2, 16
	}
	first, value := n, 0
	for n < len(text) && value <= unicode.MaxRune {
		digit := unhex(text[n])
		if digit < 0 || digit >= base {
			break
		}
		value = value*base + digit
		n++
	}
	if n == first {
		return "", 0
	}
	if n < len(text) && text[n] == ';' {
		n++
	}
	return string(rune(value)), n
}

// cssEscape returns what one to six hexadecimal digits stand for (CSS Syntax section 4.3.7), of ASCII only.
func (r *pageReader) cssEscape() (string, int) {
	text := r.peek(7)
	n, value := 0, 0
	for n < len(text) && n < 6 && unhex(text[n]) >= 0 {
		value = value<<4 | unhex(text[n])
		n++
	}
	if n == 0 || value == 0 || value >= 0x80 {
		return "", 0
	}
	if n < len(text) && isSpace(text[n]) {
		n++
	}
	return string(rune(value)), n
}

func isAlphanumeric(b byte) bool { return isDigit(b) || b|0x20 >= 'a' && b|0x20 <= 'z' }

// skipTo passes over bytes that are none of stops, as far as they are buffered, and returns them.
func (r *pageReader) skipTo(stops string) []byte {
	if r.pending != "" {
		return nil
	}
	text := r.peek(max(1, r.in.Buffered()))
	if i := bytes.IndexAny(text, stops); i >= 0 {
		text = text[:i]
	}
	n, _ := r.in.Discard(len(text)) // they were peeked at
	r.at += int64(n)
	return text
}
