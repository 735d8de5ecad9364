package meta

import (
	"maps"
	"sync"
	"time"

	"sealpost/gateway"
)

// handKeep is how long a lease is remembered that is neither renewed nor finished.
const handKeep = 24 * time.Hour

// hand holds the leases that this Store gave out and has not seen the end of. A pause of the machine or a step of the
// clock makes them run out while their owner lives: who asks for its own lost leases first has not lost them, and is
// left the time of one more lease to renew or finish them. That time is by the local clock, which does not step.
type hand struct {
	mu     sync.Mutex
	leases map[string]heldLease // by delivery
}

type heldLease struct {
	fence   int64
	ttl     time.Duration
	renewed time.Time // or given out
	overdue time.Time // when it was first seen to have run out; zero: it has not been
}

// hold remembers a lease that was given out or renewed.
func (h *hand) hold(now time.Time, lease gateway.Lease, ttl time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.leases == nil {
		h.leases = map[string]heldLease{}
	}
	h.leases[lease.Delivery] = heldLease{fence: lease.Fence, ttl: ttl, renewed: now}
}

// drop forgets a lease that has ended.
func (h *hand) drop(lease gateway.Lease) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.leases[lease.Delivery].fence == lease.Fence {
		delete(h.leases, lease.Delivery)
	}
}

// tidy forgets what nobody can still have in hand.
func (h *hand) tidy(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.leases, func(_ string, l heldLease) bool { return now.Sub(l.renewed) > handKeep })
}

// has reports whether the owner of a lease that has run out is to be left it for a while.
func (h *hand) has(now time.Time, delivery string, fence int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	l, ok := h.leases[delivery]
	if !ok || l.fence != fence {
		return false
	}
	if l.overdue.IsZero() {
		l.overdue = now
		h.leases[delivery] = l
	}
	return now.Sub(l.overdue) < l.ttl
}
