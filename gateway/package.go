package gateway

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"
)

// PackageID names a package, and the mail that it came from, wherever one is written: 32 hex digits.
type PackageID [16]byte

// NewPackageID returns a random ID.
func NewPackageID() PackageID {
	var id PackageID
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	return id
}

// ParsePackageID reads 32 lower-case hex digits, the only spelling that is written.
func ParsePackageID(s string) (PackageID, error) {
	var id PackageID
	if len(s) != hex.EncodedLen(len(id)) {
		return id, errors.New("an ID has 32 lower-case hex digits")
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil || id.String() != s {
		return PackageID{}, errors.New("an ID has 32 lower-case hex digits")
	}
	return id, nil
}

func (id PackageID) String() string { return hex.EncodeToString(id[:]) }

// Source says where a package came from.
type Source string

// SourceMail is a package that was sealed out of a received mail.
const SourceMail Source = "mail"

// PackageState says what may be done with a package.
type PackageState string

// The states of a package. Expiry is not a state but a time: see Package.Expires.
const (
	PackageArriving  PackageState = "arriving" // its objects are still being stored
	PackageAvailable PackageState = "available"
	PackageRevoked   PackageState = "revoked"
	PackageErased    PackageState = "erased" // objects, server secret and wrapped fields are gone
)

// Package is all that was sealed out of one mail.
type Package struct {
	ID      PackageID
	Source  Source
	State   PackageState
	Created time.Time
	// Expires is when the package is erased for good: the latest of its placements' expiries.
	Expires time.Time
	// ServerSecret is S, the half of the passphrase that the database keeps: base64url of 32 bytes.
	ServerSecret Secret
	// ProofHash is the SHA-256 of the proof that a browser which holds K can give.
	ProofHash [32]byte
	// Head is the name of the object that holds the sealed manifest.
	Head string
	// Objects are all the objects of the package, the head included.
	Objects    []Object
	Items      []Item
	Placements []Placement
	// Scan is what the virus scanner said of the mail, so that who opens it is warned.
	Scan Scan
}

// Item is one file of a package, as far as the gateway may know it after intake: not by name.
type Item struct {
	Ordinal  int   // its place in the manifest, from 0
	Size     int64 // of the plaintext, in bytes
	Segments int
}

// HeadObject is the Item of an Object that belongs to no item.
const HeadObject = -1

// Object is one immutable object in the blob store.
type Object struct {
	Name string
	Item int   // the ordinal of the item it is a segment of, or HeadObject
	Size int64 // as stored, in bytes
}

// Span is a time from Since up to, but not including, Until.
type Span struct{ Since, Until time.Time }

// Contains reports whether t lies in the span.
func (s Span) Contains(t time.Time) bool { return !t.Before(s.Since) && t.Before(s.Until) }

// PlacementKind says what kind of place a package is in.
type PlacementKind string

// PlacementRoute is the mailbox of a route.
const PlacementRoute PlacementKind = "route"

// Placement is where a package belongs. An agent may open a package when any of its placements allows.
type Placement struct {
	Kind PlacementKind
	// Place is the public address of the route.
	Place string
	// CaseRef is the Salesforce Case, once it is known.
	CaseRef string
	Expires time.Time
}
