package crypto

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	keyringVersion = 1
	wrapVersion    = 1
	maxKeyringFile = 1 << 20
	keyIDSize      = 4
	wrapHeader     = 1 + keyIDSize
)

// Keyring holds the keys that wrap what the database holds, and the gateway's signing key. It may be used
// concurrently. A wrapping key is good for 2^32 values, far beyond what a database holds.
//
// Its file is JSON; the keys are base64url without padding, key IDs 8 lower-case hex digits:
//
//	{
//	  "version": 1,
//	  "active": "5f0c11aa",
//	  "wrapping_keys": {"5f0c11aa": "(32 bytes)"},
//	  "index_key": "(32 bytes)",
//	  "signing_key": "(an unlocked OpenPGP transferable secret key)"
//	}
//
// New values are wrapped under the active key, or under the one that the database names (Use), since all nodes must
// have a key before one of them wraps by it; the others unwrap older values. The index key is not rotated: what was
// hashed by it cannot be hashed anew. Nor is the signing key: heads are signed inside of their encryption, and who
// rotates it would have to sign what only agents can read.
type Keyring struct {
	hidden
	wrapping atomic.Pointer[wrappingKeys]
	index    [secretSize]byte
	signing  *SigningKey

	source func() (io.ReadCloser, error) // nil: there is nothing to read anew
	mu     sync.Mutex                    // of who changes wrapping
}

type keyID [keyIDSize]byte

// wrappingKeys are not changed, but replaced.
type wrappingKeys struct {
	active keyID // as the file has it
	using  keyID // what values are wrapped under
	keys   map[keyID]wrappingKey
	// missed are those that the source did not have either when they were needed.
	missed map[keyID]struct{}
}

type wrappingKey struct {
	raw  [secretSize]byte
	aead cipher.AEAD // draws its own nonce of 12 bytes and puts it first
}

type keyringFile struct {
	Version      int               `json:"version"`
	Active       string            `json:"active"`
	WrappingKeys map[string]string `json:"wrapping_keys"`
	IndexKey     string            `json:"index_key"`
	SigningKey   string            `json:"signing_key"`
}

// NewKeyring makes a keyring of fresh keys.
func NewKeyring(created time.Time) (*Keyring, error) {
	signing, err := newSigningKey(created)
	if err != nil {
		return nil, err
	}
	k := &Keyring{index: newSecret(), signing: signing}
	w := &wrappingKeys{keys: make(map[keyID]wrappingKey, 1)}
	_, _ = rand.Read(w.active[:]) // never fails (crypto/rand)
	w.using = w.active
	k.wrapping.Store(w)
	return k, w.add(w.active, newSecret())
}

func (w *wrappingKeys) add(id keyID, raw [secretSize]byte) error {
	block, err := aes.NewCipher(raw[:])
	if err != nil {
		return fmt.Errorf("set up the wrapping key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return fmt.Errorf("set up the wrapping key: %w", err)
	}
	w.keys[id] = wrappingKey{raw: raw, aead: aead}
	return nil
}

// ReadKeyring reads a keyring file. Its errors name the field that is wrong and repeat no content.
func ReadKeyring(r io.Reader) (*Keyring, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxKeyringFile))
	if err != nil {
		return nil, fmt.Errorf("read the keyring: %w", err)
	}
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(text, &version); err != nil {
		return nil, errors.New("the keyring is not a JSON object with a version")
	}
	if version.Version != keyringVersion {
		return nil, fmt.Errorf("the keyring has version %d, which is unknown here", version.Version)
	}
	var file keyringFile
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return nil, errors.New("the keyring has a field that is unknown or of the wrong type") // err would repeat it
	}
	return file.keyring()
}

func (f *keyringFile) keyring() (*Keyring, error) {
	k, w := &Keyring{}, &wrappingKeys{keys: make(map[keyID]wrappingKey, len(f.WrappingKeys))}
	for name, text := range f.WrappingKeys {
		id, err := parseKeyID(name)
		if err != nil {
			return nil, fmt.Errorf("the keyring's wrapping_keys: %w", err)
		}
		raw, err := decodeSecret(text, "key")
		if err != nil {
			return nil, fmt.Errorf("the keyring's wrapping_keys: %w", err)
		}
		if err := w.add(id, raw); err != nil {
			return nil, err
		}
	}
	var err error
	if w.active, err = parseKeyID(f.Active); err != nil {
		return nil, fmt.Errorf("the keyring's active: %w", err)
	}
	if _, ok := w.keys[w.active]; !ok {
		return nil, errors.New("the keyring's active key is not among its wrapping_keys")
	}
	w.using = w.active
	k.wrapping.Store(w)
	if k.index, err = decodeSecret(f.IndexKey, "key"); err != nil {
		return nil, fmt.Errorf("the keyring's index_key: %w", err)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(f.SigningKey)
	if err != nil {
		return nil, errors.New("the keyring's signing_key is not base64url")
	}
	if k.signing, err = readSigningKey(raw); err != nil {
		return nil, fmt.Errorf("the keyring's signing_key: %w", err)
	}
	return k, nil
}

// Encode writes the keyring file. It holds all the gateway's secrets: only the gateway may read it.
func (k *Keyring) Encode(out io.Writer) error {
	signing, err := k.signing.serialize()
	if err != nil {
		return err
	}
	w := k.wrapping.Load()
	file := keyringFile{
		Version:      keyringVersion,
		Active:       w.active.String(),
		WrappingKeys: make(map[string]string, len(w.keys)),
		IndexKey:     encodeSecret(k.index),
		SigningKey:   base64.RawURLEncoding.EncodeToString(signing),
	}
	for id, key := range w.keys {
		file.WrappingKeys[id.String()] = encodeSecret(key.raw)
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	if err := enc.Encode(file); err != nil {
		return fmt.Errorf("write the keyring: %w", err)
	}
	return nil
}

// SigningKey returns the gateway's signing key.
func (k *Keyring) SigningKey() *SigningKey { return k.signing }

// VerifyKey returns the public half of the gateway's signing key.
func (k *Keyring) VerifyKey() *VerifyKey { return k.signing.VerifyKey() }

// Wrap encrypts a value for its place in the database: 1 byte format version, 4 bytes key ID, 12 bytes
// nonce, AES-256-GCM. The value can be read in that table, column and row only. A name of a table or column
// must not hold a zero byte.
func (k *Keyring) Wrap(table, column, rowID string, plaintext []byte) ([]byte, error) {
	ad, err := place(table, column, rowID)
	if err != nil {
		return nil, err
	}
	w := k.wrapping.Load()
	key := w.keys[w.using]
	out := make([]byte, 0, wrapHeader+len(plaintext)+key.aead.Overhead())
	out = append(out, w.using.mark()...)
	return key.aead.Seal(out, nil, plaintext, ad), nil //nolint:gosec // G407: this AEAD draws the nonce itself
}

// Unwrap decrypts what Wrap returned for the same place. For a key that it does not have it reads its source anew,
// once. Errors: ErrUnknownKey, and ErrUnwrap for all else.
func (k *Keyring) Unwrap(table, column, rowID string, wrapped []byte) ([]byte, error) {
	ad, err := place(table, column, rowID)
	if err != nil {
		return nil, err
	}
	if len(wrapped) < wrapHeader || wrapped[0] != wrapVersion {
		return nil, fmt.Errorf("%w: it is not of format version %d", ErrUnwrap, wrapVersion)
	}
	id := keyID(wrapped[1:wrapHeader])
	key, err := k.find(id)
	if err != nil {
		return nil, fmt.Errorf("column %s.%s: %w", table, column, err)
	}
	plaintext, err := key.aead.Open(nil, nil, wrapped[wrapHeader:], ad)
	if err != nil {
		return nil, fmt.Errorf("%w: column %s.%s", ErrUnwrap, table, column)
	}
	return plaintext, nil
}

func place(table, column, rowID string) ([]byte, error) {
	if strings.Contains(table, "\x00") || strings.Contains(column, "\x00") {
		return nil, errors.New("the name of a table or column holds a zero byte")
	}
	return []byte(table + "\x00" + column + "\x00" + rowID), nil
}

// Lookup returns the 32 bytes under which a value of a column is found: HMAC-SHA256 under the index key of
// the column, a zero byte and the value as it stands.
func (k *Keyring) Lookup(column, value string) []byte {
	mac := hmac.New(sha256.New, k.index[:])
	mac.Write([]byte(column + "\x00" + value))
	return mac.Sum(nil)
}

// LookupAddress is Lookup of an address in the form of CanonicalAddress.
func (k *Keyring) LookupAddress(column, address string) []byte {
	return k.Lookup(column, CanonicalAddress(address))
}
