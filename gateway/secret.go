package gateway

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// Secret is a value that must never reach a log, an error, a metric or a page: a token, a password, a
// Secure Link, a server secret, a file name, a correspondent. Every way of printing it gives
// "[redacted]"; only Reveal gives the value.
type Secret struct{ value string }

// NewSecret wraps value.
func NewSecret(value string) Secret { return Secret{value} }

// Reveal returns the value. Call it where the value is used, not where it is passed on.
func (s Secret) Reveal() string { return s.value }

// IsZero reports whether there is no value.
func (s Secret) IsZero() bool { return s.value == "" }

// Equal compares in constant time.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.value), []byte(other.value)) == 1
}

// String hides the value from every print verb that asks for a string.
func (Secret) String() string { return redacted }

// Format hides the value from all the other verbs, %#v and %x among them.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue hides the value from slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the value from encoders. A protocol that must carry it calls Reveal.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
