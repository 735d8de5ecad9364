package main

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealpost/gateway/clamd/clamdtest"
	"sealpost/sfclient/sftest"
)

// page returns what an address answers.
func page(t testing.TB, url string) string {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestRepeatAfterALostAnswer: a mail whose 250 may have been lost is delivered once; an equal mail in any
// other situation is delivered again.
func TestRepeatAfterALostAnswer(t *testing.T) {
	org := startOrg(t, sftest.Options{})
	n := install(t, filepath.Join(t.TempDir(), "gw"), org.Addr())
	metrics := freeAddress(t)
	n.appendConfig(t, "metrics: {listen: \""+metrics+"\"}")
	n.start(t, "sealpost")
	mail := mailWith("once", "text", []byte("a file of a mail whose answer was lost"))
	quiet := func() bool {
		return strings.Contains(page(t, "http://"+metrics+"/metrics"), "sealpost_smtp_sessions 0\n")
	}

	lost := dial(t, n.smtp)
	lost.give("jane@customer.example", testRoute, mail, "250")
	if err := lost.conn.Close(); err != nil {
		t.Fatal(err)
	}
	if !eventually(quiet) {
		t.Fatal("the session does not end")
	}
	again := dial(t, n.smtp)
	again.give("jane@customer.example", testRoute, mail, "250")
	again.say("QUIT", "221")
	waitMails(t, org, 1)
	messageID := "<6f6e6365@customer.example>"
	if out := n.must(t, "trace", messageID, "--config", n.config()); !strings.Contains(out, "it came again 1 times") {
		t.Errorf("the trace does not tell of the repeat:\n%s", out)
	}
	third := dial(t, n.smtp)
	third.give("jane@customer.example", testRoute, mail, "250")
	third.say("QUIT", "221")
	if mails := waitMails(t, org, 2); len(mails) != 2 {
		t.Errorf("%d mails arrived, want the first and the third", len(mails))
	}
}

// TestVirusIsFound has a real clamd look at mails: refused, or sealed whole with a warning.
func TestVirusIsFound(t *testing.T) {
	scanner := clamdtest.Start(t)
	infected := mailWith("infected", "text", clamdtest.Virus())

	org := startOrg(t, sftest.Options{})
	n := install(t, filepath.Join(t.TempDir(), "gw"), org.Addr())
	n.appendConfig(t, "scan: {clamd: \""+scanner+"\"}")
	n.start(t, "sealpost")
	d := dial(t, n.smtp)
	if line := d.give("jane@customer.example", testRoute, infected, "550"); !strings.Contains(line, "virus") {
		t.Errorf("refused without a reason: %s", line)
	}
	if out := n.must(t, "trace", "<696e666563746564@customer.example>", "--config", n.config()); !strings.Contains(out, "the virus scanner found") {
		t.Errorf("the trace does not tell what was found:\n%s", out)
	}
	d.give("jane@customer.example", testRoute, mailWith("clean", "text", []byte("nothing bad")), "250")
	waitMails(t, org, 1)
	n.stop(t)

	replaceInConfig(t, n, "scan: {clamd:", "scan: {on_virus: seal, clamd:")
	n.start(t, "sealpost")
	dial(t, n.smtp).give("jane@customer.example", testRoute, infected, "250")
	mails := waitMails(t, org, 2)
	encoded := base64.StdEncoding.EncodeToString(clamdtest.Virus())
	if bytes.Contains(mails[1].Raw, clamdtest.Virus()) || bytes.Contains(mails[1].Raw, []byte(encoded)) {
		t.Error("the virus went on")
	}
	link := theLink(t, mails[1])
	out := t.TempDir()
	if text, err := n.command(t.Context(), "open", link, "--out", out, "--agent", testAgent); err == nil || !strings.Contains(text, "--infected") {
		t.Errorf("open saves what is infected without being told so: %v\n%s", err, text)
	}
	n.must(t, "open", link, "--out", out, "--agent", testAgent, "--infected")
	for name, content := range filesIn(t, out) {
		if !bytes.Equal(content, infected) {
			t.Errorf("%s is not the mail as it came", name)
		}
	}
}

func replaceInConfig(t testing.TB, n *node, old, with string) {
	t.Helper()
	text, err := os.ReadFile(n.config())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		t.Fatalf("%q is not in the configuration", old)
	}
	if err := os.WriteFile(n.config(), []byte(strings.Replace(string(text), old, with, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSenderIsJudged: SPF and DMARC of the mail as it came, forged results removed, and a policy that refuses.
func TestSenderIsJudged(t *testing.T) {
	dns := startDNS(t,
		"good.example. TXT \"v=spf1 ip4:127.0.0.1 -all\"",
		"_dmarc.good.example. TXT \"v=DMARC1; p=reject\"",
		"bad.example. TXT \"v=spf1 -all\"",
		"_dmarc.bad.example. TXT \"v=DMARC1; p=reject\"")
	org := startOrg(t, sftest.Options{})
	n := install(t, filepath.Join(t.TempDir(), "gw"), org.Addr())
	n.appendConfig(t, "dns: [\""+dns+"\"]")
	replaceInConfig(t, n, "authentication: {enabled: false}", "authentication: {enabled: true}")
	n.start(t, "sealpost")
	mail := func(domain string) []byte {
		return []byte("Authentication-Results: mx.example.com; dmarc=pass header.from=forged.example\r\nFrom: a@" + domain +
			"\r\nTo: " + testRoute + "\r\nSubject: judge\r\nMessage-ID: <judge@" + domain + ">\r\n\r\ntext\r\n")
	}
	d := dial(t, n.smtp)
	d.give("a@good.example", testRoute, mail("good.example"), "250")
	d.give("a@bad.example", testRoute, mail("bad.example"), "250")
	d.say("QUIT", "221")
	for i, arrived := range waitMails(t, org, 2) {
		if bytes.Contains(arrived.Raw, []byte("forged.example")) {
			t.Errorf("mail %d: the forged result went on:\n%s", i, arrived.Raw)
		}
		want := "dmarc=pass"
		if bytes.Contains(arrived.Raw, []byte("a@bad.example")) {
			want = "dmarc=fail"
		}
		if !bytes.Contains(arrived.Raw, []byte("Authentication-Results: mx.example.com")) || !bytes.Contains(arrived.Raw, []byte(want)) {
			t.Errorf("mail %d: want %s in\n%s", i, want, arrived.Raw)
		}
	}
	n.stop(t)
	replaceInConfig(t, n, "    #dmarc: note", "    dmarc: reject")
	n.start(t, "sealpost")
	d = dial(t, n.smtp)
	d.give("a@bad.example", testRoute, mail("bad.example"), "550")
	d.give("a@good.example", testRoute, mail("good.example"), "250")
}

// TestBouncesComeBackByUs: with SRS a failure behind us reaches the sender, and names the public address only.
func TestBouncesComeBackByUs(t *testing.T) {
	outside := startOrg(t, sftest.Options{})
	org := startOrg(t, sftest.Options{})
	n := install(t, filepath.Join(t.TempDir(), "gw"), org.Addr())
	n.appendConfig(t, "srs: {domain: bounces.example.com, keys: srs-keys, bounce_next_hop: \"smtp://"+outside.Addr()+"\"}")
	n.must(t, "srs", "rotate", "--config", n.config())
	n.start(t, "sealpost")
	d := dial(t, n.smtp)
	d.give("jane@customer.example", testRoute, mailWith("srs", "text", []byte("file")), "250")
	from := waitMails(t, org, 1)[0].From
	if !strings.HasPrefix(from, "SRS0=") || !strings.HasSuffix(from, "@bounces.example.com") {
		t.Fatalf("the return path is %q", from)
	}
	bounce := "From: MAILER-DAEMON@hop.example\r\nTo: " + from + "\r\nSubject: failed\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\n<" + forwardTo + "> is full\r\n" +
		"--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; hop.example\r\n\r\nFinal-Recipient: rfc822; " + forwardTo +
		"\r\nAction: failed\r\nStatus: 5.2.2\r\nDiagnostic-Code: smtp; 552 5.2.2 " + forwardTo + " is full\r\n\r\n--b--\r\n"
	d.give("", from, []byte(bounce), "250")
	returned := waitMails(t, outside, 1)[0]
	if returned.From != "" || returned.To[0] != "jane@customer.example" {
		t.Errorf("it went from <%s> to %q", returned.From, returned.To)
	}
	if !bytes.Contains(returned.Raw, []byte("5.2.2")) || !bytes.Contains(returned.Raw, []byte(testRoute)) {
		t.Errorf("status or public address are missing:\n%s", returned.Raw)
	}
	if bytes.Contains(bytes.ToLower(returned.Raw), []byte(forwardTo)) {
		t.Errorf("forward_to went outside:\n%s", returned.Raw)
	}
	// Never an open door: not for other senders, not for an altered address.
	d.say("MAIL FROM:<mallory@elsewhere.example>", "250")
	d.say("RCPT TO:<"+from+">", "550")
	d.say("RSET", "250")
	d.say("MAIL FROM:<>", "250")
	d.say("RCPT TO:<"+strings.Replace(from, "customer.example", "victim.example", 1)+">", "550")
}

// TestSenderIsToldOfFailure: a refused mail is dead, kept, and its sender hears of it without any file.
func TestSenderIsToldOfFailure(t *testing.T) {
	outside := startOrg(t, sftest.Options{})
	org := startOrg(t, sftest.Options{RefuseRcpt: 550})
	n := install(t, filepath.Join(t.TempDir(), "gw"), org.Addr())
	replaceInConfig(t, n, "notices: {enabled: false}", "notices: {enabled: true}")
	n.appendConfig(t, "srs: {bounce_next_hop: \"smtp://"+outside.Addr()+"\"}")
	n.start(t, "sealpost")
	mail := mailWith("refused", "text", []byte("a file that stays sealed"))
	d := dial(t, n.smtp)
	d.give("jane@customer.example", testRoute, mail, "250")
	notice := waitMails(t, outside, 1)[0]
	for _, want := range []string{"Auto-Submitted: auto-replied", "Action: failed", "Final-Recipient: rfc822; " + testRoute, "Subject: refused"} {
		if !bytes.Contains(notice.Raw, []byte(want)) {
			t.Errorf("the notice lacks %q:\n%s", want, notice.Raw)
		}
	}
	if notice.From != "" || bytes.Contains(bytes.ToLower(notice.Raw), []byte(forwardTo)) || bytes.Contains(notice.Raw, []byte("#")) {
		t.Errorf("the notice tells too much:\n%s", notice.Raw)
	}
	out := n.must(t, "trace", "<72656675736564@customer.example>", "--config", n.config())
	for _, want := range []string{"a mail came from 127.0.0.1", "answered 550", "it is dead", "its sender was told"} {
		if !strings.Contains(out, want) {
			t.Errorf("the trace lacks %q:\n%s", want, out)
		}
	}
	d.give("", testRoute, mailWith("bounce", "text", []byte("x")), "250")
	if !eventually(func() bool {
		return strings.Contains(n.must(t, "trace", "<626f756e6365@customer.example>", "--config", n.config()), "its sender was not told")
	}) {
		t.Error("the null sender's mail does not become dead in silence")
	}
	if got := len(outside.Mails()); got != 1 {
		t.Errorf("%d notices went out, want 1", got)
	}
}

// TestTraceFindsWhatWasRefusedForItsText: a mail that is refused before anybody judged it can be asked for too.
func TestTraceFindsWhatWasRefusedForItsText(t *testing.T) {
	n := install(t, filepath.Join(t.TempDir(), "gw"), startOrg(t, sftest.Options{}).Addr())
	n.start(t, "sealpost")
	d := dial(t, n.smtp)
	d.give("jane@customer.example", testRoute, bytes.ReplaceAll(mailWith("bare", "text", nil), []byte("\r\ntext\r\n"), []byte("\r\nte\nxt\r\n")), "5")
	var told string
	if !eventually(func() bool {
		told, _ = n.command(t.Context(), "trace", "<62617265@customer.example>", "--config", n.config())
		return strings.Contains(told, "it was from <jane@customer.example> to <"+testRoute+">")
	}) {
		t.Errorf("the trace says:\n%s", told)
	}
}
