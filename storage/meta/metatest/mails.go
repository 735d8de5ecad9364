package metatest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"sealpost/gateway"
	"sealpost/storage/meta"
)

func commitMail(t *testing.T, w *world) {
	m := w.commit(t, 2)
	got := w.deliveries(t, m.ID)
	if len(got) != 2 {
		t.Fatalf("%d deliveries, want 2", len(got))
	}
	for _, d := range got {
		if d.State != gateway.Pending || d.Attempts != 0 || !d.NextAttempt.Equal(w.clock.Now()) ||
			!d.Created.Equal(w.clock.Now()) || d.Mail != m.ID {
			t.Errorf("delivery %+v", d)
		}
	}
	if got[0].ForwardTo == got[1].ForwardTo {
		t.Error("two deliveries to one mailbox")
	}
	if _, err := w.Package(t.Context(), m.ID); err != nil {
		t.Error(err)
	}
}

func commitWithoutPackage(t *testing.T, w *world) {
	m := w.mail(t, 1)
	m.Package, m.MessageID, m.Envelope.MailFrom, m.Copy.MailFrom = nil, gateway.Secret{}, "", gateway.Secret{}
	must(t, w.CommitMail(t.Context(), m))
	_, err := w.Package(t.Context(), m.ID)
	wantCode(t, "Package", err, gateway.CodeNotFound)
	info, err := w.Mail(t.Context(), m.ID)
	must(t, err)
	if info.HasPackage || !info.HasCopy || !info.Sender.IsZero() || !info.MessageID.IsZero() {
		t.Errorf("mail %+v", info)
	}
	if l := w.leaseOne(t); !l.Copy.MailFrom.IsZero() || string(l.Copy.Inline) != string(m.Copy.Inline) {
		t.Errorf("the copy is altered")
	}
}

// An error anywhere in the transaction leaves nothing: here at its last statement, in its middle, at its first.
func commitAllOrNothing(t *testing.T, w *world) {
	first := w.commit(t, 1)
	for name, spoil := range map[string]func(*gateway.AcceptedMail){
		"a delivery twice": func(m *gateway.AcceptedMail) { m.Deliveries = append(m.Deliveries, m.Deliveries[0]) },
		"an object twice":  func(m *gateway.AcceptedMail) { m.Package.Objects[2] = m.Package.Objects[0] },
		"another's object": func(m *gateway.AcceptedMail) { m.Package.Objects[0] = first.Package.Objects[0] },
		"an item twice":    func(m *gateway.AcceptedMail) { m.Package.Items[1].Ordinal = 0 },
		"another's ID":     func(m *gateway.AcceptedMail) { m.Package.ID = first.ID },
		"no route":         func(m *gateway.AcceptedMail) { m.Deliveries = nil },
		"no copy":          func(m *gateway.AcceptedMail) { m.Copy.Inline = nil },
	} {
		m := w.mail(t, 2)
		objects := []string{m.Package.Objects[1].Name}
		spoil(&m)
		if err := w.CommitMail(t.Context(), m); err == nil {
			t.Errorf("%s: committed", name)
		}
		if _, err := w.Mail(t.Context(), m.ID); gateway.ErrorCode(err) != gateway.CodeNotFound {
			t.Errorf("%s: there is a mail: %v", name, err)
		}
		if m.ID != m.Package.ID {
			continue
		}
		if _, err := w.Package(t.Context(), m.ID); gateway.ErrorCode(err) != gateway.CodeNotFound {
			t.Errorf("%s: there is a package: %v", name, err)
		}
		referenced, err := w.Referenced(t.Context(), objects)
		if err != nil || referenced[objects[0]] || len(w.deliveries(t, m.ID)) != 0 {
			t.Errorf("%s: there are rows: %v, %v", name, referenced, err)
		}
	}
	if n := len(w.deliveries(t, first.ID)); n != 1 {
		t.Errorf("the first mail has %d deliveries", n)
	}
}

func commitOneHour(t *testing.T, w *world) {
	m := w.mail(t, 1)
	late := w.mail(t, 1)
	w.clock.Add(time.Hour)
	must(t, w.CommitMail(t.Context(), m))
	w.clock.Add(time.Microsecond)
	wantCode(t, "over one hour", w.CommitMail(t.Context(), late), gateway.CodeUnavailable)
	if n := len(w.deliveries(t, late.ID)); n != 0 {
		t.Errorf("the late mail has %d deliveries", n)
	}
}

func commitWithoutQueueKey(t *testing.T, w *world) {
	m := w.mail(t, 1)
	m.Copy.Key.Day = "20200101"
	wantCode(t, "no such key", w.CommitMail(t.Context(), m), gateway.CodeUnavailable)
}

func queueKeyOfTheDay(t *testing.T, w *world) {
	other := w.open(t, w.keys, w.clock.Now)
	midnight := time.Date(2026, 3, 15, 0, 0, 0, 0, time.UTC)
	first, err := w.QueueKey(t.Context(), midnight.Add(-time.Microsecond))
	must(t, err)
	same, err := other.QueueKey(t.Context(), midnight.Add(-time.Hour).In(time.FixedZone("", 5*3600)))
	must(t, err)
	next, err := w.QueueKey(t.Context(), midnight)
	must(t, err)
	if first.Day != "20260314" || next.Day != "20260315" || same.Day != first.Day {
		t.Errorf("days %s, %s, %s", first.Day, same.Day, next.Day)
	}
	if len(first.Key.Reveal()) != 32 || !first.Key.Equal(same.Key) || first.Key.Equal(next.Key) {
		t.Error("not one key of 32 bytes for each day")
	}
}

// The key of a day goes with the last copy that needs it, but not while a mail of the day may still commit.
func queueKeyIsDestroyed(t *testing.T, w *world) {
	w.clock.Add(11*time.Hour + 30*time.Minute) // half past eleven at night
	before, err := w.QueueKey(t.Context(), w.clock.Now())
	must(t, err)
	inFlight := w.mail(t, 1)
	w.commit(t, 1)
	w.commit(t, 1)
	leased := w.lease(t, 2)
	w.finish(t, leased[0], gateway.EventAccepted, false)

	w.clock.Add(50 * time.Minute)                        // past midnight, within the hour
	w.finish(t, leased[1], gateway.EventAccepted, false) // its lease ran out, but nobody took it
	must(t, w.CommitMail(t.Context(), inFlight))
	w.clock.Add(45 * time.Minute) // the hour is over as well; one copy is left
	if n, err := w.EraseQueueKeys(t.Context()); err != nil || n != 0 {
		t.Errorf("%d keys were erased, %v; want none", n, err)
	}
	w.finish(t, w.leaseOne(t), gateway.EventAccepted, false)
	after, err := w.QueueKey(t.Context(), w.clock.Now().AddDate(0, 0, -1))
	must(t, err)
	if after.Day != before.Day || after.Key.Equal(before.Key) {
		t.Error("the key of the day before was not destroyed with its last delivery")
	}
	// That key was made anew above, and nothing needs it.
	if n, err := w.EraseQueueKeys(t.Context()); err != nil || n != 1 {
		t.Errorf("%d keys were erased, %v; want 1", n, err)
	}
}

func mail(t *testing.T, w *world) {
	m := w.mail(t, 2)
	m.Envelope.Recipients = append(m.Envelope.Recipients, gateway.Recipient{Address: "SUPPORT0@example.com"}) // in another spelling
	must(t, w.CommitMail(t.Context(), m))
	info, err := w.Mail(t.Context(), m.ID)
	must(t, err)
	if info.ID != m.ID || !info.Created.Equal(w.clock.Now()) || info.Size != m.Copy.Size || !info.HasCopy || !info.HasPackage {
		t.Errorf("mail %+v", info)
	}
	if info.Sender.Reveal() != m.Envelope.MailFrom || !info.MessageID.Equal(m.MessageID) {
		t.Error("sender or Message-ID altered")
	}
	var recipients []string
	for _, r := range info.Recipients {
		recipients = append(recipients, r.Reveal())
	}
	if !slices.Equal(recipients, []string{"support0@example.com", "support1@example.com"}) {
		t.Errorf("recipients %v", recipients)
	}
	_, err = w.Mail(t.Context(), gateway.NewPackageID())
	wantCode(t, "unknown mail", err, gateway.CodeNotFound)
}

func expireMails(t *testing.T, w *world) {
	ended := w.commit(t, 1)
	w.finish(t, w.leaseOne(t), gateway.EventAccepted, false)
	waiting := w.mail(t, 1)
	waiting.Package = nil // then its route says when
	must(t, w.CommitMail(t.Context(), waiting))
	if n, err := w.ExpireMails(t.Context(), 10); err != nil || n != 0 {
		t.Errorf("%d mails expired, %v; want none yet", n, err)
	}
	w.clock.Add(365 * 24 * time.Hour)
	if n, err := w.ExpireMails(t.Context(), 10); err != nil || n != 1 {
		t.Errorf("%d mails expired, %v; want 1", n, err)
	}
	_, err := w.Mail(t.Context(), ended.ID)
	wantCode(t, "an expired mail", err, gateway.CodeNotFound)
	if n := len(w.deliveries(t, ended.ID)); n != 0 {
		t.Errorf("an expired mail has %d deliveries", n)
	}
	if !w.hasCopy(t, waiting.ID) || len(w.deliveries(t, waiting.ID)) != 1 {
		t.Error("a mail that waits was lost")
	}
	w.finish(t, w.leaseOne(t), gateway.EventAccepted, false)
	if n, err := w.ExpireMails(t.Context(), 10); err != nil || n != 1 {
		t.Errorf("%d mails expired, %v; want 1", n, err)
	}
}

func cancelledContext(t *testing.T, w *world) {
	m := w.mail(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.CommitMail(ctx, m); !errors.Is(err, context.Canceled) {
		t.Errorf("CommitMail: %v, want context.Canceled", err)
	}
	if _, err := w.ListDeliveries(ctx, meta.DeliveryFilter{}); !errors.Is(err, context.Canceled) {
		t.Errorf("ListDeliveries: %v, want context.Canceled", err)
	}
	if n := len(w.deliveries(t, m.ID)); n != 0 {
		t.Errorf("%d deliveries", n)
	}
	must(t, w.CommitMail(t.Context(), m))
}
