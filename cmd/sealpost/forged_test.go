package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"

	"sealpost/sfclient/sftest"
)

const (
	wholeFile  = "message.eml"
	trueSender = "127.0.0.1" // from which bank.example may send
)

// judgingNode judges senders by a DNS in which bank.example disowns all that is not its own, and evil.example nothing.
func judgingNode(t *testing.T, dmarc string, more ...string) (*node, *sftest.Org) {
	t.Helper()
	dns := startDNS(t, append([]string{
		"evil.example. TXT \"v=spf1 ip4:127.0.0.0/8 -all\"",
		"_dmarc.evil.example. TXT \"v=DMARC1; p=none\"",
		"bank.example. TXT \"v=spf1 ip4:" + trueSender + " -all\"",
		"_dmarc.bank.example. TXT \"v=DMARC1; p=" + dmarc + "\"",
	}, more...)...)
	org := startOrg(t, sftest.Options{})
	n := install(t, filepath.Join(t.TempDir(), "gw"), org.Addr())
	n.appendConfig(t, "dns: [\""+dns+"\"]")
	replaceInConfig(t, n, "authentication: {enabled: false}", "authentication: {enabled: true}")
	replaceInConfig(t, n, "    #dmarc: note", "    dmarc: reject")
	return n, org
}

// dialAs is dial, from an address of this host.
func dialAs(t *testing.T, from, address string) *dialogue {
	t.Helper()
	d := dialFrom(t, from, address, "")
	d.want("220")
	return d
}

func pay(id, head string) []byte {
	return []byte(head + "To: " + testRoute + "\r\nSubject: pay\r\nMessage-ID: <" + id + "@evil.example>\r\n\r\npay at once\r\n")
}

// TestForgedAuthorsAreNotBelieved: no spelling of From evades the policy of a domain that it shows, and nothing forged in
// our name goes on behind a line that is no field.
func TestForgedAuthorsAreNotBelieved(t *testing.T) {
	n, org := judgingNode(t, "reject")
	n.start(t, "sealpost")
	const (
		from   = "From: ceo@bank.example\r\n"
		forged = "Authentication-Results: mx.example.com; dmarc=pass header.from=forged.example\r\n"
	)
	sealed := 0
	for i, c := range []struct{ head, code string }{
		{from, "550"},
		{from + "From: x@evil.example\r\n", "550"},
		{"From: CEO <ceo@bank.example>, x@evil.example\r\n", "550"},
		{from + "From:\r\n", "550"},
		{from + "From : x@evil.example\r\n", "550"},
		{from + "from\r\n", "550"},
		{"From: =?utf-8?q?ceo=40bank.example?=\r\n", "250"},
		{"From: x@evil.example\r\njunk\r\n" + forged, "250"},
		{"X-\u00e4: 1\r\n" + forged + "From: x@evil.example\r\n", "250"},
		{"X-A b: 1\r\n" + forged + "From: x@evil.example\r\n", "250"},
	} {
		dialAs(t, "127.0.0.9", n.smtp).give("x@evil.example", testRoute, pay(fmt.Sprint(i), c.head), c.code)
		if c.code == "250" {
			sealed++
		}
	}
	for _, arrived := range waitMails(t, org, sealed) {
		if !bytes.Contains(arrived.Raw, []byte(wholeFile)) || bytes.Contains(arrived.Raw, []byte("pay at once")) || bytes.Contains(arrived.Raw, []byte("forged.example")) {
			t.Errorf("it went on:\n%s", arrived.Raw)
		}
	}
}

// TestForgedResultsOfARelayDoNotCount: without trusted_ids nobody can write the results of the relay in front of us, and
// what the relay has accepted is not refused.
func TestForgedResultsOfARelayDoNotCount(t *testing.T) {
	n, org := judgingNode(t, "reject")
	replaceInConfig(t, n, "  #trusted_relays: [] ", "  trusted_relays: [127.0.0.0/8] ")
	n.start(t, "sealpost")
	head := "Received: from evil (evil [203.0.113.9]) by relay.example.com with ESMTP id 1; Tue, 24 Nov 2026 11:00:00 +0000\r\n" +
		"Authentication-Results: relay.example.com; dmarc=pass header.from=bank.example; spf=pass smtp.mailfrom=bank.example\r\n" +
		"From: ceo@bank.example\r\n"
	dialAs(t, "127.0.0.9", n.smtp).give("x@evil.example", testRoute, pay("relay", head), "250")
	raw := waitMails(t, org, 1)[0].Raw
	_, ours, _ := strings.Cut(string(raw), "Authentication-Results: mx.example.com")
	ours, _, _ = strings.Cut(ours, "Received:")
	if !strings.Contains(ours, "dmarc=fail") || strings.Contains(ours, "pass") || bytes.Contains(raw, []byte(wholeFile)) {
		t.Errorf("we say %s\nof\n%s", ours, raw)
	}
	if out, _ := n.command(t.Context(), "check", "--config", n.config()); !strings.Contains(out, "trusted_ids: empty") {
		t.Errorf("check does not warn:\n%s", out)
	}
}

// TestForerunnerIsNotTheFirst: whoever sends a copy of a mail before its sender does, and cuts, does not keep the true one
// from being delivered.
func TestForerunnerIsNotTheFirst(t *testing.T) {
	n, org := judgingNode(t, "quarantine")
	n.start(t, "sealpost")
	mail := pay("once", "From: a@bank.example\r\n")
	forerunner := dialAs(t, "127.0.0.2", n.smtp)
	forerunner.give("a@bank.example", testRoute, mail, "250")
	if err := forerunner.conn.Close(); err != nil {
		t.Fatal(err)
	}
	if first := waitMails(t, org, 1)[0]; !bytes.Contains(first.Raw, []byte(wholeFile)) {
		t.Errorf("the forged one is not sealed whole:\n%s", first.Raw)
	}
	dialAs(t, trueSender, n.smtp).give("a@bank.example", testRoute, mail, "250")
	if second := waitMails(t, org, 2)[1]; !bytes.Contains(second.Raw, []byte("pay at once")) {
		t.Errorf("the true one arrives as\n%s", second.Raw)
	}
}

// TestForgedReturnPathHearsNothing: a good signature of the author's does not make us write to another who is named as
// the sender.
func TestForgedReturnPathHearsNothing(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	n, org := judgingNode(t, "reject", "s._domainkey.evil.example. TXT \"v=DKIM1; k=ed25519; p="+base64.StdEncoding.EncodeToString(public)+"\"")
	outside := startOrg(t, sftest.Options{})
	replaceInConfig(t, n, "notices: {enabled: false}", "notices: {enabled: true}")
	n.appendConfig(t, "srs: {bounce_next_hop: \"smtp://"+outside.Addr()+"\"}")
	n.start(t, "sealpost")
	var signed bytes.Buffer
	err = dkim.Sign(&signed, bytes.NewReader(pay("signed", "From: x@evil.example\r\n")), &dkim.SignOptions{Domain: "evil.example", Selector: "s", Signer: private})
	if err != nil {
		t.Fatal(err)
	}
	for i, from := range []string{"victim@bank.example", "victim@nothing.example", "x@evil.example"} {
		d := dialAs(t, "127.0.0.9", n.smtp)
		d.say("EHLO customer.example", "250")
		d.say("MAIL FROM:<"+from+">", "250")
		d.say("RCPT TO:<"+testRoute+"> NOTIFY=SUCCESS", "250")
		d.say("DATA", "354")
		if _, err := d.conn.Write(signed.Bytes()); err != nil {
			t.Fatal(err)
		}
		d.say(".", "250")
		waitMails(t, org, i+1)
	}
	if told := waitMails(t, outside, 1); len(told) != 1 || told[0].To[0] != "x@evil.example" {
		t.Errorf("%d notices, the first to %q", len(told), told[0].To)
	}
}

// TestRepeatOfADeadMailIsTaken: what nobody will get is no reason to throw away what comes again.
func TestRepeatOfADeadMailIsTaken(t *testing.T) {
	org := startOrg(t, sftest.Options{RefuseRcpt: 550})
	n := install(t, filepath.Join(t.TempDir(), "gw"), org.Addr())
	n.start(t, "sealpost")
	mail := mailWith("dead", "text", []byte("a file"))
	for dead := 1; dead <= 2; dead++ {
		d := dial(t, n.smtp)
		d.give("jane@customer.example", testRoute, mail, "250")
		if err := d.conn.Close(); err != nil {
			t.Fatal(err)
		}
		if !eventually(func() bool {
			return strings.Count(n.must(t, "queue", "list", "--config", n.config()), " dead ") == dead
		}) {
			t.Fatalf("%d mails should be dead:\n%s", dead, n.must(t, "queue", "list", "--config", n.config()))
		}
	}
}
