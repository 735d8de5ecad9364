package relay

import (
	"encoding/base64"
	"regexp"
	"strings"
	"unicode"

	"sealpost/gateway"
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

// hiding is what no recorded reply may hold.
type hiding struct {
	public    string   // takes the place of the addresses
	addresses []string // the delivery's own, and that of the route by now
	hop       gateway.NextHop
}

// scrub makes a reply fit to be kept and shown: without the addresses, see Scrub, and without the credentials of the
// hop, which some servers repeat when they refuse them.
func (h hiding) scrub(reply string) string {
	secrets := map[string]string{}
	for _, secret := range append(credentials(h.hop), encoded(h.hop)...) {
		secrets[secret] = hidden
	}
	text := gateway.Scrub(oneLine(reply), secrets)
	for _, form := range encoded(h.hop) {
		if len(form) >= longPart { // it may be cut short
			text = regexp.MustCompile(regexp.QuoteMeta(form[:longPart])+`[A-Za-z0-9+/=]*`).ReplaceAllLiteralString(text, hidden)
		}
	}
	for _, address := range h.addresses {
		text = Scrub(text, address, h.public)
	}
	return text
}

// credentials are what logs us in at hop; none without a user.
func credentials(hop gateway.NextHop) []string {
	if hop.User == "" {
		return nil
	}
	return []string{hop.Password.Reveal(), hop.User}
}

// encoded are the credentials as AUTH PLAIN and AUTH LOGIN carry them (RFC 4616), without padding.
func encoded(hop gateway.NextHop) []string {
	var forms []string
	for _, text := range credentials(hop) {
		forms = append(forms, base64.RawStdEncoding.EncodeToString([]byte(text)))
	}
	if forms == nil {
		return nil
	}
	plain := "\x00" + hop.User + "\x00" + hop.Password.Reveal()
	return append(forms, base64.RawStdEncoding.EncodeToString([]byte(plain)))
}

// Scrub makes a remote server's reply fit to be kept and shown: on one line, without control characters, of
// at most 1,000 characters, and with public in the place of forwardTo, see gateway.Scrub.
func Scrub(reply, forwardTo, public string) string {
	text := gateway.Scrub(oneLine(reply), map[string]string{forwardTo: oneLine(public)})
	if runes := []rune(text); len(runes) > maxReply {
		text = string(runes[:maxReply])
	}
	return text
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
