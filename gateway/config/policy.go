package config

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"
)

// Policy says what of a mail is sealed.
type Policy struct {
	// KeepTypes are media types of text that stay besides the bodies.
	KeepTypes []string `yaml:"keep_types"`
	// InlineImages is the size up to which a picture that a page shows stays.
	InlineImages Size   `yaml:"inline_images"`
	Forwarded    string `yaml:"forwarded"`
	Signed       string `yaml:"signed"`
	Text         Text   `yaml:"text"`
}

// Text says what is done about personal data in the text itself: an action for each kind.
type Text struct {
	Card     string    `yaml:"card"`
	IBAN     string    `yaml:"iban"`
	SSN      string    `yaml:"ssn"`
	Patterns []Pattern `yaml:"patterns"`
}

// Pattern describes personal data of the admin's own kind.
type Pattern struct {
	Name    string `yaml:"name"`
	Pattern string `yaml:"pattern"`
	Action  string `yaml:"action"`
}

// The values of the keys of policy that are words.
const (
	ForwardedWalk    = "walk"
	ForwardedWalkAll = "walk-all"
	ForwardedSeal    = "seal"
	SignedText       = "text"
	SignedSeal       = "seal"
	ActionCount      = "count"
	ActionMask       = "mask"
	ActionSeal       = "seal"
)

func defaultPolicy() Policy {
	return Policy{
		InlineImages: 16 << 10, Forwarded: ForwardedWalk, Signed: SignedText,
		Text: Text{Card: ActionCount, IBAN: ActionCount, SSN: ActionCount},
	}
}

func (d *document) validatePolicy(p *Policy) {
	for i, kept := range p.KeepTypes {
		p.KeepTypes[i] = strings.ToLower(kept)
		if !regexp.MustCompile(`^text/[a-z0-9][a-z0-9!#$&^_.+-]*$`).MatchString(p.KeepTypes[i]) {
			d.report("policy.keep_types["+strconv.Itoa(i)+"]", "%q is no type of text; write it like text/calendar", kept)
		}
	}
	d.oneOf("policy.forwarded", p.Forwarded, ForwardedWalk, ForwardedWalkAll, ForwardedSeal)
	d.oneOf("policy.signed", p.Signed, SignedText, SignedSeal)
	d.action("policy.text.card", p.Text.Card)
	d.action("policy.text.iban", p.Text.IBAN)
	d.action("policy.text.ssn", p.Text.SSN)
	seen := map[string]bool{"card": true, "iban": true, "ssn": true}
	for i := range p.Text.Patterns {
		pattern := &p.Text.Patterns[i]
		pattern.Action = cmp.Or(pattern.Action, ActionCount)
		key := "policy.text.patterns[" + strconv.Itoa(i) + "]"
		d.validatePattern(key, *pattern)
		if seen[pattern.Name] {
			d.report(key+".name", "%q is taken already", pattern.Name)
		}
		seen[pattern.Name] = true
	}
}

// validatePattern checks a pattern's form. What it may match is for the detectors to say.
func (d *document) validatePattern(key string, p Pattern) {
	if !regexp.MustCompile(`^[a-z0-9-]{1,32}$`).MatchString(p.Name) {
		d.report(key+".name", "%q is no name for a pattern; write up to 32 of a-z, 0-9 and -", p.Name)
	}
	expression, err := regexp.Compile(p.Pattern)
	switch {
	case err != nil:
		d.report(key+".pattern", "is no RE2 expression: %v", err)
	case expression.MatchString(""):
		d.report(key+".pattern", "matches the empty text")
	}
	d.action(key+".action", p.Action)
}

func (d *document) action(key, value string) {
	d.oneOf(key, value, ActionCount, ActionMask, ActionSeal)
}

func (d *document) validateNotice(n *Notice) {
	d.oneOf("notice.filenames", n.Filenames, FilenamesShow, FilenamesHide)
	d.oneOf("notice.language", n.Language, LanguageEnglish, LanguageGerman)
	d.oneOf("notice.place", n.Place, PlaceAuto, PlaceTop, PlaceBottom)
	if (n.Text == "") != (n.HTML == "") {
		d.report("notice", "needs both text and html, or neither: a mail may have either form")
	}
}
