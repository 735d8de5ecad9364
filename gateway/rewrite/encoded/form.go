package encoded

import (
	"bytes"
	"encoding/base64"
)

// class is what a line is to a block. The order matters: what is up to partial may also announce another file.
type class int

const (
	misfit  class = iota
	blank         // empty, or a header of armor
	hint          // may be data: counts only if more follows
	partial       // a shorter line of data, as the last one is
	full          // a full line of data
	nothing       // the line of length zero
	ending        // the last line
)

// form is how the lines of one kind of block look. A line is given without what quotes or indents it.
type form interface {
	classify(text []byte, l *line) class
	// alphabet says which bytes the rest of a long line may have.
	alphabet(b byte) bool
}

// decoder is the form of blocks that are decoded.
type decoder interface {
	form
	// decode appends what a line of data holds, false if it holds no whole bytes.
	decode(out, text []byte) ([]byte, bool)
}

// sureLine is how many characters a line has that is hardly a word of prose.
const sureLine = 40

type uuLines struct{}

// unstuffed takes the space of RFC 3676 section 4.4 off a line.
func unstuffed(text []byte) []byte {
	if bytes.HasPrefix(text, []byte(" >")) {
		return text[1:]
	}
	return text
}

func (uuLines) alphabet(byte) bool { return false }

// uuCounts returns the bytes that a line announces, and the characters that they need.
func uuCounts(text []byte) (int, int) {
	n := int(text[0]-' ') & 63
	return n, (n + 2) / 3 * 4
}

func (uuLines) classify(text []byte, l *line) class {
	switch trimmed := trimRight(text); {
	case l.long():
		return misfit
	case len(trimmed) == 0:
		return blank
	case string(trimmed) == "end":
		return ending
	}
	text = unstuffed(text)
	if text[0] < ' ' || text[0] > '`' {
		return misfit
	}
	n, need := uuCounts(text)
	data := text[1:]
	if len(data) > need+4 && len(bytes.Trim(data[need:], " `")) > 0 {
		return misfit
	}
	for _, b := range data {
		if b < ' ' || b > '`' {
			return misfit
		}
	}
	switch {
	case n == 0 && len(bytes.Trim(data, " `")) > 0:
		return misfit
	case n == 0:
		return nothing
	case len(data) >= (n*4+2)/3:
		return full
	case len(data)*2 >= need:
		return partial
	default:
		return hint
	}
}

func (uuLines) decode(out, text []byte) ([]byte, bool) {
	text = unstuffed(text)
	n, need := uuCounts(text)
	data := text[1:]
	at := func(i int) byte {
		if i >= len(data) {
			return 0 // a space that was stripped
		}
		return (data[i] - ' ') & 63
	}
	size := len(out) + n
	for i := 0; i < need; i += 4 {
		a, b, c, d := at(i), at(i+1), at(i+2), at(i+3)
		out = append(out, a<<2|b>>4, b<<4|c>>2, c<<6|d)
	}
	return out[:size], true
}

type base64Lines struct{}

func isBase64(b byte) bool {
	return b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z' || b >= '0' && b <= '9' || b == '+' || b == '/'
}

// isPaddedBase64 says whether a text is of the alphabet, with up to two equals signs at its end.
func isPaddedBase64(text []byte) bool {
	body := bytes.TrimRight(text, "=")
	return len(body) > 0 && len(text)-len(body) <= 2 && allOf(body, isBase64)
}

func (base64Lines) alphabet(b byte) bool { return isBase64(b) || b == '=' }

func (base64Lines) classify(text []byte, l *line) class {
	text = trimRight(text)
	switch {
	case len(text) == 0:
		return blank
	case l.long():
		return longLine(allOf(text, isBase64), l)
	case string(text) == "====":
		return ending
	case !isPaddedBase64(text):
		return misfit
	case len(text)%4 != 0:
		return hint
	case len(text) >= sureLine || text[len(text)-1] == '=':
		return full
	default:
		return partial
	}
}

func (base64Lines) decode(out, text []byte) ([]byte, bool) {
	text = trimRight(text)
	if len(text)%4 != 0 {
		return out, false
	}
	more, err := base64.StdEncoding.AppendDecode(out, text)
	return more, err == nil
}

func longLine(fits bool, l *line) class {
	if fits && l.clean {
		return full
	}
	return misfit
}

func allOf(text []byte, alphabet func(byte) bool) bool {
	for _, b := range text {
		if !alphabet(b) {
			return false
		}
	}
	return true
}

func trimRight(text []byte) []byte { return bytes.TrimRight(text, " \t") }
