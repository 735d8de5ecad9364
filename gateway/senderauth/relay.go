package senderauth

import (
	"context"
	"slices"
	"strings"

	"sealpost/gateway"
)

// behindRelay takes over what a trusted relay found. Where it says nothing of DKIM, we verify it; where it
// says nothing of DMARC, that can pass but not fail, since what the relay saw of the client is not known.
func (m *judgement) behindRelay(ctx context.Context) error {
	statements := m.relayStatements()
	m.byRelay = len(statements) > 0
	var dmarc *statement
	for i := range statements {
		switch st := &statements[i]; st.method {
		case "spf":
			if m.spf.result == "" {
				m.spf = relaySPF(*st)
			}
		case "dkim":
			if len(m.dkim) < maxSignatures {
				m.dkim = append(m.dkim, relayDKIM(*st))
			}
		case "dmarc":
			if dmarc == nil && m.aboutAuthor(*st) {
				dmarc = st
			}
		}
	}
	m.dkimByRelay = len(m.dkim) > 0
	var own record
	if dmarc == nil {
		own = m.findRecord()
	}
	if !m.dkimByRelay {
		var err error
		if m.dkim, err = m.verifyDKIM(ctx); err != nil {
			return err
		}
	}
	if dmarc == nil {
		if m.dmarc, m.policy = m.evaluate(own); m.dmarc == gateway.AuthFail {
			m.dmarc = gateway.AuthNone
		}
		return nil
	}
	m.dmarc = dmarc.result
	if m.policy = m.statedPolicy(*dmarc); m.policy == "" && m.dmarc == gateway.AuthFail {
		m.policy = m.findRecord().policy
	}
	return nil
}

// aboutAuthor reports whether a DMARC result is about the author that we see, and not left over from before
// the mail was forwarded.
func (m *judgement) aboutAuthor(st statement) bool {
	domain := domainOf(afterAt(st.properties["header.from"]))
	return domain == "" || m.author == "" || m.aligned(domain, false)
}

// ownHops is how many Received fields may stand above a relay's own Authentication-Results: its trace is in one piece,
// but filters write theirs above or below the Received field of the server that they serve (RFC 8601 section 5).
const ownHops = 1

// relayStatements returns what the relay's own fields say.
func (m *judgement) relayStatements() []statement {
	var all []statement
	var owner string
	var section int
	for _, field := range m.header.results {
		if m.a.id != "" && IsOurs(field.value, m.a.id) && !slices.Contains(m.a.trusted, m.a.id) {
			continue // forged
		}
		id, statements := parseResults(field.value)
		switch {
		case len(m.a.trusted) == 0 && field.hops > ownHops:
			return nil
		case len(m.a.trusted) == 0:
			return statements
		case !slices.Contains(m.a.trusted, id):
			continue
		case owner == "":
			owner, section = id, field.received
		case id != owner || field.received != section:
			continue
		}
		all = append(all, firstOfMethod(all, statements)...)
	}
	return all
}

// firstOfMethod returns those of more whose method is not among have: the upper field counts.
func firstOfMethod(have, more []statement) []statement {
	var kept []statement
	for _, st := range more {
		if !slices.ContainsFunc(have, func(h statement) bool { return h.method == st.method }) {
			kept = append(kept, st)
		}
	}
	return kept
}

// byMicrosoft reports whether a Received field is that of a server of Microsoft 365, which hands a mail on through
// several before it leaves, all of them above its results.
func byMicrosoft(received string) bool {
	words := segments(received)[0].words
	i := slices.IndexFunc(words, func(word string) bool { return strings.EqualFold(word, "by") })
	if i < 0 || i+1 == len(words) {
		return false
	}
	host := "." + hostOf(words[i+1])
	return strings.HasSuffix(host, ".outlook.com") || strings.HasSuffix(host, ".outlook.cn")
}

func relaySPF(st statement) finding {
	f := finding{result: st.result, dmarc: true}
	from := st.properties["smtp.mailfrom"]
	if from == "" {
		from = st.properties["smtp.mail"] // the older name, RFC 7001
	}
	if f.domain = domainOf(afterAt(from)); f.domain == "" {
		// HELO stands for the null sender only, and whether it was is not known.
		f.domain, f.helo, f.dmarc = domainOf(afterAt(st.properties["smtp.helo"])), true, false
	}
	return f
}

func relayDKIM(st statement) finding {
	domain := domainOf(afterAt(st.properties["header.d"]))
	if domain == "" {
		domain = domainOf(afterAt(st.properties["header.i"]))
	}
	return finding{result: st.result, domain: domain, dmarc: true}
}

// statedPolicy is the policy that the relay's words tell of: Microsoft's action=, or the comments of Gmail and
// OpenDMARC (p=) and of rspamd (policy=).
func (m *judgement) statedPolicy(st statement) string {
	if action := policyWord(st.properties["action"]); action != "" {
		return action
	}
	policy, subdomains := "", ""
	for word := range strings.FieldsFuncSeq(st.comments, func(r rune) bool { return r <= ' ' || r == ',' || r == ';' }) {
		key, value, _ := strings.Cut(strings.ToLower(word), "=")
		switch key {
		case "p", "policy":
			policy = policyWord(value)
		case "sp":
			subdomains = policyWord(value)
		}
	}
	if subdomains != "" && subdomains != policy && m.author != "" && organisational(m.author) != m.author {
		return "" // which of the two applies depends on the record that was found
	}
	return policy
}

func policyWord(word string) string {
	switch word = strings.ToLower(word); word {
	case "none", "quarantine", "reject":
		return word
	case "oreject", "pct.reject": // Microsoft: asked for, but not carried out
		return "reject"
	case "pct.quarantine":
		return "quarantine"
	}
	return ""
}
