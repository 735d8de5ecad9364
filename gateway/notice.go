package gateway

import (
	"crypto/sha256"
	"errors"
	"fmt"
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
	// Header streams the mail as it was delivered. Of it the writer takes the header section, and of that as much as
	// fits; nil: none.
	Header io.Reader
}

// ErrNothingToTell says that a mail that came back holds nothing that its sender must hear of, and that cannot be passed on: an
// automatic answer which names what is behind us. It is accepted and ends.
var ErrNothingToTell = errors.New("the mail is an automatic answer that cannot be passed on")

// NoticeID names the notice that an attempt caused, so that who knows the one finds the other.
func NoticeID(delivery string, attempt int) PackageID {
	sum := sha256.Sum256(fmt.Appendf(nil, "notice %s %d", delivery, attempt))
	return PackageID(sum[:len(PackageID{})])
}

// Notice is a notice to a mail's sender, ready to be committed together with the attempt that caused it.
type Notice struct {
	Kind NoticeKind
	Mail AcceptedMail
}
