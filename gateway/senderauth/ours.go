package senderauth

import (
	"strings"

	"golang.org/x/net/idna"
)

// IsOurs reports whether the value of an Authentication-Results field claims to be written by authservID
// (RFC 8601 section 5): in a mail that comes in, such a field is forged. It is generous, for a spelling that
// some reader would take for ours must not get through: comments, quotes, case, folding, a version, trailing
// dots, U-labels, and broken syntax.
func IsOurs(value, authservID string) bool {
	ours := canonicalID(authservID)
	if ours == "" {
		return false
	}
	s := split(value)
	words := s.done[0].words
	if len(words) > 0 && canonicalID(strings.Join(words, "")) == ours {
		return true
	}
	if len(words) > 0 && claims(words[0], ours) {
		return true
	}
	if joined := strings.Join(words, ""); strings.HasPrefix(canonicalID(joined), ours) {
		rest := canonicalID(joined)[len(ours):]
		if strings.Trim(rest, "./0123456789") == "" {
			return true
		}
	}
	// Without an end of its comment or string, or without a word, readers differ in where the id stands.
	if !s.broken && len(words) > 0 {
		return false
	}
	for _, word := range strings.FieldsFunc(value, func(r rune) bool {
		return r <= ' ' || strings.ContainsRune(`();"\`, r)
	}) {
		if claims(word, ours) {
			return true
		}
	}
	return false
}

// claims compares a word with our id, with or without a version joined to it by a slash or an equals sign.
func claims(word, ours string) bool {
	if i := strings.IndexAny(word, "/=,:"); i >= 0 {
		word = word[:i]
	}
	return canonicalID(word) == ours
}

// canonicalID is the form in which authserv-ids are compared.
func canonicalID(id string) string {
	id = strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, id)
	if !isASCII(id) {
		if ascii, err := idna.Lookup.ToASCII(strings.Trim(id, ".")); err == nil {
			id = ascii
		}
	}
	return strings.Trim(strings.ToLower(id), ".")
}
