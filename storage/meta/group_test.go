package meta_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"sealpost/gateway"
	"sealpost/storage/meta"
	"sealpost/storage/meta/metatest"
)

// Callers share transactions, yet each fails alone, and one that gives up leaves nothing.
func TestSharedTransactions(t *testing.T) {
	clock := metatest.NewClock()
	s := open(t, filepath.Join(t.TempDir(), "meta.db"), metatest.NewKeys(), clock.Now)
	key, err := s.QueueKey(t.Context(), clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	const callers = 200
	var mu sync.Mutex
	want := map[gateway.PackageID]int{}
	var group errgroup.Group
	for i := range callers {
		group.Go(func() error {
			m := metatest.NewMail(clock.Now(), key, metatest.Routes(2)...)
			deliveries, wrong := 2, error(nil)
			switch i % 4 {
			case 1: // fails at its last statement
				m.Deliveries[1] = m.Deliveries[0]
				deliveries = 0
			case 2: // fails at its first
				m.Started = m.Started.Add(-2 * time.Hour)
				deliveries = 0
			}
			ctx := t.Context()
			if i%4 == 3 {
				ctx, deliveries = gone, 0
			}
			err := s.CommitMail(ctx, m)
			if (err == nil) != (deliveries > 0) || ctx == gone && !errors.Is(err, context.Canceled) {
				wrong = errors.Join(errors.New("a caller got another's result"), err)
			}
			mu.Lock()
			defer mu.Unlock()
			want[m.ID] = deliveries
			return wrong
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	for id, n := range want {
		got, err := s.ListDeliveries(t.Context(), meta.DeliveryFilter{Mail: id})
		if err != nil || len(got) != n {
			t.Errorf("%d deliveries, %v; want %d", len(got), err, n)
		}
	}
}
