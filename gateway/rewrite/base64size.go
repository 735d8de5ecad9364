package rewrite

import (
	"bytes"
	"encoding/base64"
)

// base64Size learns the size of what a base64 body gives while its lines pass by, so that the body need not be decoded for
// that. It is stricter than base64Reader: of what it finds unclean it says nothing.
type base64Size struct {
	digits int64
	padded bool
	dirty  bool
}

// line takes a line, which may be one of which only the beginning was read.
func (m *base64Size) line(l line) {
	if l.cut {
		m.dirty = true
		return
	}
	m.text(l.text)
}

func (m *base64Size) text(text []byte) {
	text = bytes.Trim(text, "\r \t")
	digits := text
	if n := len(text); n > 0 && text[n-1] == '=' {
		digits = bytes.TrimRight(text, "=")
	}
	if m.padded && len(digits) > 0 || !isBase64(digits) {
		m.dirty = true
	}
	m.padded = m.padded || len(digits) < len(text)
	m.digits += int64(len(digits))
}

// size returns the number of decoded bytes, if that is sure.
func (m *base64Size) size() (int64, bool) {
	return m.digits/4*3 + int64(base64.RawStdEncoding.DecodedLen(int(m.digits%4))), !m.dirty && m.digits%4 != 1
}

// noDigit is 1 for each octet that is no digit of base64 (RFC 4648 section 4).
var noDigit = func() (table [256]byte) {
	for c := range table {
		table[c] = 1
	}
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" {
		table[c] = 0
	}
	return table
}()

// isBase64 is unrolled, since it looks at every octet of nearly every mail.
func isBase64(text []byte) bool {
	var bad byte
	for ; len(text) >= 8; text = text[8:] {
		t := text[:8:8]
		bad |= noDigit[t[0]] | noDigit[t[1]] | noDigit[t[2]] | noDigit[t[3]] |
			noDigit[t[4]] | noDigit[t[5]] | noDigit[t[6]] | noDigit[t[7]]
	}
	for _, c := range text {
		bad |= noDigit[c]
	}
	return bad == 0
}
