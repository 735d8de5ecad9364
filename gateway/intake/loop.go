package intake

import (
	"context"
	"sync"
	"time"
)

// Salesforce takes more than loopMails alike within loopTime for a loop and makes no Case of the rest.
const (
	loopMails = 15
	loopTime  = time.Minute
	maxAlike  = 10000 // kinds of mail that are watched at once
)

// loops counts mails that are alike to Salesforce: by sender, subject and body.
type loops struct {
	mu    sync.Mutex
	alike map[[32]byte][]time.Time
}

// suspects reports whether this mail is one more than Salesforce takes.
func (l *loops) suspects(digest [32]byte, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.alike == nil || len(l.alike) >= maxAlike && l.alike[digest] == nil {
		l.forget(now)
	}
	var recent []time.Time
	for _, at := range l.alike[digest] {
		if now.Sub(at) < loopTime {
			recent = append(recent, at)
		}
	}
	recent = append(recent, now)
	l.alike[digest] = recent[max(0, len(recent)-loopMails-1):]
	return len(recent) > loopMails
}

// forget drops what is too old to matter, or all if nothing is.
func (l *loops) forget(now time.Time) {
	for digest, times := range l.alike {
		if now.Sub(times[len(times)-1]) >= loopTime {
			delete(l.alike, digest)
		}
	}
	if l.alike == nil || len(l.alike) >= maxAlike {
		l.alike = map[[32]byte][]time.Time{}
	}
}

// warn tells what Salesforce will do to a mail that was accepted. Tries that are refused do not count towards a loop.
func (t *transaction) warn(ctx context.Context) {
	if t.returns() {
		return
	}
	if t.autoresponse {
		t.metrics.autoresponse.Inc()
		t.options.Logger.WarnContext(ctx, "the mail has X-SFDC-AutoResponse; Salesforce drops it silently", "mail", t.id.String())
	}
	if t.loops.suspects(t.alike, time.Now()) {
		t.metrics.loopSuspected.Inc()
		t.options.Logger.WarnContext(ctx, "more than 15 alike within a minute; Salesforce takes them for a loop and makes no Case", "mail", t.id.String())
	}
}
