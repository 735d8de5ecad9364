package main

import (
	"bytes"
	"fmt"
	"net/mail"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sealpost/sfclient/sftest"
)

const (
	askedEnvelope  = "QQ314+2B159" // as a client writes it (xtext, RFC 3461 section 4)
	askedRecipient = "rfc822;" + testRoute
)

// giveAsking sends a mail with all that RFC 3461 lets a client ask for, and wants 250.
func (d *dialogue) giveAsking(from, notify string, mail []byte) {
	d.t.Helper()
	d.say("EHLO customer.example", "250")
	d.say("MAIL FROM:<"+from+"> RET=HDRS ENVID="+askedEnvelope, "250")
	d.say("RCPT TO:<"+testRoute+"> NOTIFY="+notify+" ORCPT="+askedRecipient, "250")
	d.say("DATA", "354")
	if _, err := d.conn.Write(mail); err != nil {
		d.t.Fatal(err)
	}
	d.say(".", "250")
}

// checkReport looks at what a sender gets: a report for the null sender about the public address, which echoes what was
// asked, and has nothing that is secret.
func checkReport(t *testing.T, report sftest.Mail, to, action, status string) {
	t.Helper()
	if report.From != "" || len(report.To) != 1 || report.To[0] != to {
		t.Errorf("it went from <%s> to %q", report.From, report.To)
	}
	parsed, err := mail.ReadMessage(bytes.NewReader(report.Raw))
	if err != nil {
		t.Fatal(err)
	}
	if kind := parsed.Header.Get("Content-Type"); !strings.HasPrefix(kind, "multipart/report; report-type=delivery-status") {
		t.Errorf("it is %q", kind)
	}
	for _, want := range []string{
		"Original-Envelope-Id: QQ314+159", "Original-Recipient: rfc822; " + testRoute, "Final-Recipient: rfc822; " + testRoute,
		"Action: " + action, "Status: " + status, "Auto-Submitted: auto-replied",
	} {
		if !bytes.Contains(report.Raw, []byte("\r\n"+want+"\r\n")) {
			t.Errorf("the report lacks %q:\n%s", want, report.Raw)
		}
	}
	checkKeepsSecrets(t, report)
}

// checkKeepsSecrets: no forward_to, nor a part of it, no link, no file.
func checkKeepsSecrets(t *testing.T, report sftest.Mail) {
	t.Helper()
	local, domain, _ := strings.Cut(forwardTo, "@")
	label, _, _ := strings.Cut(domain, ".")
	squeezed := bytes.ToLower(report.Raw)
	for _, blank := range []string{"=\r\n", "\r\n", " ", "\t"} {
		squeezed = bytes.ReplaceAll(squeezed, []byte(blank), nil)
	}
	for _, secret := range []string{local + "@" + label, label, "#", "file.bin", "attachment"} {
		if bytes.Contains(squeezed, []byte(secret)) {
			t.Errorf("%q went outside:\n%s", secret, report.Raw)
		}
	}
	if links := sftest.Links(report); len(links) != 0 {
		t.Errorf("a link went outside: %q", links)
	}
}

// srsDomain is where bounces come back to.
const srsDomain = "bounces.example.com"

// nodeBeforePostfix makes an installation, not started yet, and the Postfix behind it, which has a mailbox for each of
// users, takes mail for others too and bounces it afterwards, and knows the way back to the node.
func nodeBeforePostfix(t *testing.T, settings string, users ...string) (*node, *postfix) {
	t.Helper()
	later := freeAddress(t)
	n := installWith(t, filepath.Join(t.TempDir(), "gw"), later, "authentication: {enabled: false}\nalerts: {mail: false}\n"+settings)
	_, domain, _ := strings.Cut(forwardTo, "@")
	boxes := ""
	for _, user := range users {
		boxes += " { " + user + " = box/ }"
	}
	behind := startPostfix(t, "behind", fmt.Sprintf("virtual_mailbox_domains = %s\nvirtual_mailbox_base = $data_directory/../mail\n"+
		"virtual_mailbox_maps = inline:{ { other@%[1]s = other/ }%s }\nvirtual_uid_maps = static:%d\nvirtual_gid_maps = static:%[3]d\n"+
		"smtpd_reject_unlisted_recipient = no\ntransport_maps = inline:{ { %[4]s = smtp:[%[5]s } }\n",
		domain, boxes, accountOf(t, "nobody"), srsDomain, strings.Replace(n.smtp, ":", "]:", 1)))
	for range 2 { // the postmaster's and the route's
		replaceInConfig(t, n, "smtp://"+later, "smtp://"+behind.smtp)
	}
	return n, behind
}

// waitLog waits until Postfix has written a line with all of words, and returns it.
func (p *postfix) waitLog(t *testing.T, words ...string) string {
	t.Helper()
	var found string
	if !eventually(func() bool {
		for line := range strings.Lines(p.log()) {
			has := 0
			for _, word := range words {
				if strings.Contains(line, word) {
					has++
				}
			}
			if has == len(words) {
				found = line
				return true
			}
		}
		return false
	}) {
		t.Fatalf("Postfix does not log %q:\n%s", words, p.log())
	}
	return found
}

func srsSettings(bounces string) string {
	return "srs: {domain: " + srsDomain + ", keys: srs-keys, bounce_next_hop: \"smtp://" + bounces + "\"}"
}

// TestPostfixBouncesComeBack: a Postfix behind us takes a mail and cannot deliver it after all. Its own bounce, which
// names forward_to all over, comes back through us to the sender and names the public address only.
func TestPostfixBouncesComeBack(t *testing.T) {
	outside := startOrg(t, sftest.Options{})
	n, behind := nodeBeforePostfix(t, srsSettings(outside.Addr()))
	n.must(t, "srs", "rotate", "--config", n.config())
	n.start(t, "sealpost")
	d := dial(t, n.smtp)
	d.give("jane@customer.example", testRoute, mailWith("bounced", "Dear support", []byte("a file that stays sealed")), "250")

	returned := waitMails(t, outside, 1)[0]
	behind.waitLog(t, "to=<"+forwardTo+">", "status=bounced")
	behind.waitLog(t, "from=<>", "queue active")
	behind.waitLog(t, "to=<SRS0=", "@"+srsDomain+">", "status=sent")
	if returned.From != "" || len(returned.To) != 1 || returned.To[0] != "jane@customer.example" {
		t.Errorf("it went from <%s> to %q", returned.From, returned.To)
	}
	for _, want := range []string{
		"Final-Recipient: rfc822; " + testRoute, "Action: failed", "Status: 5.1.1", "Subject: bounced", "Auto-Submitted: auto-replied",
		"Message-ID: <626f756e636564@customer.example>",
	} {
		if !bytes.Contains(returned.Raw, []byte("\r\n"+want+"\r\n")) {
			t.Errorf("the bounce lacks %q:\n%s", want, returned.Raw)
		}
	}
	checkKeepsSecrets(t, returned)
	if !eventually(func() bool { return len(n.listed(t, "sent")) == 2 }) || len(n.listed(t, "dead")) != 0 {
		t.Errorf("not all is delivered:\n%s", n.must(t, "queue", "list", "--config", n.config()))
	}
	for _, secret := range []string{"customer.example", outside.Addr(), forwardTo, "SRS0"} {
		if log := n.logs.String(); strings.Contains(log, secret) {
			t.Errorf("%q is in the log:\n%s", secret, log)
		}
	}
	if behind.queued() != 0 || behind.delivered() != 0 {
		t.Errorf("Postfix has %d mails still, and delivered %d", behind.queued(), behind.delivered())
	}
}

// TestDSNRequestsGoOn: what the sender asks for reaches a next hop that knows DSN (RFC 3461). Its reports of success and
// of failure come back by us, with the sender's ENVID and ORCPT; a request for silence is kept too.
func TestDSNRequestsGoOn(t *testing.T) {
	outside := startOrg(t, sftest.Options{})
	n, behind := nodeBeforePostfix(t, srsSettings(outside.Addr()), forwardTo)
	n.must(t, "srs", "rotate", "--config", n.config())
	n.start(t, "sealpost")
	d := dial(t, n.smtp)
	d.giveAsking("jane@customer.example", "SUCCESS,FAILURE,DELAY", mailWith("asked", "text", []byte("a file")))
	checkReport(t, waitMails(t, outside, 1)[0], "jane@customer.example", "delivered", "2.0.0")
	behind.waitLog(t, "sender delivery status notification")
	if behind.delivered() != 1 {
		t.Errorf("%d mails in the mailbox", behind.delivered())
	}

	// Nobody who does not ask for it hears of success, whatever stands before and after.
	d.giveAsking("joe@customer.example", "FAILURE,DELAY", mailWith("unasked", "text", []byte("a file")))
	d.giveAsking("jim@customer.example", "NEVER", mailWith("never", "text", []byte("a file")))
	d.giveAsking("jane@customer.example", "SUCCESS", mailWith("again", "text", []byte("a file")))
	checkReport(t, waitMails(t, outside, 2)[1], "jane@customer.example", "delivered", "2.0.0")
	if !eventually(func() bool { return behind.delivered() == 4 && behind.queued() == 0 && waiting(t, n) == 0 }) {
		t.Fatalf("not all is delivered:\n%s", behind.log())
	}
	if got := len(outside.Mails()); got != 2 {
		t.Errorf("%d reports went out, want 2", got)
	}
}

// TestDSNFailureOfPostfix: the failure of a mail that Postfix took comes back with what its sender had asked for, and
// not at all to one who asked for silence.
func TestDSNFailureOfPostfix(t *testing.T) {
	outside := startOrg(t, sftest.Options{})
	n, behind := nodeBeforePostfix(t, srsSettings(outside.Addr()))
	n.must(t, "srs", "rotate", "--config", n.config())
	n.start(t, "sealpost")
	d := dial(t, n.smtp)
	d.giveAsking("jim@customer.example", "NEVER", mailWith("never", "text", []byte("a file")))
	behind.waitLog(t, "to=<"+forwardTo+">", "status=bounced")
	d.giveAsking("jane@customer.example", "FAILURE", mailWith("asked", strings.Repeat("a long text\r\n", 2000), []byte("a file")))
	checkReport(t, waitMails(t, outside, 1)[0], "jane@customer.example", "failed", "5.1.1")
	// RET=HDRS: Postfix would return the whole mail by itself.
	_, size, _ := strings.Cut(behind.waitLog(t, "from=<>, size="), "size=")
	size, _, _ = strings.Cut(size, ",")
	if length, err := strconv.Atoi(size); err != nil || length > 10_000 {
		t.Errorf("Postfix returned %s bytes", size)
	}
	if !eventually(func() bool { return behind.queued() == 0 && waiting(t, n) == 0 }) || len(outside.Mails()) != 1 {
		t.Errorf("%d reports went out, want 1:\n%s", len(outside.Mails()), behind.log())
	}
}

// TestSuccessIsOursWithoutSRS: with the sender's own address as return path, a report of the next hop's would go past us
// to an outsider and name forward_to. So it is not asked for success, and we say what we know.
func TestSuccessIsOursWithoutSRS(t *testing.T) {
	outside := startOrg(t, sftest.Options{})
	n, behind := nodeBeforePostfix(t, "srs: {bounce_next_hop: \"smtp://"+outside.Addr()+"\"}", forwardTo)
	n.start(t, "sealpost")
	dial(t, n.smtp).giveAsking("jane@customer.example", "SUCCESS,FAILURE", mailWith("asked", "text", []byte("a file")))
	checkReport(t, waitMails(t, outside, 1)[0], "jane@customer.example", "relayed", "2.0.0")
	if !eventually(func() bool { return behind.delivered() == 1 && behind.queued() == 0 }) {
		t.Fatalf("Postfix is not done:\n%s", behind.log())
	}
	if strings.Contains(behind.log(), "sender delivery status notification") {
		t.Errorf("Postfix reported to the sender itself:\n%s", behind.log())
	}
}
