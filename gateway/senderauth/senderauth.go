// Package senderauth finds out who really sent a mail: SPF (RFC 7208), DKIM (RFC 6376) and DMARC
// (RFC 7489), written as an Authentication-Results field (RFC 8601). It is a package of its own because
// it is the only one that asks DNS about a sender, and must never lose a mail over DNS: every trouble
// there is a temperror in the result.
//
// What is decided:
//   - The DMARC record is fetched first, then DKIM is verified, then SPF evaluated: what a hostile domain
//     makes slow cannot use up the time in which the author's policy is found. A temperror of SPF or DKIM
//     makes DMARC one only where its domain is aligned with the author's.
//   - DMARC counts SPF of the MAIL FROM domain, and of HELO for the null sender (RFC 7489 section 3.1.2).
//     Where MAIL FROM's domain publishes nothing, the HELO result is reported, but DMARC does not count it.
//   - Mails made to be costly to the DKIM library (32 KiB of empty lines, a signature over 8 KiB, 2,000
//     fields) have the DKIM result policy: memory and time are bounded, and the sender harms only himself.
//   - pct is ignored; a From that cannot be attributed to one domain is a permerror.
//   - Behind a trusted relay its own field counts. With Options.TrustedIDs the fields of that id down to the
//     next Received are read as one, since Postfix's filters write one each, and the relay must remove what
//     outsiders wrote in its name; without, only the topmost, and never one below the second Received field:
//     that is not the relay's. Microsoft 365 writes several Received fields above its own; they count as one.
//     What remains: a relay that writes no Authentication-Results, or not to every mail, may be given one by
//     the sender at the very top of his mail, just below the relay's Received. Nothing in the mail tells the
//     two apart. Such a relay must remove such fields, or TrustedIDs must name an id that nobody uses.
//   - The text of others is never copied: our field holds result words, validated domains and fixed words.
package senderauth

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealpost/gateway"
)

const (
	defaultTimeout = 10 * time.Second
	// perLookup bounds one DNS look-up.
	perLookup = 3 * time.Second
)

// Mail is a mail as it came, which can be read more than once.
type Mail interface {
	io.ReaderAt
	// Size is in octets.
	Size() int64
}

// Options are what an Authenticator needs.
type Options struct {
	// AuthservID is our name in Authentication-Results, the host name; empty: no field is written.
	AuthservID string
	// Resolver asks DNS; nil: the system's.
	Resolver Resolver
	// TrustedIDs are the authserv-ids that trusted relays use; empty: the topmost field counts, if it stands
	// where a relay writes it. A relay that writes no authserv-id (Microsoft 365) counts only when this is empty.
	TrustedIDs []string
	// Timeout bounds the DNS look-ups of one mail; 0: 10 s.
	Timeout time.Duration
	Logger  *slog.Logger          // nil: none
	Metrics prometheus.Registerer // nil: none
}

// Authenticator judges senders. It is safe for use by many goroutines.
type Authenticator struct {
	id      string
	trusted []string
	timeout time.Duration
	dns     *guard
	logger  *slog.Logger
	metrics *metrics
}

// New returns an Authenticator. It panics as promauto does when its metrics are registered twice.
func New(options Options) *Authenticator {
	if options.Timeout <= 0 {
		options.Timeout = defaultTimeout
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	a := &Authenticator{
		id:      hostOf(options.AuthservID),
		timeout: options.Timeout,
		logger:  options.Logger,
		metrics: newMetrics(options.Metrics),
	}
	a.dns = newGuard(options.Resolver, a.id)
	for _, id := range options.TrustedIDs {
		a.trusted = append(a.trusted, canonicalID(id))
	}
	return a
}

// Authenticate judges the sender of a mail. The second result is the complete Authentication-Results
// field with its CRLF, ASCII and at most 1,500 octets; nil when there is no authserv-id. It fails only when
// the mail cannot be read or ctx has ended.
func (a *Authenticator) Authenticate(
	ctx context.Context, envelope gateway.Envelope, mail Mail,
) (gateway.Authentication, []byte, error) {
	h, err := scanHeader(ctx, mail)
	if err != nil {
		return gateway.Authentication{}, nil, err
	}
	lookups, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	m := &judgement{a: a, lookups: lookups, header: h, mail: mail}
	m.author, m.authorErr = authorDomain(h)
	if envelope.TrustedRelay {
		err = m.behindRelay(ctx)
	} else {
		err = m.direct(ctx, envelope)
	}
	if err != nil {
		return gateway.Authentication{}, nil, err
	}
	if err := ctx.Err(); err != nil {
		return gateway.Authentication{}, nil, wrapContext(err)
	}
	result := m.result()
	a.metrics.count(result)
	a.logger.DebugContext(ctx, "sender judged", "spf", string(result.SPF), "dkim", string(result.DKIM),
		"dmarc", string(result.DMARC), "by_relay", result.ByRelay)
	return result, m.field(), nil
}

// TempErrors returns how many mails were judged, and how many of them had a temperror, since the start.
func (a *Authenticator) TempErrors() (mails, tempErrors int64) {
	return a.metrics.mails.Load(), a.metrics.temp.Load()
}

// judgement is the work on one mail.
type judgement struct {
	a         *Authenticator
	lookups   context.Context //nolint:containedctx // bounds this one mail's look-ups, and the value lives no longer
	header    header
	mail      Mail
	author    string // A-labels; empty with authorErr
	authorErr bool

	spf         finding
	dkim        []finding
	dmarc       gateway.AuthResult
	policy      string
	byRelay     bool
	dkimByRelay bool
}

// finding is the result of one check of one identity.
type finding struct {
	result gateway.AuthResult // empty: not judged
	domain string             // A-labels; empty: none that can be shown
	helo   bool               // an SPF result of HELO
	reason string             // one of our own words
	dmarc  bool               // DMARC may count it
}

func (m *judgement) direct(ctx context.Context, envelope gateway.Envelope) error {
	record := m.findRecord()
	var err error
	if m.dkim, err = m.verifyDKIM(ctx); err != nil {
		return err
	}
	m.spf = m.checkSPF(envelope)
	m.dmarc, m.policy = m.evaluate(record)
	return nil
}

func (m *judgement) result() gateway.Authentication {
	return gateway.Authentication{
		SPF: m.spf.result, DKIM: best(m.dkim), DMARC: m.dmarc, DMARCPolicy: m.policy, ByRelay: m.byRelay,
	}
}
