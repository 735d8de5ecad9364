package smtpd

import (
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-smtp"
)

// maxAddress is well above what RFC 5321 section 4.5.3.1 asks for, since return paths of mailing lists are long.
const maxAddress = 512

// mailbox checks an address as go-smtp hands it over, without its quotes, and returns it in the form of
// RFC 5321 section 4.1.2: quoted again where it must be. status is the enhanced code of a bad address.
func mailbox(address string, allowUTF8 bool, status smtp.EnhancedCode) (string, error) {
	at := strings.LastIndexByte(address, '@')
	bad := &smtp.SMTPError{Code: 501, EnhancedCode: status, Message: "malformed address"}
	if at <= 0 || len(address) > maxAddress || !utf8.ValidString(address) {
		return "", bad
	}
	local, domain := address[:at], address[at+1:]
	if strings.ContainsFunc(local, isControl) || strings.ContainsFunc(domain, notInDomain) {
		return "", bad
	}
	if !allowUTF8 && strings.ContainsFunc(address, isNonASCII) {
		return "", reply(553, 5, 6, 7, "an address outside ASCII needs the SMTPUTF8 parameter")
	}
	if isDotString(local) {
		return address, nil
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"@` + domain, nil
}

// isDotString leaves atext loose: it has what servers in the field send, and nothing that needs quotes.
func isDotString(local string) bool {
	return !strings.ContainsAny(local, " ()<>[]:;@\\,\"") &&
		!strings.HasPrefix(local, ".") && !strings.HasSuffix(local, ".") && !strings.Contains(local, "..")
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

func isNonASCII(r rune) bool { return r >= utf8.RuneSelf }

// notInDomain finds what neither a domain nor an address literal can hold.
func notInDomain(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("()<>@\\,;\"", r) }

// helloName returns the name that a client gave in EHLO, fit to be written into a Received field.
func helloName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(".-_:[]", r):
			return r
		}
		return '?'
	}, name)
	return name[:min(len(name), 255)]
}
