package main

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	"sealpost/gateway"
	"sealpost/gateway/dsn"
)

const (
	// hiddenEvery is how often it is asked where the other nodes, with another configuration maybe, forward mail to.
	hiddenEvery = time.Hour
	// hiddenAgain is how soon after a failure.
	hiddenAgain = time.Minute
)

// forwardings is what the database knows of where mail has been forwarded to, each with its public address.
type forwardings interface {
	ForwardedTo(ctx context.Context) (map[string]string, error)
	KeepForwardedTo(ctx context.Context, addresses map[string]string) error
}

// returner hands bounces back. It hides each forward_to that mail has ever gone to, not only those of the configuration: a
// bounce may come long after one was corrected. While those are not known bounces are deferred.
type returner struct {
	hostname string
	router   *router
	store    forwardings
	logger   *slog.Logger
	hide     atomic.Pointer[map[string]string] // nil: not known yet
	next     time.Duration                     // until it is learnt again
}

// newReturner returns one that knows what to hide, unless the database fails.
func newReturner(ctx context.Context, hostname string, router *router, store forwardings, logger *slog.Logger) *returner {
	r := &returner{hostname: hostname, router: router, store: store, logger: logger}
	r.learn(ctx)
	return r
}

// Return is dsn.Returner's.
func (r *returner) Return(ctx context.Context, w io.Writer, to string, mail io.ReaderAt, size int64, trace []byte) error {
	hide := r.hide.Load()
	if hide == nil {
		return gateway.Errorf(gateway.CodeUnavailable, nil, "bounces are not taken now; try again later")
	}
	return dsn.Returner{Hostname: r.hostname, Hide: *hide}.Return(ctx, w, to, mail, size, trace)
}

// Run keeps it up to date until ctx ends.
func (r *returner) Run(ctx context.Context) {
	for {
		timer := time.NewTimer(r.next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		r.learn(ctx)
	}
}

// learn reads what to hide, and has the database keep what is configured. It logs a failure, after which it is due again
// soon.
func (r *returner) learn(ctx context.Context) {
	r.next = hiddenEvery
	if err := r.refresh(ctx); err != nil && ctx.Err() == nil {
		r.next = hiddenAgain
		r.logger.ErrorContext(ctx, "it cannot be kept where mail is forwarded to", "error", err)
	}
}

func (r *returner) refresh(ctx context.Context) error {
	known, err := r.store.ForwardedTo(ctx)
	if err != nil {
		return err
	}
	hide := r.router.hiddenBeside(known)
	r.hide.Store(&hide)
	fresh := r.router.hidden()
	maps.DeleteFunc(fresh, func(address, public string) bool { return known[address] == public })
	if len(fresh) == 0 {
		return nil
	}
	return r.store.KeepForwardedTo(ctx, fresh)
}
