package intake_test

import (
	"net/mail"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sealpost/gateway"
	"sealpost/gateway/intake"
)

// trace is what was put above a mail that stays as it is.
func trace(t *testing.T, m taken) string {
	t.Helper()
	above, ok := strings.CutSuffix(m.copy, plainMail)
	if !ok {
		t.Fatalf("the mail is changed:\n%s", m.copy)
	}
	return above
}

func TestReceivedNamesThePublicAddressOfAnOnlyRecipient(t *testing.T) {
	f := newFixture(t)
	support := supportRoute()
	sales := route("sales@example.com", "sales@x-4d5e6f.case.salesforce.com", 90*day)
	help := route("help@example.com", support.ForwardTo, 30*day)
	tests := []struct {
		name string
		to   []gateway.Route
		want string
	}{
		{"one", []gateway.Route{support}, "\r\n\tfor <support@example.com>;"},
		{"postmaster", []gateway.Route{route("postmaster", "root@internal.example", day)}, "\r\n\tfor <postmaster>;"},
		{"two mailboxes", []gateway.Route{support, sales}, ""},
		{"two addresses of one mailbox", []gateway.Route{support, help}, ""},
		{"not ASCII", []gateway.Route{route("hilfe@bücher.example", "a@internal.example", day)}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			above := trace(t, f.accept(t, envelope(test.to...), plainMail))
			if strings.Contains(above, "for <") != (test.want != "") || !strings.Contains(above, test.want) {
				t.Errorf("want %q in\n%s", test.want, above)
			}
			for _, r := range test.to {
				if strings.Contains(above, r.ForwardTo) {
					t.Errorf("forward_to is told:\n%s", above)
				}
			}
			if strings.Contains(above, "SUPPORT@") {
				t.Errorf("the address is not as configured:\n%s", above)
			}
		})
	}
}

// TestForwardToIsNowhereInTheMail covers the notice too: who learns it bypasses us.
func TestForwardToIsNowhereInTheMail(t *testing.T) {
	f := newFixture(t)
	for _, mail := range []string{plainMail, mixed("Hello", twoFiles()...), "Content-Type: multipart/mixed\r\n\r\ntext\r\n"} {
		if m := f.accept(t, envelope(), mail); strings.Contains(strings.ToLower(m.copy), "case.salesforce.com") {
			t.Errorf("forward_to is told:\n%s", m.copy)
		}
	}
}

func TestReceivedCannotBeForgedByTheClientsName(t *testing.T) {
	f := newFixture(t)
	tests := []struct{ hello, want string }{
		{"mail.customer.example", "mail.customer.example"},
		{"[192.0.2.7]", "[192.0.2.7]"},
		{"[IPv6:2001:db8::7]", "[IPv6:2001:db8::7]"},
		{"under_score-1", "under_score-1"},
		{"", "unknown"},
		{"a\r\nX-Forged: 1", "unknown"},
		{"a\nX-Forged: 1", "unknown"},
		{"a\x00", "unknown"},
		{"a (comment)", "unknown"},
		{"a)", "unknown"},
		{"a b", "unknown"},
		{"a;b", "unknown"},
		{"<a@b>", "unknown"},
		{`a"b`, "unknown"},
		{`a\b`, "unknown"},
		{"bücher.example", "unknown"},
		{strings.Repeat("a", 255), strings.Repeat("a", 255)},
		{strings.Repeat("a", 256), "unknown"},
	}
	for _, test := range tests {
		e := envelope()
		e.Hello = test.hello
		m := f.accept(t, e, plainMail)
		want := strings.Replace(received(m.ID), "mail.customer.example", test.want, 1)
		if got := trace(t, m); got != want {
			t.Errorf("%q gives\n%s", test.hello, got)
		}
	}
}

func TestReceivedWritesAddressesAsRFC5321Does(t *testing.T) {
	f := newFixture(t)
	for address, want := range map[string]string{
		"192.0.2.7":        "([192.0.2.7])",
		"::ffff:192.0.2.7": "([192.0.2.7])",
		"2001:db8::7":      "([IPv6:2001:db8::7])",
		"::1":              "([IPv6:::1])",
	} {
		e := envelope()
		e.Client = netip.MustParseAddr(address)
		if got := trace(t, f.accept(t, e, plainMail)); !strings.Contains(got, "from mail.customer.example "+want+"\r\n") {
			t.Errorf("%s gives\n%s", address, got)
		}
	}
}

// TestReceivedIsReadByOthers parses the field with the standard library.
func TestReceivedIsReadByOthers(t *testing.T) {
	f := newFixture(t, func(o *intake.Options) { o.Hostname = "other.example.com" })
	e := envelope()
	e.Protocol = "UTF8SMTPS"
	m := f.accept(t, e, plainMail)
	message, err := mail.ReadMessage(strings.NewReader(m.copy))
	if err != nil {
		t.Fatal(err)
	}
	field := message.Header.Get("Received")
	at := strings.LastIndex(field, ";")
	if want := "by other.example.com with UTF8SMTPS id " + m.ID.String(); !strings.Contains(field, want) || at < 0 {
		t.Fatalf("no %q in %q", want, field)
	}
	when, err := mail.ParseDate(strings.TrimSpace(field[at+1:]))
	if err != nil || !when.Equal(e.Received.Truncate(time.Second)) {
		t.Errorf("date %v (%v), want %v", when, err, e.Received)
	}
	for line := range strings.SplitSeq(trace(t, m), "\r\n") {
		if len(line) > 998 { // RFC 5322 section 2.1.1
			t.Errorf("a line of %d characters", len(line))
		}
	}
}
