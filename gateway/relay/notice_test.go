package relay

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"sealpost/gateway"
)

// fakeReporter writes what it was given, in a form that tests can read.
type fakeReporter struct{ err error }

func (f fakeReporter) Write(w io.Writer, r gateway.Report) error {
	if f.err != nil {
		return f.err
	}
	_, err := fmt.Fprintf(w, "to=%s kind=%s recipient=%s status=%s remote=%v code=%d envid=%s orcpt=%s until=%v\ndiagnostic=%s\nheader=",
		r.To, r.Kind, r.Recipient, r.Status, r.Remote, r.Code, r.EnvelopeID, r.OriginalRecipient, r.RetryUntil.IsZero(), r.Diagnostic)
	if err == nil && r.Header != nil {
		_, err = io.Copy(w, r.Header)
	}
	return err
}

// noticeOf attempts d once at hop.
func noticeOf(t *testing.T, opts Options, d gateway.LeasedDelivery, hop *scriptedHop) finished {
	t.Helper()
	r := run(t, opts, newQueue(d), fakeCopies{d.Mail: text(smallMail)}, hop.start(t))
	defer r.end(t)
	return r.result(t)
}

// TestNotices: who is told what of which end, and that no notice names forward_to or holds a body.
func TestNotices(t *testing.T) {
	start := newQueue().clock
	for name, c := range map[string]struct {
		hop    scriptedHopConfig
		change func(*gateway.LeasedDelivery)
		kind   gateway.NoticeKind
		status string
		untold string
	}{
		"rejected":             {scriptedHopConfig{stageRcpt, replies5, ""}, nil, gateway.NoticeFailed, "5.1.1", ""},
		"given up":             {scriptedHopConfig{stageRcpt, replies4, ""}, since(start.Add(-6 * 24 * time.Hour)), gateway.NoticeFailed, "5.4.7", ""},
		"accepted":             {scriptedHopConfig{}, nil, "", "", ""},
		"deferred, young":      {scriptedHopConfig{stageRcpt, replies4, ""}, received(start.Add(-time.Hour)), "", "", ""},
		"deferred, old":        {scriptedHopConfig{stageRcpt, replies4, ""}, received(start.Add(-5 * time.Hour)), gateway.NoticeDelayed, "4.2.0", ""},
		"deferred, no reply":   {scriptedHopConfig{stageRcpt, closes, ""}, received(start.Add(-5 * time.Hour)), gateway.NoticeDelayed, "4.4.7", ""},
		"deferred, told":       {scriptedHopConfig{stageRcpt, replies4, ""}, told(start.Add(-5 * time.Hour)), "", "", ""},
		"failed DMARC":         {scriptedHopConfig{stageRcpt, replies5, ""}, silence("DMARC failed"), "", "", "DMARC failed"},
		"null sender":          {scriptedHopConfig{stageRcpt, replies5, ""}, from(""), "", "", nullSender},
		"NOTIFY=NEVER":         {scriptedHopConfig{stageRcpt, replies5, ""}, notify("NEVER"), "", "", "the sender asked for none"},
		"no DELAY wanted":      {scriptedHopConfig{stageRcpt, replies4, ""}, notify("FAILURE"), "", "", ""},
		"SUCCESS, no DSN":      {scriptedHopConfig{}, notify("SUCCESS"), gateway.NoticeRelayed, "2.0.0", ""},
		"SUCCESS, DSN, no SRS": {scriptedHopConfig{"", "", "DSN"}, notify("SUCCESS"), gateway.NoticeRelayed, "2.0.0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDelivery(1, len(smallMail))
			d.Received, d.EnvelopeID = start, gateway.NewSecret("env")
			if c.change != nil {
				c.change(&d)
			}
			hop := &scriptedHop{at: c.hop.at, fault: c.hop.fault}
			if c.hop.offer != "" {
				hop.offers = []string{c.hop.offer}
			}
			opts := Options{Reporter: fakeReporter{}, DelayAfter: 4 * time.Hour}
			got := noticeOf(t, opts, d, hop)
			if got.untold != c.untold {
				t.Errorf("untold %q, want %q", got.untold, c.untold)
			}
			if got.notice == nil || c.kind == "" {
				if got.notice != nil || c.kind != "" {
					t.Errorf("notice %v, want %q (%v)", got.notice, c.kind, got.Attempt)
				}
				return
			}
			checkNotice(t, got.notice, c.kind, c.status)
		})
	}
}

type scriptedHopConfig struct {
	at    stage
	fault fault
	offer string
}

func checkNotice(t *testing.T, n *gateway.Notice, kind gateway.NoticeKind, status string) {
	t.Helper()
	m := n.Mail
	written := string(m.Copy.Inline)
	want := fmt.Sprintf("to=%s kind=%s recipient=%s status=%s ", sender, kind, public, status)
	if n.Kind != kind || !strings.HasPrefix(written, want) || !strings.HasSuffix(written, "header=From: a@example.com\r\nSubject: x\r\n") {
		t.Errorf("got %s:\n%s\nwant %s", n.Kind, written, want)
	}
	if strings.Contains(strings.ToLower(written), "salesforce") || strings.Contains(strings.ToLower(written), "caseinbox") {
		t.Errorf("the notice names forward_to:\n%s", written)
	}
	if m.Envelope.MailFrom != "" || m.Silence != nullSender || m.Copy.ID != m.ID || m.Started.IsZero() ||
		m.MessageID.Reveal() != "<"+m.ID.String()+"@mx.example.com>" || len(m.Deliveries) != 1 {
		t.Errorf("the notice is %+v", m)
	}
	if to := m.Deliveries[0].Route; to.Address != gateway.ReturnRoute || to.ForwardTo != sender {
		t.Errorf("it goes by %q", to.Address)
	}
}

func since(at time.Time) func(*gateway.LeasedDelivery) {
	return func(d *gateway.LeasedDelivery) { d.Since = at }
}

func received(at time.Time) func(*gateway.LeasedDelivery) {
	return func(d *gateway.LeasedDelivery) { d.Received = at }
}

func told(at time.Time) func(*gateway.LeasedDelivery) {
	return func(d *gateway.LeasedDelivery) { d.Received, d.Told = at, gateway.NoticeDelayed }
}

func silence(why string) func(*gateway.LeasedDelivery) {
	return func(d *gateway.LeasedDelivery) { d.Silence = why }
}

func from(address string) func(*gateway.LeasedDelivery) {
	return func(d *gateway.LeasedDelivery) { d.Copy.MailFrom = gateway.NewSecret(address) }
}

func notify(words string) func(*gateway.LeasedDelivery) {
	return func(d *gateway.LeasedDelivery) { d.DSN.Notify, d.Received = words, time.Time{} }
}

// TestNoticeThatFailsEndsTheDelivery: the delivery is recorded, the sender untold, and an admin hears of it.
func TestNoticeThatFailsEndsTheDelivery(t *testing.T) {
	d := newDelivery(1, len(smallMail))
	hop := &scriptedHop{at: stageRcpt, fault: replies5}
	opts := Options{Reporter: fakeReporter{errors.New("no words for " + sender)}}
	r := run(t, opts, newQueue(d), fakeCopies{d.Mail: text(smallMail)}, hop.start(t))
	got := r.result(t)
	r.end(t)
	if got.state != gateway.Dead || got.notice != nil || got.untold != "the notice could not be made" {
		t.Errorf("got %s, untold %q", got.state, got.untold)
	}
	if !strings.Contains(r.log.String(), "a notice to the sender cannot be made") {
		t.Error("nothing was logged")
	}
}

// TestNoticeSurvivesTheDatabase: what fails in the queue is asked again, and the notice is made once.
func TestNoticeSurvivesTheDatabase(t *testing.T) {
	d := newDelivery(1, len(smallMail))
	hop := &scriptedHop{at: stageRcpt, fault: replies5}
	q := newQueue(d)
	q.failures = 2
	r := run(t, Options{Reporter: fakeReporter{}}, q, fakeCopies{d.Mail: text(smallMail)}, hop.start(t))
	if got := r.result(t); got.notice == nil || got.state != gateway.Dead {
		t.Errorf("got %s, notice %v", got.state, got.notice)
	}
}

func TestHeaderIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		mail string
		want int
	}{
		"header":    {"A: 1\r\n\r\nbody", 6},
		"no header": {"\r\nbody", 0},
		"no end":    {"A: 1\r\nB: 2", 6},
		"too long":  {strings.Repeat("A: 12345\r\n", 10_000) + "\r\n", maxHeader / 10 * 10},
	} {
		d := newDelivery(1, 0)
		r := New(Options{}, newQueue(), fakeCopies{d.Mail: text(c.mail)})
		if got := r.header(t.Context(), d.Copy); len(got) != c.want {
			t.Errorf("%s: %d bytes, want %d", name, len(got), c.want)
		}
	}
}
