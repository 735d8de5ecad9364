package relay

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/textproto"

	"sealpost/gateway"
)

// errTooLong is why an attempt was cut that took longer than Timeouts.Total.
var errTooLong = errors.New("the attempt took too long")

// sendersServer stands for the hop of what goes back to a sender, which would name a correspondent's domain.
const sendersServer = "the sender's mail server"

// result is what one server, or the lack of one, made of the mail.
type result struct {
	event gateway.DeliveryEvent
	stage stage
	code  int
	// reply is what the next hop said, or what went wrong in our words; not scrubbed yet.
	reply string
	// status is the enhanced code of our own refusal.
	status string
	hop    string
	tls    string
	learnt feedback
	// cut tells that we broke it off ourselves, to shut down: nothing speaks against trying again at once.
	cut bool
	// fault is set when the mail's copy could not be read, which an admin must hear of.
	fault error
	// err is the failure itself, not scrubbed; nil: there is none.
	err error
}

// outcome is what came of an attempt.
type outcome struct {
	result
	bytes int64
	// handedOn tells that the next hop reports success itself.
	handedOn bool
	// returning tells that hop may give a correspondent away.
	returning bool
	// hide are the addresses and credentials that no recorded reply may hold.
	hide hiding
	// session is the last one, still open; nil: none.
	session *session
	cancel  context.CancelFunc

	told        bool // notice and untold are settled
	notice      *gateway.Notice
	untold      string
	noticeFault error
}

// publicHop is the hop as it may be logged: a domain without MX records is the address's own.
func (o *outcome) publicHop() string {
	if o.returning && o.hop != "" {
		return hidden
	}
	return o.hide.scrub(o.hop)
}

// recordedHop is the hop as it may be stored. The admin's own server for what goes back to senders names nobody.
func (o *outcome) recordedHop(configured bool) string {
	if o.returning && o.hop != "" && !configured {
		return sendersServer
	}
	return o.hop
}

// attempt tries to deliver d once, to where its route leads by now. The outcome must be settled.
func (r *Relay) attempt(ctx context.Context, d gateway.LeasedDelivery, l lane) (out outcome) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.opts.Timeouts.Total, errTooLong)
	out.cancel, out.returning = cancel, d.Route == gateway.ReturnRoute
	out.event, out.stage = gateway.EventDeferred, stageOpen
	route, ok := r.route(d.Route)
	out.hide = hiding{public: d.Route, addresses: []string{d.ForwardTo, route.ForwardTo}, hop: route.NextHop}
	d.ForwardTo = cmp.Or(route.ForwardTo, d.ForwardTo)
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
	if dest != l.destination && !out.returning { // of what goes back, the lane is the destination's own
		if err := r.slots.acquire(ctx, dest); err != nil {
			out.fail(ctx, err)
			return out
		}
		defer func() {
			r.slots.done(lane{destination: dest}, out.learnt)
			out.learnt = neutral // of the lane
		}()
	}
	t := &trial{Relay: r, dest: dest, out: &out, transact: func(s *session) (string, int64, error) { return s.send(m) }}
	t.run(ctx)
	_, offered := t.extensions()["DSN"]
	out.handedOn = offered && m.passSuccess
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
		m.dsn, m.ret, m.envid, m.public = d.DSN, d.Return, d.EnvelopeID.Reveal(), d.Route
		r.returnPath(m, d)
	}
	body, err := m.open()
	if err != nil {
		return nil, &stageError{stageOpen, &copyError{err}}
	}
	m.body = body
	return m, nil
}

// returnPath makes bounces come back by us. A sender that cannot be rewritten, such as one that would become longer
// than a path may be (RFC 5321 section 4.5.3.1.3), goes out as it is: the mail matters more than its bounces.
func (r *Relay) returnPath(m *message, d gateway.LeasedDelivery) {
	if r.opts.ReturnPath == nil {
		return
	}
	if m.from == "" {
		m.passSuccess = true
		return
	}
	from, err := r.opts.ReturnPath(m.from) // its error may hold the address
	if err == nil {
		m.from, m.passSuccess = from, true
		return
	}
	if d.Attempts <= 1 {
		r.log.Warn("a sender's address cannot be rewritten, the mail goes out with it as it is", "delivery", d.ID, "mail", d.Mail.String())
	}
}

// fail turns a failed attempt into an outcome: see the package's decisions.
func (o *result) fail(ctx context.Context, err error) {
	o.event, o.code, o.status, o.err = gateway.EventDeferred, 0, "", err
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
		if judges(said.Code, o.stage) {
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

// judges reports whether a reply refuses the mail for good. Those that ask for TLS or a log-in (530, 534, 538: RFC 3207
// section 4, RFC 4954 section 6) judge us, whenever they come.
func judges(code int, at stage) bool {
	switch at {
	case stageGreeting, stageTLS, stageAuth, stageReset:
		return false
	}
	return code/100 == 5 && code != 530 && code != 534 && code != 538
}

// learn says what a failure taught about the hop.
func (o *result) learn(ctx context.Context) {
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
