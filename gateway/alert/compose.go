package alert

import (
	"fmt"
	"io"
	"strings"
	"time"

	"sealpost/gateway"
)

// Compose writes a plain-text mail (RFC 5322, lines ended by CRLF) about alerts. It is marked as made by a
// machine (RFC 3834 section 5). Control characters in any argument become spaces.
func Compose(w io.Writer, from, to, hostname string, id gateway.PackageID, now time.Time, alerts []Alert) error {
	var b strings.Builder
	host := clean(hostname)
	for _, field := range [][2]string{
		{"From", "Sealpost <" + clean(from) + ">"}, {"To", "<" + clean(to) + ">"},
		{"Subject", fmt.Sprintf("Sealpost on %s: %d alert(s)", host, len(alerts))},
		{"Date", now.Format(time.RFC1123Z)}, {"Message-ID", "<" + id.String() + "@" + host + ">"},
		{"Auto-Submitted", "auto-generated"}, {"MIME-Version", "1.0"},
		{"Content-Type", "text/plain; charset=utf-8"}, {"Content-Transfer-Encoding", "8bit"},
	} {
		b.WriteString(field[0] + ": " + field[1] + "\r\n")
	}
	b.WriteString("\r\n")
	for _, a := range alerts {
		b.WriteString(wrap(strings.TrimRight(clean(string(a.Kind)+" "+a.Key), " ")+": "+clean(a.Text)) + "\r\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write the mail about alerts: %w", err)
	}
	return nil
}

// clean makes s one line.
func clean(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
}

// wrap folds text at spaces to about 78 octets, and always under the 998 of RFC 5322 section 2.1.1.
func wrap(text string) string {
	var b strings.Builder
	width := 0
	for _, word := range strings.Fields(text) {
		for len(word) > 900 {
			cut := strings.ToValidUTF8(word[:900], "")
			b.WriteString(cut + "\r\n")
			word, width = word[len(cut):], 0
		}
		switch {
		case width == 0:
		case width+len(word) > 77:
			b.WriteString("\r\n")
			width = 0
		default:
			b.WriteString(" ")
			width++
		}
		b.WriteString(word)
		width += len(word)
	}
	return b.String() + "\r\n"
}
