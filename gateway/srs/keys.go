package srs

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
)

const (
	keyBytes = 32
	maxKeys  = 1000
	redacted = "[redacted]"
)

// Key signs addresses. Every way of printing it gives "[redacted]".
type Key struct {
	// Created is the day from which it signs.
	Created time.Time
	// secret is behind a pointer: fmt prints no more than its address, wherever the key is nested.
	secret *[keyBytes]byte
}

// Format hides the key from every print verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue hides the key from slog.
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the key from encoders; WriteKeys writes it.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// ReadKeys reads a file of keys, newest first: a line each, "YYYY-MM-DD base64url(32 bytes)" without padding. Empty
// lines and those that begin with # are comments. Errors name the line, never what is on it.
func ReadKeys(r io.Reader) ([]Key, error) {
	var keys []Key
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		key, err := parseKey(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if len(keys) > 0 && key.Created.After(keys[len(keys)-1].Created) {
			return nil, fmt.Errorf("line %d: the key is newer than the one above it; the newest comes first", n)
		}
		if keys = append(keys, key); len(keys) > maxKeys {
			return nil, fmt.Errorf("line %d: more than %d keys", n, maxKeys)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	return keys, nil
}

func parseKey(line string) (Key, error) {
	bad := errors.New("not a key: YYYY-MM-DD and 32 bytes in base64url are needed")
	fields := strings.Fields(line)
	if len(fields) != 2 {
		return Key{}, bad
	}
	created, err := time.Parse(time.DateOnly, fields[0])
	if err != nil {
		return Key{}, bad // the cause would repeat what may be a key
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(fields[1], "="))
	if err != nil || len(raw) != keyBytes {
		return Key{}, bad
	}
	return Key{Created: created, secret: (*[keyBytes]byte)(raw)}, nil
}

// AddKey returns keys with a new one, made now, in front. Those whose successor has signed for longer than
// DefaultMaxAge and a day are left out: no address of theirs is honoured.
func AddKey(keys []Key, now time.Time) []Key {
	secret := new([keyBytes]byte)
	_, _ = rand.Read(secret[:]) // never fails (crypto/rand)
	kept := []Key{{Created: now.UTC().Truncate(day), secret: secret}}
	for i, k := range keys {
		if i > 0 && now.Sub(keys[i-1].Created) > DefaultMaxAge+day {
			break
		}
		kept = append(kept, k)
	}
	return kept
}

// WriteKeys writes a file that ReadKeys reads. It is to be readable to the gateway only.
func WriteKeys(w io.Writer, keys []Key) error {
	var text bytes.Buffer
	text.WriteString("# Keys of the SRS addresses, newest first. Keep this file secret.\n")
	for _, k := range keys {
		if k.secret == nil {
			return errors.New("write keys: a key is empty")
		}
		fmt.Fprintf(&text, "%s %s\n", k.Created.UTC().Format(time.DateOnly), base64.RawURLEncoding.EncodeToString(k.secret[:]))
	}
	if _, err := w.Write(text.Bytes()); err != nil {
		return fmt.Errorf("write keys: %w", err)
	}
	return nil
}
