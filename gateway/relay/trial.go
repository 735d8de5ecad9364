package relay

import (
	"context"
	"errors"
	"net"
	"net/textproto"
	"strconv"

	"sealpost/gateway"
)

// trial is one attempt on its way through the servers of a destination.
type trial struct {
	*Relay
	dest destination
	out  *outcome
	// transact does the mail transaction. It returns the last reply and the bytes of the mail that went out.
	transact func(*session) (string, int64, error)
	kept     *result // of the servers tried so far, that which says most
}

// run tries an open session first, then the destination's servers in their order.
func (t *trial) run(ctx context.Context) {
	tried := ""
	if s := t.pool.take(t.dest); s != nil {
		s.bind(ctx)
		t.metrics.connections.WithLabelValues("reused").Inc()
		err := t.send(ctx, s)
		if !s.stale(err) {
			end := t.ended(ctx, err)
			if t.keep(); end || t.dest.hop.Host != "" {
				return
			}
			tried = s.host
		}
		t.drop()
	}
	hosts, err := t.hosts(ctx, t.dest, t.out.returning)
	if err != nil {
		t.out.hop, t.out.tls = "", ""
		t.out.fail(ctx, &stageError{stageDNS, err})
		t.keep()
		return
	}
	left := maxAddresses
	for _, host := range hosts {
		if host != tried && (!t.host(ctx, host, &left) || left == 0) {
			return
		}
	}
}

// host tries the addresses of one server, and reports whether the next server should be tried.
func (t *trial) host(ctx context.Context, host string, left *int) bool {
	addresses, err := t.addresses(ctx, t.dest, host, t.out.returning)
	if err == nil && len(addresses) == 0 {
		err = errNoTry
	}
	if err != nil {
		t.drop()
		t.out.hop, t.out.tls = t.hostPort(host), ""
		t.out.fail(ctx, &stageError{stageDNS, err})
		t.keep()
		return ctx.Err() == nil
	}
	for _, address := range addresses {
		if *left == 0 {
			return false
		}
		*left--
		t.drop()
		err := t.fresh(ctx, host, address)
		end := t.ended(ctx, err)
		if t.keep(); end {
			return false
		}
		var said *textproto.Error
		if errors.As(err, &said) {
			return true // its other addresses are the same server
		}
	}
	return true
}

// fresh sends over a new connection.
func (t *trial) fresh(ctx context.Context, host, address string) error {
	t.out.hop, t.out.tls = t.hostPort(host), ""
	d := dialer{hostname: t.opts.Hostname, tls: t.opts.TLS, timeouts: t.opts.Timeouts}
	s, err := d.open(ctx, t.dest.hop, host, address)
	if err != nil {
		t.out.fail(ctx, err)
		return err
	}
	s.dest, s.host, s.hop = t.dest, host, t.out.hop
	t.metrics.connections.WithLabelValues("new").Inc()
	return t.send(ctx, s)
}

// send sends the mail over s, which becomes the outcome's session.
func (t *trial) send(ctx context.Context, s *session) error {
	t.out.session, t.out.hop, t.out.tls = s, s.hop, s.tls
	reply, n, err := t.transact(s)
	t.out.bytes += n
	if err != nil {
		t.out.fail(ctx, err)
		return err
	}
	t.out.event, t.out.stage, t.out.code, t.out.reply = gateway.EventAccepted, stageFinal, s.code, reply
	t.out.status, t.out.learnt, t.out.err = "", good, nil
	return nil
}

// keep makes the outcome what says most of all that was tried: a reply more than a connection that was refused. Of two
// that say as much, the later one stays.
func (t *trial) keep() {
	if t.kept != nil && t.kept.weight() > t.out.weight() {
		t.out.result = *t.kept
		return
	}
	kept := t.out.result
	t.kept = &kept
}

// weight orders results: those that end the attempt, a reply, no reply, and last a server that must not be tried.
func (o *result) weight() int {
	sent := o.stage == stageBody || o.stage == stageFinal
	switch {
	case o.status != "" && o.stage == stageDNS:
		return 0
	case o.event != gateway.EventDeferred, o.cut, o.fault != nil, sent && o.code == 0:
		return 3
	case o.code != 0:
		return 2
	}
	return 1
}

// ended reports whether the attempt must go no further.
func (t *trial) ended(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() != nil || t.out.event != gateway.EventDeferred || t.out.fault != nil {
		return true
	}
	var said *textproto.Error
	sent := t.out.stage == stageBody || t.out.stage == stageFinal
	return sent && !errors.As(err, &said) // the mail may have been taken
}

// extensions are those that the last server offered.
func (t *trial) extensions() map[string]string {
	if t.out.session == nil {
		return nil
	}
	return t.out.session.ext
}

// drop hangs up the outcome's session.
func (t *trial) drop() {
	if s := t.out.session; s != nil {
		s.hangUp()
		t.out.session = nil
	}
}

func (t *trial) hostPort(host string) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port(t.dest.hop))))
}
