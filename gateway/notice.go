package gateway

import (
	"io"
	"time"
)

// NoticeKind says what a notice to a mail's sender is about.
type NoticeKind string

// The kinds, by the Action field of RFC 3464 section 2.3.3.
const (
	NoticeFailed  NoticeKind = "failed"
	NoticeDelayed NoticeKind = "delayed"
	NoticeRelayed NoticeKind = "relayed" // to a next hop that knows no DSN; only when SUCCESS was asked for
)

// Report is a delivery status notification (RFC 3464) about one delivery, before it is written. To its
// reader the recipient is the public address, always.
type Report struct {
	Kind NoticeKind
	// ID names the notice itself.
	ID   PackageID
	Date time.Time
	// To is the sender of the mail that the notice is about.
	To string
	// EnvelopeID and OriginalRecipient are as the sender gave them; empty: not given.
	EnvelopeID        string
	OriginalRecipient string
	// Recipient is the public address.
	Recipient string
	// Status is the enhanced code (RFC 3463), such as 5.1.1. Diagnostic is the next hop's reply, or our own
	// words, scrubbed of forward_to; Remote tells that it is the next hop's and Code is its reply code.
	Status     string
	Code       int
	Diagnostic string
	Remote     bool
	Arrived    time.Time
	// RetryUntil is when a delayed mail is given up.
	RetryUntil time.Time
	// Header streams the header section of the mail as it was delivered, up to its empty line; nil: none.
	Header io.Reader
}

// Notice is a notice to a mail's sender, ready to be committed together with the attempt that caused it.
type Notice struct {
	Kind NoticeKind
	Mail AcceptedMail
}
