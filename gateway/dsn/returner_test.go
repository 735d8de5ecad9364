package dsn

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	message "github.com/emersion/go-message"

	"sealpost/gateway"
)

func returned(t testing.TB, mail string) string {
	t.Helper()
	var out strings.Builder
	r := Returner{Hostname: "mx.example.com", Hide: map[string]string{secret: public, "ops@hop.internal.example": "ops@example.com"}, Now: func() time.Time { return when }}
	err := r.Return(t.Context(), &out, "jane@example.org", strings.NewReader(mail), int64(len(mail)), []byte("Received: trace\r\n"))
	if err != nil && (!errors.Is(err, gateway.ErrNothingToTell) || out.Len() > 0) {
		t.Fatal(err)
	}
	return out.String()
}

// reveals is an oracle of its own: it knows nothing of the search that is tested.
func reveals(t testing.TB, raw string) bool {
	t.Helper()
	texts := []string{raw}
	if e, err := message.Read(strings.NewReader(raw)); err == nil || message.IsUnknownCharset(err) {
		_ = e.Walk(func(_ []int, p *message.Entity, err error) error {
			if err != nil || p == nil {
				return err
			}
			for f := p.Header.Fields(); f.Next(); {
				text, _ := f.Text()
				texts = append(texts, text)
			}
			if kind, _, _ := p.Header.ContentType(); !strings.HasPrefix(kind, "multipart/") {
				body, _ := io.ReadAll(p.Body)
				texts = append(texts, string(body))
			}
			return nil
		})
	}
	blank := regexp.MustCompile(`=\r?\n|\s`)
	for _, text := range texts {
		text = strings.ToLower(blank.ReplaceAllString(text, ""))
		for _, s := range []string{"x-1a2b3c.case.example.net", "hop.internal.example"} {
			if strings.Contains(text, s) {
				return true
			}
		}
	}
	return false
}

const postfix = `
Return-Path: <>
Received: from out.example.net by mx.example.com
From: MAILER-DAEMON@out.example.net
To: SRS0=x=y=example.org=jane@srs.example.com
Subject: Undelivered Mail Returned to Sender
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="B"

--B
Content-Type: text/plain

<SECRET>: host mx.example.net said: 550 5.1.1 <SECRET>: unknown

--B
Content-Type: message/delivery-status

Reporting-MTA: dns; out.example.net
X-Postfix-Queue-ID: 4Qxyz
Arrival-Date: Sun, 01 Mar 2026 11:00:00 +0000

Final-Recipient: rfc822; SECRET
Original-Recipient: rfc822;SECRET
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.internal.example
Diagnostic-Code: smtp; 550 5.1.1 <support@x-1a2b3c.
    case.example.net>: Recipient address rejected

--B
Content-Type: message/rfc822

Return-Path: <SRS0=x>
Delivered-To: SECRET
Received: from mx.example.com by out.example.net for <SECRET>
X-Original-To: SECRET
From: Jane <jane@example.org>
To: support@example.com
Cc: =?utf-8?b?BASE64?= <other@example.org>
Subject: Hello
 again
Message-ID: <1@example.org>

Private body SECRET
--B--
`

func fillPostfix() string {
	return strings.NewReplacer("SECRET", secret, "BASE64", base64.StdEncoding.EncodeToString([]byte(secret))).Replace(crlf(postfix))
}

func TestReturnReport(t *testing.T) {
	out := returned(t, fillPostfix())
	checkShape(t, out)
	if reveals(t, out) {
		t.Errorf("forward_to is shown:\n%s", out)
	}
	header, parts := leaves(t, out)
	if header.Get("To") != "<jane@example.org>" || header.Get("Received") != "" {
		t.Errorf("To %q", header.Get("To"))
	}
	status := parts["message/delivery-status"]
	for _, want := range []string{"Final-Recipient: rfc822; " + public, "Original-Recipient: rfc822; " + public, "Action: failed", "Status: 5.1.1", "Diagnostic-Code: smtp; 550 5.1.1 <" + public + ">: Recipient", "Arrival-Date: Sun, 01 Mar 2026 11:00"} {
		if !strings.Contains(strings.ReplaceAll(status, "\r\n ", " "), want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	if strings.Contains(status, "Remote-MTA") {
		t.Error("Remote-MTA is shown")
	}
	if want := "From: Jane <jane@example.org>\r\nTo: support@example.com\r\nSubject: Hello\r\n again\r\nMessage-ID: <1@example.org>\r\n"; parts["text/rfc822-headers"] != want {
		t.Errorf("returned header %q", parts["text/rfc822-headers"])
	}
	if strings.Contains(out, "Private body") {
		t.Error("the body came along")
	}
}

// TestForwardToNeverShown is the promise of the way back: no bounce names where a mail was forwarded to.
func TestForwardToNeverShown(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString([]byte("Mail for " + secret + " failed 5.2.3 ok"))
	wide := strings.Map(func(c rune) rune { return c }, secret)
	var utf16 bytes.Buffer
	for _, c := range []byte(wide) {
		utf16.Write([]byte{c, 0})
	}
	head := "From: <mailer-daemon@example.net>\r\nTo: jane@example.org\r\nMIME-Version: 1.0\r\n"
	for name, mail := range map[string]string{
		"plain":      head + "\r\nHi. This is the qmail-send program.\r\n<" + secret + ">:\r\n550 5.1.1 no\r\n",
		"upper case": head + "\r\n" + strings.ToUpper(secret), "in a field": head + "X-Failed-Recipients: " + secret + "\r\n\r\nfailed\r\n",
		"folded field": head + "X-Failed: support@x-1a\r\n 2b3c.case.example.net\r\n\r\nx", "over two lines": head + "\r\nsupport@x-1a2b3c.\r\ncase.example.net\r\n",
		"domain alone": head + "\r\nuser unknown at x-1a2b3c.case.example.net\r\n", "soft break": head + "Content-Transfer-Encoding: quoted-printable\r\n\r\nsupport=40x-1a2=\r\nb3c.case.example.net\r\n",
		"soft break, undeclared": head + "\r\nsupport=40x-1=\r\na2b3c.case.example.net\r\n", "base64": head + "Content-Transfer-Encoding: base64\r\n\r\n" + b64 + "\r\n",
		"encoded word": head + "Subject: =?utf-8?b?" + base64.StdEncoding.EncodeToString([]byte(secret)) + "?=\r\n\r\nx\r\n",
		"entities":     head + "Content-Type: text/html\r\n\r\nsupport&#64;x&#45;1a2b3c&#x2e;case.example.net\r\n", "percent": head + "\r\nhttp://example.net/?a=support%40x%2D1a2b3c.case.example.net\r\n",
		"utf-16":      head + "Content-Type: text/plain; charset=utf-16le\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.StdEncoding.EncodeToString(utf16.Bytes()) + "\r\n",
		"quoted mail": head + "\r\n> could not deliver to support@x-1a2b3c.case.exa\r\n> mple.net\r\n", "xtext": head + "\r\nORCPT=rfc822;support+40x-1a2b3c.case.example.net\r\n",
		"label": head + "\r\ntenant x-1a2b3c rejected it\r\n", "comment in HTML": head + "Content-Type: text/html\r\n\r\nx-1a2b3c<!-- > -->.case.example.net\r\n",
		"RFC 2231": head + "Content-Type: text/plain; name*0=\"support@x-1a2b\"; name*1=\"3c.case.example.net\"\r\n\r\nx\r\n", "utf-7": head + "Content-Type: text/plain; charset=utf-7\r\n\r\nsupport+AEA-x\r\n",
		"image":             head + "Content-Type: image/svg+xml\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b64 + "\r\n",
		"zip":               head + "Content-Type: application/zip\r\n\r\nPK\r\n",
		"in rfc822":         head + "Content-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b64 + "\r\n--B--\r\n",
		"headers in base64": head + "Content-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\nContent-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b64 + "\r\n--B--\r\n",
		"quoted report":     head + "Content-Type: multipart/mixed; boundary=A\r\n\r\n--A\r\nContent-Type: multipart/report; boundary=B\r\n\r\n--B\r\nContent-Type: message/delivery-status\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b64 + "\r\n--B--\r\n--A--\r\n",
		"far in":            head + "\r\n" + strings.Repeat("text and more text\r\n", 4000) + secret + strings.Repeat("\r\nmore", 9000),
		"Exchange":          strings.ReplaceAll(fillPostfix(), "message/delivery-status", "Message/Delivery-Status"),
		"no end":            strings.TrimSuffix(fillPostfix(), "--B--\r\n"), "bad base64": head + "Content-Transfer-Encoding: base64\r\n\r\n!!!" + b64 + "\r\n", "unknown charset": head + "Content-Type: text/plain; charset=x-odd\r\n\r\nx\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			out := returned(t, mail)
			if reveals(t, out) {
				t.Errorf("forward_to is shown:\n%.2000s", out)
			}
			checkShape(t, out)
			if _, parts := leaves(t, out); !strings.Contains(parts["message/delivery-status"], "Action: failed") {
				t.Errorf("no report of ours:\n%.2000s", out)
			}
		})
	}
}

func TestReturnKeepsTheStatus(t *testing.T) {
	out := returned(t, "Subject: Failure\r\n\r\n<"+secret+">: host 5.1.2.3 said 552 5.3.4 Message size exceeds 35 MB\r\n")
	if _, parts := leaves(t, out); !strings.Contains(parts["message/delivery-status"], "Status: 5.3.4\r\n") || !strings.Contains(parts["message/delivery-status"], "Final-Recipient: rfc822; "+public) {
		t.Errorf("%s", parts["message/delivery-status"])
	}
}

func TestReturnHarmlessByteForByte(t *testing.T) {
	for name, mail := range map[string]string{
		"vacation": "From: agent@example.com\r\nSubject: =?utf-8?q?Au=C3=9Fer_Haus?=\r\nAuto-Submitted: auto-replied\r\n\r\nI am away.\r\n",
		"html":     "Content-Type: multipart/alternative; boundary=B\r\n\r\n--B\r\n\r\nAway\r\n--B\r\nContent-Type: text/html\r\n\r\n<p>Away</p>\r\n--B--\r\n",
		"large":    "Subject: x\r\n\r\n" + strings.Repeat("I am away for long.\r\n", 20000),
	} {
		if out := returned(t, mail); out != "Received: trace\r\n"+mail {
			t.Errorf("%s was changed:\n%.500s", name, out)
		}
	}
}

func TestReturnReportsStorageErrors(t *testing.T) {
	broken := errors.New("broken")
	err := Returner{Hostname: "mx.example.com"}.Return(t.Context(), io.Discard, "jane@example.org", failing{broken}, 100, nil)
	if !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

func TestPublicPartsAreNoSecrets(t *testing.T) {
	mail := "Subject: x\r\n\r\nMail for customers@example.com failed\r\n"
	r := Returner{Hostname: "mx.example.com", Hide: map[string]string{"customers@inner.example.com": "customers@example.com", "other@example.com": "support@example.com"}}
	var out strings.Builder
	if err := r.Return(t.Context(), &out, "jane@example.org", strings.NewReader(mail), int64(len(mail)), nil); err != nil || out.String() != mail {
		t.Errorf("%v\n%s", err, out.String())
	}
}

const exchange = `
From: <postmaster@out.example.net>
To: <SRS0=x=y=example.org=jane@srs.example.com>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
	boundary="c8a4f0d6-1d2b"
Content-Language: en-US
Subject: Undeliverable: Hello
Auto-Submitted: auto-replied

--c8a4f0d6-1d2b
Content-Type: multipart/alternative; differences=Content-Type;
	boundary="alt-1"

--alt-1
Content-Type: text/plain; charset="us-ascii"
Content-Transfer-Encoding: quoted-printable

Your message to support@x-1a2b3c.case.exam=
ple.net couldn't be delivered.
--alt-1
Content-Type: text/html; charset="us-ascii"
Content-Transfer-Encoding: base64

BASE64
--alt-1--

--c8a4f0d6-1d2b
Content-Type: message/delivery-status

Reporting-MTA: dns;AM0PR01.prod.example.net
Received-From-MTA: dns;mx.example.com
Arrival-Date: Sun, 1 Mar 2026 11:00:00 +0000

Original-Recipient: rfc822;SECRET
Final-Recipient: rfc822;Support@X-1A2B3C.case.example.net
Action: failed
Status: 5.2.3
Diagnostic-Code: smtp;550 5.2.3 RESOLVER.RST.RecipSizeLimit; message too large for this recipient
X-Display-Name: SECRET

--c8a4f0d6-1d2b
Content-Type: text/rfc822-headers

Received: from mx.example.com by AM0PR01.prod.example.net for SECRET
From: Jane <jane@example.org>
To: Support <support@example.com>
Subject: =?us-ascii?Q?for_support=40x-1a2b3c.case.example.net?=
Message-ID: <1@example.org>
X-MS-Exchange-Recipient: SECRET

--c8a4f0d6-1d2b--
`

func TestReturnExchangeReport(t *testing.T) {
	out := returned(t, strings.NewReplacer("SECRET", secret, "BASE64", base64.StdEncoding.EncodeToString([]byte("<p>"+secret+"</p>"))).Replace(crlf(exchange)))
	if reveals(t, out) {
		t.Errorf("forward_to is shown:\n%s", out)
	}
	_, parts := leaves(t, out)
	for _, want := range []string{"Final-Recipient: rfc822; " + public, "Status: 5.2.3", "RecipSizeLimit; message"} {
		if !strings.Contains(parts["message/delivery-status"], want) {
			t.Errorf("no %q in\n%s", want, parts["message/delivery-status"])
		}
	}
	if want := "From: Jane <jane@example.org>\r\nTo: Support <support@example.com>\r\nMessage-ID: <1@example.org>\r\n"; parts["text/rfc822-headers"] != want {
		t.Errorf("returned header %q", parts["text/rfc822-headers"])
	}
}

// TestAnswerFromBehindUsIsNoBounce: an out-of-office reply to the SRS address must not tell the sender that his mail was lost.
func TestAnswerFromBehindUsIsNoBounce(t *testing.T) {
	const away = "We are closed on Monday.\r\n" + secret + "\r\n"
	for name, c := range map[string]struct {
		mail string
		ends bool
	}{
		"out of office":               {"From: <" + secret + ">\r\nSubject: Out of office\r\nAuto-Submitted: auto-replied\r\n\r\n" + away, true},
		"with a comment":              {"From: <" + secret + ">\r\nAuto-Submitted: Auto-Replied (vacation)\r\n\r\n" + away, true},
		"with a number like a status": {"From: <" + secret + ">\r\nAuto-Submitted: auto-replied\r\n\r\nUpdate to 5.1.2 first.\r\n", false},
		"with a status":               {"From: noreply@hop.example.net\r\nAuto-Submitted: auto-replied\r\n\r\n<" + secret + ">: 550 5.2.2 mailbox full\r\n", false},
		"with a reply code":           {"From: noreply@hop.example.net\r\nAuto-Submitted: auto-replied\r\n\r\n" + secret + "\r\n552 too large\r\n", false},
		"with a status as subject":    {"From: noreply@hop.example.net\r\nSubject: =?utf-8?q?Failure_5=2E2=2E2?=\r\nAuto-Submitted: auto-replied\r\n\r\n" + secret + "\r\n", false},
		"generated":                   {"From: Email-to-Case <noreply@hop.example.net>\r\nAuto-Submitted: auto-generated\r\n\r\nYour mail to " + secret + " could not be turned into a case: daily limit exceeded.\r\n", false},
		"not marked, no status":       {"From: noreply@hop.example.net\r\nSubject: Your mail\r\n\r\nYour mail to " + secret + " could not be read.\r\n", false},
		"not marked, a status":        {"From: <" + secret + ">\r\nSubject: failed\r\n\r\n5.1.1 no such user\r\n", false},
		"not marked, a reply code":    {"Subject: failed\r\n\r\n" + secret + "\r\n550 no such user\r\n", false},
		"from a daemon":               {"From: MAILER-DAEMON@hop.example.net\r\nAuto-Submitted: auto-replied\r\n\r\n" + away, false},
		"names who failed":            {"X-Failed-Recipients: " + secret + "\r\nAuto-Submitted: auto-replied\r\n\r\n" + away, false},
		"a broken report":             {"Content-Type: multipart/report; boundary=B\r\nAuto-Submitted: auto-replied\r\n\r\n--B\r\n\r\n" + away, false},
		"harmless":                    {"From: agent@example.com\r\nAuto-Submitted: auto-replied\r\n\r\nI am away.\r\n", false},
	} {
		if out := returned(t, c.mail); (out == "") != c.ends {
			t.Errorf("%s: %.600s", name, out)
		}
	}
}

// TestReturnKeepsTheSendersOwnName: RFC 3461 section 6.3.
func TestReturnKeepsTheSendersOwnName(t *testing.T) {
	for _, orcpt := range []string{"rfc822; support+order@example.com", "rfc822; help@customer.example"} {
		out := returned(t, strings.Replace(fillPostfix(), "Original-Recipient: rfc822;"+secret, "Original-Recipient: "+orcpt, 1))
		_, parts := leaves(t, out)
		for _, want := range []string{"Original-Recipient: " + orcpt + "\r\n", "Final-Recipient: rfc822; " + public + "\r\n"} {
			if !strings.Contains(parts["message/delivery-status"], want) {
				t.Errorf("no %q in\n%s", want, parts["message/delivery-status"])
			}
		}
	}
}

// TestHeaderIsCutByItsEncodedSize: a notice fits into a row of the queue whatever the header of the mail is made of.
func TestHeaderIsCutByItsEncodedSize(t *testing.T) {
	for name, line := range map[string]string{
		"8-bit": "Subject: " + strings.Repeat("ü", 45) + "\r\n", "equal signs": "X: é" + strings.Repeat("=", 90) + "\r\n",
		"long lines": "X: " + strings.Repeat("z", 1200) + "\r\n", "short lines": "ä\r\n",
	} {
		r := report(gateway.NoticeFailed)
		r.Header, r.Diagnostic = strings.NewReader(strings.Repeat(line, 32<<10/len(line))), strings.Repeat("ü", 1000)
		raw := written(t, r)
		checkShape(t, raw)
		_, parts := leaves(t, raw)
		got := parts["text/rfc822-headers"]
		if len(raw) > 50<<10 || len(raw) < 20<<10 || !strings.HasSuffix(got, line) {
			t.Errorf("%s: a notice of %d octets, whose header ends %q", name, len(raw), got[max(0, len(got)-20):])
		}
	}
}

// lorem is a mail in which there is nothing to find.
func lorem(size int, head string) string {
	const line = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod.\r\n"
	return head + "\r\n" + strings.Repeat(line, size/len(line))
}

// TestLargeReturns: a large report still tells what it says, and no large mail is passed on as it is.
func TestLargeReturns(t *testing.T) {
	report := strings.Replace(fillPostfix(), "Private body", lorem(5<<20, ""), 1)
	if _, parts := leaves(t, returned(t, report)); !strings.Contains(parts["message/delivery-status"], "Status: 5.1.1") {
		t.Errorf("%s", parts["message/delivery-status"])
	}
	large := returned(t, lorem(5<<20, "From: mailer-daemon@example.net\r\n"))
	if len(large) > 10_000 || !strings.Contains(large, "Action: failed") {
		t.Errorf("%.500s", large)
	}
}

// TestReturnHonoursItsContext: nobody waits for the search of a mail that is given up.
func TestReturnHonoursItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	mail := lorem(1<<20, "Subject: x\r\n")
	err := Returner{Hostname: "mx.example.com", Hide: map[string]string{secret: public}}.Return(ctx, io.Discard, "jane@example.org", strings.NewReader(mail), int64(len(mail)), nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func BenchmarkReturn(b *testing.B) {
	hide := map[string]string{}
	for i := range 500 {
		hide[fmt.Sprintf("caseinbox%d@x-1a2b3c%d.case.example.net", i, i)] = fmt.Sprintf("support%d@example.com", i)
	}
	r := Returner{Hostname: "mx.example.com", Hide: hide}
	for name, size := range map[string]int{"4 MiB": maxSearched - 1000, "25 MiB": 25 << 20} {
		mail := lorem(size, "From: mailer-daemon@example.net\r\n")
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(mail)))
			for b.Loop() {
				if err := r.Return(b.Context(), io.Discard, "jane@example.org", strings.NewReader(mail), int64(len(mail)), nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func FuzzReturn(f *testing.F) {
	f.Add(fillPostfix())
	f.Add("Subject: x\r\n\r\nsupport=40x-1=\r\na2b3c.case.example.net\r\n")
	f.Add("Content-Type: multipart/report; boundary=B\r\n\r\n--B\r\nContent-Type: message/delivery-status\r\n\r\n\r\n--B--")
	f.Fuzz(func(t *testing.T, mail string) {
		if out := returned(t, mail); reveals(t, out) {
			t.Fatalf("forward_to is shown:\n%q", out)
		}
	})
}
