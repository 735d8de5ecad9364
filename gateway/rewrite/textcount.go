package rewrite

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"golang.org/x/text/encoding"
	"golang.org/x/text/transform"
)

// textCount learns about a decoded text what the notice must know.
type textCount struct {
	size       int64 // in bytes
	characters int64 // in UTF-16 units, as Salesforce counts
	wide       bool  // an octet above 127 is in it
	broken     bool  // it is not UTF-8
	signature  bool  // a line "-- " is in it (RFC 3676 section 4.3)

	tail  []byte // the last bytes
	valid *transform.Writer
}

const signatureLine = "\n-- \r\n"

func newTextCount() *textCount {
	return &textCount{tail: []byte{'\n'}, valid: transform.NewWriter(io.Discard, encoding.UTF8Validator)}
}

func (c *textCount) Write(text []byte) (int, error) {
	c.size += int64(len(text))
	for _, b := range text {
		if b&0xC0 != 0x80 {
			c.characters++
		}
		if b >= 0xF0 {
			c.characters++
		}
		c.wide = c.wide || b >= 0x80
	}
	if _, err := c.valid.Write(text); err != nil {
		c.broken = true // what comes after is not looked at any more, and need not be
	}
	edge := slices.Concat(c.tail, text[:min(len(text), len(signatureLine))])
	c.signature = c.signature || bytes.Contains(edge, []byte(signatureLine)) || bytes.Contains(text, []byte(signatureLine))
	if len(text) >= len(signatureLine) {
		edge = append(edge[:0], text[len(text)-len(signatureLine):]...)
	}
	c.tail = edge[max(0, len(edge)-len(signatureLine)):]
	return len(text), nil
}

// Close ends the text.
func (c *textCount) Close() error {
	if err := c.valid.Close(); err != nil {
		c.broken = c.broken || errors.Is(err, encoding.ErrInvalidUTF8) || errors.Is(err, transform.ErrShortSrc)
	}
	return nil
}

// endsLine reports whether the text ends with a line end, or is empty.
func (c *textCount) endsLine() bool { return c.tail[len(c.tail)-1] == '\n' }
