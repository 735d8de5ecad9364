package crypto

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"
)

// ID names a package. It converts to and from gateway.PackageID.
type ID [16]byte

// ParseID reads 32 lower-case hex digits, the only spelling that is written.
func ParseID(s string) (ID, error) {
	var id ID
	if !lowerHex(s, len(id)) {
		return id, errors.New("a package ID has 32 lower-case hex digits")
	}
	_, err := hex.Decode(id[:], []byte(s))
	return id, err
}

// String returns 32 lower-case hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText returns 32 lower-case hex digits.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (id *ID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseID(string(text))
	return err
}

// ObjectKind is the letter that says what an object is.
type ObjectKind byte

// The kinds of objects.
const (
	KindHead    ObjectKind = 'h'
	KindSegment ObjectKind = 's'
	KindQueue   ObjectKind = 'q' // a mail that waits for its deliveries
)

const (
	dayLayout = "20060102"
	nonceSize = 8
	maxSeq    = 999_999_999
)

// ObjectName is a parsed object name: YYYYMMDD/ID.h.SEQ.NONCE, YYYYMMDD/ID.s.NONCE or YYYYMMDD/ID.q.NONCE.
type ObjectName struct {
	Day  string // of creation in UTC: YYYYMMDD
	ID   ID
	Kind ObjectKind
	Seq  int // of a head, from 1; else 0
	// Nonce is 16 hex digits, so that nothing is ever overwritten.
	Nonce string
}

// String returns the name as it is stored.
func (n ObjectName) String() string {
	s := n.Day + "/" + n.ID.String() + "." + string(rune(n.Kind)) + "."
	if n.Kind == KindHead {
		s += strconv.Itoa(n.Seq) + "."
	}
	return s + n.Nonce
}

// HeadName returns a new name for the seq-th head of a package, from 1.
func HeadName(id ID, created time.Time, seq int) string { return newName(id, created, KindHead, seq) }

// SegmentName returns a new name for a segment.
func SegmentName(id ID, created time.Time) string { return newName(id, created, KindSegment, 0) }

// QueueName returns a new name for a mail that waits for its deliveries.
func QueueName(id ID, created time.Time) string { return newName(id, created, KindQueue, 0) }

func newName(id ID, created time.Time, kind ObjectKind, seq int) string {
	var nonce [nonceSize]byte
	_, _ = rand.Read(nonce[:]) // never fails (crypto/rand)
	return ObjectName{
		Day: created.UTC().Format(dayLayout), ID: id, Kind: kind, Seq: seq, Nonce: hex.EncodeToString(nonce[:]),
	}.String()
}

// ParseObjectName reads the name of an object, in the only spelling that is written.
func ParseObjectName(s string) (ObjectName, error) {
	bad := errors.New("this is not the name of a sealed object")
	day, rest, ok := strings.Cut(s, "/")
	date, err := time.Parse(dayLayout, day)
	if !ok || err != nil || date.Format(dayLayout) != day {
		return ObjectName{}, bad
	}
	fields := strings.Split(rest, ".")
	if len(fields) < 3 || len(fields[1]) != 1 {
		return ObjectName{}, bad
	}
	n := ObjectName{Day: day, Kind: ObjectKind(fields[1][0]), Nonce: fields[len(fields)-1]}
	if n.ID, err = ParseID(fields[0]); err != nil || !lowerHex(n.Nonce, nonceSize) {
		return ObjectName{}, bad
	}
	switch {
	case n.Kind == KindHead && len(fields) == 4:
		n.Seq, err = strconv.Atoi(fields[2])
		if err != nil || n.Seq < 1 || n.Seq > maxSeq || strconv.Itoa(n.Seq) != fields[2] {
			return ObjectName{}, bad
		}
	case (n.Kind == KindSegment || n.Kind == KindQueue) && len(fields) == 3:
	default:
		return ObjectName{}, bad
	}
	return n, nil
}

// LatestHead returns the name of the head of package id that counts, the one with the highest SEQ, out of
// names that may hold anything. Of two with the same SEQ it is the one that sorts last.
func LatestHead(id ID, names []string) (string, bool) {
	latest, seq := "", 0
	for _, name := range names {
		n, err := ParseObjectName(name)
		if err != nil || n.ID != id || n.Kind != KindHead {
			continue
		}
		if n.Seq > seq || n.Seq == seq && name > latest {
			latest, seq = name, n.Seq
		}
	}
	return latest, seq > 0
}

// lowerHex reports whether s is size bytes in lower-case hex.
func lowerHex(s string, size int) bool {
	return len(s) == hex.EncodedLen(size) && strings.Trim(s, "0123456789abcdef") == ""
}
