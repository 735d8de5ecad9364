package gateway_test

import (
	"fmt"
	"strings"
	"testing"

	"sealpost/gateway"
)

const (
	forwardTo = "caseinbox@x-1a2b3c.case.example.net"
	public    = "support@example.com"
)

// between writes a mark between all letters of the address.
func between(mark string) string { return strings.Join(strings.Split(forwardTo, ""), mark) }

// coded writes every letter in a form.
func coded(s, form string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, form, c)
	}
	return b.String()
}

// TestScrubHidesForwardTo is the promise towards outsiders: in whatever spelling a server names where a mail was forwarded to,
// the public address takes its place.
func TestScrubHidesForwardTo(t *testing.T) {
	for name, spelt := range map[string]string{
		"plain": forwardTo, "upper case": strings.ToUpper(forwardTo), "kelvin sign": strings.Replace(forwardTo, "x-1", "X-1", 1),
		"quoted local part": `caseinbox"@x-1a2b3c.case.example.net`, "quoted pairs": `c\aseinbo\x@x-1a2b3c.case.example.net`,
		"percent": strings.Replace(forwardTo, "@", "%40", 1), "percent, all": coded(forwardTo, "%%%02X"), "percent, twice": coded(forwardTo, "%%25%02x"),
		"quoted-printable": coded(forwardTo, "=%02X"), "xtext": strings.Replace(forwardTo, "@", "+40", 1),
		"entity": strings.NewReplacer("@", "&commat;", ".", "&period;").Replace(forwardTo), "decimal entities": coded(forwardTo, "&#%d;"),
		"hexadecimal entities": coded(forwardTo, "&#x%x;"), "entities, no semicolon": strings.Replace(forwardTo, "@", "&#64", 1),
		"entities, twice": coded(forwardTo, "&amp;#%d;"), "escapes": coded(forwardTo, `\u%04x`), "RFC 6533": strings.Replace(forwardTo, "@", `\x{40}`, 1),
		"blanks": between(" "), "lines": between("\r\n"), "controls": between("\x00\x1b"), "joiners": between("\u200d"),
		"coded blanks": between("%0D%0A"), "soft hyphens": between("&shy;"), "full width": strings.NewReplacer("@", "＠", ".", "。").Replace(forwardTo),
		"folded": "caseinbox@x-1a2b3c.\r\n    case.example.net", "soft break": "caseinbox@x-1a=\r\n2b3c.case.example.net", "soft break, coded": "caseinbox=40x-1a= \n2b3c.case.example.net",
		"reply lines": "caseinbox@x-1a2b\r\n550-5.1.1 3c.case.example.net", "reply lines, no code": "caseinbox@x-1a2b\n5.1.1 3c.case.example.net",
		"quoted mail": "caseinbox@x-1a2b3c.case.exa\r\n> mple.net", "quoted twice": "caseinbox@x-1a2b3c.case.exa\r\n> > mple.net",
		"tags": between("<wbr>"), "comment": "caseinbox@x-1a2b3c<!-- > -->.case.example.net",
	} {
		got := gateway.Scrub("5.1.1 <"+spelt+">: unknown", map[string]string{forwardTo: public})
		if want := "5.1.1 <" + public + ">: unknown"; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if got := gateway.Scrub("to="+spelt, map[string]string{strings.ToUpper(forwardTo): public}); got != "to="+public {
			t.Errorf("%s, hidden in upper case: %q", name, got)
		}
	}
}

func TestScrubHidesParts(t *testing.T) {
	hide := map[string]string{
		forwardTo: public, "sales@x-1a2b3c.case.example.net": "sales@example.com", "customers@inner.example.com": "customers@example.com",
		"root@mx.example.com": "postmaster", "mx.example.com": "mx.example.com",
	}
	for name, c := range map[string]struct{ text, want string }{
		"nothing":                     {"2.0.0 Ok: queued as 4F1", "2.0.0 Ok: queued as 4F1"},
		"local part":                  {"no user CaseInbox here", "no user [hidden] here"},
		"domain":                      {"relay denied for x-1a2b3c.case.example.NET", "relay denied for [hidden]"},
		"label":                       {"tenant X-1a2b3c rejected it", "tenant [hidden] rejected it"},
		"short local part":            {"sales are up", "sales are up"},
		"two of one domain":           {"<SALES@x-1a2b3c.case.example.net> or " + forwardTo, "<sales@example.com> or " + public},
		"public parts":                {"customers@example.com, root@mx.example.com at mx.example.com", "customers@example.com, postmaster at mx.example.com"},
		"mark before the first":       {"=" + forwardTo + "+" + forwardTo, "=" + public + "+" + public},
		"codes that are none":         {"100%, a=b, 1+1, &c; \\ <b", "100%, a=b, 1+1, &c; \\ <b"},
		"cut off":                     {"caseinbo", "caseinbo"},
		"encoded word, given up":      {"=?utf-8?b?Y2FzZWluYm94QHgtMWEyYjNjLmNhc2UuZXhhbXBsZS5uZXQ=?=", ""},
		"encoded word, nothing in it": {"=?utf-8?b?aGVsbG8=?=", "=?utf-8?b?aGVsbG8=?="},
	} {
		for range 5 { // the order of a map must not matter
			if got := gateway.Scrub(c.text, hide); got != c.want {
				t.Errorf("%s: %q, want %q", name, got, c.want)
			}
		}
	}
	if got := gateway.Scrub("to support@y.example", map[string]string{"support@y.example": "xsupport@y.example"}); got != "to x[hidden]" {
		t.Errorf("what is shown holds what is hidden: %q", got)
	}
	if got := gateway.Scrub(forwardTo, nil); got != forwardTo {
		t.Errorf("nothing to hide: %q", got)
	}
}

// TestScrubHidesEitherSpellingOfADomain: RFC 5890.
func TestScrubHidesEitherSpellingOfADomain(t *testing.T) {
	for wide, ascii := range map[string]string{
		"bücher.example": "xn--bcher-kva.example", "例え.example": "xn--r8jz45g.example", "münchen-ost.example": "xn--mnchen-ost-9db.example",
		"правда.example": "xn--80aafi6cg.example",
	} {
		for _, secret := range []string{"case@" + wide, "case@" + ascii} {
			for _, text := range []string{"case@" + wide, "case@" + ascii, "CASE@" + strings.ToUpper(ascii), "case@" + strings.ToUpper(wide), coded("case@"+wide, "%%%02X"), coded("case@"+wide, "=%02X")} {
				if got := gateway.Scrub("<"+text+">", map[string]string{secret: public}); got != "<"+public+">" {
					t.Errorf("%s hides %s: %q", secret, text, got)
				}
			}
		}
	}
}

// TestScrubReadsNoTextInEveryWay: an address of letters that may also stand between two letters ends in bounded time.
func TestScrubReadsNoTextInEveryWay(t *testing.T) {
	const mark = "b|>\r\nx|550 "
	got := gateway.Scrub(strings.Repeat(mark, 200), map[string]string{strings.Repeat(mark, 100) + "y": public})
	if got != strings.Repeat(mark, 200) {
		t.Errorf("%.200q", got)
	}
}

func TestScrubTellsWhoseItIs(t *testing.T) {
	s := gateway.NewScrubber(map[string]string{forwardTo: public, "sales@x-1a2b3c.case.example.net": "sales@example.com"})
	for text, want := range map[string]string{forwardTo: public, "at caseinbox": public, "x-1a2b3c.case.example.net": ""} {
		if got, found := s.Find(text); got != want || !found {
			t.Errorf("%s: %q %v, want %q", text, got, found, want)
		}
	}
	if _, found := s.Find("somebody@example.com"); found {
		t.Error("found where nothing is")
	}
}

// FuzzScrub: whatever a server says, the address is not in what is kept.
func FuzzScrub(f *testing.F) {
	f.Add("550 5.1.1 <a@b.example> unknown", "a@b.example", public)
	f.Add("a@b.c.c", "a@b.c", "a@b")
	f.Add("xsupport@y.com", "support@y.com", "xsupport@y.com")
	f.Add("[hhiddenidden]", "hidden", "hidden ")
	f.Add("a%2540b&#64;\\x{41}", "a@b", "+41")
	f.Fuzz(func(t *testing.T, text, secret, public string) {
		got := gateway.Scrub(text, map[string]string{secret: public})
		plain := strings.Map(func(c rune) rune {
			if c > ' ' && c < 0x7f && c != '"' && c != '\\' {
				return c
			}
			return -1
		}, secret)
		if plain == "" || plain != secret || strings.Contains(strings.ToLower(public), strings.ToLower(plain)) {
			return
		}
		if strings.Contains(strings.ToLower(got), strings.ToLower(plain)) {
			t.Errorf("%q is in %q", secret, got)
		}
	})
}
