package relay

import (
	"context"
	"strings"
	"sync"

	"sealpost/gateway"
)

// destination is what connections and concurrency are counted by: a hop, and the domain when the hop is its MX.
type destination struct {
	hop    gateway.NextHop
	domain string
}

func destinationOf(hop gateway.NextHop, forwardTo string) destination {
	if hop.Host != "" {
		return destination{hop: hop}
	}
	_, domain := splitAddress(forwardTo)
	return destination{hop, strings.ToLower(domain)}
}

// firstLimit is the concurrency that a hop begins with, as in Postfix (initial_destination_concurrency).
const firstLimit = 5

// maxHops is from what number on idle destinations are forgotten.
const maxHops = 1000

// feedback is what an attempt taught about its hop.
type feedback int

const (
	neutral     feedback = iota
	good                 // it took a mail, or judged it
	refused              // it wants fewer of us for now
	unreachable          // no connection
)

// slots bound the attempts at each destination. A destination's limit grows by one with each success, is halved
// when it refuses us, and is one after it could not be reached: a single delivery at a time probes it.
type slots struct {
	max int

	mu      sync.Mutex
	hops    map[destination]*hop
	changed chan struct{} // closed and renewed when a slot becomes free
}

type hop struct{ active, limit int }

func newSlots(limit int) *slots {
	return &slots{max: limit, hops: map[destination]*hop{}, changed: make(chan struct{})}
}

// reserve takes up to want slots of d, as many as are free, where free workers are left for all: a destination
// never holds more than what it leaves to the others, so that slow ones cannot take all.
func (s *slots) reserve(d destination, free int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.get(d)
	n := 0
	for h.active < h.limit && free > 0 && h.active < free {
		h.active++
		free--
		n++
	}
	return n
}

// release gives n slots back that were not used.
func (s *slots) release(d destination, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.get(d).active -= n
	s.wakeUp()
}

// acquire waits for a slot of d.
func (s *slots) acquire(ctx context.Context, d destination) error {
	for {
		s.mu.Lock()
		h, changed := s.get(d), s.changed
		if h.active < h.limit {
			h.active++
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

// done gives one slot back and adapts the limit.
func (s *slots) done(d destination, f feedback) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.get(d)
	h.active--
	switch f {
	case good:
		h.limit = min(h.limit+1, s.max)
	case refused:
		h.limit = max(h.limit/2, 1)
	case unreachable:
		h.limit = 1
	}
	s.wakeUp()
}

func (s *slots) wakeUp() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *slots) get(d destination) *hop {
	if h := s.hops[d]; h != nil {
		return h
	}
	if len(s.hops) >= maxHops {
		for other, h := range s.hops {
			if h.active == 0 {
				delete(s.hops, other)
			}
		}
	}
	h := &hop{limit: min(firstLimit, s.max)}
	s.hops[d] = h
	return h
}
