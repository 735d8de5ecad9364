package meta_test

import (
	"path/filepath"
	"testing"
	"time"

	"sealpost/gateway"
	"sealpost/storage/meta"
	"sealpost/storage/meta/metatest"
)

// TestOwnLeaseIsLostInTheEnd: who neither renews nor finishes its own lease, once it has run out, for the time of
// another one, has not got it in hand any more, whatever the database's clock did.
func TestOwnLeaseIsLostInTheEnd(t *testing.T) {
	clock, local := metatest.NewClock(), metatest.NewClock()
	s, err := meta.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "meta.db"), metatest.NewKeys(),
		meta.WithClock(clock.Now), meta.WithLocalClock(local.Now))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	key, err := s.QueueKey(t.Context(), clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	mail := metatest.NewMail(clock.Now(), key, metatest.Routes(1)...)
	if err := s.CommitMail(t.Context(), mail); err != nil {
		t.Fatal(err)
	}
	state := func(when string, want gateway.DeliveryState) {
		t.Helper()
		if _, err := metatest.LeaseAny(t.Context(), s, "node", 10, time.Minute); err != nil {
			t.Error(err)
		}
		all, err := s.ListDeliveries(t.Context(), meta.DeliveryFilter{})
		if err != nil || len(all) != 1 || all[0].State != want {
			t.Errorf("%s it is %v, %v; want %s", when, all, err, want)
		}
	}
	leased, err := metatest.LeaseAny(t.Context(), s, "node", 1, time.Minute)
	if err != nil || len(leased) != 1 {
		t.Fatalf("leased %v, %v", leased, err)
	}
	clock.Add(48 * time.Hour) // a step
	state("after a step of the clock", gateway.Sending)
	local.Add(time.Minute - 1)
	state("within the time of another lease", gateway.Sending)
	if _, err := s.RenewLease(t.Context(), leased[0].Lease, time.Minute); err != nil {
		t.Fatal(err)
	}
	clock.Add(time.Hour)
	local.Add(time.Minute)
	state("renewed in between", gateway.Sending)
	local.Add(time.Minute - 1)
	state("within the time of another lease again", gateway.Sending)
	local.Add(1)
	state("after it", gateway.Pending)
	clock.Add(time.Minute)
	state("a minute later", gateway.Sending)
}
