package intake_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"sealpost/gateway"
	"sealpost/gateway/intake"
	"sealpost/gateway/policy"
	"sealpost/gateway/rewrite"
)

// enriched is a mail in one text of a kind that Salesforce has no limit for but that of the mail, of exactly that many bytes.
func enriched(size int) string {
	const head = "From: Ada <ada@customer.example>\r\nMessage-ID: <1@customer.example>\r\nContent-Type: text/enriched\r\n\r\n"
	line := strings.Repeat("x", 98) + "\r\n"
	body := size - len(head) - len("\r\n")
	return head + strings.Repeat(line, body/len(line)) + strings.Repeat("x", body%len(line)) + "\r\n"
}

// preview looks at the mail by the options that accepted it.
func preview(t *testing.T, e gateway.Envelope, mail string, change ...func(*intake.Options)) *intake.Preview {
	t.Helper()
	options := intake.Options{
		Hostname: hostname, ShowFilenames: true, Limits: rewrite.DefaultLimits(), Rules: rewrite.Rules{Judge: policy.Default().Judge}, Logger: slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&options)
	}
	shown, err := intake.NewPreview(t.Context(), options, e, strings.NewReader(mail))
	if err != nil {
		t.Fatal(err)
	}
	return shown
}

// What would go on is measured before anything is sealed or answered: over 35 MB the mail is sealed whole.
func TestMailTooLargeForSalesforceIsSealedWhole(t *testing.T) {
	trace := len(received(gateway.PackageID{}))
	tests := []struct {
		name  string
		mail  string
		whole bool
	}{
		{"at the limit", enriched(policy.MaxSize - trace), false},
		{"over it", enriched(policy.MaxSize - trace + 1), true},
		{"a large file", mixed("Hello", file{"a.bin", "application/octet-stream", strings.Repeat("x", policy.MaxSize)}), false},
		{"a large file and a large text", strings.Replace(mixed(strings.Repeat(strings.Repeat("x", 98)+"\r\n", policy.MaxSize/100), twoFiles()[0]), "text/plain", "text/enriched", 1), true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			m := f.accept(t, envelope(), test.mail)
			if m.Deliveries[0].Hold != "" || m.Copy.Size > policy.MaxSize {
				t.Errorf("%d bytes go on, held for %q", m.Copy.Size, m.Deliveries[0].Hold)
			}
			shown := preview(t, envelope(), test.mail)
			if why, whole := shown.Whole(); whole != test.whole || len(shown.Findings) > 0 || whole && !strings.Contains(why, "larger than Salesforce takes") {
				t.Errorf("preview: whole %v: %q, %v", whole, why, shown.Findings)
			}
			if !test.whole {
				return
			}
			if got := f.open(t, m); len(got) != 1 || got[0].name != "message.eml" || got[0].content != test.mail {
				t.Error("the mail is not sealed whole")
			}
			if m.Copy.Size > 10000 || !strings.Contains(m.copy, "This mail is too large for Salesforce") {
				t.Errorf("%d bytes go on", m.Copy.Size)
			}
		})
	}
}

// What Salesforce would bounce is held with its reason, or sealed whole where the header alone is too long. The fields
// are judged as they go on.
func TestSalesforceLimits(t *testing.T) {
	long := func(name, value string) string {
		return strings.Replace(greeting, name+": "+value, name+": "+strings.Repeat("long ", 900)+value, 1)
	}
	to := func(n int) string {
		return "To: " + strings.Repeat("somebody@customer.example,\r\n ", n) + "support@example.com\r\n" + greeting
	}
	notes := strings.Repeat("X-Note: "+strings.Repeat("x", 900)+"\r\n", 40)
	tests := []struct {
		name, mail string
		disowned   bool // sealed whole by DMARC
		hold       string
		whole      bool
	}{
		{"nothing", greeting, false, "", false},
		{"subject", long("Subject", "Hello"), false, "its Subject has 4", false},
		{"subject, whole", long("Subject", "Hello"), true, "", true},
		{"To", to(200), false, "its To has 5", false},
		{"To, whole", to(200), true, "", true},
		{"author", long("From", "Ada"), false, "its From has 4", false},
		{"author, whole", long("From", "Ada"), true, "its From is too long to go on", true},
		{"no author, whole", "Subject: x\r\n\r\ntext\r\n", true, "", true},
		{"header", notes + greeting, false, "", true},
		{"header and subject", notes + long("Subject", "Hello"), false, "", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			j := &judges{}
			r := supportRoute()
			if test.disowned {
				j.authentication = gateway.Authentication{DMARC: gateway.AuthFail, DMARCPolicy: "reject"}
				r.DMARC = gateway.DMARCSeal
			}
			f := newFixture(t, func(o *intake.Options) { o.Authenticator = j })
			m := f.accept(t, envelope(r), test.mail)
			if hold := m.Deliveries[0].Hold; (hold == "") != (test.hold == "") || !strings.Contains(hold, test.hold) {
				t.Errorf("held for %q, want %q", hold, test.hold)
			}
			if (m.Package != nil) != test.whole || test.whole && (strings.Contains(m.copy, "X-Note") || strings.Contains(m.copy, "long long")) {
				t.Errorf("sealed %v:\n%.600s", m.Package != nil, m.copy)
			}
		})
	}
}

// An ordinary mailbox has none of Salesforce's limits.
func TestPostmasterHasNoneOfSalesforcesLimits(t *testing.T) {
	f := newFixture(t)
	mail := strings.Repeat("X-Note: "+strings.Repeat("x", 900)+"\r\n", 40) + strings.Replace(greeting, "Hello", strings.Repeat("long ", 900), 1)
	m := f.accept(t, envelope(route("postmaster", "postmaster@example.com", day)), mail)
	if m.Deliveries[0].Hold != "" || m.Package != nil || !strings.HasSuffix(m.copy, mail) {
		t.Errorf("held for %q, sealed %v", m.Deliveries[0].Hold, m.Package != nil)
	}
}

// Email-to-Case cuts a long page from its end: it stays, and all of it can be opened.
func TestLongPageCanBeOpenedWhole(t *testing.T) {
	page := "<html><body>" + strings.Repeat("<p>A long page.</p>\r\n", 10000) + "</body></html>\r\n"
	mail := "From: Ada <ada@customer.example>\r\nMessage-ID: <1@customer.example>\r\nContent-Type: text/html; charset=iso-8859-1\r\n\r\n" + page
	f := newFixture(t)
	m := f.accept(t, envelope(), mail)
	if got := f.open(t, m); len(got) != 1 || got[0] != (file{"message.html", "text/html", page}) {
		t.Fatalf("%d items, or another than the page", len(got))
	}
	before, rest, _ := strings.Cut(m.copy, "\r\n<div role=\"note\"")
	_, after, _ := strings.Cut(rest, "</div>\r\n")
	if before+after != received(m.ID)+mail {
		t.Error("more is changed than the notice adds")
	}
	shown := preview(t, envelope(), mail)
	if part := shown.Parts[0]; part.Verdict != gateway.Keep || !strings.Contains(part.Why, "a copy is sealed as message.html") {
		t.Errorf("preview: %+v", part)
	}
	var would bytes.Buffer
	if err := shown.Write(&would); err != nil || int64(would.Len()) != m.Copy.Size {
		t.Errorf("preview writes %d bytes, %d go on, %v", would.Len(), m.Copy.Size, err)
	}
}

// countingSpool counts the bytes that are read.
type countingSpool struct {
	gateway.Spooled
	read int64
}

func (s *countingSpool) ReadAt(p []byte, offset int64) (int, error) {
	n, err := s.Spooled.ReadAt(p, offset)
	s.read += int64(n)
	return n, err
}

// One pass over the spool is for repeats and for loops.
func TestRepeatsAndLoopsAreWatchedInOnePass(t *testing.T) {
	mail := enriched(3 << 20)
	reads := func(key []byte) int64 {
		f := newFixture(t, func(o *intake.Options) { o.FingerprintKey = key })
		spooled := &countingSpool{Spooled: f.spooled(t, mail)}
		if _, err := f.intake.Accept(t.Context(), envelope(), spooled); err != nil {
			t.Fatal(err)
		}
		if known := f.database.mails[0].Fingerprint != nil; known != (key != nil) {
			t.Fatalf("fingerprint %v", known)
		}
		return spooled.read
	}
	without, with := reads(nil), reads(bytes.Repeat([]byte{7}, 32))
	if more := with - without; more <= 0 || more > 1000 {
		t.Errorf("the fingerprint costs %d bytes to be read, of a mail of %d", more, len(mail))
	}
	if most := int64(3*len(mail)) + 1<<20; with > most { // scan, digest, write
		t.Errorf("%d bytes are read, for a mail of %d", with, len(mail))
	}
}
