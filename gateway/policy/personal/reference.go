package personal

import (
	"html"
	"strings"
	"unicode/utf8"
)

const (
	maxReference    = 34 // bytes of a character reference that is understood
	maxUnterminated = 7  // of a named one without its semicolon
	minReference    = 3
)

// reference reads the character reference at the beginning of the text, which begins with an ampersand: how long it
// is, 0 if there is none, and what it means. HTML section 13.5.
func reference(text []byte) (int, string) {
	text = text[:min(len(text), maxReference)]
	if len(text) < minReference {
		return 0, ""
	}
	if text[1] == '#' {
		return numeric(text)
	}
	end := 1
	for end < len(text) && alnum(text[end]) {
		end++
	}
	if end < len(text) && text[end] == ';' {
		name := string(text[:end+1])
		if meaning := html.UnescapeString(name); !strings.HasSuffix(meaning, ";") || name == "&semi;" {
			return end + 1, blank(meaning)
		}
	}
	for n := min(end, maxUnterminated); n >= minReference; n-- {
		if meaning := html.UnescapeString(string(text[:n])); utf8.RuneCountInString(meaning) == 1 {
			return n, blank(meaning)
		}
	}
	return 0, ""
}

// numeric reads a reference by number.
func numeric(text []byte) (int, string) {
	start := 2
	hex := text[2]|0x20 == 'x'
	if hex {
		start++
	}
	end := start
	for end < len(text) && (digit(text[end]) || hex && text[end]|0x20-'a' < 6) {
		end++
	}
	if end == start {
		return 0, ""
	}
	if end < len(text) && text[end] == ';' {
		end++
	}
	return end, blank(html.UnescapeString(string(text[:end])))
}

// blank makes a space of what HTML treats as one.
func blank(s string) string {
	switch s {
	case "\t", "\n", "\f", "\r":
		return " "
	}
	return s
}
