package gateway

import (
	"html"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxTag    = 256 // of an HTML tag between two letters
	maxEntity = 32
	maxCode   = 32
)

// replyCode opens a line of a reply: its code (RFC 5321 section 4.2) and enhanced code (RFC 2034).
var replyCode = regexp.MustCompile(`^[ \t]*(?:[245][0-9]{2}[ -])?(?:[245]\.[0-9]{1,3}\.[0-9]{1,3}[ \t]+)?`)

// folded is the form in which texts are compared: without what cannot be seen, and in one letter case.
func folded(s string) string {
	return strings.Map(func(c rune) rune {
		if invisible(c) {
			return -1
		}
		return fold(c)
	}, s)
}

// fold returns one letter for all that differ in case or width only.
func fold(c rune) rune {
	switch {
	case c >= 'A' && c <= 'Z':
		return c + 'a' - 'A'
	case c < utf8.RuneSelf:
		return c
	case c == '。' || c == '｡': // full stops of domains (RFC 3490 section 3.1)
		return '.'
	case c >= '！' && c <= '～': // full width
		return fold(c - '！' + '!')
	}
	least := c
	for other := unicode.SimpleFold(c); other != c; other = unicode.SimpleFold(other) {
		least = min(least, other)
	}
	return unicode.ToLower(least)
}

// invisible tells what may stand anywhere in an address without making it another to a reader: blanks, control and format
// characters, and the marks of quoting in a local part (RFC 5321 section 4.1.2).
func invisible(c rune) bool {
	if c < utf8.RuneSelf {
		return c <= ' ' || c == 0x7f || c == '"' || c == '\\'
	}
	return unicode.IsSpace(c) || unicode.IsControl(c) || unicode.Is(unicode.Cf, c)
}

// skipBetween returns where the next letter stands behind what is between two letters. When a line's end is skipped, other is
// behind the reply code with which the line may begin.
func skipBetween(text string, i int) (next, other int) {
	if i < len(text) && text[i] > ' ' && text[i] < 0x7f && strings.IndexByte(`"\<=`, text[i]) < 0 {
		return i, i
	}
	line := -1
	for start := i; i < len(text) && i-start < 2*maxTag; {
		c, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case c == '\\' && isEscape(text, i):
			return ends(text, i, line)
		case c == '\n', c == '\r':
			i += size
			line = i
		case invisible(c):
			i += size
		case line >= 0 && (c == '>' || c == '|') && strings.Trim(text[line:i], " \t>|") == "": // of a quoted mail
			i += size
			line = i
		case c == '<' && tag(text[i:]) > 0:
			i += tag(text[i:])
		case c == '=' && softBreak(text[i:]) > 0:
			i += softBreak(text[i:])
		default:
			return ends(text, i, line)
		}
	}
	return ends(text, i, line)
}

func isEscape(text string, i int) bool {
	_, end := decodeEscape(text, i)
	return end > i
}

func ends(text string, i, line int) (next, other int) {
	if line < 0 {
		return i, i
	}
	return i, max(i, line+len(replyCode.FindString(text[line:min(len(text), line+maxCode)])))
}

// tag returns the length of the HTML tag or comment that text begins with; 0: of none.
func tag(text string) int {
	text = text[:min(len(text), maxTag)]
	if strings.HasPrefix(text, "<!--") {
		if end := strings.Index(text, "-->"); end > 0 {
			return end + len("-->")
		}
		return 0
	}
	end := strings.IndexAny(text[1:], "<>") + 1
	if end > 0 && text[end] == '>' {
		return end + 1
	}
	return 0
}

// softBreak returns the length of the soft line break of quoted-printable that text begins with; 0: of none.
func softBreak(text string) int {
	end := len(text) - len(strings.TrimLeft(text[1:], " \t"))
	for _, line := range []string{"\r\n", "\n"} {
		if strings.HasPrefix(text[end:], line) {
			return end + len(line)
		}
	}
	return 0
}

// decodeLetter reads an encoded letter at i and returns where it ends: at i when there is none.
func decodeLetter(text string, i int) (rune, int) {
	switch mark := text[i]; mark {
	case '%', '=', '+':
		return decodeHex(text, i, mark)
	case '&':
		return decodeEntity(text, i)
	case '\\':
		return decodeEscape(text, i)
	}
	return 0, i
}

// decodeHex reads the octets of one letter: %41 (RFC 3986 section 2.1), also when encoded again (%2541), =41 or +41.
func decodeHex(text string, i int, mark byte) (rune, int) {
	var octets []byte
	end := i
	for len(octets) < utf8.UTFMax && end < len(text) && text[end] == mark {
		at := end + 1
		for mark == '%' && strings.HasPrefix(text[at:], "25") && at+4 <= len(text) && isHex(text[at+2:at+4]) {
			at += 2
		}
		if at+2 > len(text) || !isHex(text[at:at+2]) {
			break
		}
		octet, _ := strconv.ParseUint(text[at:at+2], 16, 8)
		octets, end = append(octets, byte(octet)), at+2
		if c, size := utf8.DecodeRune(octets); c != utf8.RuneError && size == len(octets) {
			return c, end
		}
		if len(octets) == 1 {
			i = end
		}
	}
	if len(octets) == 0 {
		return 0, i
	}
	return rune(octets[0]), i // a letter of ISO 8859-1
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

// decodeEntity reads an HTML entity, also when its ampersand is encoded again.
func decodeEntity(text string, i int) (rune, int) {
	at := i + 1
	for strings.HasPrefix(text[at:], "amp;") {
		at += len("amp;")
	}
	end := at
	for end < len(text) && end-at < maxEntity && (text[end] == '#' || text[end] < utf8.RuneSelf && (unicode.IsLetter(rune(text[end])) || unicode.IsDigit(rune(text[end])))) {
		end++
	}
	if end < len(text) && text[end] == ';' {
		end++
	} else if digits := len(text[at:end]) - len(strings.TrimLeft(text[at:end], "#0123456789")); strings.HasPrefix(text[at:], "#") && digits > 1 {
		end = at + digits // without its semicolon
	}
	if end == i+1 {
		return 0, i
	}
	entity := "&" + text[at:end]
	decoded := html.UnescapeString(entity)
	if c, size := utf8.DecodeRuneInString(decoded); decoded != entity && size == len(decoded) {
		return c, end
	}
	if at > i+1 && end == at {
		return '&', at
	}
	return 0, i
}

// decodeEscape reads \x{41} (RFC 6533 section 3), \x41 or \u0041.
func decodeEscape(text string, i int) (rune, int) {
	rest := text[i+1:]
	digits, skip := "", 0
	switch {
	case strings.HasPrefix(rest, "x{"):
		end := strings.IndexByte(rest[:min(len(rest), 10)], '}')
		if end > 0 {
			digits, skip = rest[2:end], end+1
		}
	case strings.HasPrefix(rest, "x") && len(rest) >= 3:
		digits, skip = rest[1:3], 3
	case strings.HasPrefix(rest, "u") && len(rest) >= 5:
		digits, skip = rest[1:5], 5
	}
	c, err := strconv.ParseUint(digits, 16, 21)
	if err != nil {
		return 0, i
	}
	return rune(c), i + 1 + skip
}
