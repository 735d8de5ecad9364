package senderauth

import (
	"strings"
	"testing"

	"github.com/foxcpp/go-mockdns"

	"sealpost/gateway"
)

const (
	m365Pass = "spf=pass (sender IP is 192.0.2.10)\r\n smtp.mailfrom=sender.example; dkim=pass (signature was verified)\r\n" +
		" header.d=sender.example;dmarc=pass action=none\r\n header.from=sender.example;compauth=pass reason=100"
	m365Reject = "spf=fail (sender IP is 192.0.2.10)\r\n smtp.mailfrom=sender.example; dkim=none (message not signed)\r\n" +
		" header.d=none;dmarc=fail action=oreject\r\n header.from=sender.example;compauth=none reason=451"
	m365Best = "spf=none (sender IP is 192.0.2.10) smtp.mailfrom=sender.example; dkim=none (message not signed)" +
		" header.d=none;dmarc=bestguesspass action=none header.from=sender.example;compauth=pass reason=109"
	gmailPass = "mx.google.com;\r\n       dkim=pass header.i=@sender.example header.s=s1 header.b=AbC+/1;\r\n" +
		"       spf=pass (google.com: domain of jane@sender.example designates 192.0.2.10 as permitted sender) smtp.mailfrom=jane@sender.example;\r\n" +
		"       dmarc=pass (p=REJECT sp=REJECT dis=NONE) header.from=sender.example"
	gmailFail = "mx.google.com; spf=softfail (google.com: domain of transitioning jane@sender.example does not designate; dmarc=pass)" +
		" smtp.mailfrom=jane@sender.example; dmarc=fail (p=QUARANTINE sp=NONE dis=NONE) header.from=sender.example"
	rspamd = "relay.example;\r\n\tdkim=pass header.d=sender.example header.s=s1 header.b=\"ab;c\";\r\n" +
		"\tdkim=fail (\"body hash did not verify\") header.d=list.example;\r\n\tspf=pass (relay.example: domain of jane@sender.example designates" +
		" 192.0.2.10 as permitted sender) smtp.mailfrom=jane@sender.example;\r\n\tdmarc=fail reason=\"No valid; SPF\" header.from=sender.example (policy=reject)"
	openDKIM  = "relay.example;\r\n\tdkim=pass (2048-bit key; unprotected) header.d=sender.example header.i=@sender.example header.a=rsa-sha256"
	openDMARC = "relay.example; dmarc=fail (p=reject dis=none) header.from=sender.example"
	policySPF = "relay.example; spf=pass (mailfrom) smtp.mailfrom=sender.example (client-ip=192.0.2.10; helo=x)"
)

func relayMail(fields ...string) string {
	var b strings.Builder
	for _, f := range fields {
		if !strings.HasPrefix(f, "Received:") {
			f = "Authentication-Results: " + f
		}
		b.WriteString(f + "\r\n")
	}
	return b.String() + plain("Jane <jane@sender.example>")
}

func relayed(t *testing.T, a *Authenticator, mail string) (gateway.Authentication, string) {
	t.Helper()
	e := envelopeFrom("jane@sender.example")
	e.TrustedRelay = true
	return judge(t, a, e, mail)
}

func TestRelayForms(t *testing.T) {
	const pass, fail, none = gateway.AuthPass, gateway.AuthFail, gateway.AuthNone
	z := zones(map[string][]string{"_dmarc.sender.example": {"v=DMARC1; p=quarantine"}})
	ids := func(s ...string) []string { return s }
	for _, c := range []struct {
		name             string
		trusted, fields  []string
		spf, dkim, dmarc gateway.AuthResult
		policy           string
	}{
		{"Microsoft 365", ids("any"), ids(m365Pass), pass, pass, pass, "none"},
		{"Microsoft 365, overruled", ids("any"), ids(m365Reject), fail, none, fail, "reject"},
		{"Microsoft 365, overruled", ids("any"), ids(strings.Replace(m365Reject, "oreject", "o.reject", 1)), fail, none, fail, "reject"},
		{"Microsoft 365, reject", ids("any"), ids(strings.Replace(m365Reject, "oreject", "reject", 1)), fail, none, fail, "reject"},
		{"Microsoft 365, no record", ids("any"), ids(m365Best), none, none, none, "none"},
		{"Gmail", ids("mx.google.com"), ids(gmailPass), pass, pass, pass, "reject"},
		{"Gmail, fail", ids("MX.Google.com."), ids(gmailFail), gateway.AuthSoftFail, none, fail, "quarantine"},
		{"rspamd", ids("relay.example"), ids(rspamd), pass, pass, fail, "reject"},
		{"Postfix, a field for each filter", ids("relay.example"), ids(openDMARC, openDKIM, policySPF), pass, pass, fail, "reject"},
		{"Postfix, topmost only", ids("any"), ids(openDMARC, openDKIM, policySPF), none, none, fail, "reject"},
		{"no DMARC, aligned", ids("relay.example"), ids(policySPF), pass, none, pass, "quarantine"},
		{"no policy said", ids("any"), ids("relay.example; dmarc=fail header.from=sender.example"), none, none, fail, "quarantine"},
		{"white space", ids("any"), ids("relay.example ;spf = pass smtp.mailfrom = sender.example ; DMARC=FAIL (P=Reject)"), pass, none, fail, "reject"},
		{"version and method version", ids("any"), ids("relay.example 1; spf/1=hardfail smtp.mailfrom=sender.example; dmarc=fail (p=none)"), fail, none, fail, "none"},
		{"another's field above", ids("relay.example"), ids("evil.example; dmarc=pass; spf=pass; dkim=pass", rspamd), pass, pass, fail, "reject"},
		{"of the same name below Received", ids("relay.example"), ids(openDMARC, "Received: by relay.example", openDKIM), none, none, fail, "reject"},
		{"forged ours on top", ids("any"), ids("mx.gate.example; dmarc=pass; spf=pass", gmailFail), gateway.AuthSoftFail, none, fail, "quarantine"},
		{"a pass of another author", ids("any"), ids("relay.example; dmarc=pass header.from=evil.example"), none, none, fail, "quarantine"},
	} {
		got, field := relayed(t, newTest(z, c.trusted...), relayMail(c.fields...))
		want := gateway.Authentication{SPF: c.spf, DKIM: c.dkim, DMARC: c.dmarc, DMARCPolicy: c.policy, ByRelay: true,
			Advisory: strings.HasSuffix(c.name, "overruled") || strings.HasPrefix(c.name, "a pass of"), ReturnPathProven: c.spf == pass}
		if got != want {
			t.Errorf("%s: %+v, want %+v", c.name, got, want)
		}
		for _, word := range []string{"jane", "192.0.2.10", "permitted", "compauth"} {
			if strings.Contains(field, word) {
				t.Errorf("%s: %q was copied into %q", c.name, word, field)
			}
		}
	}
}

// With AnyID, a field counts only where the relay itself can have written it: not below its second Received.
func TestPlaceOfTheRelaysField(t *testing.T) {
	const (
		relay   = "Received: from mail.sender.example by relay.example with ESMTPS id 1"
		sender  = "Received: from [10.0.0.1] by mail.sender.example with ESMTPA id 2"
		forged  = "relay.example; dmarc=pass header.from=sender.example; spf=pass smtp.mailfrom=sender.example"
		posing  = "Received: from a.prod.outlook.com by b.prod.outlook.com (2001:db8::1)"
		inside  = "Received: from A.EURP1.PROD.OUTLOOK.COM (2001:db8::1)\r\n by B.EURP1.PROD.OUTLOOK.COM (2001:db8::2) with Microsoft SMTP Server"
		edge    = "Received: from mail.sender.example (192.0.2.10) by C.mail.protection.outlook.com (192.0.2.1)"
		helo    = "Received: from by.outlook.com (by x.outlook.com) by relay.example with ESMTPS id 1"
		nowhere = "Received: from mail.sender.example with ESMTPS by"
	)
	for _, c := range []struct {
		name   string
		fields []string
		counts bool
	}{
		{"on top", []string{rspamd, relay, sender}, true},
		{"below the relay's own Received", []string{relay, rspamd, sender}, true},
		{"no Received at all", []string{rspamd}, true},
		{"below the sender's", []string{relay, sender, forged}, false},
		{"below the sender's, further down", []string{relay, sender, sender, forged, forged}, false},
		{"the upper one counts", []string{relay, rspamd, sender, forged}, true},
		{"Microsoft 365", []string{inside, inside, edge, m365Reject, sender, forged}, true},
		{"Microsoft 365, above its edge", []string{inside, inside, m365Reject, edge, sender, forged}, true},
		{"Microsoft 365, without a field", []string{inside, edge, sender, forged}, false},
		{"a sender that poses as Microsoft", []string{relay, posing, forged}, false},
		{"one that poses twice", []string{relay, posing, posing, forged}, false},
		{"a client's name", []string{helo, sender, forged}, false},
		{"no server's name", []string{nowhere, posing, forged}, false},
		{"Microsoft behind another", []string{inside, sender, inside, forged}, false},
	} {
		got, _ := relayed(t, newTest(nil, AnyID), relayMail(c.fields...))
		if got.ByRelay != c.counts || c.counts && got.DMARC != gateway.AuthFail || !c.counts && got.DMARC == gateway.AuthPass {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

// With trusted ids the place does not matter, since a relay removes what others write in its name.
func TestTrustedIDCountsBelowTheRelaysServers(t *testing.T) {
	const hop = "Received: by mail.google.com"
	got, _ := relayed(t, newTest(nil, "mx.google.com"), relayMail(hop, hop, gmailFail, hop))
	if !got.ByRelay || got.DMARC != gateway.AuthFail {
		t.Errorf("%+v", got)
	}
}

func TestRelayFieldIsRestated(t *testing.T) {
	_, field := relayed(t, newTest(nil, AnyID), relayMail(gmailPass))
	const want = "Authentication-Results: mx.gate.example; dmarc=pass (p=reject) (by relay) header.from=sender.example; " +
		"spf=pass (by relay) smtp.mailfrom=sender.example; dkim=pass (by relay) header.d=sender.example"
	if field != want {
		t.Errorf("got  %s\nwant %s", field, want)
	}
}

// What the relay saw of the client is not known: SPF is none, DMARC passes by DKIM alone, and its failure is advisory.
func TestWithoutItsResultsARelayHarmsNobody(t *testing.T) {
	_, records := keys()
	z := zones(map[string][]string{
		"rsa._domainkey.sender.example": {records["rsa"]},
		"_dmarc.sender.example":         {"v=DMARC1; p=reject"},
		"sender.example":                {"v=spf1 ip4:" + clientAddress + " -all"},
	})
	const none, pass, fail = gateway.AuthNone, gateway.AuthPass, gateway.AuthFail
	unsigned, signed := relayMail(), sign(t, relayMail(), "sender.example", "rsa")
	forged := relayMail("Received: by relay.example", "relay.example; dmarc=pass header.from=sender.example; dkim=pass header.d=sender.example")
	for _, c := range []struct {
		name, mail  string
		trusted     []string
		dkim, dmarc gateway.AuthResult
	}{
		{"unsigned", unsigned, nil, none, fail},
		{"signed", signed, nil, pass, pass},
		{"signed, changed", signed + "x\r\n", nil, fail, fail},
		{"forged where the relay writes", forged, nil, none, fail},
		{"others' field", relayMail("evil.example; dmarc=pass; dkim=pass header.d=sender.example"), []string{"relay.example"}, none, fail},
	} {
		got, field := relayed(t, newTest(z, c.trusted...), c.mail)
		want := gateway.Authentication{SPF: none, DKIM: c.dkim, DMARC: c.dmarc, DMARCPolicy: "reject", Advisory: c.dmarc == fail, ReturnPathProven: c.dmarc == pass}
		if got != want || !strings.Contains(field, "spf=none (the relay does not tell)") || c.dmarc == fail != strings.Contains(field, "(SPF is not known)") {
			t.Errorf("%s: %+v, want %+v; %s", c.name, got, want, field)
		}
	}
}

// A relay's word about one author does not clear another.
func TestRelayClearsOnlyTheAuthorItNames(t *testing.T) {
	z := zones(map[string][]string{"_dmarc.bank.example": {"v=DMARC1; p=reject"}})
	const results = "Authentication-Results: relay.example; spf=pass smtp.mailfrom=evil.example; dmarc=pass"
	for _, named := range []string{"", " header.from=evil.example"} {
		got, _ := relayed(t, newTest(z, "relay.example"), results+named+"\r\n"+plain("ceo@bank.example, x@evil.example"))
		if got.DMARC != gateway.AuthFail || got.DMARCPolicy != "reject" || got.Advisory {
			t.Errorf("%q: %+v", named, got)
		}
	}
}

// What a relay could not find out depends on what the author's domain asks for.
func TestRelaysTemporaryError(t *testing.T) {
	z := zones(map[string][]string{"_dmarc.strict.example": {"v=DMARC1; p=reject"}})
	z["_dmarc.dead.example."] = mockdns.Zone{Err: errServfail}
	for _, c := range []struct {
		domain, said string
		want         gateway.AuthResult
		policy       string
	}{
		{"strict.example", "temperror", gateway.AuthTempError, "reject"},
		{"nothing.example", "temperror", gateway.AuthTempError, "none"},
		{"dead.example", "temperror", gateway.AuthTempError, ""},
		{"dead.example", "fail", gateway.AuthTempError, ""},
	} {
		mail := "Authentication-Results: relay.example; dmarc=" + c.said + " header.from=" + c.domain + "\r\n" + plain("x@"+c.domain)
		if got, _ := relayed(t, newTest(z, "relay.example"), mail); got.DMARC != c.want || got.DMARCPolicy != c.policy {
			t.Errorf("%s, %s: %+v", c.domain, c.said, got)
		}
	}
}

func TestWithoutTrustARelaysFieldDoesNotCount(t *testing.T) {
	got, _ := judge(t, newTest(nil), envelopeFrom("jane@sender.example"), relayMail(gmailPass))
	if got != (gateway.Authentication{SPF: gateway.AuthNone, DKIM: gateway.AuthNone, DMARC: gateway.AuthNone}) {
		t.Errorf("got %+v", got)
	}
}

func TestSubdomainPolicyOfAGmailCommentIsLookedUp(t *testing.T) {
	z := zones(map[string][]string{"_dmarc.sender.example": {"v=DMARC1; p=reject; sp=none"}})
	mail := "Authentication-Results: mx.google.com; dmarc=fail (p=REJECT sp=NONE dis=NONE) header.from=sub.sender.example\r\n" +
		plain("x@sub.sender.example")
	if got, _ := relayed(t, newTest(z, "mx.google.com"), mail); got.DMARCPolicy != "none" || got.DMARC != gateway.AuthFail {
		t.Errorf("got %+v", got)
	}
}

func FuzzParseResults(f *testing.F) {
	for _, seed := range []string{m365Pass, m365Reject, gmailPass, gmailFail, rspamd, openDKIM, openDMARC, policySPF, "(", `"\`, "a;=;=b (\\"} {
		f.Add(seed)
	}
	a := newTest(nil, AnyID)
	f.Fuzz(func(t *testing.T, value string) {
		_, statements := parseResults(value)
		for _, st := range statements {
			if resultWord(string(st.result)) != st.result {
				t.Errorf("result %q", st.result)
			}
		}
		mail := "Authentication-Results: " + strings.NewReplacer("\r", "", "\n", "").Replace(value) + "\r\n" + plain("x@sender.example")
		relayedFuzz(t, a, mail)
	})
}

func relayedFuzz(t *testing.T, a *Authenticator, mail string) {
	e := envelopeFrom("")
	e.TrustedRelay = true
	judge(t, a, e, mail)
}
