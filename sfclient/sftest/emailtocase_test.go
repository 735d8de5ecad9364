package sftest

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"mime/multipart"
	"net"
	netmail "net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

const (
	longA   = "support@a1.case.org.test"
	longB   = "sales@b2.case.org.test"
	publicA = "support@example.com"
	publicB = "sales@example.com"
)

// clock is a time that only moves when told to.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// desk is an Org with Email-to-Case, and counts what was sent to it.
type desk struct {
	*Org
	t    *testing.T
	sent int
}

func startDesk(t *testing.T, e EmailToCase) *desk {
	t.Helper()
	if e.Routing == nil {
		e.Routing = []RoutingAddress{{Address: longA, Public: publicA}, {Address: longB, Public: publicB, CaseOrigin: "Sales"}}
	}
	return &desk{Org: start(t, Options{EmailToCase: &e}), t: t}
}

// text is a mail to both public addresses; fields end with CRLF.
func text(id, fields, body string) string {
	if !strings.Contains(fields, "Subject:") {
		fields += "Subject: help\r\n"
	}
	if !strings.Contains(fields, "From:") {
		fields += "From: Ann <ann@example.net>\r\n"
	}
	return "Message-ID: <" + id + ">\r\nTo: S <" + publicA + ">, " + publicB + "\r\n" + fields + "\r\n" + body
}

// send sends a mail to the first routing address, if none is given, and waits until it is processed.
func (d *desk) send(raw string, to ...string) {
	d.t.Helper()
	if to == nil {
		to = []string{longA}
	}
	if err := d.from("ann@example.net", raw, to...); err != nil {
		d.t.Fatalf("the mail was refused: %v", err)
	}
	d.sent++
	if err := d.WaitProcessed(d.t.Context(), d.sent); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) from(sender, raw string, to ...string) error {
	d.t.Helper()
	c, err := smtp.Dial(d.Addr())
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	return c.SendMail(sender, to, strings.NewReader(raw))
}

// outcome is "case", "bounce REASON" or "drop REASON" of the only mail.
func (d *desk) outcome() string {
	switch cases, bounces, dropped := d.Cases(), d.Bounces(), d.Dropped(); {
	case len(cases) == 1 && len(bounces) == 0 && len(dropped) == 0:
		return "case"
	case len(cases) == 0 && len(bounces) == 1 && len(dropped) == 0:
		return "bounce " + string(bounces[0].Reason)
	case len(cases) == 0 && len(bounces) == 0 && len(dropped) == 1:
		return "drop " + string(dropped[0].Reason)
	default:
		return fmt.Sprintf("%d cases, %v, %v", len(cases), bounces, dropped)
	}
}

func TestMailBecomesCase(t *testing.T) {
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	d := startDesk(t, EmailToCase{Clock: (&clock{now: now}).Now})
	d.send(text("1@x.test", "Subject: =?utf-8?q?caf=C3=A9?=\r\nContent-Type: multipart/mixed; boundary=b\r\n",
		"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n"+
			"--b\r\nContent-Type: text/html\r\n\r\n<p>hello</p>\r\n"+
			"--b\r\nContent-Type: text/plain\r\nContent-Disposition: attachment; filename=a.txt\r\n\r\nfile\r\n--b--\r\n"))
	cases, mails := d.Cases(), d.EmailMessages()
	if len(cases) != 1 || len(mails) != 1 {
		t.Fatalf("%d cases, %d mails", len(cases), len(mails))
	}
	if c := cases[0]; c.Subject != "café" || c.Origin != "Email" || c.RoutingAddress != longA || !c.Created.Equal(now) {
		t.Errorf("case %+v", c)
	}
	m := mails[0]
	m.ID = strings.TrimLeft(m.ID, "02s")
	headers := m.Headers
	m.Headers = ""
	want := EmailMessage{
		ID: "1", CaseNumber: cases[0].Number, MessageIdentifier: "<1@x.test>", FromAddress: "ann@example.net",
		ToAddress: publicA + "; " + publicB, Subject: "café", TextBody: "hello", HtmlBody: "<p>hello</p>",
		HasAttachment: true, Incoming: true, Created: now,
	}
	if m != want {
		t.Errorf("got %+v\nwant %+v", m, want)
	}
	if !strings.HasPrefix(headers, "Message-ID: <1@x.test>\r\n") || strings.Contains(headers, "--b") {
		t.Errorf("headers %q", headers)
	}
}

func TestLimits(t *testing.T) {
	const x = "x"
	fill := func(prefix string, n int) string { return prefix + strings.Repeat(x, n) + "\r\n" }
	// folded is n characters in header lines of a length that a mail may have.
	folded := func(n int) string {
		var b strings.Builder
		for b.Len()+70 < n {
			b.WriteString("X-Pad: " + strings.Repeat(x, 61) + "\r\n")
		}
		return b.String() + "X-Pad: " + strings.Repeat(x, n-b.Len()-9) + "\r\n"
	}
	fixed := len(text("1", "", "")) - 2
	addr := func(field string, n int) string {
		return field + `"` + strings.Repeat(x, n-16) + `" <a@x.example>` + "\r\n"
	}
	for name, c := range map[string]struct{ raw, want string }{
		"text at":      {text("1", "", strings.Repeat("é", maxBody-2)+"\r\n"), "case"},
		"text over":    {text("1", "", strings.Repeat("é", maxBody-1)+"\r\n"), "bounce text body"},
		"subject at":   {text("1", fill("Subject: ", maxSubject), ""), "case"},
		"subject over": {text("1", fill("Subject: ", maxSubject+1), ""), "bounce subject"},
		"from at":      {text("1", addr("From: ", maxFrom), ""), "case"},
		"from over":    {text("1", addr("From: ", maxFrom+1), ""), "bounce from"},
		"cc at":        {text("1", addr("Cc: ", maxReceivers), ""), "case"},
		"cc over":      {text("1", addr("Cc: ", maxReceivers+1), ""), "bounce cc"},
		"to over":      {strings.Replace(text("1", "", ""), "To: S", "To: "+strings.Repeat(x, maxReceivers), 1), "bounce to"},
		"headers at":   {text("1", folded(maxHeaders-fixed), ""), "case"},
		"headers over": {text("1", folded(maxHeaders-fixed+1), ""), "bounce headers"},
		"malformed":    {text("1", "no field\r\n", ""), "bounce malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDesk(t, EmailToCase{})
			d.send(c.raw)
			if got := d.outcome(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestLongHTMLIsCutFromItsEnd(t *testing.T) {
	d := startDesk(t, EmailToCase{})
	d.send(text("1", "Content-Type: text/html; charset=utf-8\r\n", "first"+strings.Repeat("é", maxBody)+"last"))
	mails := d.EmailMessages()
	if d.outcome() != "case" || mails[0].HtmlBody != "first"+strings.Repeat("é", maxBody-5) {
		t.Errorf("%s, %d bytes kept", d.outcome(), len(mails[0].HtmlBody))
	}
}

func TestTooLargeMailGets250ThenNDR(t *testing.T) {
	back := start(t, Options{Hostname: "back.test"})
	d := startDesk(t, EmailToCase{Bounces: back.Addr()})
	head := text("big@x.test", "X-Binary: \xff\r\n", "")
	line := strings.Repeat("x", 998) + "\r\n"
	d.send(head+strings.Repeat(line, maxMailSize/len(line)+1), longA, longB)
	if got := d.outcome(); got != "bounce size" {
		t.Fatalf("got %q", got)
	}
	if err := d.Bounces()[0].Err; err != nil {
		t.Fatal(err)
	}
	ndrs := back.Mails()
	if len(ndrs) != 1 || ndrs[0].From != "" || len(ndrs[0].To) != 1 || ndrs[0].To[0] != "ann@example.net" {
		t.Fatalf("NDRs %+v", ndrs)
	}
	checkReport(t, ndrs[0].Raw)
}

// checkReport reads an NDR about the mail big@x.test to both routing addresses.
func checkReport(t *testing.T, raw []byte) {
	t.Helper()
	m, err := netmail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Fatalf("content type %q, %v", kind, err)
	}
	var parts []string
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		part, err := r.NextPart()
		if err != nil {
			break
		}
		var b bytes.Buffer
		if _, err := b.ReadFrom(part); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, part.Header.Get("Content-Type")+"\n"+b.String())
	}
	if len(parts) != 3 || !strings.HasPrefix(parts[1], "message/delivery-status") {
		t.Fatalf("parts %q", parts)
	}
	for _, a := range []string{longA, longB} {
		want := "\r\n\r\nFinal-Recipient: rfc822; " + a + "\r\nAction: failed\r\nStatus: 5.3.4\r\nDiagnostic-Code: smtp; 550 5.3.4 <" + a + ">"
		if !strings.Contains(parts[1], want) {
			t.Errorf("report without %q:\n%s", want, parts[1])
		}
	}
	if !strings.Contains(parts[2], "Message-ID: <big@x.test>\r\n") || !strings.Contains(parts[2], "X-Binary: ?\r\n") {
		t.Errorf("returned header:\n%s", parts[2])
	}
}

func TestNullSenderGetsNoNDR(t *testing.T) {
	d := startDesk(t, EmailToCase{})
	if err := d.from("", text("1", "Subject: "+strings.Repeat("x", maxSubject+1)+"\r\n", ""), longA); err != nil {
		t.Fatal(err)
	}
	if err := d.WaitProcessed(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if got := d.outcome(); got != "drop subject" || !d.Dropped()[0].NullSender {
		t.Errorf("got %q, %+v", got, d.Dropped())
	}
}

func TestUnsentNDRIsKeptWithItsError(t *testing.T) {
	for name, opts := range map[string]Options{"rcpt": {RefuseRcpt: 550}, "data": {FailFirst: 1}} {
		d := startDesk(t, EmailToCase{Bounces: start(t, opts).Addr()})
		d.send(text("1", "no field\r\n", ""))
		if b := d.Bounces(); len(b) != 1 || codeOf(b[0].Err) == 0 || len(b[0].Raw) == 0 {
			t.Errorf("%s: bounces %+v", name, b)
		}
	}
}

func TestUnknownRoutingAddressIsRefused(t *testing.T) {
	d := startDesk(t, EmailToCase{})
	for address, want := range map[string]int{publicA: 550, "other@a1.case.org.test": 550, strings.ToUpper(longA): 0} {
		if got := codeOf(d.from("ann@example.net", text("1", "", ""), address)); got != want {
			t.Errorf("%s: code %d, want %d", address, got, want)
		}
	}
}

func TestRoutingMatchesToCcAndBcc(t *testing.T) {
	for fields, want := range map[string]string{
		"To: X <SUPPORT@example.com>\r\n":                         "case",
		"To: a@x.test\r\nCc: b@x.test, support@example.com\r\n":   "case",
		"Bcc: support@example.com\r\n":                            "case",
		"To: " + longA + "\r\n":                                   "case",
		"To: sales@example.com\r\n":                               "drop not addressed",
		"X-Original-To: support@example.com\r\nTo: a@x.test\r\n":  "drop not addressed",
		"To: \"support@example.com\" <someone@example.com>\r\n":   "drop not addressed",
		"Subject: no receivers, to support@example.com alone\r\n": "drop not addressed",
	} {
		d := startDesk(t, EmailToCase{})
		d.send("From: ann@example.net\r\n" + fields + "\r\nx")
		if got := d.outcome(); got != want {
			t.Errorf("%q: got %q, want %q", fields, got, want)
		}
	}
}

func TestTwoRoutingAddressesMakeTwoCases(t *testing.T) {
	d := startDesk(t, EmailToCase{})
	index := "Thread-Index: AQHZAAAAAAAAAAAAAAAAAAAAAAAAAA==\r\n"
	d.send(text("1@x.test", index, ""), longA, longB)
	cases, mails := d.Cases(), d.EmailMessages()
	if len(cases) != 2 || len(mails) != 2 {
		t.Fatalf("cases %+v, %d mails", cases, len(mails))
	}
	if cases[0].Number == cases[1].Number || cases[1].Origin != "Sales" || mails[1].CaseNumber != cases[1].Number ||
		mails[0].ID == mails[1].ID || mails[0].MessageIdentifier != mails[1].MessageIdentifier {
		t.Errorf("cases %+v, mails %+v", cases, mails)
	}
}

func TestLoopRule(t *testing.T) {
	c := &clock{now: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)}
	d := startDesk(t, EmailToCase{Clock: c.Now})
	for i := range loopMails + 1 {
		d.send(text(fmt.Sprintf("%d@x.test", i), "", "same"))
	}
	if n := len(d.Cases()); n != loopMails || len(d.Dropped()) != 1 || d.Dropped()[0].Reason != Loop || d.Dropped()[0].MessageID != "<15@x.test>" {
		t.Fatalf("%d cases, dropped %+v", n, d.Dropped())
	}
	d.send(text("a", "", "other"))
	d.send(text("b", "Subject: other\r\n", "same"))
	d.send(text("c", "From: bob@example.net\r\n", "same"))
	c.Add(loopWindow - time.Nanosecond)
	d.send(text("d", "", "same"))
	c.Add(time.Nanosecond)
	d.send(text("e", "", "same"))
	if n := len(d.Cases()); n != loopMails+4 || len(d.Dropped()) != 2 {
		t.Errorf("%d cases, dropped %+v", n, d.Dropped())
	}
}

func TestAutoResponseIsDroppedSilently(t *testing.T) {
	d := startDesk(t, EmailToCase{})
	d.send(text("1", "X-SFDC-AutoResponse: \r\n", ""))
	if got := d.outcome(); got != "drop auto-response" {
		t.Errorf("got %q", got)
	}
}

func TestAcceptList(t *testing.T) {
	for from, ok := range map[string]bool{
		"ann@example.net": true, "ANN@Example.NET": true, "any@partner.example": true,
		"bob@example.net": false, "any@sub.partner.example": false, "any@notpartner.example": false,
	} {
		for _, bounce := range []bool{false, true} {
			d := startDesk(t, EmailToCase{Routing: []RoutingAddress{{
				Address: longA, AcceptFrom: []string{"ann@example.net", "partner.example"}, BounceUnauthorized: bounce,
			}}})
			d.send(text("1", "From: N <"+from+">\r\n", ""))
			want := map[bool]string{false: "drop accept list", true: "bounce accept list"}[bounce]
			if ok {
				want = "case"
			}
			if got := d.outcome(); got != want {
				t.Errorf("%s: got %q, want %q", from, got, want)
			}
		}
	}
}

func TestThreading(t *testing.T) {
	const index = "Thread-Index: AQHZAAAAAAAAAAAAAAAAAAAAAAAAA"
	d := startDesk(t, EmailToCase{})
	d.send(text("1@x.test", index+"A==\r\n", ""))
	d.send(text("2@x.test", "Subject: other\r\n", ""))
	one, two := d.Cases()[0], d.Cases()[1]
	if err := d.AddReply(two.Number, "<agent@org.test>"); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ fields, body, want string }{
		"token in subject":            {"Subject: Re: [ " + two.Token + " ]\r\nIn-Reply-To: <1@x.test>\r\n", "", two.Number},
		"token in text":               {"In-Reply-To: <1@x.test>\r\n", "> ref:" + two.Token + "\r\n", two.Number},
		"token in html":               {"Content-Type: text/html\r\n", "<i>" + two.Token + "</i>", two.Number},
		"unknown token":               {"In-Reply-To: <1@x.test>\r\n", "thread::AAAA::", one.Number},
		"in-reply-to first":           {"References: <2@x.test>\r\nIn-Reply-To: <1@x.test>\r\n", "", one.Number},
		"in-reply-to an agent":        {"In-Reply-To: <agent@org.test>\r\n", "", two.Number},
		"references":                  {"In-Reply-To: <unknown@x.test>\r\nReferences: <unknown@x.test>\r\n <2@x.test>\r\n", "", two.Number},
		"references before the index": {index + "A==\r\nReferences: <2@x.test>\r\n", "", two.Number},
		"index of a reply":            {index + "AAAAAAA\r\n", "", one.Number},
		"other index":                 {"Thread-Index: AQHaAAAAAAAAAAAAAAAAAAAAAAAAAA==\r\n", "", ""},
		"short index":                 {"Thread-Index: AQHZ\r\n", "", ""},
		"none":                        {"In-Reply-To: <unknown@x.test>\r\n", "", ""},
	} {
		cases := len(d.Cases())
		d.send(text(strings.ReplaceAll(name, " ", "-"), c.fields, c.body+name))
		opened := d.Cases()[cases:]
		mails := d.EmailMessages()
		last := mails[len(mails)-1]
		if c.want == "" {
			if len(opened) != 1 || last.CaseNumber != opened[0].Number {
				t.Errorf("%s: no new case, but %s", name, last.CaseNumber)
			}
		} else if len(opened) != 0 || last.CaseNumber != c.want {
			t.Errorf("%s: case %s, want %s", name, last.CaseNumber, c.want)
		}
	}
}

// A connection that breaks before the reply does not undo the acceptance.
func TestDroppedReplyStillMakesCase(t *testing.T) {
	d := &desk{t: t, Org: start(t, Options{DropAfterData: 1, EmailToCase: &EmailToCase{Routing: []RoutingAddress{{Address: longA}}}})}
	if err := d.from("ann@example.net", text("1", "", ""), longA); err == nil {
		t.Error("it was answered")
	}
	if err := d.WaitProcessed(t.Context(), 1); err != nil || d.outcome() != "case" {
		t.Errorf("%v, %s", err, d.outcome())
	}
}

func TestFailedMailMakesNoCase(t *testing.T) {
	d := &desk{t: t, Org: start(t, Options{FailFirst: 1, EmailToCase: &EmailToCase{Routing: []RoutingAddress{{Address: longA}}}})}
	if err := d.from("ann@example.net", text("1", "", ""), longA); codeOf(err) != 451 {
		t.Errorf("got %v", err)
	}
	d.send(text("2", "", ""))
	if d.outcome() != "case" || d.EmailMessages()[0].MessageIdentifier != "<2>" {
		t.Errorf("%s, %+v", d.outcome(), d.EmailMessages())
	}
}

// A server for the NDRs that falls silent must not hold up Close.
func TestCloseCutsTheSendingOfAnNDR(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	d := startDesk(t, EmailToCase{Bounces: l.Addr().String()})
	if err := d.from("ann@example.net", text("1", "no field\r\n", ""), longA); err != nil {
		t.Fatal(err)
	}
	silent, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	if _, err := silent.Write([]byte("220 silent.test ESMTP\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := silent.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	b := d.Bounces()
	if len(b) != 1 {
		t.Fatalf("%d bounces", len(b))
	}
	if !errors.Is(b[0].Err, net.ErrClosed) {
		t.Errorf("the NDR ended with %v", b[0].Err)
	}
	if err := d.WaitProcessed(t.Context(), 2); err == nil {
		t.Error("WaitProcessed returned a mail that never came")
	}
}

func TestOrgWithoutEmailToCaseHasNoRecords(t *testing.T) {
	o := start(t, Options{})
	if err := sendMail(t, o); err != nil {
		t.Fatal(err)
	}
	if o.Cases() != nil || o.EmailMessages() != nil || o.Bounces() != nil || o.Dropped() != nil {
		t.Error("there are records")
	}
	if err := errors.Join(o.AddReply("1", "<a>"), o.WaitProcessed(t.Context(), 1)); err == nil {
		t.Error("no error")
	}
	if _, err := Start(t.Context(), Options{Mode: Digest, EmailToCase: &EmailToCase{}}); err == nil {
		t.Error("it starts without keeping mails whole")
	}
}
