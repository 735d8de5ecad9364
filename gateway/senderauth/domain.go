package senderauth

import (
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// domainOf is hostOf for names of at least two labels, as domains of mail are.
func domainOf(name string) string {
	if name = hostOf(name); !strings.Contains(name, ".") {
		return ""
	}
	return name
}

// hostOf returns name in A-labels and lower case, without a trailing dot; empty when it is not a name that
// can be written anywhere without quoting. An underscore is let through, since names in DNS have it.
func hostOf(name string) string {
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > 1000 {
		return ""
	}
	if !isASCII(name) {
		ascii, err := idna.Lookup.ToASCII(name)
		if err != nil {
			return ""
		}
		name = ascii
	}
	name = strings.ToLower(name)
	if len(name) > 253 {
		return ""
	}
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(label) {
			return ""
		}
	}
	return name
}

func isLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for i := range len(label) {
		c := label[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// organisational returns the organisational domain (RFC 7489 section 3.2); of a public suffix, itself.
func organisational(domain string) string {
	org, err := publicsuffix.EffectiveTLDPlusOne(domain)
	if err != nil {
		return domain
	}
	return org
}

// afterAt returns the domain of an address, or the whole where there is no at sign.
func afterAt(address string) string {
	return address[strings.LastIndexByte(address, '@')+1:]
}
