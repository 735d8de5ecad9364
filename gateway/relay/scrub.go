package relay

import (
	"regexp"
	"strings"
	"unicode"
)

const (
	// maxReply is the longest reply that is kept, in characters.
	maxReply = 1000
	// longPart is from what length on a local part or a domain gives an address away by itself.
	longPart = 8
	hidden   = "[hidden]"
)

var (
	// enhanced is an enhanced status code at the beginning of a reply line (RFC 3463).
	enhanced = regexp.MustCompile(`^[245]\.[0-9]{1,3}\.[0-9]{1,3}(?:[ \t]+|$)`)
	blanks   = regexp.MustCompile(`\s+`)
)

// enhancedCode returns the enhanced status code that a reply begins with, or "".
func enhancedCode(reply string) string {
	return strings.TrimSpace(enhanced.FindString(reply))
}

// Scrub makes a remote server's reply fit to be kept and shown: on one line, without control characters, of
// at most 1,000 characters, and without forwardTo in any letter case, broken over lines or not. public
// takes the place of the address; a long local part or domain standing alone is hidden.
func Scrub(reply, forwardTo, public string) string {
	text := oneLine(reply)
	local, domain := splitAddress(forwardTo)
	publicLocal, publicDomain := splitAddress(public)
	text = replace(text, forwardTo, oneLine(public))
	if len(domain) >= longPart && !strings.EqualFold(domain, publicDomain) {
		text = replace(text, domain, hidden)
	}
	if len(local) >= longPart && !strings.EqualFold(local, publicLocal) {
		text = replace(text, local, hidden)
	}
	if runes := []rune(text); len(runes) > maxReply {
		text = string(runes[:maxReply])
	}
	// What was put in may have made the address anew, together with what stood around it.
	return replace(text, forwardTo, hidden)
}

// splitAddress cuts an address at its last @.
func splitAddress(address string) (local, domain string) {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return address, ""
	}
	return address[:at], address[at+1:]
}

// oneLine joins the lines of a reply. The enhanced status code that opens each line (RFC 2034) is kept on
// the first one only: it would hide an address that was broken over two.
func oneLine(reply string) string {
	lines := strings.FieldsFunc(strings.ToValidUTF8(reply, "?"), func(c rune) bool { return c == '\r' || c == '\n' })
	for i := range lines {
		lines[i] = strings.TrimSpace(strings.Map(printable, lines[i]))
		if i > 0 {
			lines[i] = enhanced.ReplaceAllString(lines[i], "")
		}
	}
	return strings.TrimSpace(blanks.ReplaceAllString(strings.Join(lines, " "), " "))
}

func printable(c rune) rune {
	switch {
	case unicode.IsSpace(c):
		return ' '
	case unicode.IsControl(c), unicode.Is(unicode.Cf, c):
		return -1
	}
	return c
}

// replace puts with in the place of secret in text, in any letter case and with blanks anywhere in it. A
// text that still holds secret after that, since with and its neighbours spell it, is given up whole.
func replace(text, secret, with string) string {
	var pattern strings.Builder
	pattern.WriteString(`(?i)`)
	chars := 0
	for _, c := range oneLine(secret) {
		if c == ' ' {
			continue
		}
		if chars > 0 {
			pattern.WriteString(` ?`)
		}
		pattern.WriteString(regexp.QuoteMeta(string(c)))
		chars++
	}
	if chars == 0 {
		return text
	}
	find, err := regexp.Compile(pattern.String())
	if err != nil {
		return hidden
	}
	text = find.ReplaceAllLiteralString(text, with)
	if with != hidden {
		text = find.ReplaceAllLiteralString(text, hidden)
	}
	if find.MatchString(text) {
		return ""
	}
	return text
}
