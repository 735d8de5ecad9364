package gateway

import (
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// ReturnRoute is the address of the route back to a mail's sender: for bounces that came to an SRS address,
// and for our own notices. Its ForwardTo is a correspondent: it is kept wrapped and never logged.
const ReturnRoute = "return"

// Route leads from a public address to a mailbox behind us.
type Route struct {
	// Address is the public address, "postmaster", or ReturnRoute.
	Address string
	// ForwardTo is where its mail goes, an Email-to-Case routing address as a rule. It never appears
	// to an outsider: who learns it bypasses us.
	ForwardTo string
	// NextHop is the server that takes the mail for ForwardTo.
	NextHop NextHop
	// ExpireAfter is how long a package that came by this route is kept.
	ExpireAfter time.Duration
	// PortalURL is what the Secure Links in its mails begin with.
	PortalURL string
	// DMARC says what becomes of a mail whose author's domain disowns it.
	DMARC DMARCPolicy
	// NoticeLanguage is what its mails are told in of what was taken out, "en" or "de". A mail to several routes has one
	// notice, in the language of the first.
	NoticeLanguage string
}

// IsReturn reports whether the route leads back to a sender: its mails are not sealed.
func (r Route) IsReturn() bool { return r.Address == ReturnRoute }

// Shares reports whether one mail can go to both routes: it is judged once, and has one link.
func (r Route) Shares(other Route) bool {
	return r.PortalURL == other.PortalURL && r.DMARC == other.DMARC && !r.IsReturn() && !other.IsReturn()
}

// DMARCPolicy says what becomes of a mail that fails DMARC (RFC 7489).
type DMARCPolicy string

// The policies, from mild to strict.
const (
	DMARCNote   DMARCPolicy = "note"   // the result is written into the mail, no more
	DMARCSeal   DMARCPolicy = "seal"   // sealed whole where the domain asks for quarantine or reject
	DMARCReject DMARCPolicy = "reject" // refused where the domain asks for reject; sealed whole at quarantine
)

// TLSMode says how a next hop must be protected.
type TLSMode string

// The modes.
const (
	TLSOpportunistic TLSMode = "opportunistic" // TLS where it is offered, any certificate (RFC 7435)
	TLSRequire       TLSMode = "require"       // never plaintext, any certificate
	TLSVerify        TLSMode = "verify"        // a valid certificate for the server's name
)

// NextHop is a mail server that we hand mail to. It is comparable: equal hops share connections.
type NextHop struct {
	// Host is a name or an address; empty: the MX of the recipient's domain (RFC 5321 section 5.1).
	Host string
	Port uint16 // 0: 25, or 465 with ImplicitTLS
	TLS  TLSMode
	// ImplicitTLS begins TLS with the connection (RFC 8314 section 3.3).
	ImplicitTLS bool
	// User and Password are for AUTH (RFC 4954), which is never spoken in plaintext but to loopback; empty: none.
	User     string
	Password Secret
}

// Recipient is one accepted RCPT TO and the route it matched.
type Recipient struct {
	Address string // as the client wrote it
	Route   Route
	DSN     DSNRequest
}

// DSNRequest is what the sender wants to hear of one recipient (RFC 3461 section 4).
type DSNRequest struct {
	// Notify is NEVER, or of SUCCESS, FAILURE, DELAY those asked for, with commas and in this order; empty:
	// not given, which means FAILURE, and DELAY if we like.
	Notify string
	// OriginalRecipient is the decoded ORCPT parameter, "rfc822;support@example.com"; empty: not given.
	OriginalRecipient Secret
}

// Wants reports whether a notice of this kind is wanted.
func (d DSNRequest) Wants(kind NoticeKind) bool {
	if d.Notify == "" {
		return kind == NoticeFailed || kind == NoticeDelayed
	}
	word := map[NoticeKind]string{NoticeFailed: "FAILURE", NoticeDelayed: "DELAY", NoticeRelayed: "SUCCESS"}[kind]
	return slices.Contains(strings.Split(d.Notify, ","), word)
}

// Envelope is what the SMTP dialogue said about a mail.
type Envelope struct {
	// MailFrom is the return path without angle brackets; empty for the null sender.
	MailFrom   string
	Recipients []Recipient
	Client     netip.Addr
	// TrustedRelay tells that the client is a mail server in front of us, which judged the sender itself.
	TrustedRelay bool
	// Hello is the name that the client gave in EHLO or HELO.
	Hello string
	// Protocol is the "with" keyword of the Received field: SMTP, ESMTP, ESMTPS, UTF8SMTP, UTF8SMTPS (RFC 3848, RFC 6531).
	Protocol string
	// TLS describes the protected connection, such as "TLS1.3 TLS_AES_128_GCM_SHA256"; empty without TLS.
	TLS string
	// UTF8 tells that the client gave the SMTPUTF8 parameter (RFC 6531).
	UTF8 bool
	// Return is the RET parameter, FULL or HDRS, and EnvelopeID the decoded ENVID (RFC 3461); empty: not given.
	Return     string
	EnvelopeID Secret
	// Received is when DATA or the first BDAT began.
	Received time.Time
}

// Spooled is one mail in the spool: written once, then read as often as needed, by its only owner.
type Spooled interface {
	io.Writer
	io.ReaderAt
	// Size is the number of bytes written so far.
	Size() int64
	// Close forgets the mail for good.
	Close() error
}
