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
//   - pct is ignored. Of several authors, in one From field or in several, the one who fares worst counts (RFC 7489
//     section 6.6.1). Where an author may be one whose domain we cannot read, and none of the others fails, DMARC is a
//     permerror and NoAuthor is set.
//   - Behind a trusted relay its own field counts, if Options.TrustedIDs tell how to know it: without, none does. The
//     fields of a trusted id down to the next Received are read as one, since Postfix's filters write one each, and the
//     relay must remove what outsiders wrote in its name. With AnyID the topmost counts, and never one below the second
//     Received field: that is not the relay's. Microsoft 365 writes several Received fields above its own; they count
//     as one. What remains of AnyID: a relay that writes no field, or not to every mail, may be given one by the
//     sender at the very top of his mail, just below the relay's Received. Nothing in the mail tells the two apart.
//   - What a relay does not say of DKIM and DMARC we judge. SPF we cannot: it is none, and so our DMARC can pass by
//     DKIM alone; its failure is told, but is Advisory. So is one that Microsoft's admin overruled (oreject).
//   - The text of others is never copied: our field holds result words, validated domains and fixed words.
package senderauth

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealpost/gateway"
)

// AnyID stands among Options.TrustedIDs for a relay that writes above all else, whatever its name is.
const AnyID = "any"

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
	// TrustedIDs are the authserv-ids that trusted relays use; empty: no field of theirs counts. With AnyID among
	// them the topmost field does, if it stands where a relay writes it: Microsoft 365 writes no authserv-id.
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
	anyID   bool // AnyID is trusted
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
		a.anyID = a.anyID || strings.EqualFold(id, AnyID)
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
	domains, unclear := authorDomains(h)
	m.unclear = unclear
	for _, domain := range domains {
		m.authors = append(m.authors, author{domain: domain})
	}
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
	m.conclude()
	result := m.result(envelope.MailFrom)
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
	a       *Authenticator
	lookups context.Context //nolint:containedctx // bounds this one mail's look-ups, and the value lives no longer
	header  header
	mail    Mail

	authors []author
	unclear bool // there may be authors whom we cannot read

	spf         finding
	dkim        []finding
	verdict     author // that of DMARC
	noAuthor    bool
	byRelay     bool
	spfByRelay  bool
	dkimByRelay bool
}

// finding is the result of one check of one identity.
type finding struct {
	result gateway.AuthResult // empty: not judged
	domain string             // A-labels; empty: none that can be shown
	helo   bool               // an SPF result of HELO
	reason string             // in our own words
	dmarc  bool               // DMARC may count it
}

func (m *judgement) direct(ctx context.Context, envelope gateway.Envelope) error {
	for i := range m.authors {
		m.authors[i].record = m.findRecord(m.authors[i].domain)
	}
	var err error
	if m.dkim, err = m.verifyDKIM(ctx); err != nil {
		return err
	}
	m.spf = m.checkSPF(envelope)
	for i := range m.authors {
		m.evaluate(&m.authors[i])
	}
	return nil
}

func (m *judgement) result(mailFrom string) gateway.Authentication {
	return gateway.Authentication{
		SPF: m.spf.result, DKIM: best(m.dkim), DMARC: m.verdict.result, DMARCPolicy: m.verdict.policy, ByRelay: m.byRelay,
		Advisory: m.verdict.advisory, NoAuthor: m.noAuthor, ReturnPathProven: m.returnPathProven(mailFrom),
	}
}
