package relay

import (
	"context"
	"sync"
	"time"
)

const (
	idleLimit  = 15 * time.Second // how long a connection waits for its next mail
	mailsLimit = 100              // how many mails one connection carries
)

// pool keeps open sessions between two attempts.
type pool struct {
	perHop, total int

	mu     sync.Mutex
	idle   map[destination][]*session
	count  int
	closed bool
}

func newPool(perHop, total int) *pool {
	return &pool{perHop: perHop, total: total, idle: map[destination][]*session{}}
}

// take returns the session of d that was used last, or nil.
func (p *pool) take(d destination) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[d]
	if len(list) == 0 {
		return nil
	}
	s := list[len(list)-1]
	if time.Since(s.parked) >= idleLimit {
		return nil // the reaper's
	}
	p.set(d, list[:len(list)-1])
	p.count--
	return s
}

// put keeps s for the next attempt, or returns false: then the caller hangs up. With a session whose TLS failed the
// next mail could not try TLS anew.
func (p *pool) put(s *session) bool {
	if !s.idle || s.broken != nil || s.mails >= mailsLimit || !s.stop() {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[s.dest]
	if p.closed || p.count >= p.total || len(list) >= p.perHop {
		return false
	}
	s.parked = time.Now()
	p.idle[s.dest] = append(list, s)
	p.count++
	return true
}

func (p *pool) set(d destination, list []*session) {
	if len(list) == 0 {
		delete(p.idle, d)
		return
	}
	p.idle[d] = list
}

// expired takes out the sessions that were parked before t.
func (p *pool) expired(t time.Time) []*session {
	p.mu.Lock()
	defer p.mu.Unlock()
	var old []*session
	for d, list := range p.idle {
		n := 0
		for n < len(list) && list[n].parked.Before(t) {
			n++
		}
		old = append(old, list[:n]...)
		p.set(d, list[n:])
	}
	p.count -= len(old)
	return old
}

// reap hangs up sessions that were idle for too long, until ctx ends.
func (p *pool) reap(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			hangUpAll(p.expired(time.Now().Add(-idleLimit)))
		}
	}
}

// close hangs up all sessions and keeps none from then on.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	hangUpAll(p.expired(time.Now().Add(time.Hour)))
}

func hangUpAll(sessions []*session) {
	var group sync.WaitGroup
	for _, s := range sessions {
		group.Go(s.hangUp)
	}
	group.Wait()
}
