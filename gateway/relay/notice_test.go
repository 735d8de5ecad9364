package relay

import (
	"bufio"
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
	if err != nil || r.Header == nil {
		return err
	}
	for lines := bufio.NewScanner(r.Header); lines.Scan() && lines.Text() != ""; {
		if _, err := io.WriteString(w, lines.Text()+"\r\n"); err != nil {
			return err
		}
	}
	return nil
}

// headerlessReporter cannot write the header of a mail.
type headerlessReporter struct{ fakeReporter }

func (h headerlessReporter) Write(w io.Writer, r gateway.Report) error {
	if r.Header != nil {
		return errors.New("too large")
	}
	return h.fakeReporter.Write(w, r)
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
		"rejected once more":   {scriptedHopConfig{stageRcpt, replies5, ""}, retried(gateway.NoticeFailed), gateway.NoticeFailed, "5.1.1", ""},
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
	if m.ID != gateway.NoticeID(newDelivery(1, 0).ID, 1) {
		t.Error("who knows the attempt does not find the notice")
	}
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

// retried is a delivery that is attempted again although its sender was told of its end.
func retried(kind gateway.NoticeKind) func(*gateway.LeasedDelivery) {
	return func(d *gateway.LeasedDelivery) { d.Told = kind }
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

// TestNoticeOfAnUnheardCommitIsNotSentTwice: when the queue took the attempt and its answer was lost, the lease is gone
// at the next try, and nothing is recorded again.
func TestNoticeOfAnUnheardCommitIsNotSentTwice(t *testing.T) {
	d := newDelivery(1, len(smallMail))
	hop := &scriptedHop{at: stageRcpt, fault: replies5}
	q := newQueue(d)
	q.unheard = 1
	r := run(t, Options{Reporter: fakeReporter{}}, q, fakeCopies{d.Mail: text(smallMail)}, hop.start(t))
	if got := r.result(t); got.notice == nil || got.state != gateway.Dead {
		t.Errorf("got %s, notice %v", got.state, got.notice)
	}
	r.end(t)
	if len(q.done) != 0 || !strings.Contains(r.log.String(), "the lease was lost") {
		t.Errorf("recorded %d times more; the log:\n%s", len(q.done), r.log.String())
	}
}

// TestNoticeRatherWithoutTheHeader: a header that cannot be returned leaves nobody untold.
func TestNoticeRatherWithoutTheHeader(t *testing.T) {
	d := newDelivery(1, len(smallMail))
	got := noticeOf(t, Options{Reporter: headerlessReporter{}}, d, &scriptedHop{at: stageRcpt, fault: replies5})
	if got.notice == nil || !strings.HasSuffix(string(got.notice.Mail.Copy.Inline), "header=") || got.untold != "" {
		t.Errorf("notice %v, untold %q", got.notice, got.untold)
	}
}

// TestOneHeaderAMail: one mail to many routes sends its header back once for each kind of notice, to whomever it names.
func TestOneHeaderAMail(t *testing.T) {
	var all []gateway.LeasedDelivery
	for i := range byte(5) {
		d := newDelivery(i+1, len(smallMail))
		d.Mail = newDelivery(1, 0).Mail
		d.Copy.ID = d.Mail
		all = append(all, d)
	}
	hop := &scriptedHop{at: stageRcpt, fault: replies5}
	r := run(t, Options{Reporter: fakeReporter{}}, newQueue(all...), fakeCopies{all[0].Mail: text(smallMail)}, hop.start(t))
	defer r.end(t)
	headers, ids := 0, map[gateway.PackageID]bool{}
	for range all {
		got := r.result(t)
		if got.notice == nil {
			t.Fatalf("no notice: %v", got.Attempt)
		}
		ids[got.notice.Mail.ID] = true
		headers += strings.Count(string(got.notice.Mail.Copy.Inline), "Subject: x")
	}
	if headers != 1 || len(ids) != len(all) {
		t.Errorf("%d headers in %d notices", headers, len(ids))
	}
	h := headed{}
	for i := range 2 * maxHeaded {
		h.first(gateway.PackageID{byte(i), byte(i >> 8)}, gateway.NoticeFailed)
	}
	if !h.first(all[0].Mail, gateway.NoticeDelayed) || len(h.seen) > maxHeaded || len(h.order) > maxHeaded {
		t.Errorf("%d mails are remembered", len(h.seen))
	}
}
