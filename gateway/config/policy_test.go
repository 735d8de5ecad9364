package config_test

import (
	"slices"
	"strings"
	"testing"

	"sealpost/gateway/config"
)

// withPolicy puts text in the place of the policy and the notice of the file that init writes.
func withPolicy(t *testing.T, text string) string {
	t.Helper()
	before, after, found := strings.Cut(written(t), "notice:\n  filenames: show")
	if !found {
		t.Fatal("the written file has no notice")
	}
	return before + text + "\n#" + after
}

func TestPolicyAndNoticeAreRead(t *testing.T) {
	c, err := config.Parse("/etc/sealpost/sealpost.yaml", []byte(strings.Replace(withPolicy(t, `policy:
  keep_types: [Text/Calendar, text/vcard]
  inline_images: 0
  forwarded: seal
  signed: seal
  text:
    card: mask
    iban: seal
    patterns:
      - {name: customer-number, pattern: 'K-[0-9]{8}', action: mask}
      - {name: contract, pattern: 'V[0-9]+'}
notice: {language: de, place: top, text: notice.txt, html: /srv/notice.html}`), `#notice_language: ""`, "notice_language: en", 1)))
	if err != nil {
		t.Fatal(err)
	}
	want := config.Policy{
		KeepTypes: []string{"text/calendar", "text/vcard"}, Forwarded: config.ForwardedSeal, Signed: config.SignedSeal,
		Text: config.Text{Card: config.ActionMask, IBAN: config.ActionSeal, SSN: config.ActionCount, Patterns: []config.Pattern{
			{Name: "customer-number", Pattern: "K-[0-9]{8}", Action: config.ActionMask}, {Name: "contract", Pattern: "V[0-9]+", Action: config.ActionCount},
		}},
	}
	if !samePolicy(c.Policy, want) {
		t.Errorf("policy: %+v", c.Policy)
	}
	if c.Notice != (config.Notice{
		Filenames: config.FilenamesShow, Language: "de", Place: config.PlaceTop, Text: "/etc/sealpost/notice.txt", HTML: "/srv/notice.html",
	}) {
		t.Errorf("notice: %+v", c.Notice)
	}
	if languages := []string{c.Routes[0].NoticeLanguage, c.Routes[1].NoticeLanguage}; !slices.Equal(languages, []string{"en", "de"}) {
		t.Errorf("the routes' languages: %v", languages)
	}
}

// TestSilentPolicyIsTheSafeOne: a file without these keys is served as the defaults want it.
func TestSilentPolicyIsTheSafeOne(t *testing.T) {
	c, err := config.Parse("f.yaml", []byte(withPolicy(t, "")))
	if err != nil {
		t.Fatal(err)
	}
	if !samePolicy(c.Policy, config.Policy{InlineImages: 16384, Forwarded: "walk", Signed: "text", Text: config.Text{Card: "count", IBAN: "count", SSN: "count"}}) {
		t.Errorf("policy: %+v", c.Policy)
	}
	if c.Notice != (config.Notice{Filenames: "show", Language: "en", Place: "auto"}) || c.Routes[0].NoticeLanguage != "en" {
		t.Errorf("notice: %+v, route: %+v", c.Notice, c.Routes[0])
	}
}

func TestPolicyProblems(t *testing.T) {
	tests := []struct{ text, want string }{
		{"policy: {keep_types: [application/pdf]}", `f.yaml:129: policy.keep_types[0]: "application/pdf" is no type of text; write it like text/calendar`},
		{"policy: {keep_types: [text/*/x]}", `policy.keep_types[0]: "text/*/x" is no type of text`},
		{"policy: {keep_type: []}", `policy.keep_type: unknown key; did you mean "keep_types"?`},
		{"policy:\n  inline_images: large", `f.yaml:130: policy.inline_images: "large" is not a size`},
		{"policy: {forwarded: open}", `policy.forwarded: "open" is not possible in this version; write walk or walk-all or seal`},
		{"policy: {signed: walk}", `policy.signed: "walk" is not possible in this version; write text or seal`},
		{"policy: {text: {card: hide}}", `policy.text.card: "hide" is not possible in this version; write count or mask or seal`},
		{"policy: {text: {cards: mask}}", `policy.text.cards: unknown key; did you mean "card"?`},
		{"policy:\n  text:\n    patterns:\n      - {name: a, pattern: a}\n      - {name: b, pattern: '('}", `f.yaml:133: policy.text.patterns[1].pattern: is no RE2 expression`},
		{"policy: {text: {patterns: [{name: b, pattern: '[0-9]*'}]}}", `policy.text.patterns[0].pattern: matches the empty text`},
		{"policy: {text: {patterns: [{name: b}]}}", `policy.text.patterns[0].pattern: matches the empty text`},
		{"policy: {text: {patterns: [{name: Kunde Nr, pattern: K}]}}", `policy.text.patterns[0].name: "Kunde Nr" is no name for a pattern`},
		{"policy: {text: {patterns: [{name: card, pattern: K}]}}", `policy.text.patterns[0].name: "card" is taken already`},
		{"policy: {text: {patterns: [{name: k, pattern: K}, {name: k, pattern: L}]}}", `policy.text.patterns[1].name: "k" is taken already`},
		{"policy: {text: {patterns: [{name: k, pattern: K, action: drop}]}}", `policy.text.patterns[0].action: "drop" is not possible`},
		{"notice: {language: fr}", `notice.language: "fr" is not possible in this version; write en or de`},
		{"notice: {place: middle}", `notice.place: "middle" is not possible in this version; write auto or top or bottom`},
		{"notice: {text: a}", "notice: needs both text and html, or neither"},
	}
	for _, test := range tests {
		if _, err := config.Parse("f.yaml", []byte(withPolicy(t, test.text))); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v\nwant %s", test.text, err, test.want)
		}
	}
}
