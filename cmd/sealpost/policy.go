package main

import (
	"fmt"
	"os"

	"sealpost/gateway/config"
	"sealpost/gateway/policy"
	"sealpost/gateway/policy/personal"
	"sealpost/gateway/rewrite"
)

type policyCommand struct {
	Evaluate policyEvaluateCommand `cmd:"" help:"Try the detectors of personal data on texts whose answers are known, and print how often they err."`
}

type policyEvaluateCommand struct{}

// caveats are what the figures do not say.
const caveats = `
These sets hold what is hard on purpose; ordinary mail has fewer numbers that look like another kind. Still:
- A number that passes its checksum behind a word that the detectors do not know ("batch", "docket") counts as found, and
  with the action mask its digits are lost to the text. The original is sealed, so nobody loses it for good.
- What is written in an unusual way is missed: in full-width digits, letter by letter, in a picture, in another language's words.
- Your own patterns are not in these sets. Try them with sealpost preview.
So it is a help, and no proof that a text is free of personal data.
`

// Run prints precision and recall.
func (policyEvaluateCommand) Run(std streams) error {
	report, err := personal.Evaluate()
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(std.out, report, caveats)
	return err
}

// newRules turns the policy into what the rewrite goes by.
func newRules(p config.Policy) (rewrite.Rules, error) {
	verdicts, err := policy.New(policy.Options{KeepTypes: p.KeepTypes, Forwarded: policy.Forwarded(p.Forwarded)})
	if err != nil {
		return rewrite.Rules{}, fmt.Errorf("policy.%w", err)
	}
	rules := rewrite.Rules{
		Judge: verdicts.Judge, InlineImage: int64(p.InlineImages), SealSigned: p.Signed == config.SignedSeal,
	}
	rules.Text, err = newTextRules(p.Text)
	return rules, err
}

func newTextRules(t config.Text) (*rewrite.TextRules, error) {
	options := personal.Options{Cards: true, IBANs: true, SSNs: true, Patterns: map[string]string{}}
	rules := &rewrite.TextRules{Actions: map[string]rewrite.Action{
		personal.Card: rewrite.Action(t.Card), personal.IBAN: rewrite.Action(t.IBAN), personal.SSN: rewrite.Action(t.SSN),
	}}
	for _, pattern := range t.Patterns {
		options.Patterns[pattern.Name] = pattern.Pattern
		rules.Actions[pattern.Name] = rewrite.Action(pattern.Action)
	}
	var err error
	if rules.Detectors, err = personal.New(options); err != nil {
		return nil, fmt.Errorf("policy.text.patterns: %w", err)
	}
	return rules, nil
}

// readTemplate reads the admin's own notice; nil: there is none.
func readTemplate(n config.Notice) (*rewrite.Template, error) {
	if n.Text == "" {
		return nil, nil //nolint:nilnil // not configured
	}
	text, err := os.ReadFile(n.Text)
	if err != nil {
		return nil, fmt.Errorf("notice.text: %w", err)
	}
	page, err := os.ReadFile(n.HTML)
	if err != nil {
		return nil, fmt.Errorf("notice.html: %w", err)
	}
	template, err := rewrite.ParseTemplate(string(text), string(page))
	if err != nil {
		return nil, fmt.Errorf("notice.text %s and notice.html %s: %w", n.Text, n.HTML, err)
	}
	return template, nil
}

// mailForms looks at what the configuration file alone does not show: templates, and what patterns may match.
func (c *checker) mailForms() {
	if _, err := newRules(c.cfg.Policy); err != nil {
		c.say(levelError, "policy", "%v", err)
	}
	switch _, err := readTemplate(c.cfg.Notice); {
	case err != nil:
		c.say(levelError, "notice", "%v", err)
	case c.cfg.Notice.Text != "":
		c.say(levelOK, "notice", "%s and %s", c.cfg.Notice.Text, c.cfg.Notice.HTML)
	}
}
