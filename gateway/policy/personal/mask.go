package personal

import (
	"bytes"
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"
)

// keptLetters is how many characters of a card and of an IBAN stay, so that an agent can ask about it.
const keptLetters = 4

// Mask returns what stands in place of a match in plain text: of the same number of bytes, an X for each byte of a
// letter or digit; what separates them stays. Of a card and an IBAN the last four characters stay. match holds the
// bytes of all ranges of one match and is not changed.
func (d *Detectors) Mask(detector string, match []byte) []byte {
	m := masker{left: letters(match, false) - kept(detector)}
	return m.mask(match)
}

// MaskHTML is Mask for a match in HTML: a reference to a letter or digit becomes one to X.
func (d *Detectors) MaskHTML(detector string, match []byte) []byte {
	m := masker{left: letters(match, true) - kept(detector), html: true}
	return m.mask(match)
}

// CopyMasked writes the plain text that src holds to dst, its matches masked. scan is a second reader of the same
// text. found, which may be nil, learns of each match. Memory is bounded. Errors are those of the readers, of dst and
// of found; what was written until then is cut short.
func (d *Detectors) CopyMasked(dst io.Writer, scan, src io.Reader, found func(Match) error) error {
	c := copier{dst: dst, src: src}
	return c.copy(d.Find, scan, found)
}

// CopyMaskedHTML is CopyMasked for HTML.
func (d *Detectors) CopyMaskedHTML(dst io.Writer, scan, src io.Reader, found func(Match) error) error {
	c := copier{dst: dst, src: src, html: true}
	return c.copy(d.FindHTML, scan, found)
}

// copier copies a text and masks it on the way.
type copier struct {
	dst  io.Writer
	src  io.Reader
	html bool
	at   int64 // how much was copied
}

func (c *copier) copy(find func(io.Reader, func(Match) error) error, scan io.Reader, found func(Match) error) error {
	err := find(scan, func(m Match) error {
		if found != nil {
			if err := found(m); err != nil {
				return err
			}
		}
		return c.match(m)
	})
	if err != nil {
		return err
	}
	if _, err := io.Copy(c.dst, c.src); err != nil {
		return fmt.Errorf("copy text: %w", err)
	}
	return nil
}

// match copies up to the end of the match.
func (c *copier) match(m Match) error {
	mask := masker{left: m.letters - kept(m.Detector), html: c.html}
	for _, r := range m.Ranges {
		if _, err := io.CopyN(c.dst, c.src, r[0]-c.at); err != nil {
			return fmt.Errorf("copy text: %w", err)
		}
		piece := make([]byte, r[1]-r[0])
		if _, err := io.ReadFull(c.src, piece); err != nil {
			return fmt.Errorf("copy text: %w", err)
		}
		if _, err := c.dst.Write(mask.mask(piece)); err != nil {
			return fmt.Errorf("copy text: %w", err)
		}
		c.at = r[1]
	}
	return nil
}

// kept is how many characters at the end of a match stay.
func kept(detector string) int {
	if detector == Card || detector == IBAN {
		return keptLetters
	}
	return 0
}

// masker masks the first characters of a match, which may come in several pieces.
type masker struct {
	left int // characters yet to mask
	html bool
}

func (m *masker) mask(piece []byte) []byte {
	masked := make([]byte, 0, len(piece))
	for len(piece) > 0 {
		n, isLetter, isReference := character(piece, m.html)
		switch {
		case !isLetter || m.left <= 0:
			masked = append(masked, piece[:n]...)
		case isReference:
			masked = appendReference(masked, n)
		default:
			masked = append(masked, bytes.Repeat([]byte("X"), n)...)
		}
		if isLetter {
			m.left--
		}
		piece = piece[n:]
	}
	return masked
}

// appendReference appends a reference to the letter X that has n bytes, or as many X where that is too few.
func appendReference(b []byte, n int) []byte {
	const shortest = "&#88;"
	if n < len(shortest) {
		return append(b, bytes.Repeat([]byte("X"), n)...)
	}
	b = append(b, "&#"...)
	b = append(b, bytes.Repeat([]byte("0"), n-len(shortest))...)
	return append(b, "88;"...)
}

// letters counts the characters that a mask may replace.
func letters(text []byte, html bool) int {
	count := 0
	for len(text) > 0 {
		n, isLetter, _ := character(text, html)
		if isLetter {
			count++
		}
		text = text[n:]
	}
	return count
}

// character reads the first character: its length, whether it is one that a mask replaces, and whether a reference
// stands for it. A byte that is no UTF-8 may be a letter of another charset.
func character(text []byte, html bool) (n int, isLetter, isReference bool) {
	if html && text[0] == '&' {
		if n, meaning := reference(text); n > 0 {
			r, _ := utf8.DecodeRuneInString(meaning)
			return n, replaceable(r), true
		}
	}
	r, n := utf8.DecodeRune(text)
	return n, replaceable(r) || r == utf8.RuneError && n == 1, false
}

func replaceable(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsMark(r)
}
