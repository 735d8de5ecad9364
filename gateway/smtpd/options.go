package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealpost/gateway"
)

// Router says where the mail for an address goes.
type Router interface {
	// Route returns the route for address, which is either a mailbox (RFC 5321 section 4.1.2, quoted
	// where it must be) or "postmaster". It fails with gateway.CodeUnknownRecipient when the domain is
	// ours and the address is not, and with gateway.CodeRelayDenied when the domain is not ours.
	// mailFrom is the return path, empty for the null sender: an address that takes bounces only is
	// routed for no other. Case and IDN are the Router's to canonicalise. It is called by many
	// connections at once.
	Route(mailFrom, address string) (gateway.Route, error)
}

// Handler takes mails over.
type Handler interface {
	// Accept takes a mail over. A nil error means that the mail is safe: it is answered with 250 and
	// queueID, which is printable ASCII. Any error means that nothing of it was kept; its gateway.Code
	// chooses the reply.
	//
	// The envelope has at least one recipient and is the Handler's. The mail is the server's, which
	// closes it after Accept has returned. ctx ends after Limits.Intake and with a hard stop; Accept
	// must then return, for the server waits for it.
	Accept(ctx context.Context, envelope gateway.Envelope, mail gateway.Spooled) (queueID string, err error)

	// Settle tells whether the client has heard that a mail was accepted. It is called exactly once for
	// each mail that Accept has taken over, with the queueID that it returned, and before Shutdown
	// returns: with heard true as soon as the client has sent anything after the 250 went out, before
	// that is carried out, or when it sends another whole mail in the same session; with heard false when
	// the session ended without, be it that the connection was cut, timed out or was closed by us. Input
	// that had come before the 250 proves nothing. It is called by many connections at once.
	//
	// Once is once: a client that has not heard will send the mail again, and by this the Handler knows
	// such a repeat from an equal mail that is meant. The dialogue waits for Settle, so it must not take long.
	Settle(queueID string, heard bool)
}

// Limits bound what clients may ask for. A field that is zero takes its value from DefaultLimits.
type Limits struct {
	Recipients           int // of one transaction
	Connections          int // at the same time
	ConnectionsPerClient int // at the same time from one IPv4 address or IPv6 /64; 0 means no such limit
	// MailsPerClient may be accepted, or refused for their text, in a minute from one IPv4 address or IPv6 /64, as many of them at
	// once; beyond that MAIL is answered 451 until a part of the minute has gone by. 0 means no such limit.
	MailsPerClient int
	ReceivedFields int // more of them in a header section are a loop
	Errors         int // 5xx replies since the last accepted mail; one more ends the connection

	CommandIdle time.Duration // from a reply to the whole of the next command; bounds TLS handshakes too
	DataIdle    time.Duration // between two reads of message text
	DataTotal   time.Duration // from DATA or the first BDAT to the end of the text
	Intake      time.Duration // from the end of the text to the reply
}

// DefaultLimits returns the limits of a server that faces the internet.
func DefaultLimits() Limits {
	return Limits{
		Recipients:     100,
		Connections:    1000,
		ReceivedFields: 100,
		Errors:         100,
		CommandIdle:    5 * time.Minute, // RFC 5321 section 4.5.3.2.7
		DataIdle:       3 * time.Minute, // RFC 5321 section 4.5.3.2.5
		DataTotal:      time.Hour,
		Intake:         2 * time.Minute,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	for _, f := range []struct{ value, standard *int }{
		{&l.Recipients, &d.Recipients},
		{&l.Connections, &d.Connections},
		{&l.ReceivedFields, &d.ReceivedFields},
		{&l.Errors, &d.Errors},
	} {
		if *f.value == 0 {
			*f.value = *f.standard
		}
	}
	for _, f := range []struct{ value, standard *time.Duration }{
		{&l.CommandIdle, &d.CommandIdle},
		{&l.DataIdle, &d.DataIdle},
		{&l.DataTotal, &d.DataTotal},
		{&l.Intake, &d.Intake},
	} {
		if *f.value == 0 {
			*f.value = *f.standard
		}
	}
	return l
}

// Options are what a Server needs. Hostname, MaxMessageSize, Router, NewSpooled and Handler are required.
type Options struct {
	Hostname string // our name in the greeting
	// TLS offers STARTTLS when it is not nil, and ServeTLS needs it. A lower MinVersion than TLS 1.2 is
	// raised. Its GetCertificate is asked in every full handshake: what it returns may change at any time.
	TLS            *tls.Config
	MaxMessageSize int64 // in octets, as the mail is after dots were unstuffed
	Limits         Limits
	// NormalizeNewlines makes a line end of a bare LF or CR, as old fax gateways write them, instead of refusing the mail
	// with 5xx. Only CRLF "." CRLF ends a mail in either case.
	NormalizeNewlines bool
	// AllowFrom are the only clients that may connect; empty lets everyone connect.
	AllowFrom []netip.Prefix
	// TrustedRelays are mail servers in front of us: neither ConnectionsPerClient nor MailsPerClient
	// applies to them, and Envelope.TrustedRelay tells the Handler.
	TrustedRelays []netip.Prefix
	// ProxyFrom are load balancers. A connection from them must begin with a header of the PROXY
	// protocol, version 1 or 2, and its source is the client in every respect; one with LOCAL or UNKNOWN
	// is the balancer's own, as for a health check, and counts as one of a client at its address. From
	// anywhere else such a header is a bad command.
	ProxyFrom  []netip.Prefix
	Router     Router
	NewSpooled func() (gateway.Spooled, error)
	Handler    Handler
	// Refused remembers a mail that is refused for its text before the Handler has seen it, so that it can be traced;
	// nil: none is remembered. Only mails with a Message-ID are given to it, with the reply as the reason. The
	// dialogue waits for it. Mails that the Handler refuses are the Handler's to remember.
	Refused func(ctx context.Context, refusal gateway.Refusal) error
	Logger  *slog.Logger          // nil discards
	Metrics prometheus.Registerer // nil registers nothing
}

func (o Options) withDefaults() (Options, error) {
	switch {
	case o.Hostname == "":
		return o, errors.New("smtpd: a host name is needed")
	case o.MaxMessageSize <= 0:
		return o, errors.New("smtpd: a maximum message size is needed")
	case o.Router == nil || o.NewSpooled == nil || o.Handler == nil:
		return o, errors.New("smtpd: a router, a spool and a handler are needed")
	}
	o.Limits = o.Limits.withDefaults()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.TLS != nil {
		o.TLS = o.TLS.Clone()
		o.TLS.MinVersion = max(o.TLS.MinVersion, tls.VersionTLS12)
	}
	return o, nil
}
