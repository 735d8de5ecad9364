package senderauth

import (
	"slices"
	"strings"

	"github.com/emersion/go-msgauth/dmarc"

	"sealpost/gateway"
)

// author is the domain of one author and what DMARC says of it.
type author struct {
	domain string     // A-labels
	stated *statement // what the relay says of it; nil: nothing
	record record     // where the relay says nothing
	result gateway.AuthResult
	policy string
	// advisory tells that a failure must not count.
	advisory bool
}

// The weights of verdicts, from the best for the mail to the worst.
const (
	weightPass    = iota
	weightNothing // no record, or one that is broken
	weightToldOnly
	weightUnclear // an author cannot be read
	weightUnknown // DNS failed
	weightQuarantine
	weightReject
)

// weight orders verdicts by what they mean for the mail.
func (a author) weight() int {
	switch {
	case a.result == gateway.AuthPass:
		return weightPass
	case a.result == gateway.AuthFail && !a.advisory && a.policy == "reject":
		return weightReject
	case a.result == gateway.AuthFail && !a.advisory && a.policy == "quarantine":
		return weightQuarantine
	case a.result == gateway.AuthTempError && !a.advisory && a.policy != "none":
		return weightUnknown
	case a.result == gateway.AuthFail || a.result == gateway.AuthTempError:
		return weightToldOnly
	}
	return weightNothing
}

// conclude takes of all authors the one who fares worst (RFC 7489 section 6.6.1).
func (m *judgement) conclude() {
	for i, a := range m.authors {
		if i == 0 || a.weight() > m.verdict.weight() {
			m.verdict = a
		}
	}
	if m.unclear && (len(m.authors) == 0 || m.verdict.weight() < weightUnclear) {
		m.verdict, m.noAuthor = author{result: gateway.AuthPermError}, true
	}
}

// record is the DMARC record that applies to an author's domain.
type record struct {
	// failed is why there is none: none, temperror or permerror; empty: there is one.
	failed              gateway.AuthResult
	policy              string
	strictSPF, strictDK bool
}

// findRecord looks an author's policy up (RFC 7489 section 6.6.3).
func (m *judgement) findRecord(domain string) record {
	found, result := m.lookupRecord(domain)
	org := organisational(domain)
	ofOrg := false
	if result == gateway.AuthNone && found == "" && org != domain {
		found, result = m.lookupRecord(org)
		ofOrg = true
	}
	if result != "" {
		return record{failed: result}
	}
	parsed, err := dmarc.Parse(found)
	if err != nil {
		return record{failed: gateway.AuthPermError}
	}
	policy := parsed.Policy
	if ofOrg && parsed.SubdomainPolicy != "" {
		policy = parsed.SubdomainPolicy
	}
	return record{
		policy:    string(policy),
		strictSPF: parsed.SPFAlignment == dmarc.AlignmentStrict,
		strictDK:  parsed.DKIMAlignment == dmarc.AlignmentStrict,
	}
}

// several stands for records of which none counts.
const several = "several"

// lookupRecord returns the one DMARC record of a domain, or why there is none. With several no other
// domain is asked.
func (m *judgement) lookupRecord(domain string) (string, gateway.AuthResult) {
	texts, err := m.a.dns.LookupTXT(m.lookups, "_dmarc."+domain)
	if err != nil {
		if isNotFound(err) {
			return "", gateway.AuthNone
		}
		return "", gateway.AuthTempError
	}
	found := ""
	for _, text := range texts {
		version, _, _ := strings.Cut(text, ";")
		if strings.Join(strings.Fields(version), "") != "v=DMARC1" {
			continue
		}
		if found != "" {
			return several, gateway.AuthNone
		}
		found = reduced(text)
	}
	if found == "" {
		return "", gateway.AuthNone
	}
	return found, ""
}

// reduced keeps of a record what we act on, so that a slip in the rest (reporting, pct) does not undo the policy.
func reduced(text string) string {
	kept := []string{"v=DMARC1"}
	for tag := range strings.SplitSeq(text, ";") {
		key, value, ok := strings.Cut(tag, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		switch key {
		case "p", "sp", "adkim", "aspf":
			if ok {
				kept = append(kept, key+"="+strings.ToLower(strings.TrimSpace(value)))
			}
		}
	}
	return strings.Join(kept, "; ")
}

// evaluate sets the DMARC result and the policy that applies (RFC 7489 sections 3.1 and 6.6.2).
func (m *judgement) evaluate(a *author) {
	r := a.record
	if r.failed != "" {
		a.result = r.failed
		return
	}
	result := gateway.AuthFail
	consider := func(f finding, strict bool) {
		if !f.dmarc || !aligned(f.domain, a.domain, strict) {
			return
		}
		switch {
		case f.result == gateway.AuthPass:
			result = gateway.AuthPass
		case f.result == gateway.AuthTempError && result == gateway.AuthFail:
			result = gateway.AuthTempError
		}
	}
	consider(m.spf, r.strictSPF)
	for _, f := range m.dkim {
		consider(f, r.strictDK)
	}
	a.result, a.policy = result, r.policy
}

// aligned compares a domain that was checked with an author's (RFC 7489 section 3.1).
func aligned(domain, author string, strict bool) bool {
	if domain == "" || author == "" {
		return false
	}
	return domain == author || !strict && organisational(domain) == organisational(author)
}

// returnPathProven reports whether MAIL FROM is no other's address: SPF passed for its domain, or it is the author's own
// and who signed or passed is of its organisation. A signature alone says only who the provider is: a mail that it signed
// for one user could be sent again in the name of another.
func (m *judgement) returnPathProven(mailFrom string) bool {
	domain := domainOf(afterAt(mailFrom))
	if m.spf.result == gateway.AuthPass && !m.spf.helo && aligned(m.spf.domain, domain, false) {
		return true
	}
	if !m.header.isFrom(mailFrom) {
		return false
	}
	for _, f := range m.dkim {
		if f.result == gateway.AuthPass && aligned(f.domain, domain, false) {
			return true
		}
	}
	return slices.ContainsFunc(m.authors, func(a author) bool {
		return a.result == gateway.AuthPass && aligned(a.domain, domain, false)
	})
}
