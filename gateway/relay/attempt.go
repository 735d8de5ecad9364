package relay

import (
	"context"
	"errors"
	"net/textproto"

	"sealpost/gateway"
)

// errTooLong is why an attempt was cut that took longer than Timeouts.Total.
var errTooLong = errors.New("the attempt took too long")

// outcome is what came of an attempt.
type outcome struct {
	event gateway.DeliveryEvent
	stage stage
	code  int
	// reply is what the next hop said, or what went wrong in our words; not scrubbed yet.
	reply string
	hop   string
	tls   string
	bytes int64
	// cut tells that we broke it off ourselves, to shut down: nothing speaks against trying again at once.
	cut bool
	// fault is set when the mail's copy could not be read, which an admin must hear of.
	fault  error
	hangUp func()
}

// attempt tries to deliver d once. hangUp of the outcome must be called.
func (r *Relay) attempt(ctx context.Context, d gateway.LeasedDelivery) outcome {
	ctx, cancel := context.WithTimeoutCause(ctx, r.opts.Timeouts.Total, errTooLong)
	out := outcome{event: gateway.EventDeferred, stage: stageOpen, hangUp: cancel}
	route, ok := r.opts.Route(d.Route)
	switch {
	case !ok:
		out.reply = "route is no longer configured"
		return out
	case route.NextHop.Host == "":
		out.reply = "the route has no next hop"
		return out
	}
	out.hop = hopAddress(route.NextHop)

	body, err := r.copies.Open(ctx, d.Copy)
	if err != nil {
		out.fail(ctx, &stageError{stageOpen, &copyError{err}})
		return out
	}
	defer func() { _ = body.Close() }()

	s, err := dialer{hostname: r.opts.Hostname, tls: r.opts.TLS, timeouts: r.opts.Timeouts}.open(ctx, route.NextHop)
	if err != nil {
		out.fail(ctx, err)
		return out
	}
	out.hangUp = func() { s.hangUp(); cancel() }
	out.tls = s.tls
	out.reply, out.bytes, err = s.send(d.Copy, d.ForwardTo, body)
	if err != nil {
		out.fail(ctx, err)
		return out
	}
	out.event, out.stage, out.code = gateway.EventAccepted, stageFinal, s.code
	return out
}

// fail turns a failed attempt into an outcome: see the package's decisions.
func (o *outcome) fail(ctx context.Context, err error) {
	o.event = gateway.EventDeferred
	var at *stageError
	if errors.As(err, &at) {
		o.stage = at.at
	}
	var (
		refused *textproto.Error
		never   refusal
		copied  *copyError
	)
	switch {
	case errors.As(err, &refused):
		o.code, o.reply = refused.Code, refused.Msg
		if refused.Code/100 == 5 && o.stage != stageGreeting && o.stage != stageTLS {
			o.event = gateway.EventRejected
		}
	case errors.As(err, &never):
		o.event, o.reply = gateway.EventRejected, never.Error()
	case ctx.Err() != nil:
		o.reply = string(o.stage) + ": " + context.Cause(ctx).Error()
		o.cut = errors.Is(context.Cause(ctx), errShutdown)
	case errors.As(err, &copied):
		o.fault, o.reply = copied.err, "the mail's copy cannot be read"
	default:
		o.reply = err.Error()
	}
}
