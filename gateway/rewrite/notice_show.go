package rewrite

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"mime/quotedprintable"
	"strings"
	"unicode"
	"unicode/utf8"
)

// quote encodes text in quoted-printable; its CRLFs stay line ends.
func quote(text string) ([]byte, error) { return quoteBytes(text, false) }

// quoteBytes encodes text in quoted-printable. If it is binary, its CRLFs are bytes like others.
func quoteBytes(text string, binary bool) ([]byte, error) {
	var b bytes.Buffer
	w := quotedprintable.NewWriter(&b)
	w.Binary = binary
	if _, err := io.WriteString(w, text); err != nil {
		return nil, fmt.Errorf("quote the notice: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("quote the notice: %w", err)
	}
	return b.Bytes(), nil
}

// escape makes text safe in HTML, and ASCII.
func escape(text string) string { return entities(html.EscapeString(text)) }

// entities makes HTML ASCII.
func entities(page string) string {
	var b strings.Builder
	for _, r := range page {
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
			b.WriteString(codePoint(r))
		}
	}
	runes := []rune(b.String())
	if len(runes) <= maxName {
		return string(runes)
	}
	return string(runes[:maxName-20]) + "..." + string(runes[len(runes)-17:])
}

// codePoint stands for a character that cannot be shown.
func codePoint(r rune) string { return fmt.Sprintf("[U+%04X]", r) }
