package crypto

import (
	"strings"

	"golang.org/x/net/idna"
)

// CanonicalAddress returns the one spelling under which a mail address is looked up: trimmed, lower-cased,
// its domain in ASCII (RFC 5891). A domain that IDNA does not allow, or a literal, is lower-cased only.
// An address without a domain, such as "postmaster", is trimmed and lower-cased.
func CanonicalAddress(address string) string {
	address = strings.ToLower(strings.TrimSpace(address))
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return address
	}
	domain, err := idna.Lookup.ToASCII(address[at+1:])
	if err != nil {
		return address
	}
	return address[:at+1] + domain
}
