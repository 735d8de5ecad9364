package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strconv"

	"sealpost/gateway"
)

// Probed is what a probe found.
type Probed struct {
	// Hop is the host and port of the server that had the last word. TLS is as in gateway.Attempt.
	Hop, TLS string
}

// Probe speaks with the next hop of a route as a delivery would, with its servers in their order, TLS and log-in, up to
// RCPT with the null sender, and sends no mail. Of the options those count that say how: Hostname, Resolver, TLS, Roots,
// Timeouts, DowngradeAddress. The error holds a *textproto.Error when the next hop refuses, without what logs us in, and
// is ErrNullMX when there is none; Probed is filled in as far as it is known.
func Probe(ctx context.Context, opts Options, route gateway.Route) (Probed, error) {
	opts.Metrics = nil
	r := New(opts, nil, nil)
	m := &message{to: route.ForwardTo, address: opts.DowngradeAddress, mail: gateway.QueuedMail{Size: -1}}
	out := &outcome{hide: hiding{hop: route.NextHop}}
	t := &trial{Relay: r, dest: destinationOf(route.NextHop, route.ForwardTo), out: out,
		transact: func(s *session) (string, int64, error) { return s.probe(m) }}
	t.run(ctx)
	t.drop()
	found := Probed{Hop: out.hop, TLS: out.tls}
	if found.Hop == "" && t.dest.domain != "" {
		found.Hop = net.JoinHostPort(t.dest.domain, strconv.Itoa(int(port(route.NextHop))))
	}
	return found, out.failure()
}

// failure is the error of an outcome without what must not be shown.
func (o *outcome) failure() error {
	var refused *textproto.Error
	switch {
	case o.err == nil:
		return nil
	case errors.As(o.err, &refused):
		return fmt.Errorf("%s: %w", o.stage, &textproto.Error{Code: refused.Code, Msg: o.hide.scrub(refused.Msg)})
	case errors.Is(o.err, ErrNullMX):
		return ErrNullMX
	}
	return errors.New(o.hide.scrub(o.err.Error()))
}

// probe does what comes before DATA, and ends the transaction.
func (s *session) probe(m *message) (string, int64, error) {
	s.mails++
	_, reply, err := s.envelope(m)
	if err == nil {
		_, _ = s.command(stageReset, s.timeouts.Quit, 2, "RSET") // QUIT comes next, and ends it as well
	}
	return reply, 0, err
}
