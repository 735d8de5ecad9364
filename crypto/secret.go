package crypto

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
)

const (
	secretSize = 32
	redacted   = "[redacted]"
	proofInfo  = "sealpost/1 proof"
)

// hidden makes every type that embeds it print as "[redacted]", with every verb, logger and encoder.
type hidden struct{}

// String returns "[redacted]".
func (hidden) String() string { return redacted }

// Format writes "[redacted]" for every verb.
func (hidden) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue returns "[redacted]".
func (hidden) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[redacted]": what must carry a secret calls Reveal.
func (hidden) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Keycode is K, the half of a package's secret that its Secure Link carries. It is never stored, logged
// or sent to the portal.
type Keycode struct {
	hidden
	raw [secretSize]byte
}

// ServerSecret is S, the half of a package's secret that the database keeps, wrapped by the keyring.
type ServerSecret struct {
	hidden
	raw [secretSize]byte
}

// Proof shows that somebody holds K without telling it. It is a bearer token.
type Proof struct {
	hidden
	raw [secretSize]byte
}

// ParseKeycode reads the 43 characters of base64url without padding that Reveal gives.
func ParseKeycode(s string) (Keycode, error) {
	raw, err := decodeSecret(s, "keycode")
	return Keycode{raw: raw}, err
}

// ParseServerSecret reads the 43 characters of base64url without padding that Reveal gives.
func ParseServerSecret(s string) (ServerSecret, error) {
	raw, err := decodeSecret(s, "server secret")
	return ServerSecret{raw: raw}, err
}

// ParseProof reads the 43 characters of base64url without padding that Reveal gives.
func ParseProof(s string) (Proof, error) {
	raw, err := decodeSecret(s, "proof")
	return Proof{raw: raw}, err
}

// Reveal returns K in base64url without padding.
func (k Keycode) Reveal() string { return encodeSecret(k.raw) }

// Reveal returns S in base64url without padding.
func (s ServerSecret) Reveal() string { return encodeSecret(s.raw) }

// Reveal returns the proof in base64url without padding.
func (p Proof) Reveal() string { return encodeSecret(p.raw) }

// Proof derives the proof of holding k for the package id: HKDF-SHA256 (RFC 5869) of K, salted with the
// ID, for "sealpost/1 proof".
func (k Keycode) Proof(id ID) (Proof, error) {
	key, err := hkdf.Key(sha256.New, k.raw[:], id[:], proofInfo, secretSize)
	if err != nil {
		return Proof{}, fmt.Errorf("derive the proof: %w", err)
	}
	return Proof{raw: [secretSize]byte(key)}, nil
}

// Hash returns the SHA-256 of the proof's 32 bytes, which the database stores. Compare it in constant time.
func (p Proof) Hash() [sha256.Size]byte { return sha256.Sum256(p.raw[:]) }

// passphrase returns the 86 ASCII characters that open a head: base64url(S) followed by base64url(K).
func passphrase(s ServerSecret, k Keycode) []byte { return []byte(s.Reveal() + k.Reveal()) }

func newSecret() [secretSize]byte {
	var raw [secretSize]byte
	_, _ = rand.Read(raw[:]) // never fails (crypto/rand)
	return raw
}

func encodeSecret(raw [secretSize]byte) string { return base64.RawURLEncoding.EncodeToString(raw[:]) }

// decodeSecret accepts exactly one spelling of each secret.
func decodeSecret(s, what string) ([secretSize]byte, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	// The decoder skips line breaks, so the spelling is compared as well.
	if err != nil || len(raw) != secretSize || encodeSecret([secretSize]byte(raw)) != s {
		return [secretSize]byte{}, errors.New("a " + what + " has 43 characters of base64url")
	}
	return [secretSize]byte(raw), nil
}
