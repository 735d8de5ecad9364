package gateway

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// DeliveryState is the state of one mail on its way to one next hop.
type DeliveryState string

// The states of a delivery.
const (
	Pending     DeliveryState = "pending"
	Sending     DeliveryState = "sending"
	Held        DeliveryState = "held"
	Sent        DeliveryState = "sent"
	Confirmed   DeliveryState = "confirmed"
	Unconfirmed DeliveryState = "unconfirmed"
	Dead        DeliveryState = "dead"
	Dropped     DeliveryState = "dropped"
)

// DeliveryEvent moves a delivery from one state to the next.
type DeliveryEvent string

// The events of a delivery.
const (
	EventLeased     DeliveryEvent = "leased"
	EventAccepted   DeliveryEvent = "accepted" // a 2xx reply to the final dot
	EventDeferred   DeliveryEvent = "deferred" // 4xx, network, lease lost, or the reply to the final dot was lost
	EventRejected   DeliveryEvent = "rejected" // 5xx, or the next hop cannot take this mail
	EventGaveUp     DeliveryEvent = "gave_up"  // five days are over
	EventHold       DeliveryEvent = "hold"
	EventRelease    DeliveryEvent = "release"
	EventDrop       DeliveryEvent = "drop"
	EventCaseFound  DeliveryEvent = "case_found"
	EventWindowOver DeliveryEvent = "window_over" // replay_window has passed without a Case
	EventReplay     DeliveryEvent = "replay"
	EventRetry      DeliveryEvent = "retry" // an admin's, by hand
)

// transitions returns the whole state machine.
func transitions() map[DeliveryState]map[DeliveryEvent]DeliveryState {
	return map[DeliveryState]map[DeliveryEvent]DeliveryState{
		Pending:     {EventLeased: Sending, EventHold: Held, EventDrop: Dropped},
		Sending:     {EventAccepted: Sent, EventDeferred: Pending, EventRejected: Dead, EventGaveUp: Dead},
		Held:        {EventRelease: Pending, EventDrop: Dropped},
		Sent:        {EventCaseFound: Confirmed, EventWindowOver: Unconfirmed, EventReplay: Pending},
		Dead:        {EventRetry: Pending, EventDrop: Dropped},
		Confirmed:   {},
		Unconfirmed: {},
		Dropped:     {},
	}
}

// Next returns the state that event leads to, or an error if the event means nothing in state s.
func (s DeliveryState) Next(event DeliveryEvent) (DeliveryState, error) {
	next, ok := transitions()[s][event]
	if !ok {
		return s, Errorf(CodeConflict, nil, "a delivery that is %s cannot be moved by %q", s, event)
	}
	return next, nil
}

// Events returns the events that mean something in state s.
func (s DeliveryState) Events() []DeliveryEvent {
	return slices.Sorted(maps.Keys(transitions()[s]))
}

// KeepsCopy reports whether a delivery in state s still needs the mail's encrypted copy. awaitCase tells
// whether a Case is looked for after delivery; if not, sent is the end.
func (s DeliveryState) KeepsCopy(awaitCase bool) bool {
	switch s {
	case Confirmed, Unconfirmed, Dropped:
		return false
	case Sent:
		return awaitCase
	}
	return true
}

// QueueKey is the key of the day under which waiting mails are encrypted. It is destroyed when the last
// delivery of its day ends, so that what backups hold of them can never be read again.
type QueueKey struct {
	Day string // YYYYMMDD in UTC
	Key Secret // 32 raw bytes
}

// QueuedMail is the rewritten mail as it waits for its deliveries: one OpenPGP packet under a queue key,
// in the row when it is small, in an object when it is not.
type QueuedMail struct {
	ID       PackageID
	MailFrom Secret
	Key      QueueKey
	// Inline is the packet itself, or nil when Object names where it is.
	Inline []byte
	Object string
	// Size is that of the plaintext mail in bytes.
	Size int64
	// EightBit tells that a next hop needs 8BITMIME (RFC 6152) to take the mail unchanged.
	EightBit bool
	// UTF8 tells that a next hop needs SMTPUTF8 (RFC 6531).
	UTF8 bool
}

// AcceptedMail is all that one transaction commits before DATA is answered with 250.
type AcceptedMail struct {
	ID PackageID
	// Started is when intake began, by the database's clock. Commit refuses a mail that began over an
	// hour ago, since the sweep may have taken its objects for left over.
	Started time.Time
	// MessageID is the Message-ID field as it stands, with its angle brackets.
	MessageID      Secret
	Envelope       Envelope
	Authentication Authentication
	Scan           Scan
	// Silence says why the sender is never sent a notice: "null sender", "DMARC failed"; empty: it may be.
	Silence string
	// Fingerprint is the keyed hash by which a repeat of the same DATA is known; nil: it never counts as one.
	Fingerprint []byte
	// Package is nil when nothing was sealed.
	Package *Package
	Copy    QueuedMail
	// Deliveries are to be made, one for each distinct ForwardTo.
	Deliveries []NewDelivery
}

// NewDelivery is a delivery of a mail that is about to be committed.
type NewDelivery struct {
	Route Route
	DSN   DSNRequest
	// Hold is why an admin must look before it goes out; empty: it goes.
	Hold string
}

// Refusal is what is remembered of a mail that was refused after its text had come, so that `trace` finds it.
type Refusal struct {
	At             time.Time
	MessageID      Secret
	Envelope       Envelope
	Code           Code
	Reason         string // as the client was told
	Temporary      bool
	Scan           Scan
	Authentication Authentication
}

// Lease is the right to attempt a delivery. Its fence rises with every lease: who lost the lease cannot
// complete the attempt.
type Lease struct {
	Delivery string
	Owner    string
	Fence    int64
	Until    time.Time
}

// Delivery is one mail on its way to one next hop.
type Delivery struct {
	ID    string // 32 hex digits
	Mail  PackageID
	State DeliveryState
	// Route is the public address that the mail was sent to, or ReturnRoute.
	Route     string
	ForwardTo string
	Created   time.Time
	// Since is when the five days of deferred attempts began: at Created, or at the last event by hand.
	Since time.Time
	// Attempts is the number of attempts that have begun.
	Attempts int
	// NextAttempt is when a pending delivery is due.
	NextAttempt time.Time
	// LastReply is the last reply of the next hop, scrubbed of ForwardTo.
	LastReply Secret
	LastCode  int
	DSN       DSNRequest
	// Told is the last notice that was sent to the mail's sender; empty: none. Untold is why none was sent
	// when the delivery became dead.
	Told   NoticeKind
	Untold string
	// Reason is why it is held or was dropped.
	Reason Secret
}

// LeasedDelivery is a delivery together with the right to attempt it and what is needed for that.
type LeasedDelivery struct {
	Delivery
	Lease Lease
	Copy  QueuedMail
	// Received is when the mail came. Silence, Return and EnvelopeID are those of its AcceptedMail.
	Received   time.Time
	Silence    string
	Return     string
	EnvelopeID Secret
}

// Due tells that deliveries of a lane wait, the first of them until Next.
type Due struct {
	Route string
	// Lane is what they are leased by: the route, or of ReturnRoute a part of it, all of whose deliveries go to one
	// organisational domain. It names nobody.
	Lane string
	Next time.Time
}

// AttemptResult is all that one transaction commits at the end of an attempt.
type AttemptResult struct {
	Attempt Attempt
	// Next is when a deferred delivery is due again.
	Next time.Time
	// AwaitCase tells whether a Case is looked for after this delivery; if not, sent is the end.
	AwaitCase bool
	// Notice goes to the mail's sender; nil: none. Untold says why a dead delivery has none.
	Notice *Notice
	Untold string
}

// Attempt is the record of one try to deliver.
type Attempt struct {
	Number  int
	Started time.Time
	Ended   time.Time
	// Hop is the host and port that was tried.
	Hop   string
	Event DeliveryEvent
	// Code is the SMTP reply code, 0 if there was none.
	Code int
	// Reply is the reply of the next hop, or what went wrong before one came, scrubbed of ForwardTo.
	Reply Secret
	TLS   string
}

func (a Attempt) String() string {
	return fmt.Sprintf("attempt %d at %s: %s %d", a.Number, a.Hop, a.Event, a.Code)
}
