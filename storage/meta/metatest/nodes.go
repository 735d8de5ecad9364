package metatest

import (
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"sealpost/gateway"
	"sealpost/storage/meta"
)

// repeatsOfALiveNode: the sessions of another process go on while it beats, and end with it.
func repeatsOfALiveNode(t *testing.T, w *world) {
	other := w.otherNode(t)
	commit := func(fingerprint string) []byte {
		m := w.mail(t, 1)
		m.Fingerprint = []byte(fingerprint)
		must(t, other.CommitMail(t.Context(), m))
		return m.Fingerprint
	}
	repeated := func(what string, fingerprint []byte, want bool) {
		t.Helper()
		if _, found, err := w.Repeated(t.Context(), fingerprint); err != nil || found != want {
			t.Errorf("%s: repeated %v, %v; want %v", what, found, err, want)
		}
	}
	must(t, other.Beat(t.Context()))
	first := commit("first")
	repeated("the other lives", first, false)
	w.clock.Add(45 * time.Second)
	must(t, other.Beat(t.Context()))
	w.clock.Add(59 * time.Second)
	repeated("it has beaten within a minute", first, false)
	w.clock.Add(time.Second)
	repeated("it is silent for a minute", first, true)

	must(t, other.Beat(t.Context()))
	second := commit("second")
	repeated("it came back", second, false)
	must(t, other.Close())
	repeated("it has stopped", second, true)
}

// claimWork: one process has the work until it lets go or its time is over.
func claimWork(t *testing.T, w *world) {
	other := w.otherNode(t)
	claim := func(what string, s *meta.Store, kind string, want bool) {
		t.Helper()
		if mine, err := s.ClaimWork(t.Context(), kind, time.Minute); err != nil || mine != want {
			t.Errorf("%s: %v, %v; want %v", what, mine, err, want)
		}
	}
	claim("the first", w.Store, "sweep", true)
	claim("while that has it", other, "sweep", false)
	claim("other work", other, "report", true)
	w.clock.Add(59 * time.Second)
	claim("renewed", w.Store, "sweep", true)
	w.clock.Add(59 * time.Second)
	claim("before the renewed time is over", other, "sweep", false)
	w.clock.Add(time.Second)
	claim("after it", other, "sweep", true)
	claim("who had it", w.Store, "sweep", false)
	must(t, other.Close())
	claim("after a stop", w.Store, "sweep", true)
}

// claimWorkRace: of many that claim work at once, on several nodes, one node gets it, time after time.
func claimWorkRace(t *testing.T, w *world) {
	stores := []*meta.Store{w.Store, w.otherNode(t), w.otherNode(t)}
	for round := range 3 {
		var claims [3]atomic.Int32
		group, ctx := errgroup.WithContext(t.Context())
		for i := range 30 {
			group.Go(func() error {
				mine, err := stores[i%len(stores)].ClaimWork(ctx, "sweep", time.Hour)
				if mine {
					claims[i%len(stores)].Add(1)
				}
				return err
			})
		}
		must(t, group.Wait())
		nodes := 0
		for i := range claims {
			if claims[i].Load() > 0 {
				nodes++
			}
		}
		if nodes != 1 {
			t.Errorf("round %d: %d nodes have the work, want 1", round, nodes)
		}
		w.clock.Add(time.Hour)
	}
}

// returned commits a mail back to senders, the n-th of which has a copy in an object, and lets it be refused.
func (w *world) returned(t *testing.T, to string, end gateway.DeliveryEvent) gateway.AcceptedMail {
	t.Helper()
	m := w.notice(t, gateway.NoticeFailed, to).Mail
	m.Copy.Inline, m.Copy.Object = nil, "20260314/"+m.ID.String()+".q.0000000000000009"
	must(t, w.CommitMail(t.Context(), m))
	w.finish(t, w.leaseOne(t), end, false)
	return m
}

// deadReturns: what nobody takes back for its sender goes after five days, with its copy, and no admin hears of it.
func deadReturns(t *testing.T, w *world) {
	ordinary := w.commit(t, 1)
	w.finish(t, w.leaseOne(t), gateway.EventRejected, true)
	back := w.returned(t, "anna@refusing.example", gateway.EventRejected)
	key := back.Copy.Key
	facts, err := w.QueueFacts(t.Context())
	if err != nil || facts.Counts[gateway.Dead] != 1 || facts.DeadReturns != 1 {
		t.Errorf("facts %+v, %v; want one dead and one dead on the way back", facts, err)
	}
	expire := func(wait time.Duration, want int) {
		t.Helper()
		w.clock.Add(wait)
		if n, err := w.ExpireMails(t.Context(), 10); err != nil || n != want {
			t.Errorf("%d mails expired, %v; want %d", n, err, want)
		}
	}
	expire(5*24*time.Hour-time.Microsecond, 0)
	expire(time.Microsecond, 1)
	_, err = w.Mail(t.Context(), back.ID)
	wantCode(t, "the returned mail", err, gateway.CodeNotFound)
	if garbage, err := w.Garbage(t.Context(), 10); err != nil || len(garbage) != 1 || garbage[0] != back.Copy.Object {
		t.Errorf("garbage %v, %v; want its copy", garbage, err)
	}
	if len(w.deliveries(t, back.ID)) != 0 || len(w.deliveries(t, ordinary.ID)) != 1 || !w.hasCopy(t, ordinary.ID) {
		t.Error("the wrong mail expired")
	}
	if facts, err := w.QueueFacts(t.Context()); err != nil || facts.Counts[gateway.Dead] != 1 || facts.DeadReturns != 0 {
		t.Errorf("facts %+v, %v; want one dead", facts, err)
	}
	// The key of the day goes with the last copy, which is the ordinary mail's.
	must(t, w.ApplyEvent(t.Context(), w.deliveries(t, ordinary.ID)[0].ID, gateway.EventDrop, admin(), because()))
	if after, err := w.QueueKey(t.Context(), back.Started); err != nil || after.Key.Equal(key.Key) {
		t.Errorf("the key of the day is still there, %v", err)
	}
}

// deadReturnsAndAdmins: a retry, a hold, and a delivery to a route in the same mail keep a dead one on the way back.
func deadReturnsAndAdmins(t *testing.T, w *world) {
	retried := w.returned(t, "a@refusing.example", gateway.EventRejected)
	must(t, w.ApplyEvent(t.Context(), w.deliveries(t, retried.ID)[0].ID, gateway.EventRetry, admin(), because()))
	must(t, w.ApplyEvent(t.Context(), w.deliveries(t, retried.ID)[0].ID, gateway.EventHold, admin(), because()))
	mixed := w.mail(t, 1)
	mixed.Deliveries = append(mixed.Deliveries, gateway.NewDelivery{
		Route: gateway.Route{Address: gateway.ReturnRoute, ForwardTo: "b@refusing.example"},
	})
	must(t, w.CommitMail(t.Context(), mixed))
	for _, l := range w.lease(t, 2) {
		w.finish(t, l, gateway.EventRejected, true)
	}
	last := w.returned(t, "c@refusing.example", gateway.EventGaveUp)
	w.clock.Add(4 * 24 * time.Hour)
	must(t, w.ApplyEvent(t.Context(), w.deliveries(t, last.ID)[0].ID, gateway.EventRetry, admin(), because()))
	w.finish(t, w.leaseOne(t), gateway.EventRejected, false)
	w.clock.Add(2 * 24 * time.Hour)
	if n, err := w.ExpireMails(t.Context(), 10); err != nil || n != 0 {
		t.Errorf("%d mails expired, %v; want none", n, err)
	}
	w.clock.Add(3 * 24 * time.Hour)
	if n, err := w.ExpireMails(t.Context(), 10); err != nil || n != 1 {
		t.Errorf("%d mails expired, %v; want the one that nobody took", n, err)
	}
	if !w.hasCopy(t, retried.ID) || !w.hasCopy(t, mixed.ID) {
		t.Error("a mail that an admin must act on is gone")
	}
}
