package personal

import (
	"io"
	"strings"
	"testing"
)

func BenchmarkFind(b *testing.B) {
	prose := "Dear support team,\r\nthe device that I bought from you does not start since yesterday; what can I do?\r\n"
	for _, c := range []struct {
		name, text string
		html       bool
		patterns   map[string]string
	}{
		{name: "no digits", text: prose},
		{name: "some digits", text: prose + "Order 10482 of 2026-01-02, 3 pieces.\r\n"},
		{name: "cards", text: "my card is 4111 1111 1111 1111 and it works\r\n"},
		{name: "digits", text: "4111 4111 4111 4111 "},
		{name: "digit after digit", text: "4 1 5 3 2 6 "},
		{name: "HTML", text: "<p style=\"margin: 0\">" + prose + "</p>&nbsp;", html: true},
		{name: "pattern", text: prose, patterns: map[string]string{"customer": `\bKD-\d{6}\b`}},
		{name: "dense pattern", text: "123 456 ", patterns: map[string]string{"three": `\b\d{3}\b`}},
	} {
		b.Run(c.name, func(b *testing.B) {
			d := detectors(b, c.patterns)
			text := strings.Repeat(c.text, 1<<20/len(c.text))
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for range b.N {
				find := d.Find
				if c.html {
					find = d.FindHTML
				}
				if err := find(io.LimitReader(strings.NewReader(text), 1<<30), func(Match) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
