package personal

import (
	"unicode"
	"unicode/utf8"
)

// separation is what stands between two groups of digits.
type separation byte

const (
	apart    separation = iota // they do not belong together
	spaced                     // one or two spaces, also those that do not break or have no width
	hyphened                   // a hyphen or dash, perhaps with spaces around it
	dotted                     // a full stop
	broken                     // the end of a line, perhaps with the marks of a quotation after it
)

// maxSeparator bounds the bytes between two groups.
const maxSeparator = 24

// separator reads what stands at i before the next letter or digit: how long it is and what.
func separator(text []byte, i int) (int, separation) {
	if i+1 < len(text) && digit(text[i+1]) {
		switch text[i] {
		case ' ':
			return 1, spaced
		case '-':
			return 1, hyphened
		}
	}
	kind, spaces := apart, 0
	for at := i; at < len(text) && at-i <= maxSeparator; {
		r, n := utf8.DecodeRune(text[at:])
		switch {
		case r < utf8.RuneSelf && alnum(byte(r)):
			if kind == dotted && spaces > 0 || kind != broken && spaces > 2 {
				return 0, apart
			}
			if kind == apart && spaces > 0 {
				kind = spaced
			}
			return at - i, kind
		case isSpace(r):
			spaces++
		case isHyphen(r) && kind == apart:
			kind = hyphened
		case r == '.' && kind == apart:
			kind = dotted
		case r == '\r' && at+1 < len(text) && text[at+1] == '\n':
		case r == '\n' && (kind == apart || kind == hyphened):
			kind = broken
		case r == '>' && kind == broken:
		default:
			return 0, apart
		}
		at += n
	}
	return 0, apart
}

// isSpace tells the spaces that stand between groups of one number. A tab stands between columns.
func isSpace(r rune) bool {
	switch r {
	case ' ', '\u00A0', '\u202F', '\u00AD', '\u2060', '\uFEFF':
		return true
	}
	return r >= '\u2000' && r <= '\u200D'
}

func isHyphen(r rune) bool {
	return r == '-' || r >= '\u2010' && r <= '\u2015' || r == '\u2212'
}

// alnum tells the letters and digits of ASCII.
func alnum(c byte) bool { return digit(c) || letter(c) }

func letter(c byte) bool { return c|0x20-'a' < 26 }

// wordRune tells what makes a number beside it a part of a longer word.
func wordRune(r rune) bool {
	return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r)
}
