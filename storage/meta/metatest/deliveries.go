package metatest

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"sealpost/gateway"
	"sealpost/storage/meta"
)

func finishAttempt(t *testing.T, w *world) {
	m := w.commit(t, 1)
	for i, event := range []gateway.DeliveryEvent{gateway.EventDeferred, gateway.EventAccepted} {
		l := w.leaseOne(t)
		a := w.attempt(event)
		a.Code, a.Reply = 450+i, gateway.NewSecret("reply of the hop")
		next := w.clock.Now().Add(time.Minute)
		must(t, w.FinishAttempt(t.Context(), l.Lease, gateway.AttemptResult{Attempt: a, Next: next, AwaitCase: true}))
		d, attempts, err := w.GetDelivery(t.Context(), l.ID)
		must(t, err)
		want, err := gateway.Sending.Next(event)
		must(t, err)
		if d.State != want || d.Attempts != i+1 || d.LastCode != a.Code || !d.LastReply.Equal(a.Reply) || !d.NextAttempt.Equal(next) {
			t.Errorf("delivery %+v", d)
		}
		a.Number = i + 1
		if len(attempts) != i+1 || attempts[i] != a {
			t.Errorf("attempts %v, want %v at the end", attempts, a)
		}
		if !w.hasCopy(t, m.ID) {
			t.Errorf("after %s the copy is gone", event)
		}
		if event == gateway.EventDeferred {
			if n := len(w.lease(t, 1)); n != 0 {
				t.Error("leased before it was due")
			}
			w.clock.Add(time.Minute)
		}
	}
	l := w.commit(t, 1)
	err := w.FinishAttempt(t.Context(), w.leaseOne(t).Lease, gateway.AttemptResult{Attempt: w.attempt(gateway.EventHold), Next: w.clock.Now(), AwaitCase: true})
	wantCode(t, "an attempt that ends in hold", err, gateway.CodeConflict)
	if d := w.deliveries(t, l.ID)[0]; d.State != gateway.Sending {
		t.Errorf("and the delivery is %s", d.State)
	}
	_, _, err = w.GetDelivery(t.Context(), "0123")
	wantCode(t, "GetDelivery", err, gateway.CodeNotFound)
}

// model is what the state machine says of one mail.
type model struct {
	mail   gateway.PackageID
	states map[string]gateway.DeliveryState
	await  map[string]bool
	leases map[string]gateway.Lease
	object string
}

func (m *model) keepsCopy() bool {
	for id, state := range m.states {
		if state.KeepsCopy(m.await[id]) {
			return true
		}
	}
	return false
}

// Random events against the domain's table: the database moves as it says, refuses what it refuses, and the
// copy is there exactly as long as a delivery needs it.
func deliveryStates(t *testing.T, w *world) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	for range 25 {
		m := w.newModel(t, 1+rng.IntN(3), rng.IntN(2) == 0)
		ids := slices.Sorted(maps.Keys(m.states))
		for range 30 {
			w.step(t, m, ids[rng.IntN(len(ids))], anyEvent(rng), rng.IntN(2) == 0)
			w.check(t, m)
		}
		if t.Failed() {
			return
		}
	}
}

func (w *world) newModel(t *testing.T, deliveries int, inline bool) *model {
	t.Helper()
	mail := w.mail(t, deliveries)
	m := &model{mail: mail.ID, states: map[string]gateway.DeliveryState{}, await: map[string]bool{}, leases: map[string]gateway.Lease{}}
	if !inline {
		m.object = "20260314/" + mail.ID.String() + ".q.0000000000000009"
		mail.Copy.Inline, mail.Copy.Object = nil, m.object
	}
	must(t, w.CommitMail(t.Context(), mail))
	for _, d := range w.deliveries(t, mail.ID) {
		m.states[d.ID], m.await[d.ID] = gateway.Pending, true
	}
	return m
}

func anyEvent(rng *rand.Rand) gateway.DeliveryEvent {
	var all []gateway.DeliveryEvent
	for _, state := range []gateway.DeliveryState{gateway.Pending, gateway.Sending, gateway.Held, gateway.Sent, gateway.Dead} {
		all = append(all, state.Events()...)
	}
	return all[rng.IntN(len(all))]
}

// step lets an event happen to one delivery, in the database and in the model.
func (w *world) step(t *testing.T, m *model, id string, event gateway.DeliveryEvent, awaitCase bool) {
	t.Helper()
	state := m.states[id]
	next, refused := state.Next(event)
	switch event {
	case gateway.EventLeased: // of all that are due, of this mail or of one before
		for _, l := range w.lease(t, 1000) {
			if _, ours := m.states[l.ID]; ours {
				m.states[l.ID], m.leases[l.ID] = gateway.Sending, l.Lease
			}
		}
		return
	case gateway.EventAccepted, gateway.EventDeferred, gateway.EventRejected, gateway.EventGaveUp:
		lease, ok := m.leases[id]
		if !ok {
			return
		}
		err := w.FinishAttempt(t.Context(), lease, gateway.AttemptResult{Attempt: w.attempt(event), Next: w.clock.Now(), AwaitCase: awaitCase})
		if refused != nil {
			if !errors.Is(err, meta.ErrLeaseLost) {
				t.Errorf("%s when %s: %v, want ErrLeaseLost", event, state, err)
			}
			return
		}
		must(t, err)
		m.await[id] = awaitCase
	default:
		err := w.ApplyEvent(t.Context(), id, event, admin(), because())
		if refused != nil || next.KeepsCopy(m.await[id]) && !m.keepsCopy() {
			wantCode(t, string(event)+" when "+string(state), err, gateway.CodeConflict)
			return
		}
		must(t, err)
	}
	m.states[id] = next
}

func (w *world) check(t *testing.T, m *model) {
	t.Helper()
	for _, d := range w.deliveries(t, m.mail) {
		if d.State != m.states[d.ID] {
			t.Errorf("delivery %s is %s, want %s", d.ID, d.State, m.states[d.ID])
		}
	}
	if has := w.hasCopy(t, m.mail); has != m.keepsCopy() {
		t.Errorf("copy there: %v, with deliveries %v, Case awaited %v", has, m.states, m.await)
	}
	if m.object == "" {
		return
	}
	garbage, err := w.Garbage(t.Context(), 1000)
	must(t, err)
	if gone := slices.Contains(garbage, m.object); gone == m.keepsCopy() {
		t.Errorf("object is garbage: %v, with deliveries %v, Case awaited %v", gone, m.states, m.await)
	}
}

func listDeliveries(t *testing.T, w *world) {
	first := w.commit(t, 2)
	w.clock.Add(time.Second)
	second := w.commit(t, 1)
	held := w.deliveries(t, second.ID)[0].ID
	must(t, w.ApplyEvent(t.Context(), held, gateway.EventHold, admin(), because()))
	for name, test := range map[string]struct {
		filter meta.DeliveryFilter
		want   []gateway.PackageID
	}{
		"all":              {meta.DeliveryFilter{}, []gateway.PackageID{first.ID, first.ID, second.ID}},
		"limit":            {meta.DeliveryFilter{Limit: 2}, []gateway.PackageID{first.ID, first.ID}},
		"state":            {meta.DeliveryFilter{State: gateway.Held}, []gateway.PackageID{second.ID}},
		"state of none":    {meta.DeliveryFilter{State: gateway.Dead}, nil},
		"mail":             {meta.DeliveryFilter{Mail: first.ID}, []gateway.PackageID{first.ID, first.ID}},
		"Message-ID":       {meta.DeliveryFilter{MessageID: second.MessageID}, []gateway.PackageID{second.ID}},
		"no Message-ID":    {meta.DeliveryFilter{MessageID: gateway.NewSecret("<x@y>")}, nil},
		"mail and state":   {meta.DeliveryFilter{Mail: first.ID, State: gateway.Held}, nil},
		"everything given": {meta.DeliveryFilter{State: gateway.Held, Mail: second.ID, MessageID: second.MessageID, Limit: 5}, []gateway.PackageID{second.ID}},
	} {
		got, err := w.ListDeliveries(t.Context(), test.filter)
		must(t, err)
		var mails []gateway.PackageID
		for _, d := range got {
			mails = append(mails, d.Mail)
		}
		if !slices.Equal(mails, test.want) {
			t.Errorf("%s: %v, want %v", name, mails, test.want)
		}
	}
	counts, err := w.CountDeliveries(t.Context())
	want := map[gateway.DeliveryState]int64{gateway.Pending: 2, gateway.Held: 1}
	if err != nil || !maps.Equal(counts, want) {
		t.Errorf("counts %v, %v; want %v", counts, err, want)
	}
}

func applyEvent(t *testing.T, w *world) {
	m := w.commit(t, 1)
	id := w.deliveries(t, m.ID)[0].ID
	agent := gateway.Principal{Kind: gateway.PrincipalAgent, ID: "0123"}
	wantCode(t, "drop by an agent", w.ApplyEvent(t.Context(), id, gateway.EventDrop, agent, because()), gateway.CodeForbidden)
	wantCode(t, "leased by hand", w.ApplyEvent(t.Context(), id, gateway.EventLeased, admin(), because()), gateway.CodeConflict)
	wantCode(t, "unknown delivery", w.ApplyEvent(t.Context(), "0123", gateway.EventHold, admin(), because()), gateway.CodeNotFound)
	wantCode(t, "retry when pending", w.ApplyEvent(t.Context(), id, gateway.EventRetry, admin(), because()), gateway.CodeConflict)
	events, err := w.ListAudit(t.Context(), &m.ID, 10)
	if err != nil || len(events) != 0 {
		t.Errorf("what was refused is audited as done: %v, %v", events, err)
	}
	must(t, w.ApplyEvent(t.Context(), id, gateway.EventHold, admin(), because()))
	w.clock.Add(time.Hour)
	must(t, w.ApplyEvent(t.Context(), id, gateway.EventRelease, admin(), because()))
	if d := w.deliveries(t, m.ID)[0]; d.State != gateway.Pending || !d.NextAttempt.Equal(w.clock.Now()) ||
		!d.Since.Equal(w.clock.Now()) || !d.Created.Equal(w.clock.Now().Add(-time.Hour)) {
		t.Errorf("released: %+v", d)
	}
	w.clock.Add(time.Hour)
	must(t, w.ApplyEvent(t.Context(), id, gateway.EventDrop, admin(), because()))
	if w.hasCopy(t, m.ID) {
		t.Error("a dropped mail has a copy")
	}
	if p, err := w.Package(t.Context(), m.ID); err != nil || p.State != gateway.PackageAvailable || p.ServerSecret.IsZero() {
		t.Errorf("the package of a dropped mail does not stay openable: %v", err)
	}
	if events, err = w.ListAudit(t.Context(), &m.ID, 10); err != nil || len(events) != 3 {
		t.Fatalf("audit %v, %v", events, err)
	}
	want := gateway.AuditEvent{
		At: w.clock.Now(), Principal: admin(), Action: gateway.AuditDrop, Package: events[0].Package, Delivery: id, Reason: because(), Outcome: "ok",
	}
	if events[0] != want || *events[0].Package != m.ID {
		t.Errorf("audit %+v, want %+v", events[0], want)
	}
}

func endReplayWindows(t *testing.T, w *world) {
	early, noCase := w.commit(t, 2), w.commit(t, 1)
	for _, l := range w.lease(t, 10) {
		w.finish(t, l, gateway.EventAccepted, l.Mail != noCase.ID)
	}
	w.clock.Add(time.Hour)
	late := w.commit(t, 1)
	w.finish(t, w.leaseOne(t), gateway.EventAccepted, true)
	if w.hasCopy(t, noCase.ID) || !w.hasCopy(t, early.ID) || !w.hasCopy(t, late.ID) {
		t.Error("copies are not kept as long as a Case is awaited")
	}
	if n, err := w.EndReplayWindows(t.Context(), w.clock.Now()); err != nil || n != 2 {
		t.Errorf("%d windows ended, %v; want 2", n, err)
	}
	if w.hasCopy(t, early.ID) || !w.hasCopy(t, late.ID) {
		t.Error("the wrong copies were erased")
	}
	for mail, want := range map[gateway.PackageID]gateway.DeliveryState{
		early.ID: gateway.Unconfirmed, noCase.ID: gateway.Sent, late.ID: gateway.Sent,
	} {
		for _, d := range w.deliveries(t, mail) {
			if d.State != want {
				t.Errorf("delivery is %s, want %s", d.State, want)
			}
		}
	}
	found := w.deliveries(t, late.ID)[0].ID
	system := gateway.Principal{Kind: gateway.PrincipalSystem}
	must(t, w.ApplyEvent(t.Context(), found, gateway.EventCaseFound, system, because()))
	if w.hasCopy(t, late.ID) {
		t.Error("a confirmed mail has a copy")
	}
}
