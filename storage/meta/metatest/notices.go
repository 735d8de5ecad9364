package metatest

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"sealpost/gateway"
	"sealpost/storage/meta"
)

// notice makes a notice that goes back to a sender.
func (w *world) notice(t *testing.T, kind gateway.NoticeKind, to string) *gateway.Notice {
	t.Helper()
	m := w.mail(t, 1)
	m.Package = nil
	m.Deliveries[0].Route = gateway.Route{Address: gateway.ReturnRoute, ForwardTo: to, ExpireAfter: time.Hour}
	return &gateway.Notice{Kind: kind, Mail: m}
}

// returnLanes: what goes back to senders waits by organisational domain, one domain does not lease another's, and no lane
// names one.
func returnLanes(t *testing.T, w *world) {
	for _, to := range []string{"a@slow-marker.example", "B@Any.Name.Slow-Marker.Example", "c@fast-marker.example"} {
		must(t, w.CommitMail(t.Context(), w.notice(t, gateway.NoticeFailed, to).Mail))
	}
	w.commit(t, 1)
	due, err := w.Due(t.Context())
	must(t, err)
	lanes := map[int]string{} // by the number of deliveries that wait in it
	for _, d := range due {
		if strings.Contains(strings.ToLower(d.Lane), "marker") {
			t.Errorf("the lane %q names a domain", d.Lane)
		}
		if d.Route != gateway.ReturnRoute {
			continue
		}
		leased, err := w.LeaseDeliveries(t.Context(), "node", d.Lane, 10, time.Minute)
		must(t, err)
		lanes[len(leased)] = d.Lane
		for _, l := range leased {
			if _, domain, _ := strings.Cut(strings.ToLower(l.ForwardTo), "@"); strings.HasSuffix(domain, "slow-marker.example") != (len(leased) == 2) {
				t.Errorf("%d were leased with one to %q", len(leased), domain)
			}
		}
	}
	if len(due) != 3 || len(lanes) != 2 || lanes[1] == "" || lanes[2] == "" {
		t.Errorf("due %v, leased %v; want the route, a lane with two and one with one", due, lanes)
	}
	again, err := w.Due(t.Context())
	if err != nil || len(again) != 3 || !again[0].Next.Equal(w.clock.Now().Add(time.Minute)) {
		t.Errorf("leased lanes are due %v, %v; want the end of their leases", again, err)
	}
}

// toldAnewAfterRetry: a retry begins anew, for the delay notice as for the end; a hold in between does not.
func toldAnewAfterRetry(t *testing.T, w *world) {
	m := w.commit(t, 1)
	end := func(event gateway.DeliveryEvent, kind gateway.NoticeKind, untold string) gateway.Delivery {
		t.Helper()
		l := w.leaseOne(t)
		result := gateway.AttemptResult{Attempt: w.attempt(event), Next: w.clock.Now(), AwaitCase: true, Untold: untold}
		if kind != "" {
			result.Notice = w.notice(t, kind, "anna.marker@client.example")
			result.Notice.Mail.Deliveries[0].Hold = "so that it is not leased here"
		}
		must(t, w.FinishAttempt(t.Context(), l.Lease, result))
		return w.deliveries(t, m.ID)[0]
	}
	told := func(when string, d gateway.Delivery, want gateway.NoticeKind, untold string) {
		t.Helper()
		if d.Told != want || d.Untold != untold {
			t.Errorf("%s: told %q, untold %q; want %q, %q", when, d.Told, d.Untold, want, untold)
		}
	}
	apply := func(event gateway.DeliveryEvent) gateway.Delivery {
		t.Helper()
		must(t, w.ApplyEvent(t.Context(), w.deliveries(t, m.ID)[0].ID, event, admin(), because()))
		return w.deliveries(t, m.ID)[0]
	}
	told("delayed", end(gateway.EventDeferred, gateway.NoticeDelayed, ""), gateway.NoticeDelayed, "")
	apply(gateway.EventHold)
	told("held and released", apply(gateway.EventRelease), gateway.NoticeDelayed, "")
	told("dead", end(gateway.EventRejected, gateway.NoticeFailed, ""), gateway.NoticeFailed, "")
	told("retried", apply(gateway.EventRetry), "", "")
	told("delayed again", end(gateway.EventDeferred, gateway.NoticeDelayed, ""), gateway.NoticeDelayed, "")
	told("dead again", end(gateway.EventGaveUp, gateway.NoticeFailed, ""), gateway.NoticeFailed, "")
	apply(gateway.EventRetry)
	told("dead, untold", end(gateway.EventRejected, "", "DMARC failed"), "", "DMARC failed")
	told("retried after that", apply(gateway.EventRetry), "", "")
	told("relayed", end(gateway.EventAccepted, gateway.NoticeRelayed, ""), gateway.NoticeRelayed, "")
	told("replayed", apply(gateway.EventReplay), "", "")
}

// lostNotice: who lost the lease sends no notice; who has it sends one.
func lostNotice(t *testing.T, w *world) {
	w.commit(t, 1)
	old := w.lose(t)[0]
	w.clock.Add(time.Minute)
	w.lease(t, 1) // takes it back
	w.clock.Add(time.Minute)
	current := w.leaseOne(t)
	result := gateway.AttemptResult{Attempt: w.attempt(gateway.EventRejected), AwaitCase: true}
	for i, lease := range []gateway.Lease{old.Lease, current.Lease, current.Lease, old.Lease} {
		result.Notice = w.notice(t, gateway.NoticeFailed, "anna.marker@client.example")
		err := w.FinishAttempt(t.Context(), lease, result)
		if lost := errors.Is(err, meta.ErrLeaseLost); lost == (i == 1) {
			t.Errorf("end %d: %v", i, err)
		}
		if _, err := w.Mail(t.Context(), result.Notice.Mail.ID); (err == nil) != (i == 1) {
			t.Errorf("the notice of end %d: %v", i, err)
		}
	}
	if sent := w.lease(t, 10); len(sent) != 1 || sent[0].Route != gateway.ReturnRoute {
		t.Errorf("%d notices are sent, want 1", len(sent))
	}
}

// claimAlertRace: of many that claim an alert at once, on several nodes, one gets it.
func claimAlertRace(t *testing.T, w *world) {
	stores := []*meta.Store{w.Store, w.open(t, w.keys, w.clock.Now)}
	for round := range 3 {
		var claims atomic.Int32
		group, ctx := errgroup.WithContext(t.Context())
		for i := range 50 {
			group.Go(func() error {
				claimed, err := stores[i%len(stores)].ClaimAlert(ctx, "dead", time.Hour)
				if claimed {
					claims.Add(1)
				}
				return err
			})
		}
		must(t, group.Wait())
		if n := claims.Load(); n != 1 {
			t.Errorf("round %d: %d claims, want 1", round, n)
		}
		w.clock.Add(time.Hour)
	}
}

// dropSaysWhoAndWhy: without both a delivery stays as it is, and nothing is audited.
func dropSaysWhoAndWhy(t *testing.T, w *world) {
	m := w.commit(t, 1)
	id := w.deliveries(t, m.ID)[0].ID
	nameless := gateway.Principal{Kind: gateway.PrincipalAdmin}
	system := gateway.Principal{Kind: gateway.PrincipalSystem, Name: gateway.NewSecret("name-marker")}
	wantCode(t, "without a name", w.ApplyEvent(t.Context(), id, gateway.EventDrop, nameless, because()), gateway.CodeInvalid)
	wantCode(t, "without a reason", w.ApplyEvent(t.Context(), id, gateway.EventDrop, admin(), gateway.Secret{}), gateway.CodeInvalid)
	wantCode(t, "by the gateway itself", w.ApplyEvent(t.Context(), id, gateway.EventDrop, system, because()), gateway.CodeForbidden)
	if d := w.deliveries(t, m.ID)[0]; d.State != gateway.Pending || !w.hasCopy(t, m.ID) {
		t.Errorf("the delivery is %s", d.State)
	}
	if events, err := w.ListAudit(t.Context(), &m.ID, 10); err != nil || len(events) != 0 {
		t.Errorf("audit %v, %v", events, err)
	}
	must(t, w.ApplyEvent(t.Context(), id, gateway.EventDrop, admin(), because()))
	if d := w.deliveries(t, m.ID)[0]; d.State != gateway.Dropped || !d.Reason.Equal(because()) {
		t.Errorf("the delivery is %s because of %q", d.State, d.Reason.Reveal())
	}
}
