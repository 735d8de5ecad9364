package meta_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"sealpost/gateway"
	"sealpost/storage/meta"
	"sealpost/storage/meta/metatest"
)

// Attempts that are finished together: each delivery moves by its own event, a lease ends once, one that was taken ends
// nothing, a notice comes with its attempt, and the copies go that nothing needs any more, and no others.
func TestAttemptsTogether(t *testing.T) {
	_, url := newPostgres(t)
	clock := metatest.NewClock()
	s := openPostgres(t, url, metatest.NewKeys(), meta.WithClock(clock.Now))
	key, err := s.QueueKey(t.Context(), clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	mail := func(deliveries int) gateway.AcceptedMail {
		m := metatest.NewMail(clock.Now(), key, metatest.Routes(deliveries)...)
		if err := s.CommitMail(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	both, half, taken := mail(2), mail(2), mail(1)
	inObject := metatest.NewMail(clock.Now(), key, metatest.Routes(1)...)
	inObject.Copy.Inline, inObject.Copy.Object = nil, "20260102/copy"
	if err := s.CommitMail(t.Context(), inObject); err != nil {
		t.Fatal(err)
	}
	leased, err := metatest.LeaseAny(t.Context(), s, "node", 10, time.Minute)
	if err != nil || len(leased) != 6 {
		t.Fatalf("%d leased, %v", len(leased), err)
	}
	notice := metatest.NewMail(clock.Now(), key, gateway.Route{Address: gateway.ReturnRoute, ForwardTo: "anna@client.example"})
	notice.Package = nil
	rejected := map[gateway.PackageID]bool{} // of half, one delivery
	states := map[string]gateway.DeliveryState{}
	type ending struct {
		lease  gateway.Lease
		result gateway.AttemptResult
		lost   bool
	}
	var endings []ending
	for _, l := range leased {
		e := ending{lease: l.Lease, result: gateway.AttemptResult{
			Attempt: gateway.Attempt{Event: gateway.EventAccepted, Code: 250, Hop: "hop.example", Reply: gateway.NewSecret("250 " + l.ID)}, Next: clock.Now().Add(time.Hour),
		}}
		states[l.ID] = gateway.Sent
		switch {
		case l.Mail == half.ID && !rejected[half.ID]:
			rejected[half.ID] = true
			e.result.Attempt.Event, e.result.Notice = gateway.EventRejected, &gateway.Notice{Kind: gateway.NoticeFailed, Mail: notice}
			states[l.ID] = gateway.Dead
		case l.Mail == taken.ID:
			e.lease.Fence, e.lost = e.lease.Fence+1, true
			states[l.ID] = gateway.Sending
		}
		endings = append(endings, e)
	}
	errs := make([]error, 2*len(endings))
	var group errgroup.Group
	whileLocked(t, url, "attempts", 1, func() {
		for i := range errs { // each twice
			group.Go(func() error {
				e := endings[i%len(endings)]
				errs[i] = s.FinishAttempt(t.Context(), e.lease, e.result)
				return nil
			})
		}
	})
	_ = group.Wait()
	for i, e := range endings {
		one, two := errs[i], errs[i+len(endings)]
		if one != nil {
			one, two = two, one
		}
		if (one == nil) == e.lost || e.lost && !errors.Is(one, meta.ErrLeaseLost) || !errors.Is(two, meta.ErrLeaseLost) {
			t.Errorf("a lease ends with %v and %v", one, two)
		}
	}
	for _, l := range leased {
		d, attempts, err := s.GetDelivery(t.Context(), l.ID)
		ended := states[l.ID] != gateway.Sending
		if err != nil || d.State != states[l.ID] || len(attempts) > 1 || ended && (len(attempts) != 1 || attempts[0].Number != 1 ||
			attempts[0].Reply.Reveal() != "250 "+l.ID || d.LastReply.Reveal() != "250 "+l.ID || d.LastCode != 250) {
			t.Errorf("the delivery is %+v, with %d attempts, %v", d, len(attempts), err)
		}
		if (d.Told == gateway.NoticeFailed) != (d.State == gateway.Dead) {
			t.Errorf("the sender was told %q of a delivery that is %s", d.Told, d.State)
		}
	}
	for id, want := range map[gateway.PackageID]bool{both.ID: false, half.ID: true, taken.ID: true, inObject.ID: false, notice.ID: true} {
		if m, err := s.Mail(t.Context(), id); err != nil || m.HasCopy != want {
			t.Errorf("there is a copy: %t, %v; want %t", m.HasCopy, err, want)
		}
	}
	if garbage, err := s.Garbage(t.Context(), 10); err != nil || len(garbage) != 1 || garbage[0] != inObject.Copy.Object {
		t.Errorf("garbage %v, %v", garbage, err)
	}
}

// A mail that is delivered late, with others, can be opened for a week.
func TestLateTogether(t *testing.T) {
	_, url := newPostgres(t)
	clock := metatest.NewClock()
	s := openPostgres(t, url, metatest.NewKeys(), meta.WithClock(clock.Now))
	key, err := s.QueueKey(t.Context(), clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	var ids []gateway.PackageID
	for range 3 {
		m := metatest.NewMail(clock.Now(), key, metatest.Routes(1)...)
		m.Package.Created, m.Package.Expires = clock.Now(), clock.Now().Add(6*24*time.Hour)
		if err := s.CommitMail(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, m.ID)
	}
	clock.Add(5*24*time.Hour + time.Second)
	leased, err := metatest.LeaseAny(t.Context(), s, "node", 10, time.Minute)
	if err != nil || len(leased) != 3 {
		t.Fatalf("%d leased, %v", len(leased), err)
	}
	var group errgroup.Group
	for _, l := range leased {
		group.Go(func() error {
			return s.FinishAttempt(t.Context(), l.Lease, gateway.AttemptResult{Attempt: gateway.Attempt{Event: gateway.EventAccepted}})
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if p, err := s.Package(t.Context(), id); err != nil || !p.Expires.Equal(clock.Now().Add(7*24*time.Hour)) {
			t.Errorf("it expires at %v, %v", p.Expires, err)
		}
	}
}

// Two nodes that finish deliveries of the same mails at once, many in each transaction and in any order, do not stand in
// each other's way, and each copy is erased.
func TestNodesFinishTogether(t *testing.T) {
	_, url := newPostgres(t)
	keys := metatest.NewKeys()
	nodes := []*meta.Store{openPostgres(t, url, keys), openPostgres(t, url, keys)}
	first := newMail(t, nodes[0])
	var ids []gateway.PackageID
	for range 60 {
		m := metatest.NewMail(first.Started, first.Copy.Key, metatest.Routes(2)...)
		if err := nodes[0].CommitMail(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, m.ID)
	}
	leased, err := metatest.LeaseAny(t.Context(), nodes[0], "node", 200, time.Minute)
	if err != nil || len(leased) != 120 {
		t.Fatalf("%d leased, %v", len(leased), err)
	}
	var group errgroup.Group
	for i, l := range leased {
		group.Go(func() error {
			return nodes[i%2].FinishAttempt(t.Context(), l.Lease, gateway.AttemptResult{Attempt: gateway.Attempt{Event: gateway.EventAccepted}})
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	for _, id := range ids {
		if m, err := nodes[1].Mail(t.Context(), id); err != nil || m.HasCopy {
			t.Errorf("the copy is still there: %t, %v", m.HasCopy, err)
		}
	}
	deadlocks := rowsOf(t, url, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`)
	if fmt.Sprint(deadlocks) != "[0]" {
		t.Errorf("there were %v deadlocks", deadlocks)
	}
}

// A delivery whose row is locked keeps no other waiting, whose lease would be lost meanwhile and whose mail sent twice.
func TestLockedDeliveryKeepsNobodyWaiting(t *testing.T) {
	_, url := newPostgres(t)
	s := openPostgres(t, url, metatest.NewKeys())
	first := newMail(t, s)
	for range 6 {
		if err := s.CommitMail(t.Context(), metatest.NewMail(first.Started, first.Copy.Key, metatest.Routes(1)...)); err != nil {
			t.Fatal(err)
		}
	}
	leased, err := metatest.LeaseAny(t.Context(), s, "node", 10, time.Minute)
	if err != nil || len(leased) != 6 {
		t.Fatalf("%d leased, %v", len(leased), err)
	}
	ended := make(chan string, len(leased))
	end := func(l gateway.LeasedDelivery) {
		go func() {
			if err := s.FinishAttempt(t.Context(), l.Lease, gateway.AttemptResult{Attempt: gateway.Attempt{Event: gateway.EventAccepted}}); err != nil {
				t.Errorf("finish: %v", err)
			}
			ended <- l.ID
		}()
	}
	withPostgres(t, url, func(ctx context.Context, conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, `BEGIN`); err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, `SELECT 1 FROM deliveries WHERE id = $1 FOR UPDATE`, leased[2].ID); err != nil {
			return err
		}
		whileLocked(t, url, "attempts", 1, func() {
			end(leased[0])
			eventually(t, "the first waits for the table", func() bool { return counted(t, url, `wait_event_type = 'Lock'`) >= 1 })
			for _, l := range leased[1:] {
				end(l)
			}
			eventually(t, "the others wait for it, too", func() bool { return counted(t, url, `wait_event_type = 'Lock'`) >= 2 })
		})
		for range len(leased) - 1 {
			if id := <-ended; id == leased[2].ID {
				t.Error("the locked one is finished")
			}
		}
		_, err := conn.Exec(ctx, `COMMIT`)
		return err
	})
	if id := <-ended; id != leased[2].ID {
		t.Errorf("%s is the last", id)
	}
}
