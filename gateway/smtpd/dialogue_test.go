package smtpd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealpost/gateway"
)

const data354 = "< 354 Go ahead. End your data with <CR><LF>.<CR><LF>"

func TestCapabilities(t *testing.T) {
	ts := startServer(t, nil)
	c := ts.dial(t, greeting)
	c.send("EHLO client.test\r\n")
	caps := c.capabilities()
	for _, want := range []string{"PIPELINING", "DSN", "SIZE 4194304", "8BITMIME", "SMTPUTF8", "CHUNKING", "ENHANCEDSTATUSCODES"} {
		if !caps[want] {
			t.Errorf("%s is not offered: %v", want, caps)
		}
	}
	for have := range caps {
		word, _, _ := strings.Cut(have, " ")
		if slices.Contains([]string{"AUTH", "BINARYMIME", "STARTTLS"}, word) {
			t.Errorf("%s must not be offered", have)
		}
	}
}

func TestDialogues(t *testing.T) {
	const (
		from = "> MAIL FROM:<alice@sender.test>"
		fok  = "< 250 2.1.0 sender ok"
		to   = "> RCPT TO:<support@example.com>"
		rok  = "< 250 2.1.5 recipient ok"
	)
	for name, dialogue := range map[string][]string{
		"a mail": {from, fok, to, rok, "> DATA", data354, "> Subject: x", "> ", "> body", "> .",
			"< 250 2.0.0 accepted as ID1", "> QUIT", "< 221 2.0.0 Bye", "closed"},
		"null sender":      {"> MAIL FROM:<>", fok, to, rok, "> DATA", data354, "> .", "< 250 2.0.0 accepted as ID1"},
		"case of commands": {"> mail from:<a@sender.test> body=8bitmime", fok, "> rcpt to:<Support@Example.COM>", rok},
		"bare postmaster":  {from, fok, "> RCPT TO:<PostMaster>", rok},
		"unknown here":     {from, fok, "> RCPT TO:<nobody@example.com>", "< 550 5.1.1 no such mailbox here"},
		"relay denied": {from, fok, "> RCPT TO:<x@elsewhere.test>",
			"< 550 5.7.1 relaying denied; this server takes mail for its own addresses only"},
		"relay by quoted local part": {from, fok, `> RCPT TO:<"support@example.com"@elsewhere.test>`,
			"< 550 5.7.1 relaying denied; this server takes mail for its own addresses only"},
		"relay by two at signs": {from, fok, `> RCPT TO:<support@example.com@elsewhere.test>`,
			"< 550 5.7.1 relaying denied; this server takes mail for its own addresses only"},
		"relay by source route": {from, fok, `> RCPT TO:<@example.com:x@elsewhere.test>`,
			"< 550 5.7.1 relaying denied; this server takes mail for its own addresses only"},
		"no recipient accepted": {from, fok, "> RCPT TO:<nobody@example.com>", "< 550 5.1.1 no such mailbox here",
			"> DATA", "< 503 5.5.1 Missing RCPT TO command."},
		"recipient before sender": {to, "< 503 5.5.1 Missing MAIL FROM command."},
		"nested mail":             {from, fok, to, rok, from, "< 503 5.5.1 nested MAIL command"},
		"rset":                    {from, fok, to, rok, "> RSET", "< 250 2.0.0 Session reset", "> DATA", "< 503 5.5.1 Missing RCPT TO command."},
		"size too large":          {"> MAIL FROM:<a@sender.test> SIZE=4194305", "< 552 5.3.4 Max message size exceeded"},
		"size beyond 32 bits":     {"> MAIL FROM:<a@sender.test> SIZE=5000000000", "< 552 5.3.4 SIZE is no number, or too large a one"},
		"size fits":               {"> MAIL FROM:<a@sender.test> SIZE=4194304", fok},
		"smtputf8": {"> MAIL FROM:<jürgen@sender.test> SMTPUTF8", fok, to, rok,
			"> DATA", data354, "> Subject: grün", "> .", "< 250 2.0.0 accepted as ID1"},
		"utf8 without smtputf8": {"> MAIL FROM:<jürgen@sender.test>",
			"< 553 5.6.7 an address outside ASCII needs the SMTPUTF8 parameter"},
		"control in sender":    {">> MAIL FROM:<a\\x01@sender.test>\\r\\n", "< 501 5.1.7 malformed address"},
		"cr in sender":         {">> MAIL FROM:<a\\r@sender.test>\\r\\n", "< 501 5.1.7 malformed address"},
		"control in recipient": {from, fok, ">> RCPT TO:<a\\x00@example.com>\\r\\n", "< 501 5.1.3 malformed address"},
		"binarymime":           {"> MAIL FROM:<a@sender.test> BODY=BINARYMIME", "< 504 5.5.4 BINARYMIME is not implemented"},
		"vrfy tells nothing":   {"> VRFY support@example.com", "< 252 2.5.0 not verified; try RCPT", "> VRFY nobody@example.com", "< 252 2.5.0 not verified; try RCPT"},
		"expn":                 {"> EXPN support", "< 502 5.5.1 EXPN command not implemented"},
		"auth":                 {"> AUTH PLAIN AGEAYQ==", "< 504 5.7.4 Unsupported authentication mechanism"},
		"starttls without tls": {"> STARTTLS", "< 502 5.5.1 TLS not supported"},
		"noop":                 {"> NOOP", "< 250 2.0.0 ok"},
		"helo":                 {"> HELO client.test", "< 250 mx.test"},
		"bare lf in commands":  {">> NOOP\\nNOOP\\n", "< 250 2.0.0 ok", "< 250 2.0.0 ok"},
		"unknown command":      {"> XYZW secret", "< 500 5.5.2 command not recognized"},
		"many bad commands": {"> XYZW", "< 500 5.5.2 command not recognized", "> XYZW", "< 500 5.5.2 command not recognized",
			"> XYZW", "< 500 5.5.2 command not recognized", "> XYZW", "< 500 5.5.2 command not recognized",
			"< 500 5.5.1 Too many errors. Quiting now", "closed"},
		"pipelining": {">> MAIL FROM:<a@sender.test>\\r\\nRCPT TO:<nobody@example.com>\\r\\nRCPT TO:<sales@example.com>\\r\\nDATA\\r\\n",
			fok, "< 550 5.1.1 no such mailbox here", rok, data354,
			">> x\\r\\n.\\r\\nMAIL FROM:<b@sender.test>\\r\\nRCPT TO:<support@example.com>\\r\\nBDAT 3 LAST\\r\\ny\\r\\nQUIT\\r\\n",
			"< 250 2.0.0 accepted as ID1", fok, rok, "< 250 2.0.0 accepted as ID2", "< 221 2.0.0 Bye", "closed"},
	} {
		t.Run(name, func(t *testing.T) {
			startServer(t, nil).hello(t).talk(dialogue...)
		})
	}
}

func TestMailWithoutHelloIsRefused(t *testing.T) {
	c := startServer(t, nil).dial(t, greeting)
	c.talk("> MAIL FROM:<a@sender.test>", "< 503 5.5.1 Please introduce yourself first.")
}

// TestAcceptedTextIsUnchanged: promise 3 begins here. Also: dots, long lines, 8-bit headers, sizes around buffers.
func TestAcceptedTextIsUnchanged(t *testing.T) {
	ts := startServer(t, nil)
	c := ts.hello(t)
	for i, text := range []string{
		"", "\r\n", ".\r\n", "..\r\n", ". \r\n", ".x\r\n.y\r\n", "a\r\n\r\n.\r\n..\r\n...\r\nb\r\n",
		"Subject: gr\xfcn \xff\r\n\r\nbody\r\n",
		"Subject: x\r\n\r\n" + strings.Repeat("x", 2<<20) + "\r\n",
		strings.Repeat(".", inputBuffer) + "\r\n", strings.Repeat("x", inputBuffer-1) + "\r\n.\r\n",
		strings.Repeat("line\r\n", 30000), strings.Repeat("x", spoolBuffer-2) + "\r\n",
	} {
		c.talk("> MAIL FROM:<alice@sender.test>", "< 250 2.1.0 sender ok", "> RCPT TO:<support@example.com>", "< 250 2.1.5 recipient ok",
			"> DATA", data354)
		stuffed := strings.ReplaceAll("\r\n"+text, "\r\n.", "\r\n..")[2:]
		c.send(stuffed + ".\r\n")
		c.expect(fmt.Sprintf("250 2.0.0 accepted as ID%d", i+1))
		if got := ts.taken()[i].text; got != text {
			t.Errorf("mail %d: %d octets became %d, %.40q became %.40q", i, len(text), len(got), text, got)
		}
	}
}

func TestEnvelope(t *testing.T) {
	ts := startServer(t, nil)
	before := time.Now()
	c := ts.dial(t, greeting)
	c.send("EHLO cli(ent).test\r\n")
	c.capabilities()
	c.talk(`> MAIL FROM:<"a> b\"c"@sender.test> SMTPUTF8`, "< 250 2.1.0 sender ok",
		"> RCPT TO:<Support@example.com>", "< 250 2.1.5 recipient ok", "> RCPT TO:<postmaster>", "< 250 2.1.5 recipient ok",
		"> RCPT TO:<Support@example.com>", "< 250 2.1.5 recipient ok",
		"> DATA", data354, "> .", "< 250 2.0.0 accepted as ID1",
		"> HELO plain.test", "< 250 mx.test", "> MAIL FROM:<>", "< 250 2.1.0 sender ok",
		"> RCPT TO:<sales@example.com>", "< 250 2.1.5 recipient ok", "> DATA", data354, "> .", "< 250 2.0.0 accepted as ID2")
	first, second := ts.taken()[0].envelope, ts.taken()[1].envelope
	if first.MailFrom != `"a> b\"c"@sender.test` || first.Hello != "cli?ent?.test" || first.Protocol != "UTF8SMTP" ||
		first.TLS != "" || !first.UTF8 || first.Client.String() != "127.0.0.1" ||
		first.Received.Before(before) || first.Received.After(time.Now()) {
		t.Errorf("envelope %+v", first)
	}
	if len(first.Recipients) != 3 || first.Recipients[0].Address != "Support@example.com" ||
		first.Recipients[0].Route.Address != "support@example.com" || first.Recipients[1].Address != "postmaster" {
		t.Errorf("recipients %+v", first.Recipients)
	}
	if second.MailFrom != "" || second.Hello != "plain.test" || second.Protocol != "SMTP" || second.UTF8 || len(second.Recipients) != 1 {
		t.Errorf("envelope after HELO %+v", second)
	}
}

// TestOnlySafeIs250: whatever the Handler fails with is never answered 2xx (promise 2).
func TestOnlySafeIs250(t *testing.T) {
	cause := errors.New("cause-marker")
	for _, tt := range []struct {
		err  error
		want string
	}{
		{gateway.Errorf(gateway.CodeStorageFull, cause, "disk full"), "452 4.3.1 disk full"},
		{fmt.Errorf("write: %w", syscall.ENOSPC), "452 4.3.1 no room to store the mail; try again later"},
		{gateway.Errorf(gateway.CodeTimeout, cause, "slow"), "451 4.3.0 slow"},
		{context.DeadlineExceeded, "451 4.3.0 storing the mail took too long, nothing was accepted; try again later"},
		{gateway.Errorf(gateway.CodeUnavailable, cause, "away"), "451 4.3.0 away"},
		{gateway.Errorf(gateway.CodeConflict, cause, "too old"), "451 4.3.0 too old"},
		{cause, "451 4.3.0 internal failure, nothing was accepted; try again later"},
		{gateway.Errorf(gateway.CodeTooLarge, cause, "too big"), "552 5.3.4 too big"},
		{gateway.Errorf(gateway.CodeLoop, cause, "loop"), "554 5.4.6 loop"},
		{gateway.Errorf(gateway.CodeInvalid, cause, "two\r\nlines \x80"), "554 5.6.0 two??lines ?"},
		{gateway.Errorf(gateway.CodeRejected, cause, "policy"), "550 5.7.1 policy"},
		{gateway.Errorf(gateway.CodeTooManyRecipients, cause, "many"), "452 4.5.3 many"},
		{gateway.Errorf(gateway.CodeBusy, cause, "busy"), "421 4.7.0 busy"},
	} {
		for _, bdat := range []bool{false, true} {
			ts := startServer(t, nil)
			ts.accept = func(context.Context, gateway.Envelope, gateway.Spooled) (string, error) { return "", tt.err }
			c := ts.ready(t)
			if bdat {
				c.talk(`>> BDAT 3 LAST\r\nx\r\n`)
			} else {
				c.talk("> DATA", data354, "> x", "> .")
			}
			c.expect(tt.want)
			if strings.HasPrefix(tt.want, "421") {
				c.closed()
			} else {
				c.talk("> NOOP", "< 250 2.0.0 ok")
			}
		}
	}
}

func TestPanicInHandlerIsNot250(t *testing.T) {
	for _, send := range []string{"DATA\r\nx\r\n.\r\n", "BDAT 3 LAST\r\nx\r\n"} {
		ts := startServer(t, nil)
		ts.accept = func(context.Context, gateway.Envelope, gateway.Spooled) (string, error) { panic("content-marker") }
		c := ts.ready(t)
		c.send(send)
		got := c.line()
		if strings.HasPrefix(got, "354") {
			got = c.line()
		}
		if got != "421 4.0.0 Internal server error" {
			t.Errorf("reply %q", got)
		}
		c.closed()
		ts.stop(t)
		if log := ts.log.String(); strings.Contains(log, "content-marker") || !strings.Contains(log, "stack=") {
			t.Errorf("log: %s", log)
		}
	}
}

func TestSpoolFailure(t *testing.T) {
	full := gateway.Errorf(gateway.CodeStorageFull, nil, "the spool is full")
	for _, send := range []string{"DATA\r\nx\r\n.\r\n", "BDAT 3 LAST\r\nx\r\n"} {
		ts := startServer(t, func(o *Options) {
			o.NewSpooled = func() (gateway.Spooled, error) { return nil, full }
		})
		c := ts.ready(t)
		c.send(send)
		got := c.line()
		if strings.HasPrefix(got, "354") {
			got = c.line()
		}
		if got != "452 4.3.1 the spool is full" {
			t.Errorf("reply %q", got)
		}
		c.talk("> NOOP", "< 250 2.0.0 ok")
	}
}

// TestLogsNameNoCorrespondent: promise 1 for this package's log.
func TestLogsNameNoCorrespondent(t *testing.T) {
	ts := startServer(t, nil)
	ts.accept = func(context.Context, gateway.Envelope, gateway.Spooled) (string, error) {
		return "", gateway.Errorf(gateway.CodeRejected, nil, "policy")
	}
	c := ts.hello(t)
	c.talk("> MAIL FROM:<marker-sender@sender.test> ENVID=marker-envid", "< 250 2.1.0 sender ok",
		"> RCPT TO:<support@example.com> ORCPT=rfc822;marker-orcpt@example.com+", "< 501 5.5.4 Malformed ORCPT parameter value",
		"> RCPT TO:<marker-unknown@example.com>", "< 550 5.1.1 no such mailbox here",
		"> RCPT TO:<marker-foreign@other.test>", "< 550 5.7.1 relaying denied; this server takes mail for its own addresses only",
		"> RCPT TO:<support@example.com> ORCPT=rfc822;marker-orcpt@example.com", "< 250 2.1.5 recipient ok", "> DATA", data354, "> Subject: marker-subject",
		"> ", "> marker-body", "> .", "< 550 5.7.1 policy", "> marker-command", "< 501 5.5.2 Bad command")
	c.send("EHLO marker-hello\r\n")
	c.capabilities()
	c.talk("> MAIL FROM:<marker-sender@sender.test>", "< 250 2.1.0 sender ok", "> RCPT TO:<support@example.com>", "< 250 2.1.5 recipient ok",
		"> DATA", data354, ">> marker-bare\\nmarker\\r\\n.\\r\\n",
		"< 554 5.6.0 bare LF in line 1 of the message, nothing was accepted; lines must end with CRLF", "> QUIT", "< 221 2.0.0 Bye")
	c.closed()
	ts.stop(t)
	log := ts.log.String()
	if strings.Contains(log, "marker") || strings.Contains(log, "secret-hop") {
		t.Errorf("the log holds what it must not: %s", log)
	}
	for _, want := range []string{"code=rejected", "code=invalid", "code=unknown_recipient", "code=relay_denied", "routes=support@example.com"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s: %s", want, log)
		}
	}
	families, err := ts.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if dump := fmt.Sprint(families); strings.Contains(dump, "marker") || !strings.Contains(dump, "sealpost_smtp_refused_total") {
		t.Errorf("metrics: %s", dump)
	}
}
