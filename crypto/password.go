package crypto

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

const (
	argonMemory   = 19 << 10 // KiB
	argonTime     = 2
	argonThreads  = 1
	argonSaltSize = 16
	argonKeySize  = 32
	argonAtOnce   = 2

	// A hash from the database may ask for no more than this.
	argonMaxMemory = 256 << 10
	argonMaxTime   = 16
)

// Passwords hashes and verifies passwords with argon2id (RFC 9106): 19 MiB of memory, 2 passes, 1 lane. It
// lets two run at once, others wait: so log-ins take 38 MiB at most. It may be used concurrently.
type Passwords struct{ slots chan struct{} }

// NewPasswords returns a Passwords. A process needs one only.
func NewPasswords() *Passwords { return &Passwords{slots: make(chan struct{}, argonAtOnce)} }

type argonHash struct {
	memory, time uint32
	threads      uint8
	salt, key    []byte
}

// Hash returns the hash of a password as a PHC string. It fails only with ctx.
func (p *Passwords) Hash(ctx context.Context, password string) (string, error) {
	h := argonHash{memory: argonMemory, time: argonTime, threads: argonThreads, salt: make([]byte, argonSaltSize)}
	_, _ = rand.Read(h.salt) // never fails (crypto/rand)
	var err error
	if h.key, err = p.derive(ctx, h, password, argonKeySize); err != nil {
		return "", err
	}
	return h.String(), nil
}

// Verify reports whether a password has this hash. A hash that is none is an error, a wrong password is not.
func (p *Passwords) Verify(ctx context.Context, hash, password string) (bool, error) {
	h, err := parseArgonHash(hash)
	if err != nil {
		return false, err
	}
	key, err := p.derive(ctx, h, password, uint32(len(h.key)))
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(key, h.key) == 1, nil
}

// VerifyDummy does what Verify does for a wrong password, so that a log-in of an unknown agent takes as
// long as any other. It fails only with ctx.
func (p *Passwords) VerifyDummy(ctx context.Context, password string) error {
	h := argonHash{memory: argonMemory, time: argonTime, threads: argonThreads, salt: make([]byte, argonSaltSize)}
	_, err := p.derive(ctx, h, password, argonKeySize)
	return err
}

func (p *Passwords) derive(ctx context.Context, h argonHash, password string, size uint32) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("hash the password: %w", err)
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait to hash the password: %w", ctx.Err())
	}
	return argon2.IDKey([]byte(password), h.salt, h.time, h.memory, h.threads, size), nil
}

// String returns the PHC string.
func (h argonHash) String() string {
	enc := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.time, h.threads, enc(h.salt), enc(h.key))
}

func parseArgonHash(s string) (argonHash, error) {
	bad := errors.New("this is not an argon2id hash")
	fields := strings.Split(s, "$")
	if len(fields) != 6 {
		return argonHash{}, bad
	}
	var h argonHash
	var err error
	if _, err = fmt.Sscanf(fields[3], "m=%d,t=%d,p=%d", &h.memory, &h.time, &h.threads); err != nil {
		return argonHash{}, bad
	}
	if h.salt, err = base64.RawStdEncoding.Strict().DecodeString(fields[4]); err != nil {
		return argonHash{}, bad
	}
	if h.key, err = base64.RawStdEncoding.Strict().DecodeString(fields[5]); err != nil {
		return argonHash{}, bad
	}
	inRange := h.memory <= argonMaxMemory && h.time >= 1 && h.time <= argonMaxTime && h.threads >= 1 &&
		len(h.salt) >= 8 && len(h.key) >= 16 && len(h.key) <= 64
	// Only the spelling that String writes is a hash.
	if !inRange || h.String() != s {
		return argonHash{}, bad
	}
	return h, nil
}
