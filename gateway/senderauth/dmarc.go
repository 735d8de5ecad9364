package senderauth

import (
	"strings"

	"github.com/emersion/go-msgauth/dmarc"

	"sealpost/gateway"
)

// record is the DMARC record that applies to the author's domain.
type record struct {
	// failed is why there is none: none, temperror or permerror; empty: there is one.
	failed              gateway.AuthResult
	policy              string
	strictSPF, strictDK bool
}

// findRecord looks the author's policy up (RFC 7489 section 6.6.3).
func (m *judgement) findRecord() record {
	if m.authorErr {
		return record{failed: gateway.AuthPermError}
	}
	found, result := m.lookupRecord(m.author)
	org := organisational(m.author)
	ofOrg := false
	if result == gateway.AuthNone && found == "" && org != m.author {
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

// evaluate returns the DMARC result and the policy that applies (RFC 7489 sections 3.1 and 6.6.2).
func (m *judgement) evaluate(r record) (gateway.AuthResult, string) {
	if r.failed != "" {
		return r.failed, ""
	}
	result := gateway.AuthFail
	consider := func(f finding, strict bool) {
		if !f.dmarc || !m.aligned(f.domain, strict) {
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
	return result, r.policy
}

func (m *judgement) aligned(domain string, strict bool) bool {
	if domain == "" || m.author == "" {
		return false
	}
	return domain == m.author || !strict && organisational(domain) == organisational(m.author)
}
