package smtpd

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxRatedClients bounds the memory of rates. When there are more clients, those whose last mail is the
// longest ago are forgotten.
const maxRatedClients = 10_000

// rates count the mails of each client: those accepted, and those refused for their text, which cost as much. A nil *rates allows everything.
type rates struct {
	perMinute int

	mu      sync.Mutex
	clients map[netip.Prefix]*list.Element
	recent  *list.List // of *ratedClient, the one whose last mail is the longest ago first
}

type ratedClient struct {
	key     netip.Prefix
	limiter *rate.Limiter
}

func newRates(perMinute int) *rates {
	if perMinute <= 0 {
		return nil
	}
	return &rates{perMinute: perMinute, clients: make(map[netip.Prefix]*list.Element), recent: list.New()}
}

// allow reports whether the client may send another mail now.
func (r *rates) allow(key netip.Prefix) bool {
	if r == nil {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	limiter, ok := r.find(key)
	return !ok || limiter.Tokens() >= 1
}

// count tells that a mail of the client's was accepted, or refused through its own fault. What connections at the same time have sent
// beyond the limit is owed, and delays the next.
func (r *rates) count(key netip.Prefix) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	limiter, ok := r.find(key)
	if ok {
		r.recent.MoveToBack(r.clients[key])
	} else {
		limiter = rate.NewLimiter(rate.Every(time.Minute/time.Duration(r.perMinute)), r.perMinute)
		r.clients[key] = r.recent.PushBack(&ratedClient{key, limiter})
	}
	limiter.Reserve()
	r.forget()
}

func (r *rates) find(key netip.Prefix) (*rate.Limiter, bool) {
	if e, ok := r.clients[key]; ok {
		if c, ok := e.Value.(*ratedClient); ok {
			return c.limiter, true
		}
	}
	return nil, false
}

// forget drops the clients that are as good as new, and those that are too many.
func (r *rates) forget() {
	for e := r.recent.Front(); e != nil; e = r.recent.Front() {
		c, ok := e.Value.(*ratedClient)
		if ok && len(r.clients) <= maxRatedClients && c.limiter.Tokens() < float64(r.perMinute) {
			return
		}
		r.recent.Remove(e)
		if ok {
			delete(r.clients, c.key)
		}
	}
}
