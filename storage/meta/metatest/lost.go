package metatest

import (
	"strings"
	"testing"
	"time"

	"sealpost/gateway"
)

// takeBack lets the leases of nodes that died run out, and ends them. It returns what was told of that.
func (w *world) takeBack(t *testing.T) error {
	t.Helper()
	w.clock.Add(time.Minute)
	leased, err := w.LeaseDeliveries(t.Context(), "node", "of nobody", 1, time.Minute)
	if len(leased) != 0 {
		t.Errorf("%d deliveries of a lane that has none", len(leased))
	}
	return err
}

// lostLeasesBackOff: an attempt that kills its process is made less and less often, and anew after a retry by hand.
func lostLeasesBackOff(t *testing.T, w *world) {
	m := w.commit(t, 1)
	check := func(want ...time.Duration) {
		t.Helper()
		for i, pause := range want {
			if n := len(w.lose(t)); n != 1 {
				t.Fatalf("attempt %d: %d deliveries were leased", i+1, n)
			}
			must(t, w.takeBack(t))
			d := w.deliveries(t, m.ID)[0]
			if got := d.NextAttempt.Sub(w.clock.Now()); d.State != gateway.Pending || got != pause {
				t.Errorf("after attempt %d it is %s and waits %v, want %v", i+1, d.State, got, pause)
			}
			w.clock.Add(pause - time.Microsecond)
			if n := len(w.lease(t, 1)); n != 0 {
				t.Fatal("it was leased before it was due")
			}
			w.clock.Add(time.Microsecond)
		}
	}
	check(time.Minute, 2*time.Minute, 4*time.Minute, 8*time.Minute, 16*time.Minute, 32*time.Minute, 64*time.Minute, 128*time.Minute,
		4*time.Hour, 4*time.Hour)
	id := w.deliveries(t, m.ID)[0].ID
	must(t, w.ApplyEvent(t.Context(), id, gateway.EventHold, admin(), because()))
	w.clock.Add(time.Hour)
	must(t, w.ApplyEvent(t.Context(), id, gateway.EventRelease, admin(), because()))
	check(time.Minute, 2*time.Minute)
}

// lostLeasesGiveUp: after five days it is dead, which is told to who leases, with its copy and a last attempt at the end
// of them. A retry begins anew.
func lostLeasesGiveUp(t *testing.T, w *world) {
	m := w.commit(t, 1)
	id := w.deliveries(t, m.ID)[0].ID
	end := w.clock.Now().Add(5 * 24 * time.Hour)
	attempts := 0
	for w.deliveries(t, m.ID)[0].State != gateway.Dead {
		if n := len(w.lose(t)); n != 1 {
			t.Fatalf("attempt %d: %d deliveries were leased", attempts+1, n)
		}
		attempts++
		err := w.takeBack(t)
		d := w.deliveries(t, m.ID)[0]
		if dead := d.State == gateway.Dead; dead != !w.clock.Now().Before(end) || dead != (err != nil) {
			t.Fatalf("at %v it is %s, %v", w.clock.Now(), d.State, err)
		}
		if err != nil && !strings.Contains(err.Error(), id) {
			t.Errorf("it is not told which is dead: %v", err)
		}
		if d.State == gateway.Pending {
			if d.NextAttempt.After(end) {
				t.Fatalf("it waits until %v, which is after the five days", d.NextAttempt)
			}
			w.clock.Add(d.NextAttempt.Sub(w.clock.Now()))
		}
	}
	if attempts < 10 || attempts > 45 {
		t.Errorf("%d attempts in five days", attempts)
	}
	d, all, err := w.GetDelivery(t.Context(), id)
	if err != nil || d.State != gateway.Dead || d.Untold == "" || all[len(all)-1].Event != gateway.EventGaveUp || !w.hasCopy(t, m.ID) {
		t.Errorf("it is %+v after %v, %v", d, all, err)
	}
	must(t, w.ApplyEvent(t.Context(), id, gateway.EventRetry, admin(), because()))
	w.lose(t)
	must(t, w.takeBack(t))
	if d := w.deliveries(t, m.ID)[0]; d.State != gateway.Pending || d.Untold != "" {
		t.Errorf("after a retry it is %s, untold %q", d.State, d.Untold)
	}
}

// leaseOfALiveOwner: a machine that was paused, or whose clock stepped, does not take its own deliveries from itself.
// Another node may.
func leaseOfALiveOwner(t *testing.T, w *world) {
	w.commit(t, 1)
	l := w.leaseOne(t)
	w.clock.Add(time.Hour)
	if n := len(w.lease(t, 10)); n != 0 {
		t.Fatal("a delivery was taken from its live owner")
	}
	lease, err := w.RenewLease(t.Context(), l.Lease, time.Minute)
	must(t, err)
	w.clock.Add(time.Hour)
	w.lease(t, 10)
	must(t, w.FinishAttempt(t.Context(), lease, gateway.AttemptResult{Attempt: w.attempt(gateway.EventAccepted), AwaitCase: true}))
	if d, attempts, err := w.GetDelivery(t.Context(), l.ID); err != nil || d.State != gateway.Sent || len(attempts) != 1 {
		t.Errorf("it is %s after %v, %v", d.State, attempts, err)
	}

	w.commit(t, 1)
	l = w.leaseOne(t)
	w.clock.Add(time.Hour)
	other := w.otherNode(t)
	if _, err := LeaseAny(t.Context(), other, "other", 10, time.Minute); err != nil {
		t.Error(err)
	}
	w.clock.Add(time.Minute)
	if leased, err := LeaseAny(t.Context(), other, "other", 10, time.Minute); err != nil || len(leased) != 1 || leased[0].ID != l.ID {
		t.Errorf("another node leased %v, %v", leased, err)
	}
}

// hopIsKept: the hop of an attempt is known, by a route as on the way back.
func hopIsKept(t *testing.T, w *world) {
	w.commit(t, 1)
	must(t, w.CommitMail(t.Context(), w.notice(t, gateway.NoticeFailed, "anna@hop-marker.example").Mail))
	for _, l := range w.lease(t, 2) {
		a := w.attempt(gateway.EventDeferred)
		if a.Hop = "mx.example:25"; l.Route == gateway.ReturnRoute {
			a.Hop = ""
		}
		must(t, w.FinishAttempt(t.Context(), l.Lease, gateway.AttemptResult{Attempt: a, Next: w.clock.Now()}))
		if _, attempts, err := w.GetDelivery(t.Context(), l.ID); err != nil || len(attempts) != 1 || attempts[0].Hop != a.Hop {
			t.Errorf("attempts %v, %v; want one at %q", attempts, err, a.Hop)
		}
	}
}
