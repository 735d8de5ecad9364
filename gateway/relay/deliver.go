package relay

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"sealpost/gateway"
)

// errLeaseLost is why an attempt was broken off whose delivery now belongs to somebody else.
var errLeaseLost = errors.New("the lease was lost")

const (
	// finishLimit bounds the recording of an attempt while the queue fails.
	finishLimit = 10 * time.Minute
	// finishPause is the longest pause between two tries: another node must not take the delivery in between, once
	// the queue is back.
	finishPause = time.Second
	// shutdownLimit is what is left of finishLimit after the grace time.
	shutdownLimit = 10 * time.Second
)

// deliver attempts one delivery, records what came of it, and returns what it taught about the lane it came by.
func (r *Relay) deliver(ctx context.Context, d gateway.LeasedDelivery, l lane) feedback {
	started := r.opts.Clock()
	log := r.log.With("delivery", d.ID, "mail", d.Mail.String(), "route", d.Route, "attempt", d.Attempts)

	held, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	release := r.hold(ctx, d.Lease, cancel)
	defer release()
	out := r.attempt(held, d, l)
	defer r.settle(&out) // after the result is safe
	err := context.Cause(held)
	if !errors.Is(err, errLeaseLost) || out.event != gateway.EventDeferred {
		err = r.finish(ctx, d, started, &out)
	}
	release()
	r.report(log.With("hop", out.publicHop()), &out, err, r.opts.Clock().Sub(started))
	return out.learnt
}

// report logs and counts an attempt; err is why it could not be recorded.
func (r *Relay) report(log *slog.Logger, out *outcome, err error, took time.Duration) {
	if out.fault != nil {
		log.Error("the copy of a waiting mail cannot be read", "error", out.fault)
	}
	if out.noticeFault != nil {
		log.Error("a notice to the sender cannot be made", "error", out.noticeFault)
	}
	switch {
	case errors.Is(err, errLeaseLost) || gateway.ErrorCode(err) == gateway.CodeConflict:
		r.metrics.lost.Inc()
		log.Warn("the lease was lost, the attempt is not recorded")
		return
	case err != nil:
		log.Error("an attempt cannot be recorded", "error", err)
		return
	}
	r.metrics.recorded(*out)
	level, message := slog.LevelInfo, "delivery attempted"
	if out.event == gateway.EventRejected || out.event == gateway.EventGaveUp {
		level, message = slog.LevelError, "a delivery is dead"
	}
	if level == slog.LevelError && out.returning { // outsiders cause it, and it waits for no admin
		level, message = slog.LevelInfo, "a delivery back to a sender is dead"
	}
	log.Log(context.Background(), level, message, "event", out.event, "stage", out.stage, "code", out.code,
		"enhanced", enhancedCode(out.reply), "tls", out.tls, "bytes", out.bytes, "untold", out.untold, "duration", took)
}

// settle keeps the session of an attempt for the next one, or hangs up.
func (r *Relay) settle(out *outcome) {
	if s := out.session; s != nil && !r.pool.put(s) {
		s.hangUp()
	}
	out.cancel()
}

// hold renews a lease until release is called, and calls lost with errLeaseLost when it is lost. release must be
// called; it may be more than once.
func (r *Relay) hold(ctx context.Context, lease gateway.Lease, lost context.CancelCauseFunc) (release func()) {
	// Renewing goes on while an attempt that was cut comes to its end, and while its result is recorded.
	renew, stop := context.WithCancel(context.WithoutCancel(ctx))
	var renewer sync.WaitGroup
	renewer.Go(func() { r.renew(renew, lease, func() { lost(errLeaseLost) }) })
	return func() {
		stop()
		renewer.Wait()
	}
}

// renew prolongs a lease until ctx ends or another has it, and calls lost then. It also calls lost when the lease has
// run out by our own clock, because the queue cannot be reached; but the lease is ours until another takes it.
func (r *Relay) renew(ctx context.Context, lease gateway.Lease, lost func()) {
	ticker := time.NewTicker(max(r.opts.LeaseTTL/3, time.Millisecond))
	defer ticker.Stop()
	renewed := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		asked := time.Now()
		next, err := ask(ctx, r.opts.QueueTimeout, func(ctx context.Context) (gateway.Lease, error) {
			return r.queue.RenewLease(ctx, lease, r.opts.LeaseTTL)
		})
		switch {
		case err == nil:
			lease, renewed = next, asked
		case ctx.Err() != nil:
			return
		case gateway.ErrorCode(err) == gateway.CodeConflict:
			lost()
			return
		case time.Since(renewed) > r.opts.LeaseTTL:
			lost()
		}
	}
}

// ask bounds one call of the queue: over a connection that has gone silent the answer never comes, while another
// connection may bring it at once.
func ask[T any](ctx context.Context, limit time.Duration, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return call(ctx)
}

// finish records the attempt. It is tried for long, even past the end of the lease: a mail that was accepted and not
// recorded is sent twice, and where another has taken the delivery the lease's fence keeps us out.
func (r *Relay) finish(ctx context.Context, d gateway.LeasedDelivery, started time.Time, out *outcome) error {
	over, shutdown := time.After(finishLimit), ctx.Done()
	ctx = context.WithoutCancel(ctx) // each call has its own bound
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, finishPause) {
		err := r.record(ctx, d, started, out)
		if err == nil || gateway.ErrorCode(err) == gateway.CodeConflict {
			return err
		}
		select {
		case <-over:
			return err
		case <-shutdown:
			over, shutdown = time.After(shutdownLimit), nil
		case <-time.After(pause):
		}
	}
}

func (r *Relay) record(ctx context.Context, d gateway.LeasedDelivery, started time.Time, out *outcome) error {
	now, err := ask(ctx, r.opts.QueueTimeout, r.queue.Now)
	if err != nil {
		return err
	}
	var next time.Time
	if out.event == gateway.EventDeferred {
		var again bool
		if next, again = r.opts.Schedule.Next(d.Since, now, d.Attempts, r.opts.Rand()); !again {
			out.event = gateway.EventGaveUp
		} else if out.cut {
			next = now
		}
	}
	if err := r.tell(ctx, d, out, now); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, r.opts.QueueTimeout)
	defer cancel()
	return r.queue.FinishAttempt(ctx, d.Lease, gateway.AttemptResult{
		Attempt: gateway.Attempt{
			Number:  d.Attempts,
			Started: now.Add(started.Sub(r.opts.Clock())), // a node's clock measures, and the queue's tells the time
			Ended:   now,
			Hop:     out.recordedHop(r.opts.ReturnHop.Host != ""),
			Event:   out.event,
			Code:    out.code,
			Reply:   gateway.NewSecret(out.hide.scrub(out.reply)),
			TLS:     out.tls,
		},
		Next:      next,
		AwaitCase: d.Route != gateway.ReturnRoute && r.opts.AwaitCase(d.Route),
		Notice:    out.notice,
		Untold:    out.untold,
	})
}
