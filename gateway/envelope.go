package gateway

import (
	"io"
	"net/netip"
	"time"
)

// Route leads from a public address to a mailbox behind us.
type Route struct {
	// Address is the public address, or "postmaster".
	Address string
	// ForwardTo is where its mail goes, an Email-to-Case routing address as a rule. It never appears
	// to an outsider: who learns it bypasses us.
	ForwardTo string
	// NextHop is the server that takes the mail for ForwardTo.
	NextHop NextHop
	// ExpireAfter is how long a package that came by this route is kept.
	ExpireAfter time.Duration
}

// NextHop is a mail server that we hand mail to.
type NextHop struct {
	Host string
	Port uint16
	// RequireTLS refuses to deliver in plaintext. Otherwise TLS is used when it is offered.
	RequireTLS bool
}

// Recipient is one accepted RCPT TO and the route it matched.
type Recipient struct {
	Address string // as the client wrote it
	Route   Route
}

// Envelope is what the SMTP dialogue said about a mail.
type Envelope struct {
	// MailFrom is the return path without angle brackets; empty for the null sender.
	MailFrom   string
	Recipients []Recipient
	Client     netip.Addr
	// Hello is the name that the client gave in EHLO or HELO.
	Hello string
	// Protocol is the "with" keyword of the Received field: SMTP, ESMTP, ESMTPS, UTF8SMTP, UTF8SMTPS (RFC 3848, RFC 6531).
	Protocol string
	// TLS describes the protected connection, such as "TLS1.3 TLS_AES_128_GCM_SHA256"; empty without TLS.
	TLS string
	// UTF8 tells that the client gave the SMTPUTF8 parameter (RFC 6531).
	UTF8 bool
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
