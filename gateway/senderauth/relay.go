package senderauth

import (
	"context"
	"slices"
	"strings"

	"sealpost/gateway"
)

// spfUnknown is why there is no result of SPF.
const spfUnknown = "the relay does not tell"

// behindRelay takes over what a trusted relay found. Where it says nothing of DKIM, we verify it; where it
// says nothing of DMARC, what we find is advisory, since what the relay saw of the client is not known.
func (m *judgement) behindRelay(ctx context.Context) error {
	stated := m.takeOver(m.relayStatements())
	for i := range m.authors {
		a := &m.authors[i]
		if a.stated = m.about(a.domain, stated); a.stated == nil {
			a.record = m.findRecord(a.domain)
		}
	}
	if !m.dkimByRelay {
		var err error
		if m.dkim, err = m.verifyDKIM(ctx); err != nil {
			return err
		}
	}
	for i := range m.authors {
		m.judgeBehindRelay(&m.authors[i])
	}
	return nil
}

// takeOver takes SPF and DKIM from the relay's statements, and returns those about DMARC.
func (m *judgement) takeOver(statements []statement) (dmarc []statement) {
	m.byRelay = len(statements) > 0
	for _, st := range statements {
		switch st.method {
		case "spf":
			if !m.spfByRelay {
				m.spf, m.spfByRelay = relaySPF(st), true
			}
		case "dkim":
			if len(m.dkim) < maxSignatures {
				m.dkim, m.dkimByRelay = append(m.dkim, relayDKIM(st)), true
			}
		case "dmarc":
			dmarc = append(dmarc, st)
		}
	}
	if !m.spfByRelay {
		m.spf = finding{result: gateway.AuthNone, reason: spfUnknown}
	}
	return dmarc
}

func (m *judgement) judgeBehindRelay(a *author) {
	if a.stated == nil {
		m.evaluate(a)
		// Of several authors a relay judges one at most; the others must not hide behind that.
		a.advisory = a.failed() && (len(m.authors) == 1 || !m.spfByRelay)
		return
	}
	a.result, a.policy = a.stated.result, statedPolicy(*a.stated, a.domain)
	a.advisory = a.failed() && overruled(*a.stated)
	if a.policy != "" || !a.failed() {
		return
	}
	switch r := m.findRecord(a.domain); {
	case r.failed == gateway.AuthTempError:
		a.result = gateway.AuthTempError
	case r.failed != "" && a.result == gateway.AuthTempError:
		a.policy = "none"
	default:
		a.policy = r.policy
	}
}

// failed reports whether the result can count against the mail.
func (a author) failed() bool {
	return a.result == gateway.AuthFail || a.result == gateway.AuthTempError
}

// about returns what the relay says of an author: not of another, left over from before the mail was forwarded. A
// pass without a name does not count where there are several authors.
func (m *judgement) about(author string, stated []statement) *statement {
	for i, st := range stated {
		domain := domainOf(afterAt(st.properties["header.from"]))
		if aligned(domain, author, false) || domain == "" && (len(m.authors) == 1 || st.result != gateway.AuthPass) {
			return &stated[i]
		}
	}
	return nil
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
		case m.a.anyID && field.hops > ownHops:
			return nil
		case m.a.anyID:
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
func statedPolicy(st statement, author string) string {
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
	if subdomains != "" && subdomains != policy && organisational(author) != author {
		return "" // which of the two applies depends on the record that was found
	}
	return policy
}

// overruled reports whether Microsoft's admin has decided that the author's policy does not count.
func overruled(st statement) bool {
	action := strings.ToLower(st.properties["action"])
	return action == "oreject" || action == "o.reject"
}

func policyWord(word string) string {
	switch word = strings.ToLower(word); word {
	case "none", "quarantine", "reject":
		return word
	case "oreject", "o.reject", "pct.reject": // Microsoft: asked for, but not carried out
		return "reject"
	case "pct.quarantine":
		return "quarantine"
	}
	return ""
}
