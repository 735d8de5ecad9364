package metatest

import (
	"net/netip"
	"testing"
	"time"

	"sealpost/gateway"
)

// mailWorld: how a mail came is kept with it, a held delivery waits, and the way back names nobody in plain.
func mailWorld(t *testing.T, w *world) {
	m := w.mail(t, 1)
	m.Envelope.Hello, m.Envelope.Protocol, m.Envelope.TLS, m.Envelope.TrustedRelay = "client.example", "ESMTPS", "TLS1.3", true
	m.Envelope.Return, m.Envelope.EnvelopeID = "HDRS", gateway.NewSecret("envelope-marker")
	m.Authentication = gateway.Authentication{SPF: gateway.AuthPass, DKIM: gateway.AuthNone, DMARC: gateway.AuthFail, DMARCPolicy: "reject", ByRelay: true}
	m.Scan, m.Silence = gateway.Scan{Verdict: gateway.ScanInfected, Signature: "Test.Virus"}, "DMARC failed"
	m.Package.Scan = m.Scan
	m.Deliveries[0].DSN = gateway.DSNRequest{Notify: "FAILURE,DELAY", OriginalRecipient: gateway.NewSecret("rfc822;orig-marker@example.com")}
	back := gateway.Route{Address: gateway.ReturnRoute, ForwardTo: "return-marker@client.example"}
	m.Deliveries = append(m.Deliveries, gateway.NewDelivery{Route: back, Hold: "look at this first"})
	must(t, w.CommitMail(t.Context(), m))

	known, err := w.Mail(t.Context(), m.ID)
	must(t, err)
	if known.Hello.Reveal() != "client.example" || known.Protocol != "ESMTPS" || known.TLS != "TLS1.3" || !known.TrustedRelay ||
		known.EnvelopeID.Reveal() != "envelope-marker" || known.Return != "HDRS" || known.Authentication != m.Authentication ||
		known.Scan != m.Scan || known.Silence != m.Silence || known.Items != 2 || known.Client.Reveal() != "192.0.2.77" {
		t.Errorf("the mail is known as %+v", known)
	}
	if p, err := w.Package(t.Context(), m.ID); err != nil || p.Scan != m.Scan {
		t.Errorf("the package has %+v, %v", p.Scan, err)
	}
	if found, err := w.FindMails(t.Context(), m.MessageID, 10); err != nil || len(found) != 1 || found[0] != m.ID {
		t.Errorf("found %v, %v", found, err)
	}
	leased := w.lease(t, 10)
	if len(leased) != 1 {
		t.Fatalf("%d leased, want the one that is not held", len(leased))
	}
	l := leased[0]
	if l.Silence != m.Silence || l.Return != "HDRS" || l.EnvelopeID.Reveal() != "envelope-marker" || l.DSN != m.Deliveries[0].DSN || !l.Received.Equal(w.clock.Now()) {
		t.Errorf("leased %+v", l)
	}
	for _, d := range w.deliveries(t, m.ID) {
		if d.Route == gateway.ReturnRoute && (d.State != gateway.Held || d.ForwardTo != back.ForwardTo || d.Reason.Reveal() != "look at this first") {
			t.Errorf("the way back is %+v", d)
		}
	}
	w.tell(t, l)
}

// tell ends a delivery with a notice, which is then on its way.
func (w *world) tell(t *testing.T, l gateway.LeasedDelivery) {
	t.Helper()
	notice := w.mail(t, 1)
	notice.Package = nil
	notice.Deliveries[0].Route = gateway.Route{Address: gateway.ReturnRoute, ForwardTo: "anna.marker@client.example"}
	result := gateway.AttemptResult{Attempt: w.attempt(gateway.EventRejected), Notice: &gateway.Notice{Kind: gateway.NoticeFailed, Mail: notice}}
	must(t, w.FinishAttempt(t.Context(), l.Lease, result))
	if d, _, err := w.GetDelivery(t.Context(), l.ID); err != nil || d.State != gateway.Dead || d.Told != gateway.NoticeFailed {
		t.Errorf("the told delivery is %+v, %v", d, err)
	}
	sent := w.lease(t, 10)
	if len(sent) != 1 || sent[0].Mail != notice.ID || sent[0].ForwardTo != "anna.marker@client.example" {
		t.Errorf("leased %+v, want the notice", sent)
	}
}

// repeats: only a mail whose 250 may have been lost has repeats.
func repeats(t *testing.T, w *world) {
	fingerprint := []byte("fingerprint")
	repeated := func(what string, want bool) {
		t.Helper()
		if _, found, err := w.Repeated(t.Context(), fingerprint); err != nil || found != want {
			t.Errorf("%s: repeated %v, %v; want %v", what, found, err, want)
		}
	}
	repeated("no mail", false)
	m := w.mail(t, 1)
	m.Fingerprint = fingerprint
	must(t, w.CommitMail(t.Context(), m))
	repeated("its session lives", false)
	w.SettleMail(m.ID, false)
	repeated("its 250 was not heard", true)
	repeated("and came again", true)
	if known, err := w.Mail(t.Context(), m.ID); err != nil || known.Repeats != 2 {
		t.Errorf("%d repeats, %v; want 2", known.Repeats, err)
	}
	w.SettleMail(m.ID, true)
	repeated("a repeat's 250 was heard", false)

	heard := w.mail(t, 1)
	heard.Fingerprint = fingerprint
	must(t, w.CommitMail(t.Context(), heard))
	w.SettleMail(heard.ID, true)
	repeated("its 250 was heard", false)

	// One that nobody will ever get has no repeats: whoever sends it again is right to.
	unheard := func(deliveries int) {
		m := w.mail(t, deliveries)
		m.Fingerprint = fingerprint
		must(t, w.CommitMail(t.Context(), m))
		w.SettleMail(m.ID, false)
	}
	w.lease(t, 10) // those above
	unheard(2)
	leased := w.lease(t, 10)
	w.finish(t, leased[0], gateway.EventRejected, true)
	repeated("of two deliveries one is dead", true)
	w.finish(t, leased[1], gateway.EventRejected, true)
	repeated("both are dead", false)
	unheard(1)
	w.finish(t, w.leaseOne(t), gateway.EventAccepted, true)
	repeated("it is sent", true)
	w.clock.Add(25 * time.Hour)

	crashed := w.mail(t, 1)
	crashed.Fingerprint = fingerprint
	other := w.open(t, w.keys, w.clock.Now)
	must(t, other.CommitMail(t.Context(), crashed))
	repeated("its process is another", true)
	w.clock.Add(25 * time.Hour)
	repeated("a day later", false)
	if _, err := w.ExpireMails(t.Context(), 10); err != nil {
		t.Error(err)
	}
}

func refusals(t *testing.T, w *world) {
	r := gateway.Refusal{
		MessageID: gateway.NewSecret("<refused-marker@client.example>"), Code: gateway.CodeRejected, Reason: "a virus was found",
		Envelope: gateway.Envelope{
			MailFrom: "anna.marker@client.example", Client: netip.MustParseAddr("192.0.2.77"), Hello: "client.example", Protocol: "ESMTP",
			Recipients: []gateway.Recipient{
				{Address: "Support0+Anna@example.com", Route: gateway.Route{Address: "support0@example.com", ForwardTo: "support@x-0.case.example"}},
				{Address: "support1@example.com", Route: gateway.Route{Address: "support1@example.com"}},
			},
		},
		Scan: gateway.Scan{Verdict: gateway.ScanInfected, Signature: "Test.Virus"},
	}
	must(t, w.RecordRefusal(t.Context(), r))
	found, err := w.FindRefusals(t.Context(), r.MessageID, 10)
	if err != nil || len(found) != 1 {
		t.Fatalf("found %v, %v", found, err)
	}
	f := found[0]
	if to := f.Envelope.Recipients; !f.MessageID.Equal(r.MessageID) || len(to) != 2 || to[0].Address != "Support0+Anna@example.com" ||
		to[0].Route.Address != "support0@example.com" || to[1].Address != "support1@example.com" {
		t.Errorf("found %q to %+v", f.MessageID.Reveal(), to)
	}
	if f.Envelope.Recipients[0].Route.ForwardTo != "" {
		t.Error("a refusal names forward_to")
	}
	if other, err := w.FindRefusals(t.Context(), gateway.NewSecret("<another@client.example>"), 10); err != nil || len(other) != 0 {
		t.Errorf("under another Message-ID: %v, %v", other, err)
	}
	if !f.At.Equal(w.clock.Now()) || f.Code != r.Code || f.Reason != r.Reason || f.Scan != r.Scan || f.Envelope.MailFrom != r.Envelope.MailFrom || f.Envelope.Client != r.Envelope.Client {
		t.Errorf("found %+v", f)
	}
	w.clock.Add(31 * 24 * time.Hour)
	if _, err := w.ExpireMails(t.Context(), 10); err != nil {
		t.Error(err)
	}
	if found, err := w.FindRefusals(t.Context(), r.MessageID, 10); err != nil || len(found) != 0 {
		t.Errorf("after a month: %v, %v", found, err)
	}
}

func alerts(t *testing.T, w *world) {
	claim := func(kind string, want bool) {
		t.Helper()
		if claimed, err := w.ClaimAlert(t.Context(), kind, time.Hour); err != nil || claimed != want {
			t.Errorf("%s: %v, %v; want %v", kind, claimed, err, want)
		}
	}
	claim("dead", true)
	claim("dead", false)
	claim("disk", true)
	w.clock.Add(time.Hour)
	claim("dead", true)
	w.commit(t, 1)
	if facts, err := w.QueueFacts(t.Context()); err != nil || facts.Counts[gateway.Pending] != 1 || !facts.OldestPending.Equal(w.clock.Now()) {
		t.Errorf("facts %+v, %v", facts, err)
	}
}
