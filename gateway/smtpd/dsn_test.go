package smtpd

import (
	"strings"
	"testing"

	"sealpost/gateway"
)

// TestDSNParameters: RFC 3461 sections 4.1 to 4.4, each parameter as it reaches the Handler.
func TestDSNParameters(t *testing.T) {
	for _, tt := range []struct{ mail, rcpt, ret, envid, notify, orcpt string }{
		{},
		{mail: "RET=FULL", ret: "FULL"},
		{mail: "ret=hdrs", ret: "HDRS"},
		{mail: "ENVID=QQ314159", envid: "QQ314159"},
		{mail: "ENVID=a+2Bb+3Dc+20d", envid: "a+b=c d"},
		{mail: "ENVID=" + strings.Repeat("x", 100), envid: strings.Repeat("x", 100)},
		{mail: "RET=HDRS ENVID=x SMTPUTF8 BODY=8BITMIME SIZE=5", ret: "HDRS", envid: "x"},
		{rcpt: "NOTIFY=NEVER", notify: "NEVER"},
		{rcpt: "NOTIFY=never", notify: "NEVER"},
		{rcpt: "NOTIFY=SUCCESS", notify: "SUCCESS"},
		{rcpt: "NOTIFY=DELAY,FAILURE", notify: "FAILURE,DELAY"},
		{rcpt: "NOTIFY=delay,Failure,SUCCESS", notify: "SUCCESS,FAILURE,DELAY"},
		{rcpt: "ORCPT=rfc822;Support+2Btag@example.com", orcpt: "rfc822;Support+tag@example.com"},
		{rcpt: "ORCPT=RFC822;a@b.test NOTIFY=DELAY", orcpt: "rfc822;a@b.test", notify: "DELAY"},
		{rcpt: `ORCPT=utf-8;j\x{FC}rgen@example.com`, orcpt: "utf-8;jürgen@example.com"},
		{rcpt: "ORCPT=rfc822;" + strings.Repeat("x", 493), orcpt: "rfc822;" + strings.Repeat("x", 493)},
	} {
		ts := startServer(t, nil)
		c := ts.hello(t)
		c.talk("> MAIL FROM:<alice@sender.test> "+tt.mail, "< 250 2.1.0 sender ok",
			"> RCPT TO:<support@example.com> "+tt.rcpt, "< 250 2.1.5 recipient ok", "> DATA", data354, "> .", "< 250 2.0.0 accepted as ID1")
		e := ts.taken()[0].envelope
		r := e.Recipients[0].DSN
		if e.Return != tt.ret || e.EnvelopeID.Reveal() != tt.envid || r.Notify != tt.notify || r.OriginalRecipient.Reveal() != tt.orcpt {
			t.Errorf("%q %q became %q %q %q %q", tt.mail, tt.rcpt, e.Return, e.EnvelopeID.Reveal(), r.Notify, r.OriginalRecipient.Reveal())
		}
	}
}

// TestMalformedDSNParameters: each is refused with 501 5.5.4, and the transaction goes on.
func TestMalformedDSNParameters(t *testing.T) {
	ts := startServer(t, nil)
	c := ts.hello(t)
	for parameter, want := range map[string]string{
		"RET=ALL": "Unknown RET value", "RET=": "Unknown RET value", "RET": "Unknown RET value",
		"ENVID=": "Malformed ENVID parameter value", "ENVID=a+0Ab": "Malformed ENVID parameter value",
		"ENVID=a+4": "Malformed ENVID parameter value", "ENVID=+FF": "Malformed ENVID parameter value",
		"ENVID=ü": "Malformed ENVID parameter value", "ENVID=a=b": "Unable to parse MAIL ESMTP parameters",
		"ENVID=" + strings.Repeat("x", 101): "malformed ENVID parameter",
	} {
		c.talk("> MAIL FROM:<alice@sender.test> "+parameter, "< 501 5.5.4 "+want)
	}
	c.talk("> MAIL FROM:<alice@sender.test> RET=HDRS", "< 250 2.1.0 sender ok")
	for parameter, want := range map[string]string{
		"NOTIFY=": "Malformed NOTIFY parameter value", "NOTIFY=NEVER,DELAY": "Malformed NOTIFY parameter value",
		"NOTIFY=SOMETIMES": "Malformed NOTIFY parameter value", "NOTIFY=DELAY,DELAY": "Malformed NOTIFY parameter value",
		"ORCPT=support@example.com": "Malformed ORCPT parameter value", "ORCPT=rfc822;": "Malformed ORCPT parameter value",
		"ORCPT=rfc822;a+0D+0Ab": "Malformed ORCPT parameter value", "ORCPT=": "Malformed ORCPT parameter value",
		`ORCPT=utf-8;a\x{01}b`: "malformed ORCPT parameter", `ORCPT=utf-8;a\x{85}b`: "malformed ORCPT parameter",
		"ORCPT=rfc822;" + strings.Repeat("x", 494): "malformed ORCPT parameter",
	} {
		c.talk("> RCPT TO:<support@example.com> "+parameter, "< 501 5.5.4 "+want)
	}
	c.talk("> RCPT TO:<support@example.com> NOTIFY=NEVER", "< 250 2.1.5 recipient ok", "> DATA", data354, "> .", "< 250 2.0.0 accepted as ID1",
		"> QUIT", "< 221 2.0.0 Bye", "closed")
	if n := len(ts.taken()[0].envelope.Recipients); n != 1 {
		t.Errorf("%d recipients", n)
	}
}

// TestRecipientsThatDoNotShare: what the first recipient's mail cannot be is sent in a transaction of its own.
func TestRecipientsThatDoNotShare(t *testing.T) {
	ts := startServer(t, func(o *Options) {
		o.Router = routerFunc(func(from, address string) (gateway.Route, error) {
			route := gateway.Route{Address: address, PortalURL: "https://files.example.com", DMARC: gateway.DMARCNote}
			switch address {
			case "strict@example.com":
				route.DMARC = gateway.DMARCReject
			case "brand@example.com":
				route.PortalURL = "https://files.brand.example"
			case "srs0@example.com":
				if from != "" {
					return gateway.Route{}, gateway.Errorf(gateway.CodeUnknownRecipient, nil, "for the null sender only")
				}
				route.Address = gateway.ReturnRoute
			}
			return route, nil
		})
	})
	const alone = "< 452 4.5.3 this recipient needs a transaction of its own"
	const rok, fok = "< 250 2.1.5 recipient ok", "< 250 2.1.0 sender ok"
	c := ts.hello(t)
	c.talk("> MAIL FROM:<alice@sender.test>", fok, "> RCPT TO:<support@example.com>", rok,
		"> RCPT TO:<strict@example.com>", alone, "> RCPT TO:<brand@example.com>", alone, "> RCPT TO:<sales@example.com>", rok,
		"> RCPT TO:<srs0@example.com>", "< 550 5.1.1 no such mailbox here",
		"> DATA", data354, "> .", "< 250 2.0.0 accepted as ID1",
		"> MAIL FROM:<>", fok, "> RCPT TO:<srs0@example.com>", rok, "> RCPT TO:<support@example.com>", alone,
		"> RCPT TO:<srs0@example.com>", alone, "> DATA", data354, "> .", "< 250 2.0.0 accepted as ID2",
		"> MAIL FROM:<>", fok, "> RCPT TO:<support@example.com>", rok, "> RCPT TO:<srs0@example.com>", alone)
	mails := ts.taken()
	if len(mails[0].envelope.Recipients) != 2 || len(mails[1].envelope.Recipients) != 1 {
		t.Errorf("recipients %+v and %+v", mails[0].envelope.Recipients, mails[1].envelope.Recipients)
	}
	if n := ts.counter(t, "sealpost_smtp_refused_total", "too_many_recipient"); n != 5 {
		t.Errorf("%v refusals were counted", n)
	}
}
