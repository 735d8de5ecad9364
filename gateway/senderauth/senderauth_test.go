package senderauth

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/foxcpp/go-mockdns"
	"github.com/prometheus/client_golang/prometheus"

	"sealpost/gateway"
)

func TestSPFResults(t *testing.T) {
	z := zones(map[string][]string{
		"pass.example":      {"v=spf1 ip4:192.0.2.0/24 -all"},
		"fail.example":      {"v=spf1 ip4:198.51.100.0/24 -all"},
		"soft.example":      {"v=spf1 ~all"},
		"neutral.example":   {"v=spf1 ?all"},
		"perm.example":      {"v=spf1 nonsense:x -all"},
		"twice.example":     {"v=spf1 -all", "v=spf1 +all"},
		"nothing.example":   {"something else"},
		"loop.example":      {"v=spf1 include:loop.example -all"},
		"helo-pass.example": {"v=spf1 ip4:192.0.2.10 -all"},
	})
	z["dead.example."] = mockdns.Zone{Err: errServfail}
	a := newTest(z)
	for _, c := range []struct {
		from, hello string
		want        gateway.AuthResult
		property    string
	}{
		{"a@pass.example", "h.example", gateway.AuthPass, "smtp.mailfrom=pass.example"},
		{`"x@evil.example"@pass.example`, "h.example", gateway.AuthPass, "smtp.mailfrom=pass.example"},
		{"a@fail.example", "h.example", gateway.AuthFail, "smtp.mailfrom=fail.example"},
		{"a@soft.example", "h.example", gateway.AuthSoftFail, "smtp.mailfrom=soft.example"},
		{"a@neutral.example", "h.example", gateway.AuthNeutral, "smtp.mailfrom=neutral.example"},
		{"a@perm.example", "h.example", gateway.AuthPermError, "smtp.mailfrom=perm.example"},
		{"a@twice.example", "h.example", gateway.AuthPermError, "smtp.mailfrom=twice.example"},
		{"a@loop.example", "h.example", gateway.AuthPermError, "smtp.mailfrom=loop.example"},
		{"a@dead.example", "h.example", gateway.AuthTempError, "smtp.mailfrom=dead.example"},
		{"a@nothing.example", "h.example", gateway.AuthNone, "smtp.mailfrom=nothing.example"},
		{"a@nowhere.example", "h.example", gateway.AuthNone, "smtp.mailfrom=nowhere.example"},
		{"a@nowhere.example", "helo-pass.example", gateway.AuthPass, "smtp.helo=helo-pass.example"},
		{"", "helo-pass.example", gateway.AuthPass, "smtp.helo=helo-pass.example"},
		{"", "[192.0.2.10]", gateway.AuthNone, ""},
		{"no-domain", "h.example", gateway.AuthNone, ""},
	} {
		e := envelopeFrom(c.from)
		e.Hello = c.hello
		got, field := judge(t, a, e, plain("x@author.example"))
		if got.SPF != c.want || !strings.Contains(field, "spf="+string(c.want)) || !strings.Contains(field, c.property) {
			t.Errorf("%q, %q: %s; want %s and %s in %q", c.from, c.hello, got.SPF, c.want, c.property, field)
		}
	}
}

func TestSPFWithoutClientAddressIsNone(t *testing.T) {
	a := newTest(zones(map[string][]string{"pass.example": {"v=spf1 +all"}}))
	e := envelopeFrom("a@pass.example")
	e.Client = netip.Addr{}
	if got, _ := judge(t, a, e, plain("x@pass.example")); got.SPF != gateway.AuthNone {
		t.Errorf("got %s", got.SPF)
	}
}

func TestDKIM(t *testing.T) {
	_, records := keys()
	z := zones(map[string][]string{
		"rsa._domainkey.sender.example": {records["rsa"]},
		"ed._domainkey.sender.example":  {records["ed"]},
		"rsa._domainkey.weak.example": {"v=DKIM1; k=rsa; p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf" +
			"9Cnzj4p4WGeKLs1Pt8QuKUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQ=="},
		"rsa._domainkey.revoked.example": {"v=DKIM1; p="},
	})
	z["rsa._domainkey.dead.example."] = mockdns.Zone{Err: errServfail}
	mail := plain("x@sender.example")
	for _, c := range []struct {
		name, mail string
		want       gateway.AuthResult
		inField    string
	}{
		{"unsigned", mail, gateway.AuthNone, "dkim=none"},
		{"rsa", sign(t, mail, "sender.example", "rsa"), gateway.AuthPass, "dkim=pass header.d=sender.example"},
		{"ed25519", sign(t, mail, "sender.example", "ed"), gateway.AuthPass, "dkim=pass header.d=sender.example"},
		{"body changed", sign(t, mail, "sender.example", "rsa") + "more\r\n", gateway.AuthFail, `reason="body hash did not verify"`},
		{"header changed", strings.Replace(sign(t, mail, "sender.example", "rsa"), "Subject: Hello", "Subject: Hallo", 1),
			gateway.AuthFail, `reason="signature did not verify"`},
		{"key missing", sign(t, mail, "keyless.example", "rsa"), gateway.AuthPermError, `reason="no key"`},
		{"key revoked", sign(t, mail, "revoked.example", "rsa"), gateway.AuthPermError, `reason="key revoked"`},
		{"key under 1024 bits", sign(t, mail, "weak.example", "rsa"), gateway.AuthPermError, `reason="key too short"`},
		{"DNS fails", sign(t, mail, "dead.example", "rsa"), gateway.AuthTempError, "dkim=temperror"},
		{"one of two", sign(t, sign(t, mail, "sender.example", "rsa"), "keyless.example", "ed"), gateway.AuthPass, "dkim=permerror"},
		{"garbage", "DKIM-Signature: \x00;;=;v=9\r\n" + mail, gateway.AuthPermError, "dkim=permerror"},
		{"no body", "DKIM-Signature: v=1\r\nFrom: x@sender.example\r\n", gateway.AuthPermError, "dkim=permerror"},
	} {
		got, field := judge(t, newTest(z), envelopeFrom("a@nowhere.example"), c.mail)
		if got.DKIM != c.want || !strings.Contains(field, c.inField) {
			t.Errorf("%s: %s, want %s and %s in %q", c.name, got.DKIM, c.want, c.inField, field)
		}
	}
}

func TestCostlyMailsAreNotVerified(t *testing.T) {
	_, records := keys()
	a := newTest(zones(map[string][]string{"rsa._domainkey.sender.example": {records["rsa"]}}))
	mail := plain("x@sender.example")
	for _, c := range []struct {
		name, mail string
		want       gateway.AuthResult
	}{
		{"empty lines", sign(t, mail+strings.Repeat("\r\n", maxBlank/2)+"x\r\n", "sender.example", "rsa"), gateway.AuthPolicy},
		{"lines of white space", sign(t, mail+strings.Repeat(" \t \r\n", maxBlank/5+1), "sender.example", "rsa"), gateway.AuthPolicy},
		{"some empty lines", sign(t, mail+strings.Repeat("\r\n", maxBlank/4)+"x\r\n", "sender.example", "rsa"), gateway.AuthPass},
		{"many fields", strings.Repeat("X:\r\n", maxFields) + sign(t, mail, "sender.example", "rsa"), gateway.AuthPolicy},
		{"folded without end", "X: y\r\n" + strings.Repeat(" y\r\n", 100_000) + sign(t, mail, "sender.example", "rsa"), gateway.AuthPolicy},
		{"long signature", "DKIM-Signature: h=" + strings.Repeat("a:", maxSignature/2) + "\r\n" + mail, gateway.AuthPolicy},
		{"header over 1 MiB", strings.Repeat("X: "+strings.Repeat("y", 990)+"\r\n", 1100) + "DKIM-Signature: v=1\r\n" + mail, gateway.AuthNone},
	} {
		if got, field := judge(t, a, envelopeFrom(""), c.mail); got.DKIM != c.want {
			t.Errorf("%s: %s, want %s; %s", c.name, got.DKIM, c.want, field)
		}
	}
}

func TestDMARC(t *testing.T) {
	_, records := keys()
	z := zones(map[string][]string{
		"rsa._domainkey.sender.example":  {records["rsa"]},
		"rsa._domainkey.strict.example":  {records["rsa"]},
		"sender.example":                 {"v=spf1 ip4:192.0.2.10 -all"},
		"bounce.sender.example":          {"v=spf1 ip4:192.0.2.10 -all"},
		"bounce.strict.example":          {"v=spf1 ip4:192.0.2.10 -all"},
		"other.example":                  {"v=spf1 ip4:192.0.2.10 -all"},
		"_dmarc.sender.example":          {"v=DMARC1; p=reject; sp=quarantine; pct=0; rua=mailto:x@sender.example"},
		"_dmarc.strict.example":          {"v=DMARC1; p=reject; aspf=s; adkim=s"},
		"_dmarc.own.sender.example":      {"v=DMARC1;p=none"},
		"_dmarc.slips.example":           {"v=DMARC1; p=Reject; pct=lots; rf=odd"},
		"_dmarc.broken.example":          {"v=DMARC1; p=perhaps"},
		"_dmarc.two.example":             {"v=DMARC1; p=reject", "v=DMARC1; p=none"},
		"_dmarc.other-text.example":      {"v=spf1 -all", "v=DMARC10; p=reject"},
		"_dmarc.co.uk":                   {"v=DMARC1; p=reject"},
		"_dmarc.xn--bcher-kva.example":   {"v=DMARC1; p=reject"},
		"_dmarc.pair.sender.example":     {"v=DMARC1; p=reject", "v=DMARC1; p=none"},
		"rsa._domainkey.foreign.example": {records["rsa"]},
	})
	z["_dmarc.dead.example."] = mockdns.Zone{Err: errServfail}
	z["deadspf.sender.example."] = mockdns.Zone{Err: errServfail}
	z["dead-spf.test."] = mockdns.Zone{Err: errServfail}
	signed := func(from, domain string) string { return sign(t, plain(from), domain, "rsa") }
	for _, c := range []struct {
		name, mailFrom, mail string
		want                 gateway.AuthResult
		policy               string
	}{
		{"by SPF", "a@sender.example", plain("x@sender.example"), gateway.AuthPass, "reject"},
		{"by SPF, relaxed", "a@bounce.sender.example", plain("x@sender.example"), gateway.AuthPass, "reject"},
		{"SPF, strict", "a@bounce.strict.example", plain("x@strict.example"), gateway.AuthFail, "reject"},
		{"SPF of another", "a@other.example", plain("x@sender.example"), gateway.AuthFail, "reject"},
		{"by DKIM", "a@other.example", signed("x@sender.example", "sender.example"), gateway.AuthPass, "reject"},
		{"by DKIM, strict", "a@other.example", signed("x@strict.example", "strict.example"), gateway.AuthPass, "reject"},
		{"DKIM, strict, subdomain", "a@other.example", signed("x@sub.strict.example", "strict.example"), gateway.AuthFail, "reject"},
		{"DKIM of another", "a@other.example", signed("x@sender.example", "foreign.example"), gateway.AuthFail, "reject"},
		{"of the organisation, sp", "a@other.example", plain("x@sub.sender.example"), gateway.AuthFail, "quarantine"},
		{"of the subdomain itself", "a@other.example", plain("x@own.sender.example"), gateway.AuthFail, "none"},
		{"slips beside the policy", "a@other.example", plain("x@slips.example"), gateway.AuthFail, "reject"},
		{"broken policy", "a@other.example", plain("x@broken.example"), gateway.AuthPermError, ""},
		{"two records", "a@other.example", plain("x@two.example"), gateway.AuthNone, ""},
		{"two records of the subdomain", "a@other.example", plain("x@pair.sender.example"), gateway.AuthNone, ""},
		{"header without an end", "a@other.example", "From: x@sender.example", gateway.AuthFail, "reject"},
		{"other text", "a@other.example", plain("x@other-text.example"), gateway.AuthNone, ""},
		{"no record", "a@other.example", plain("x@nothing.example"), gateway.AuthNone, ""},
		{"a public suffix's record is nobody else's", "a@other.example", plain("x@shop.co.uk"), gateway.AuthNone, ""},
		{"IDN", "a@other.example", plain("x@bücher.example"), gateway.AuthFail, "reject"},
		{"DNS fails", "a@other.example", plain("x@dead.example"), gateway.AuthTempError, ""},
		{"DNS fails for an aligned SPF", "a@deadspf.sender.example", plain("x@sender.example"), gateway.AuthTempError, "reject"},
		{"DNS fails for another's SPF", "a@dead-spf.test", plain("x@sender.example"), gateway.AuthFail, "reject"},
		{"name in an unknown charset", "a@other.example", plain("=?x-odd?B?gqA=?= <x@sender.example>"), gateway.AuthFail, "reject"},
		{"raw octets in the name", "a@other.example", plain("M\xfcller <x@sender.example>"), gateway.AuthFail, "reject"},
		{"malformed From of one domain", "a@other.example", plain("Foo, Inc. <x@sender.example>"), gateway.AuthFail, "reject"},
		{"folded From", "a@other.example", plain("\"Foo\"\n <x@sender.example>"), gateway.AuthFail, "reject"},
		{"two addresses, one domain", "a@other.example", plain("x@sender.example, y@SENDER.example"), gateway.AuthFail, "reject"},
		{"two domains, one without a policy", "a@sender.example", plain("x@sender.example, y@other.example"), gateway.AuthNone, ""},
		{"two domains", "a@other.example", plain("CEO <x@sender.example>, y@other.example"), gateway.AuthFail, "reject"},
		{"two domains, the strict one last", "a@sender.example", plain("x@sender.example, y@strict.example"), gateway.AuthFail, "reject"},
		{"two domains, one cannot be looked up", "a@sender.example", plain("x@sender.example, y@dead.example"), gateway.AuthTempError, ""},
		{"malformed, two domains", "a@other.example", plain("Foo, x@sender.example <y@other.example>"), gateway.AuthFail, "reject"},
		{"malformed, quoted", "a@other.example", plain("y@other.example, Foo <\"x\"@sender.example"), gateway.AuthFail, "reject"},
		{"two From", "a@other.example", "From: y@other.example\r\n" + plain("x@sender.example"), gateway.AuthFail, "reject"},
		{"a second From with white space", "a@other.example", "From : y@other.example\r\n" + plain("x@sender.example"), gateway.AuthFail, "reject"},
		{"a second, empty From", "a@other.example", "From:\r\n" + plain("x@sender.example"), gateway.AuthFail, "reject"},
		{"a line that is no field", "a@other.example", "from\r\n" + plain("x@sender.example"), gateway.AuthFail, "reject"},
		{"no From", "a@sender.example", "To: x@sender.example\r\n\r\nhi\r\n", gateway.AuthPermError, ""},
		{"From before an endless header", "a@sender.example", "From: x@sender.example\r\n" + strings.Repeat("X: "+strings.Repeat("y", 990)+"\r\n", 1100) +
			"From: y@other.example\r\n\r\n", gateway.AuthPermError, ""},
		{"endless From", "a@sender.example", plain(strings.Repeat("x", maxValue) + "@sender.example"), gateway.AuthPermError, ""},
	} {
		got, field := judge(t, newTest(z), envelopeFrom(c.mailFrom), c.mail)
		if got.DMARC != c.want || got.DMARCPolicy != c.policy || !strings.Contains(field, "dmarc="+string(c.want)) {
			t.Errorf("%s: %s %q, want %s %q; %q", c.name, got.DMARC, got.DMARCPolicy, c.want, c.policy, field)
		}
	}
}

// TestAuthorThatCannotBeReadIsTold: what may be an author of a domain that we do not see is not cleared by another.
func TestAuthorThatCannotBeReadIsTold(t *testing.T) {
	z := zones(map[string][]string{"sender.example": {"v=spf1 ip4:192.0.2.10 -all"}, "_dmarc.sender.example": {"v=DMARC1; p=none"},
		"_dmarc.bank.example": {"v=DMARC1; p=reject"}})
	for _, c := range []struct {
		name, head string
		noAuthor   bool
		want       gateway.AuthResult
	}{
		{"one who passes", "From: a@sender.example", false, gateway.AuthPass},
		{"none", "To: a@sender.example", true, gateway.AuthPermError},
		{"an encoded word", "From: =?utf-8?q?ceo=40bank.example?=", true, gateway.AuthPermError},
		{"an encoded word above", "From: =?utf-8?q?ceo=40bank.example?=\r\nFrom: a@sender.example", true, gateway.AuthPermError},
		{"a name without a domain", "From: Jane", true, gateway.AuthPermError},
		{"a domain that is none", "From: a@sender.example, ceo@bank-.example", true, gateway.AuthPermError},
		{"an empty group", "From: undisclosed:;", true, gateway.AuthPermError},
		{"one too many fields", strings.Repeat("From: a@sender.example\r\n", maxFrom) + "From: ceo@bank.example", true, gateway.AuthPermError},
		{"too many domains", "From: " + strings.Join([]string{"a@1.test", "a@2.test", "a@3.test", "a@4.test", "a@5.test", "a@6.test", "a@7.test", "a@8.test"}, ", ") +
			", ceo@bank.example", true, gateway.AuthPermError},
		{"one who fails beside", "From: Jane\r\nFrom: ceo@bank.example", false, gateway.AuthFail},
	} {
		got, field := judge(t, newTest(z), envelopeFrom("a@sender.example"), c.head+"\r\nSubject: s\r\n\r\ntext\r\n")
		if got.NoAuthor != c.noAuthor || got.DMARC != c.want {
			t.Errorf("%s: %+v, want %s; %s", c.name, got, c.want, field)
		}
	}
}

// TestReturnPathIsProven: by SPF of MAIL FROM itself, or by alignment with who signed or passed.
func TestReturnPathIsProven(t *testing.T) {
	_, records := keys()
	z := zones(map[string][]string{
		"sender.example":                {"v=spf1 ip4:192.0.2.10 -all"},
		"helo.example":                  {"v=spf1 ip4:192.0.2.10 -all"},
		"bank.example":                  {"v=spf1 -all"},
		"_dmarc.evil.example":           {"v=DMARC1; p=none"},
		"rsa._domainkey.evil.example":   {records["rsa"]},
		"rsa._domainkey.signer.example": {records["rsa"]},
	})
	byEvil := sign(t, plain("x@evil.example"), "evil.example", "rsa")
	for _, c := range []struct {
		name, from, hello, mail string
		want                    bool
	}{
		{"SPF", "a@sender.example", "x.example", plain("x@other.example"), true},
		{"SPF fails, DMARC passes for another", "victim@bank.example", "x.example", byEvil, false},
		{"DMARC passes for the author", "X@evil.example", "x.example", byEvil, true},
		{"DMARC passes for another of its domain", "victim@evil.example", "x.example", byEvil, false},
		{"signed by its organisation", "b@b.signer.example", "x.example", sign(t, plain("b@b.signer.example"), "signer.example", "rsa"), true},
		{"signed by its provider for another", "victim@b.signer.example", "x.example", sign(t, plain("b@b.signer.example"), "signer.example", "rsa"), false},
		{"SPF of HELO", "victim@nothing.example", "helo.example", plain("x@other.example"), false},
		{"null sender", "", "helo.example", plain("x@other.example"), false},
	} {
		e := envelopeFrom(c.from)
		e.Hello = c.hello
		if got, _ := judge(t, newTest(z), e, c.mail); got.ReturnPathProven != c.want {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestHELOPassDoesNotCountForDMARCWhereThereIsAMailFrom(t *testing.T) {
	z := zones(map[string][]string{
		"out.sender.example":    {"v=spf1 ip4:192.0.2.10 -all"},
		"_dmarc.sender.example": {"v=DMARC1; p=reject"},
	})
	for mailFrom, want := range map[string]gateway.AuthResult{"a@nowhere.example": gateway.AuthFail, "": gateway.AuthPass} {
		if got, _ := judge(t, newTest(z), envelopeFrom(mailFrom), plain("x@sender.example")); got.DMARC != want || got.SPF != gateway.AuthPass {
			t.Errorf("MAIL FROM <%s>: %+v, want dmarc %s", mailFrom, got, want)
		}
	}
}

type brokenMail struct{ after int64 }

var errDisk = errors.New("the disk is gone")

func (b brokenMail) Size() int64 { return 1 << 20 }
func (b brokenMail) ReadAt(p []byte, off int64) (int, error) {
	const head = "From: x@sender.example\r\nDKIM-Signature: v=1\r\nDKIM-Signature: v=1\r\n\r\n"
	if off >= b.after {
		return 0, errDisk
	}
	n := copy(p, strings.Repeat(" ", int(min(b.after-off, int64(len(p))))))
	if off == 0 {
		copy(p[:n], head)
	}
	return n, nil
}

func TestReadErrorIsAnErrorNotAResult(t *testing.T) {
	for _, after := range []int64{0, 8192} {
		_, _, err := newTest(nil).Authenticate(context.Background(), envelopeFrom("a@sender.example"), brokenMail{after: after})
		if !errors.Is(err, errDisk) {
			t.Errorf("after %d: %v", after, err)
		}
	}
}

func TestEndedContextIsAnErrorNotAResult(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, _, err := newTest(nil).Authenticate(ctx, envelopeFrom("a@sender.example"), strings.NewReader(plain("x@sender.example")))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestHeaderInjection(t *testing.T) {
	long := strings.Repeat("a.", 120) + "example"
	inject := "evil.example\r\nX-Injected: yes"
	a := newTest(nil)
	mail := "DKIM-Signature: v=1; a=rsa-sha256; d=evil.example;bcc=x (dkim=pass; s=\"; h=from; bh=; b=\r\n"
	for range 8 {
		mail += "DKIM-Signature: v=1; a=rsa-sha256; d=" + long + "; s=s; h=from; bh=; b=\r\n"
	}
	e := envelopeFrom("a@" + inject)
	e.Hello = inject + ";dmarc=pass"
	for _, from := range []string{"x@" + long, "x@evil.example;dmarc=pass", `x@"evil"`, "x@evil.example(dkim=pass)"} {
		_, field := judge(t, a, e, mail+plain(from))
		for _, bad := range []string{"Injected", "dmarc=pass", "dkim=pass", "bcc"} {
			if strings.Contains(field, bad) {
				t.Errorf("%q: %s in %q", from, bad, field)
			}
		}
	}
}

func TestMetricsAndTempErrors(t *testing.T) {
	registry := prometheus.NewRegistry()
	z := map[string]mockdns.Zone{"dead.example.": {Err: errServfail}}
	a := New(Options{AuthservID: "mx.gate.example", Resolver: &mockdns.Resolver{Zones: z}, Metrics: registry})
	judge(t, a, envelopeFrom("a@dead.example"), plain("x@sender.example"))
	judge(t, a, envelopeFrom("a@nowhere.example"), plain("x@sender.example"))
	if mails, temp := a.TempErrors(); mails != 2 || temp != 1 {
		t.Errorf("%d mails, %d temperrors", mails, temp)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				name += " " + label.GetValue()
			}
			counted[name] = metric.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"sealpost_auth_temperrors_total":            1,
		"sealpost_auth_results_total spf temperror": 1,
		"sealpost_auth_results_total spf none":      1,
		"sealpost_auth_results_total dmarc none":    2,
		"sealpost_auth_results_total dkim none":     2,
	} {
		if counted[name] != want {
			t.Errorf("%s is %v, want %v", name, counted[name], want)
		}
	}
}

func TestNoFieldWithoutAuthservID(t *testing.T) {
	a := New(Options{Resolver: &mockdns.Resolver{}})
	_, field, err := a.Authenticate(context.Background(), envelopeFrom(""), strings.NewReader(plain("x@sender.example")))
	if err != nil || field != nil {
		t.Errorf("%q, %v", field, err)
	}
}
