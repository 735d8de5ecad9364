package intake_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"

	"sealpost/gateway"
	"sealpost/gateway/intake"
)

// judges say what a test wants of every mail.
type judges struct {
	authentication gateway.Authentication
	scan           gateway.Scan
	err            error
}

func (j *judges) Authenticate(context.Context, gateway.Envelope, intake.Mail) (gateway.Authentication, []byte, error) {
	return j.authentication, []byte("Authentication-Results: " + hostname + "; dmarc=" + string(j.authentication.DMARC) + "\r\n"), nil
}

func (j *judges) Scan(_ context.Context, mail io.Reader, size int64) (gateway.Scan, error) {
	if n, err := io.Copy(io.Discard, mail); err != nil || n != size {
		return gateway.Scan{}, errors.New("the mail was not given whole")
	}
	return j.scan, j.err
}

const greeting = "From: Ada <ada@customer.example>\r\nSubject: Hello\r\nMessage-ID: <1@customer.example>\r\n\r\nHello\r\n"

func TestJudgesDecide(t *testing.T) {
	fails := func(policy string) gateway.Authentication {
		return gateway.Authentication{DMARC: gateway.AuthFail, DMARCPolicy: policy}
	}
	unknown := func(policy string) gateway.Authentication {
		return gateway.Authentication{DMARC: gateway.AuthTempError, DMARCPolicy: policy}
	}
	nobody := gateway.Authentication{DMARC: gateway.AuthPermError, NoAuthor: true}
	const (
		disowned     = "The domain of this mail's sender says that it did not send it"
		unproven     = "It could not be checked who sent this mail"
		unprovenPath = "the return path is not proven"
	)
	infected := gateway.Scan{Verdict: gateway.ScanInfected, Signature: "Test.Virus"}
	tests := []struct {
		name    string
		judges  judges
		dmarc   gateway.DMARCPolicy
		onVirus gateway.Verdict
		down    gateway.Verdict
		relay   bool
		code    gateway.Code
		whole   bool
		says    string // the notice, why
		silence string
	}{
		{name: "nothing found"},
		{name: "fail is noted", judges: judges{authentication: fails("reject")}, dmarc: gateway.DMARCNote, silence: "DMARC failed"},
		{name: "fail without a policy", judges: judges{authentication: fails("none")}, dmarc: gateway.DMARCReject, silence: "DMARC failed"},
		{name: "fail is sealed", judges: judges{authentication: fails("quarantine")}, dmarc: gateway.DMARCSeal, whole: true, says: disowned, silence: "DMARC failed"},
		{name: "fail behind a relay is not refused", judges: judges{authentication: fails("reject")}, dmarc: gateway.DMARCReject, relay: true, whole: true, says: disowned, silence: "DMARC failed"},
		{name: "an advisory fail", judges: judges{authentication: gateway.Authentication{DMARC: gateway.AuthFail, DMARCPolicy: "reject", Advisory: true}}, dmarc: gateway.DMARCReject, relay: true},
		{name: "no author", judges: judges{authentication: nobody}, dmarc: gateway.DMARCSeal, whole: true, says: unproven},
		{name: "no author where reject is set", judges: judges{authentication: nobody}, dmarc: gateway.DMARCReject, whole: true, says: unproven},
		{name: "no author is noted", judges: judges{authentication: nobody}, dmarc: gateway.DMARCNote},
		{name: "a broken record", judges: judges{authentication: gateway.Authentication{DMARC: gateway.AuthPermError}}, dmarc: gateway.DMARCReject},
		{name: "quarantine where reject is set", judges: judges{authentication: fails("quarantine")}, dmarc: gateway.DMARCReject, whole: true, silence: "DMARC failed"},
		{name: "fail is refused", judges: judges{authentication: fails("reject")}, dmarc: gateway.DMARCReject, code: gateway.CodeRejected},
		{name: "DNS trouble over the policy", judges: judges{authentication: unknown("")}, dmarc: gateway.DMARCReject, whole: true, says: unproven},
		{name: "DNS trouble, reject is asked for", judges: judges{authentication: unknown("reject")}, dmarc: gateway.DMARCReject, whole: true, says: unproven},
		{name: "DNS trouble, quarantine is asked for", judges: judges{authentication: unknown("quarantine")}, dmarc: gateway.DMARCSeal, whole: true, says: unproven},
		{name: "DNS trouble, nothing is asked for", judges: judges{authentication: unknown("none")}, dmarc: gateway.DMARCReject},
		{name: "DNS trouble is noted", judges: judges{authentication: unknown("")}, dmarc: gateway.DMARCNote},
		{name: "SPF alone", judges: judges{authentication: gateway.Authentication{SPF: gateway.AuthFail, DMARC: gateway.AuthNone}}, silence: unprovenPath},
		{name: "SPF doubts", judges: judges{authentication: gateway.Authentication{SPF: gateway.AuthSoftFail}}, silence: unprovenPath},
		{name: "SPF says nothing", judges: judges{authentication: gateway.Authentication{SPF: gateway.AuthNeutral}}},
		{name: "SPF fails, DMARC passes for another", judges: judges{authentication: gateway.Authentication{SPF: gateway.AuthFail, DMARC: gateway.AuthPass}}, silence: unprovenPath},
		{name: "SPF fails, its organisation signed", judges: judges{authentication: gateway.Authentication{SPF: gateway.AuthFail, DMARC: gateway.AuthPass, ReturnPathProven: true}}},
		{name: "virus", judges: judges{scan: infected}, onVirus: gateway.Reject, code: gateway.CodeRejected},
		{name: "virus, no setting", judges: judges{scan: infected}, code: gateway.CodeRejected},
		{name: "virus is sealed", judges: judges{scan: infected}, onVirus: gateway.Seal, whole: true, says: "A virus scanner found something in this mail."},
		{name: "virus behind a relay", judges: judges{scan: infected}, onVirus: gateway.Reject, relay: true, whole: true, says: "A virus scanner found something in this mail."},
		{name: "scanner away", judges: judges{err: errBroken}, down: gateway.Defer, code: gateway.CodeUnavailable},
		{name: "scanner away, no setting", judges: judges{err: errBroken}, code: gateway.CodeUnavailable},
		{name: "scanner away, pass", judges: judges{err: errBroken}, down: gateway.Keep},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, func(o *intake.Options) {
				o.Authenticator, o.Scanner, o.OnVirus, o.ScannerDown = &test.judges, &test.judges, test.onVirus, test.down
			})
			r := supportRoute()
			r.DMARC = test.dmarc
			e := envelope(r)
			e.TrustedRelay = test.relay
			if test.code != "" {
				_, err := f.intake.Accept(t.Context(), e, f.spooled(t, greeting))
				if gateway.ErrorCode(err) != test.code {
					t.Errorf("code %q of %v, want %q", gateway.ErrorCode(err), err, test.code)
				}
				if len(f.database.refusals) != 1 || f.database.refusals[0].MessageID.Reveal() != "<1@customer.example>" {
					t.Errorf("remembered %v", f.database.refusals)
				}
				return
			}
			m := f.accept(t, e, greeting)
			if !strings.Contains(m.copy, test.says) {
				t.Errorf("the notice does not say %q:\n%s", test.says, m.copy)
			}
			if (m.Package != nil) != test.whole || m.Silence != test.silence {
				t.Errorf("sealed %v, silence %q; want %v, %q", m.Package != nil, m.Silence, test.whole, test.silence)
			}
			if !strings.Contains(m.copy, "\r\nAuthentication-Results: "+hostname) {
				t.Errorf("no result in\n%s", m.copy)
			}
			if test.whole && strings.Contains(m.copy, "Hello\r\n\r\n") || m.Package != nil && m.Package.Scan != m.Scan {
				t.Errorf("the mail goes on, or its package has %+v", m.Package.Scan)
			}
		})
	}
}

// A bounce is nothing that can be sealed: one with a virus is refused, behind a relay too.
func TestInfectedBounceIsRefused(t *testing.T) {
	infected := &judges{scan: gateway.Scan{Verdict: gateway.ScanInfected}}
	f := newFixture(t, func(o *intake.Options) { o.Scanner, o.OnVirus = infected, gateway.Seal })
	e := envelope(route(gateway.ReturnRoute, "ada@customer.example", day))
	e.TrustedRelay = true
	if _, err := f.intake.Accept(t.Context(), e, f.spooled(t, greeting)); gateway.ErrorCode(err) != gateway.CodeRejected {
		t.Errorf("%v", err)
	}
}

// Where nothing proves the return path, its owner hears of failures at most: whoever names another as the sender must
// not make us write to him at will.
func TestUnprovenReturnPathHearsOfFailuresOnly(t *testing.T) {
	proven := gateway.Authentication{SPF: gateway.AuthPass, ReturnPathProven: true}
	for _, test := range []struct {
		authentication gateway.Authentication
		asked, want    string
	}{
		{proven, "SUCCESS,FAILURE,DELAY", "SUCCESS,FAILURE,DELAY"},
		{proven, "", ""},
		{gateway.Authentication{SPF: gateway.AuthNone}, "SUCCESS,FAILURE,DELAY", "FAILURE"},
		{gateway.Authentication{SPF: gateway.AuthTempError}, "", "FAILURE"},
		{gateway.Authentication{SPF: gateway.AuthNeutral}, "SUCCESS,DELAY", "NEVER"},
		{gateway.Authentication{SPF: gateway.AuthNone}, "NEVER", "NEVER"},
		{gateway.Authentication{SPF: gateway.AuthPass}, "SUCCESS", "NEVER"}, // of HELO
	} {
		f := newFixture(t, func(o *intake.Options) { o.Authenticator = &judges{authentication: test.authentication} })
		e := envelope()
		e.Recipients[0].DSN.Notify = test.asked
		if m := f.accept(t, e, greeting); m.Deliveries[0].DSN.Notify != test.want || m.Silence != "" {
			t.Errorf("%+v, asked %q: %q and silence %q, want %q", test.authentication, test.asked, m.Deliveries[0].DSN.Notify, m.Silence, test.want)
		}
	}
	f := newFixture(t) // nobody judges senders
	e := envelope()
	e.Recipients[0].DSN.Notify = "SUCCESS"
	if m := f.accept(t, e, greeting); m.Deliveries[0].DSN.Notify != "SUCCESS" {
		t.Errorf("without an authenticator: %q", m.Deliveries[0].DSN.Notify)
	}
}

// A mail in which nothing is sealed leaves with its DKIM signature intact, and without a result forged in our name.
func TestSignedMailStillVerifies(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	var signed bytes.Buffer
	if err := dkim.Sign(&signed, strings.NewReader(greeting), &dkim.SignOptions{Domain: "customer.example", Selector: "s", Signer: private}); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, func(o *intake.Options) {
		o.IsOurs = func(value string) bool { return strings.HasPrefix(value, hostname) }
	})
	m := f.accept(t, envelope(), "Authentication-Results : "+hostname+";\r\n\tdkim=pass header.d=forged.example\r\n"+signed.String())
	if strings.Contains(m.copy, "forged.example") {
		t.Errorf("the forged result goes on:\n%s", m.copy)
	}
	found, err := dkim.VerifyWithOptions(strings.NewReader(m.copy), &dkim.VerifyOptions{LookupTXT: func(string) ([]string, error) {
		return []string{"v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public)}, nil
	}})
	if err != nil || len(found) != 1 || found[0].Err != nil {
		t.Errorf("verified %+v, %v", found, err)
	}
}

func TestRepeatIsOnlyWhatWasLost(t *testing.T) {
	f := newFixture(t, func(o *intake.Options) { o.FingerprintKey = bytes.Repeat([]byte{7}, 32) })
	first := f.accept(t, envelope(), greeting)
	f.accept(t, envelope(), greeting) // nobody has said that its 250 was lost
	f.intake.Settle(first.ID.String(), false)
	id, err := f.intake.Accept(t.Context(), envelope(), f.spooled(t, greeting))
	if err != nil || id != first.ID.String() || len(f.database.mails) != 2 {
		t.Errorf("the repeat is %s, %v, and %d mails were committed", id, err, len(f.database.mails))
	}
	other := envelope()
	other.MailFrom = "bob@customer.example"
	f.accept(t, other, greeting)
	f.accept(t, envelope(), greeting+"more\r\n")
	if m := f.accept(t, envelope(), strings.Replace(greeting, "Message-ID: <1@customer.example>\r\n", "", 1)); m.Fingerprint != nil {
		t.Error("a mail without a Message-ID has a fingerprint")
	}
}

// TestForerunnerDoesNotTakeTheTrueMailsPlace: whoever sends a copy of a mail first, from elsewhere or judged otherwise,
// and cuts the connection, does not keep the true one from being delivered.
func TestForerunnerDoesNotTakeTheTrueMailsPlace(t *testing.T) {
	pass := gateway.Authentication{SPF: gateway.AuthPass, DKIM: gateway.AuthPass, DMARC: gateway.AuthPass, DMARCPolicy: "reject"}
	fail := pass
	fail.SPF, fail.DMARC = gateway.AuthFail, gateway.AuthFail
	for _, test := range []struct {
		name     string
		first    gateway.Authentication
		from, to string // the clients of the first and of the second
		relay    bool   // the second comes by one
		repeated bool
	}{
		{"from elsewhere", pass, "198.51.100.9", "192.0.2.7", false, false},
		{"judged otherwise", fail, "192.0.2.7", "192.0.2.7", false, false},
		{"not by the relay", pass, "192.0.2.7", "192.0.2.7", true, false},
		{"from elsewhere, IPv6", pass, "2001:db8:1::9", "2001:db8:2::9", false, false},
		{"from a neighbour", pass, "192.0.2.99", "192.0.2.7", false, true},
		{"from a neighbour, IPv6", pass, "2001:db8:1:2::9", "2001:db8:1:3::9", false, true},
		{"from a mapped address", pass, "::ffff:192.0.2.7", "192.0.2.7", false, true},
	} {
		judge := &judges{authentication: test.first}
		f := newFixture(t, func(o *intake.Options) {
			o.FingerprintKey, o.Authenticator = bytes.Repeat([]byte{7}, 32), judge
		})
		e := envelope()
		e.Client = netip.MustParseAddr(test.from)
		first := f.accept(t, e, greeting)
		f.intake.Settle(first.ID.String(), false)
		judge.authentication = pass
		e.Client, e.TrustedRelay = netip.MustParseAddr(test.to), test.relay
		id, err := f.intake.Accept(t.Context(), e, f.spooled(t, greeting))
		if err != nil || (id == first.ID.String()) != test.repeated {
			t.Errorf("%s: repeated %v, %v", test.name, id == first.ID.String(), err)
		}
	}
}

func TestMachinesAreNeverAnswered(t *testing.T) {
	tests := []struct{ from, field, want string }{
		{"ada@customer.example", "", ""},
		{"", "", "null sender"},
		{"owner-list@customer.example", "", "automatic sender"},
		{"SRS0=abcd=ef=customer.example=ada@Bounces.Example.com", "", "automatic sender"},
		{"SRS0=abcd=ef=customer.example=ada@forwarder.example", "", ""},
		{"ada@customer.example", "Auto-Submitted: no\r\n", ""},
		{"ada@customer.example", "Auto-Submitted: auto-replied (vacation)\r\n", "automatic mail"},
		{"ada@customer.example", "Precedence: Bulk\r\n", "automatic mail"},
		{"ada@customer.example", "List-Unsubscribe: <mailto:x@customer.example>\r\n", "automatic mail"},
	}
	f := newFixture(t, func(o *intake.Options) { o.ReturnDomain = "bounces.example.com" })
	for _, test := range tests {
		e := envelope()
		e.MailFrom = test.from
		if m := f.accept(t, e, test.field+greeting); m.Silence != test.want {
			t.Errorf("<%s> %q: silence %q, want %q", test.from, test.field, m.Silence, test.want)
		}
	}
}

// What Salesforce would drop without a word is counted; the mail goes on.
func TestWhatSalesforceDropsIsCounted(t *testing.T) {
	f := newFixture(t)
	f.database.fail["CommitMail"] = errBroken
	for range 16 { // what is refused does not get there
		if _, err := f.intake.Accept(t.Context(), envelope(), f.spooled(t, greeting)); err == nil {
			t.Fatal("the mail was accepted")
		}
	}
	delete(f.database.fail, "CommitMail")
	for range 16 {
		f.accept(t, envelope(), greeting)
	}
	f.accept(t, envelope(), greeting+"another body\r\n")
	f.accept(t, envelope(), "X-SFDC-AutoResponse: 1\r\n"+strings.Replace(greeting, "Hello", "Other", 1))
	for _, name := range []string{"sealpost_intake_loop_suspected_total", "sealpost_intake_autoresponse_total"} {
		if got := value(t, f.registry, name, ""); got != 1 {
			t.Errorf("%s is %v, want 1", name, got)
		}
	}
}
