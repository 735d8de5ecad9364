package dsn

import (
	"errors"
	"io"
	"mime"
	"strings"
	"testing"
	"time"

	message "github.com/emersion/go-message"

	"sealpost/gateway"
)

const (
	secret = "support@x-1a2b3c.case.example.net"
	public = "support@example.com"
)

var when = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func crlf(s string) string { return strings.ReplaceAll(strings.TrimPrefix(s, "\n"), "\n", "\r\n") }

// leaves parses a mail and returns its leaves, decoded, by type.
func leaves(t testing.TB, raw string) (message.Header, map[string]string) {
	t.Helper()
	e, err := message.Read(strings.NewReader(raw))
	if err != nil {
		t.Fatalf("the output does not parse: %v\n%s", err, raw)
	}
	found := map[string]string{}
	err = e.Walk(func(_ []int, part *message.Entity, err error) error {
		if err != nil {
			return err
		}
		kind, _, err := part.Header.ContentType()
		if err != nil || strings.HasPrefix(kind, "multipart/") {
			return err
		}
		body, err := io.ReadAll(part.Body)
		found[kind] += string(body)
		return err
	})
	if err != nil {
		t.Fatalf("the output does not parse: %v\n%s", err, raw)
	}
	return e.Header, found
}

func report(kind gateway.NoticeKind) gateway.Report {
	return gateway.Report{
		Kind: kind, ID: gateway.PackageID{1}, Date: when, To: "jane@example.org", EnvelopeID: "QQ314159", OriginalRecipient: "rfc822;" + public,
		Recipient: public, Status: "5.1.1", Code: 550, Diagnostic: "no such user", Remote: true, Arrived: when.Add(-time.Hour),
		RetryUntil: when.Add(96 * time.Hour), Header: strings.NewReader("From: jane@example.org\r\nSubject: Hello\r\n\r\nbody never\r\n"),
	}
}

func written(t testing.TB, r gateway.Report) string {
	t.Helper()
	var out strings.Builder
	if err := (Writer{Hostname: "mx.example.com"}).Write(&out, r); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func checkShape(t testing.TB, raw string) {
	t.Helper()
	if strings.ReplaceAll(raw, "\r\n", "") != strings.NewReplacer("\r", "", "\n", "").Replace(raw) {
		t.Error("a bare CR or LF")
	}
	for line := range strings.SplitSeq(raw, "\r\n") {
		if len(line) > 998 {
			t.Errorf("a line of %d octets", len(line))
		}
	}
	if i := strings.IndexFunc(raw, func(c rune) bool { return c > 126 }); i >= 0 {
		t.Errorf("not 7-bit: %q", raw[i:min(i+10, len(raw))])
	}
}

func TestFailedNotice(t *testing.T) {
	raw := written(t, report(gateway.NoticeFailed))
	checkShape(t, raw)
	header, parts := leaves(t, raw)
	for name, want := range map[string]string{
		"From": "Mail Delivery System <postmaster@mx.example.com>", "To": "<jane@example.org>", "Auto-Submitted": "auto-replied", "Mime-Version": "1.0",
		"Message-Id": "<01000000000000000000000000000000@mx.example.com>", "Date": "Sun, 01 Mar 2026 12:00:00 +0000",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if kind, params, _ := header.ContentType(); kind != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Errorf("Content-Type: %s %v", kind, params)
	}
	const status = `
Reporting-MTA: dns; mx.example.com
Original-Envelope-Id: QQ314159
Arrival-Date: Sun, 01 Mar 2026 11:00:00 +0000

Original-Recipient: rfc822; support@example.com
Final-Recipient: rfc822; support@example.com
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 no such user
Last-Attempt-Date: Sun, 01 Mar 2026 12:00:00 +0000
`
	if got := strings.TrimSpace(parts["message/delivery-status"]); got != strings.TrimSpace(crlf(status)) {
		t.Errorf("delivery-status:\n%s", got)
	}
	if got := parts["text/rfc822-headers"]; got != "From: jane@example.org\r\nSubject: Hello\r\n" {
		t.Errorf("returned header %q", got)
	}
	if !strings.Contains(parts["text/plain"], "was not delivered") || !strings.Contains(parts["text/plain"], "no such user") || strings.Contains(raw, "body never") {
		t.Errorf("text:\n%s", parts["text/plain"])
	}
}

func TestOtherNotices(t *testing.T) {
	r := report(gateway.NoticeDelayed)
	r.Status = "nonsense"
	_, parts := leaves(t, written(t, r))
	for _, want := range []string{"Action: delayed\r\n", "Status: 4.0.0\r\n", "Will-Retry-Until: Thu, 05 Mar 2026 12:00:00 +0000"} {
		if !strings.Contains(parts["message/delivery-status"], want) {
			t.Errorf("delayed: no %q", want)
		}
	}
	if !strings.Contains(parts["text/plain"], "until 5 March 2026") {
		t.Errorf("text:\n%s", parts["text/plain"])
	}
	r = report(gateway.NoticeRelayed)
	r.Status, r.Diagnostic, r.Remote, r.Header, r.Code = "2.0.0", "", false, nil, 0
	_, parts = leaves(t, written(t, r))
	if s := parts["message/delivery-status"]; !strings.Contains(s, "Action: relayed\r\n") || strings.Contains(s, "Diagnostic-Code") || strings.Contains(s, "Will-Retry") {
		t.Errorf("relayed:\n%s", s)
	}
	if _, ok := parts["text/rfc822-headers"]; ok {
		t.Error("a returned header where there is none")
	}
	if err := (Writer{}).Write(io.Discard, gateway.Report{Kind: "other"}); err == nil {
		t.Error("an unknown kind passed")
	}
}

func TestNoHeaderInjection(t *testing.T) {
	const evil = "x\r\nBcc: victim@example.org\r\n\r\n\x00\u2028é<>;"
	r := report(gateway.NoticeFailed)
	r.To, r.EnvelopeID, r.OriginalRecipient, r.Recipient, r.Diagnostic, r.Status = evil+"@example.org", evil, "rfc822;"+evil, evil, evil+strings.Repeat("y", 3000), evil
	raw := written(t, r)
	checkShape(t, raw)
	if strings.Contains(raw, "\nBcc:") {
		t.Errorf("injected:\n%s", raw)
	}
	leaves(t, raw)
}

func TestUTF8Notice(t *testing.T) {
	r := report(gateway.NoticeFailed)
	r.To, r.Recipient = "jörg@bücher.example", "hilfe-ü@example.com"
	r.Header = strings.NewReader("Subject: Grüße\r\nX: " + strings.Repeat("z", 1200) + "\r\n\r\n")
	raw := written(t, r)
	checkShape(t, raw)
	header, parts := leaves(t, raw)
	decoded, err := new(mime.WordDecoder).DecodeHeader(header.Get("To"))
	if err != nil || decoded != "jörg@xn--bcher-kva.example :;" {
		t.Errorf("To: %q, %v", decoded, err)
	}
	if want := `Final-Recipient: utf-8; hilfe-\x{FC}@example.com`; !strings.Contains(parts["message/delivery-status"], want) {
		t.Errorf("no %s in\n%s", want, parts["message/delivery-status"])
	}
	if !strings.Contains(parts["text/rfc822-headers"], "Grüße") || !strings.Contains(parts["text/rfc822-headers"], strings.Repeat("z", 1200)) {
		t.Errorf("returned header %q", parts["text/rfc822-headers"])
	}
}

func TestReturnedHeaderIsBounded(t *testing.T) {
	r := report(gateway.NoticeFailed)
	r.Header = strings.NewReader(strings.Repeat("X-Long: "+strings.Repeat("v", 90)+"\r\n", 5000))
	_, parts := leaves(t, written(t, r))
	got := parts["text/rfc822-headers"]
	if len(got) > maxHeader || len(got) < maxHeader-200 || !strings.HasSuffix(got, "v\r\n") {
		t.Errorf("%d bytes, ending %q", len(got), got[max(0, len(got)-5):])
	}
	broken := errors.New("broken")
	r.Header = io.MultiReader(strings.NewReader("A: b\r\n"), failing{broken})
	if err := (Writer{Hostname: "mx.example.com"}).Write(io.Discard, r); !errors.Is(err, broken) {
		t.Errorf("a broken header: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)          { return 0, f.err }
func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }
