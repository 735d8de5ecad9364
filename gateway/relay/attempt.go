package relay

import (
	"context"
	"errors"
	"io"
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
	// status is the enhanced code of our own refusal.
	status string
	hop    string
	tls    string
	bytes  int64
	learnt feedback
	// cut tells that we broke it off ourselves, to shut down: nothing speaks against trying again at once.
	cut bool
	// handedOn tells that the next hop reports success itself.
	handedOn bool
	// returning tells that hop may give a correspondent away.
	returning bool
	// fault is set when the mail's copy could not be read, which an admin must hear of.
	fault error
	// session is the last one, still open; nil: none.
	session *session
	cancel  context.CancelFunc

	told        bool // notice and untold are settled
	notice      *gateway.Notice
	untold      string
	noticeFault error
}

// publicHop is the hop as it may be logged: a domain without MX records is the address's own.
func (o *outcome) publicHop(d gateway.LeasedDelivery) string {
	if o.returning && o.hop != "" {
		return hidden
	}
	return Scrub(o.hop, d.ForwardTo, d.Route)
}

// attempt tries to deliver d once. The outcome must be settled.
func (r *Relay) attempt(ctx context.Context, d gateway.LeasedDelivery, lane destination) outcome {
	ctx, cancel := context.WithTimeoutCause(ctx, r.opts.Timeouts.Total, errTooLong)
	out := outcome{
		event: gateway.EventDeferred, stage: stageOpen, cancel: cancel, returning: d.Route == gateway.ReturnRoute,
	}
	route, ok := r.route(d.Route)
	if !ok {
		out.reply = "route is no longer configured"
		return out
	}
	m, err := r.message(ctx, d)
	if err != nil {
		out.fail(ctx, err)
		return out
	}
	defer m.close()
	dest := destinationOf(route.NextHop, d.ForwardTo)
	if dest != lane {
		if err := r.slots.acquire(ctx, dest); err != nil {
			out.fail(ctx, err)
			return out
		}
		defer func() {
			r.slots.done(dest, out.learnt)
			out.learnt = good // the lane's
		}()
	}
	(&trial{Relay: r, m: m, dest: dest, out: &out}).run(ctx)
	return out
}

// message makes ready what is to be sent.
func (r *Relay) message(ctx context.Context, d gateway.LeasedDelivery) (*message, error) {
	m := &message{
		from: d.Copy.MailFrom.Reveal(), to: d.ForwardTo, mail: d.Copy,
		downgrade: r.opts.Downgrade, address: r.opts.DowngradeAddress,
		open: func() (io.ReadCloser, error) { return r.copies.Open(ctx, d.Copy) },
	}
	if d.Route != gateway.ReturnRoute {
		m.dsn, m.ret, m.envid = d.DSN, d.Return, d.EnvelopeID.Reveal()
		m.public, m.passSuccess = d.Route, r.opts.ReturnPath != nil
		if m.from != "" && r.opts.ReturnPath != nil {
			var err error
			if m.from, err = r.opts.ReturnPath(m.from); err != nil {
				return nil, &stageError{stageOpen, errReturnPath}
			}
		}
	}
	body, err := m.open()
	if err != nil {
		return nil, &stageError{stageOpen, &copyError{err}}
	}
	m.body = body
	return m, nil
}

// errReturnPath stands for the rewriter's error, which may hold the sender's address.
var errReturnPath = errors.New("the sender's address cannot be rewritten")

// fail turns a failed attempt into an outcome: see the package's decisions.
func (o *outcome) fail(ctx context.Context, err error) {
	o.event, o.code, o.status = gateway.EventDeferred, 0, ""
	var at *stageError
	if errors.As(err, &at) {
		o.stage = at.at
	}
	var (
		said   *textproto.Error
		never  refusal
		copied *copyError
	)
	switch {
	case errors.As(err, &said):
		o.code, o.reply = said.Code, said.Msg
		if said.Code/100 == 5 && o.stage != stageGreeting && o.stage != stageTLS && o.stage != stageAuth {
			o.event = gateway.EventRejected
		}
		if o.stage == stageAuth {
			o.reply = said.Msg + " (the next hop refuses our user and password)"
		}
	case errors.As(err, &never):
		o.event, o.status, o.reply = gateway.EventRejected, never.status, never.status+" "+never.text
	case ctx.Err() != nil:
		o.reply = string(o.stage) + ": " + context.Cause(ctx).Error()
		o.cut = errors.Is(context.Cause(ctx), errShutdown)
	case errors.As(err, &copied):
		o.fault, o.reply = copied.err, "the mail's copy cannot be read"
	default:
		o.reply = err.Error()
	}
	o.learn(ctx)
}

// learn says what a failure taught about the hop.
func (o *outcome) learn(ctx context.Context) {
	early := o.stage == stageGreeting || o.stage == stageHello
	switch {
	case ctx.Err() != nil || o.status != "":
		o.learnt = neutral
	case o.stage == stageConnect:
		o.learnt = unreachable
	case o.code == 421, early && o.code/100 != 5, o.stage == stageMail && o.code/100 == 4:
		o.learnt = refused
	case o.event == gateway.EventRejected && o.code != 0:
		o.learnt = good
	default:
		o.learnt = neutral
	}
}
