package meta

import "testing"

// TestOrganisation: whoever makes up names below a domain makes no lanes, and who has another domain has another lane.
func TestOrganisation(t *testing.T) {
	for domain, want := range map[string]string{
		"shop.test":               "shop.test",
		"a.b.c.Shop.Test.":        "shop.test",
		"mail.shop.co.uk":         "shop.co.uk",
		"other.co.uk":             "other.co.uk",
		"co.uk":                   "co.uk",
		"localhost":               "localhost",
		"mail.bücher.test":        "xn--bcher-kva.test",
		"mail.xn--bcher-kva.test": "xn--bcher-kva.test",
		"[192.0.2.1]":             "[192.0.2.1]",
		"[ipv6:2001:db8::1]":      "[ipv6:2001:db8::1]",
		"under_score.shop.test":   "shop.test",
		"":                        "",
	} {
		if got := organisation(domain); got != want {
			t.Errorf("%q: %q, want %q", domain, got, want)
		}
	}
}
