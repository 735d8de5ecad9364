package metatest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"sealpost/gateway"
	"sealpost/storage/meta"
)

func leaseInOrder(t *testing.T, w *world) {
	var want []gateway.PackageID
	for range 5 {
		want = append(want, w.commit(t, 1).ID)
		w.clock.Add(time.Second)
	}
	var got []gateway.PackageID
	for _, limit := range []int{3, 3, 3} {
		for _, l := range w.lease(t, limit) {
			got = append(got, l.Mail)
			if l.State != gateway.Sending || l.Attempts != 1 || l.Lease.Fence != 1 || l.Lease.Owner != "node" ||
				l.Lease.Delivery != l.ID || !l.Lease.Until.Equal(w.clock.Now().Add(time.Minute)) {
				t.Errorf("leased %+v", l)
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("leased %v, want %v", got, want)
	}
}

func leaseCopy(t *testing.T, w *world) {
	inline, outside := w.mail(t, 1), w.mail(t, 1)
	outside.Copy.Inline, outside.Copy.Object = nil, "20260314/"+outside.ID.String()+".q.0000000000000009"
	outside.Copy.EightBit, outside.Copy.UTF8 = false, false
	want := map[gateway.PackageID]gateway.AcceptedMail{inline.ID: inline, outside.ID: outside}
	must(t, w.CommitMail(t.Context(), inline))
	must(t, w.CommitMail(t.Context(), outside))
	for _, l := range w.lease(t, 10) {
		c := want[l.Mail].Copy
		if l.Copy.ID != l.Mail || string(l.Copy.Inline) != string(c.Inline) || (l.Copy.Inline == nil) != (c.Inline == nil) ||
			l.Copy.Object != c.Object || l.Copy.Size != c.Size || l.Copy.EightBit != c.EightBit || l.Copy.UTF8 != c.UTF8 ||
			l.Copy.Key.Day != c.Key.Day || !l.Copy.Key.Key.Equal(c.Key.Key) || !l.Copy.MailFrom.Equal(c.MailFrom) {
			t.Errorf("copy %+v, want %+v", l.Copy, c)
		}
		w.finish(t, l, gateway.EventAccepted, false)
	}
	garbage, err := w.Garbage(t.Context(), 10)
	if err != nil || !slices.Equal(garbage, []string{outside.Copy.Object}) {
		t.Errorf("garbage %v, %v", garbage, err)
	}
}

func leaseIsFenced(t *testing.T, w *world) {
	m := w.commit(t, 1)
	l := w.leaseOne(t)
	for name, spoil := range map[string]func(*gateway.Lease){
		"older fence":      func(l *gateway.Lease) { l.Fence-- },
		"newer fence":      func(l *gateway.Lease) { l.Fence++ },
		"other owner":      func(l *gateway.Lease) { l.Owner = "thief" },
		"unknown delivery": func(l *gateway.Lease) { l.Delivery = m.ID.String() },
	} {
		lease := l.Lease
		spoil(&lease)
		err := w.FinishAttempt(t.Context(), lease, gateway.AttemptResult{Attempt: w.attempt(gateway.EventAccepted), Next: w.clock.Now(), AwaitCase: false})
		if !errors.Is(err, meta.ErrLeaseLost) || gateway.ErrorCode(err) != gateway.CodeConflict {
			t.Errorf("FinishAttempt, %s: %v, want ErrLeaseLost", name, err)
		}
		if _, err := w.RenewLease(t.Context(), lease, time.Minute); !errors.Is(err, meta.ErrLeaseLost) {
			t.Errorf("RenewLease, %s: %v, want ErrLeaseLost", name, err)
		}
	}
	d, attempts, err := w.GetDelivery(t.Context(), l.ID)
	if err != nil || d.State != gateway.Sending || len(attempts) != 0 {
		t.Errorf("delivery %+v, %v, %v", d, attempts, err)
	}
	w.finish(t, l, gateway.EventAccepted, true)
	err = w.FinishAttempt(t.Context(), l.Lease, gateway.AttemptResult{Attempt: w.attempt(gateway.EventDeferred), Next: w.clock.Now(), AwaitCase: true})
	if !errors.Is(err, meta.ErrLeaseLost) {
		t.Errorf("the second FinishAttempt: %v, want ErrLeaseLost", err)
	}
}

func leaseRunsOut(t *testing.T, w *world) {
	m := w.commit(t, 1)
	old := w.lose(t)[0]
	w.clock.Add(time.Minute - time.Microsecond)
	if n := len(w.lease(t, 1)); n != 0 {
		t.Fatal("a delivery was leased twice at once")
	}
	w.clock.Add(time.Microsecond)
	if n := len(w.lease(t, 1)); n != 0 {
		t.Fatal("a delivery whose lease was lost was leased at once")
	}
	w.clock.Add(time.Minute)
	l := w.leaseOne(t)
	if l.ID != old.ID || l.Lease.Fence != old.Lease.Fence+1 || l.Attempts != 2 {
		t.Errorf("leased %+v after %+v", l, old)
	}
	err := w.FinishAttempt(t.Context(), old.Lease, gateway.AttemptResult{Attempt: w.attempt(gateway.EventAccepted), Next: w.clock.Now(), AwaitCase: false})
	if !errors.Is(err, meta.ErrLeaseLost) {
		t.Errorf("who lost the lease finished: %v", err)
	}
	w.finish(t, l, gateway.EventRejected, true)
	d, attempts, err := w.GetDelivery(t.Context(), l.ID)
	must(t, err)
	if d.State != gateway.Dead || len(attempts) != 2 || attempts[0].Event != gateway.EventDeferred ||
		attempts[0].Reply.Reveal() != "lease lost" || attempts[0].Number != 1 || attempts[1].Number != 2 ||
		!attempts[0].Started.Equal(attempts[0].Ended.Add(-time.Minute)) {
		t.Errorf("%s, attempts %v", d.State, attempts)
	}
	if !w.hasCopy(t, m.ID) {
		t.Error("a dead delivery has lost its copy")
	}
}

func leaseRenewed(t *testing.T, w *world) {
	w.commit(t, 1)
	l := w.leaseOne(t)
	w.clock.Add(50 * time.Second)
	lease, err := w.RenewLease(t.Context(), l.Lease, time.Minute)
	if err != nil || !lease.Until.Equal(w.clock.Now().Add(time.Minute)) || lease.Fence != l.Lease.Fence {
		t.Errorf("renewed: %+v, %v", lease, err)
	}
	w.clock.Add(50 * time.Second)
	if n := len(w.lease(t, 1)); n != 0 {
		t.Error("a renewed lease was taken")
	}
	w.clock.Add(time.Hour) // it ran out, but nobody took it
	must(t, w.FinishAttempt(t.Context(), lease, gateway.AttemptResult{Attempt: w.attempt(gateway.EventAccepted), Next: w.clock.Now(), AwaitCase: false}))
}

// Two nodes lease from one database, finishing and losing leases: no delivery is ever in two hands, and each
// ends after the number of attempts that it took.
func leaseRace(t *testing.T, w *world) {
	const mails, workers = 30, 4
	for range mails {
		w.commit(t, 1)
	}
	stores := []*meta.Store{w.Store, w.open(t, w.keys, w.clock.Now)}
	var mu sync.Mutex
	fences := map[string]int64{}
	left := mails
	group, ctx := errgroup.WithContext(t.Context())
	for i := range workers {
		store, owner := stores[i%len(stores)], fmt.Sprintf("node%d", i)
		group.Go(func() error {
			for {
				leased, err := LeaseAny(ctx, store, owner, 3, time.Hour)
				if err != nil {
					return err
				}
				for _, l := range leased {
					mu.Lock()
					if l.Lease.Fence <= fences[l.ID] {
						err = fmt.Errorf("fence %d after %d", l.Lease.Fence, fences[l.ID])
					}
					fences[l.ID] = l.Lease.Fence
					mu.Unlock()
					if err != nil {
						return err
					}
					ended, err := finishOrDefer(ctx, store, l)
					if err != nil {
						return err
					}
					if ended {
						mu.Lock()
						left--
						mu.Unlock()
					}
				}
				mu.Lock()
				done := left == 0
				mu.Unlock()
				if done {
					return nil
				}
			}
		})
	}
	must(t, group.Wait())
	counts, err := w.CountDeliveries(t.Context())
	if err != nil || counts[gateway.Sent] != mails || len(counts) != 1 {
		t.Errorf("deliveries: %v, %v", counts, err)
	}
}

// finishOrDefer defers the first two attempts and accepts the third.
func finishOrDefer(ctx context.Context, store *meta.Store, l gateway.LeasedDelivery) (bool, error) {
	event := gateway.EventDeferred
	if l.Attempts == 3 {
		event = gateway.EventAccepted
	}
	now, err := store.Now(ctx)
	if err != nil {
		return false, err
	}
	return event == gateway.EventAccepted,
		store.FinishAttempt(ctx, l.Lease, gateway.AttemptResult{Attempt: gateway.Attempt{Started: now, Ended: now, Event: event}, Next: now, AwaitCase: false})
}

// A copy that the keyring does not open is put off, and does not hold up the others.
func leaseUnreadableCopy(t *testing.T, w *world) {
	bad := w.mail(t, 1)
	others := w.keys.Node() // with a key that the store does not have
	must(t, others.AddKey())
	must(t, others.Use(others.ActiveKey()))
	must(t, w.open(t, others, w.clock.Now).CommitMail(t.Context(), bad))
	id := w.deliveries(t, bad.ID)[0].ID
	lease := func(wait time.Duration, mails int, state gateway.DeliveryState) {
		t.Helper()
		w.clock.Add(wait)
		leased, err := LeaseAny(t.Context(), w.Store, "node", 10, time.Minute)
		if len(leased) != mails {
			t.Errorf("%d deliveries were leased, want %d", len(leased), mails)
		}
		if err == nil || !strings.Contains(err.Error(), id) || !strings.Contains(err.Error(), string(state)) || strings.Contains(err.Error(), "marker") {
			t.Errorf("that %s cannot be read and is %s is told as %v", id, state, err)
		}
		if d, _, err := w.GetDelivery(t.Context(), id); err != nil || d.State != state || (d.Untold != "") != (state == gateway.Dead) {
			t.Errorf("it is %+v, %v", d, err)
		}
	}
	lease(0, 0, gateway.Pending)
	w.commit(t, 1)
	lease(20*time.Minute, 1, gateway.Pending)
	w.commit(t, 1)
	lease(5*24*time.Hour, 1, gateway.Dead)
	_, attempts, err := w.GetDelivery(t.Context(), id)
	if err != nil || len(attempts) != 3 || attempts[1].Reply.IsZero() {
		t.Errorf("the attempts are %v, %v", attempts, err)
	}
}

func due(t *testing.T, w *world) {
	check := func(want ...gateway.Due) {
		t.Helper()
		if due, err := w.Due(t.Context()); err != nil || !slices.Equal(due, want) {
			t.Errorf("Due: %v, %v; want %v", due, err, want)
		}
	}
	const first, second = "support0@example.com", "support1@example.com"
	check()
	w.commit(t, 2)
	now := w.clock.Now()
	check(gateway.Due{Route: first, Lane: first, Next: now}, gateway.Due{Route: second, Lane: second, Next: now})
	l := w.leaseOne(t)
	check(gateway.Due{Route: first, Lane: first, Next: l.Lease.Until}, gateway.Due{Route: second, Lane: second, Next: now})
	if leased, err := w.LeaseDeliveries(t.Context(), "node", first, 10, time.Minute); err != nil || len(leased) != 0 {
		t.Errorf("another route's delivery was leased: %v, %v", leased, err)
	}
	w.finish(t, l, gateway.EventDeferred, true)
	check(gateway.Due{Route: first, Lane: first, Next: now.Add(time.Minute)}, gateway.Due{Route: second, Lane: second, Next: now})
	w.finish(t, w.leaseOne(t), gateway.EventRejected, true)
	check(gateway.Due{Route: first, Lane: first, Next: now.Add(time.Minute)})
}

func wake(t *testing.T, w *world) {
	check := func(after string, want bool) {
		t.Helper()
		select {
		case <-w.Wake():
			if !want {
				t.Errorf("%s woke the relay", after)
			}
		default:
			if want {
				t.Errorf("%s did not wake the relay", after)
			}
		}
	}
	check("nothing", false)
	w.commit(t, 1)
	w.commit(t, 1)
	check("CommitMail", true)
	check("the second of two commits", false)
	l := w.leaseOne(t)
	w.finish(t, l, gateway.EventRejected, true)
	check("a rejected attempt", false)
	must(t, w.ApplyEvent(t.Context(), l.ID, gateway.EventRetry, admin(), because()))
	check("ApplyEvent", true)
}
