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

// finishLimit bounds the recording of an attempt while the queue fails.
const finishLimit = 30 * time.Second

// deliver attempts one delivery, records what came of it, and returns what it taught about the lane it came by.
func (r *Relay) deliver(ctx context.Context, d gateway.LeasedDelivery, l lane) feedback {
	started := r.opts.Clock()
	log := r.log.With("delivery", d.ID, "mail", d.Mail.String(), "route", d.Route, "attempt", d.Attempts)

	held, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	release := r.hold(ctx, d.Lease, cancel)
	out := r.attempt(held, d, l)
	defer r.settle(&out) // after the result is safe
	lease, err := release()
	if err == nil {
		err = r.finish(context.WithoutCancel(ctx), lease, d, started, &out)
	}
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

// hold renews a lease until release is called, and calls lost with errLeaseLost when it is lost. release then
// returns that error, else the lease as it stands. It must be called.
func (r *Relay) hold(ctx context.Context, lease gateway.Lease, lost context.CancelCauseFunc) (release func() (gateway.Lease, error)) {
	// Renewing goes on while an attempt that was cut comes to its end.
	renew, stop := context.WithCancel(context.WithoutCancel(ctx))
	var (
		renewer sync.WaitGroup
		err     error
	)
	renewer.Go(func() {
		if err = r.renew(renew, &lease); err != nil {
			lost(err)
		}
	})
	return func() (gateway.Lease, error) {
		stop()
		renewer.Wait()
		return lease, err
	}
}

// renew prolongs *lease until ctx ends (nil) or the lease is lost (errLeaseLost). A queue that cannot be
// reached loses it when it has run out by our own clock.
func (r *Relay) renew(ctx context.Context, lease *gateway.Lease) error {
	ticker := time.NewTicker(max(r.opts.LeaseTTL/3, time.Millisecond))
	defer ticker.Stop()
	renewed := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		asked := time.Now()
		next, err := r.queue.RenewLease(ctx, *lease, r.opts.LeaseTTL)
		switch {
		case err == nil:
			*lease, renewed = next, asked
		case ctx.Err() != nil:
			return nil
		case gateway.ErrorCode(err) == gateway.CodeConflict, time.Since(renewed) > r.opts.LeaseTTL:
			return errLeaseLost
		}
	}
}

// finish records the attempt. It is tried for a while: a mail that was accepted and not recorded is sent twice.
func (r *Relay) finish(ctx context.Context, lease gateway.Lease, d gateway.LeasedDelivery, started time.Time, out *outcome) error {
	ctx, cancel := context.WithTimeout(ctx, min(finishLimit, r.opts.LeaseTTL))
	defer cancel()
	for pause := 50 * time.Millisecond; ; pause *= 2 {
		err := r.record(ctx, lease, d, started, out)
		if err == nil || gateway.ErrorCode(err) == gateway.CodeConflict {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

func (r *Relay) record(ctx context.Context, lease gateway.Lease, d gateway.LeasedDelivery, started time.Time, out *outcome) error {
	now, err := r.queue.Now(ctx)
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
	return r.queue.FinishAttempt(ctx, lease, gateway.AttemptResult{
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
