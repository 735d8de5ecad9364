package relay

import (
	"cmp"
	"context"
	"slices"
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
	return destination{hop, strings.ToLower(domainOf(forwardTo))}
}

// domainOf is what follows the last @ of an address.
func domainOf(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return ""
	}
	return address[at+1:]
}

// lane is what attempts are counted by: where they go, and whether that is back to a sender. Who may write to us
// chooses the domains of senders, so all lanes back share one limit besides their own.
type lane struct {
	destination
	returning bool
}

// firstLimit is the concurrency that a hop begins with, as in Postfix (initial_destination_concurrency).
const firstLimit = 5

// maxHops is from what number on idle destinations are forgotten, to make room for new ones.
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
	max        int
	maxReturns int // of all lanes back to senders together

	mu      sync.Mutex
	returns int
	uses    uint64
	hops    map[destination]*hop
	changed chan struct{} // closed and renewed when a slot becomes free
}

type hop struct {
	active, limit int
	returns       bool   // only what goes back to senders has come here
	used          uint64 // when, by the count of uses
}

// newSlots bounds a destination by limit, and what goes back to senders by a quarter of the workers.
func newSlots(limit, workers int) *slots {
	return &slots{max: limit, maxReturns: max(workers/4, 1), hops: map[destination]*hop{}, changed: make(chan struct{})}
}

// reserve takes as many slots of l as there are, where free workers are left for all: a destination never holds
// more than what it leaves to the others, so that slow ones cannot take all.
func (s *slots) reserve(l lane, free int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.get(l)
	if l.returning {
		free = min(free, s.maxReturns-s.returns)
	}
	n := 0
	for h.active < h.limit && free > 0 && h.active < free {
		h.active++
		free--
		n++
	}
	if l.returning {
		s.returns += n
	}
	return n
}

// release gives n slots back that were not used.
func (s *slots) release(l lane, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free(l, n)
}

// free must be called with the lock held.
func (s *slots) free(l lane, n int) *hop {
	h := s.get(l)
	h.active -= n
	if l.returning {
		s.returns -= n
	}
	s.wakeUp()
	return h
}

// acquire waits for a slot of d.
func (s *slots) acquire(ctx context.Context, d destination) error {
	for {
		s.mu.Lock()
		h, changed := s.get(lane{destination: d}), s.changed
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
func (s *slots) done(l lane, f feedback) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.free(l, 1)
	switch f {
	case good:
		h.limit = min(h.limit+1, s.max)
	case refused:
		h.limit = max(h.limit/2, 1)
	case unreachable:
		h.limit = 1
	}
}

func (s *slots) wakeUp() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *slots) get(l lane) *hop {
	h := s.hops[l.destination]
	if h == nil {
		if len(s.hops) >= maxHops {
			s.forget()
		}
		h = &hop{limit: min(firstLimit, s.max), returns: true}
		s.hops[l.destination] = h
	}
	s.uses++
	h.used, h.returns = s.uses, h.returns && l.returning
	return h
}

// forget makes room: of the idle destinations those go that outsiders chose, the least recently used first, so that
// nobody who writes to us can have it forgotten what was learnt of the admin's own. Only where there are none, one of
// the others goes.
func (s *slots) forget() {
	var returns, others []destination
	for d, h := range s.hops {
		switch {
		case h.active > 0:
		case h.returns:
			returns = append(returns, d)
		default:
			others = append(others, d)
		}
	}
	oldest := func(a, b destination) int { return cmp.Compare(s.hops[a].used, s.hops[b].used) }
	slices.SortFunc(returns, oldest)
	gone := returns[:min(len(returns), maxHops/4)]
	if len(gone) == 0 && len(others) > 0 {
		gone = []destination{slices.MinFunc(others, oldest)}
	}
	for _, d := range gone {
		delete(s.hops, d)
	}
}
