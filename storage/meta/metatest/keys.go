package metatest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

const keyIDLength = 4

// Keys is a keyring for tests: AES-256-GCM, bound to table, column and row. Values begin with the key's ID, of four
// characters.
type Keys struct {
	mu     sync.Mutex
	keys   map[string]cipher.AEAD
	active string
	using  string
	made   int // keys, ever
	index  []byte
	// Source is what Refresh takes the keys from; nil: they stay.
	Source *Keys
}

// NewKeys returns a keyring of its own, of one key.
func NewKeys() *Keys {
	index := make([]byte, 32)
	_, _ = rand.Read(index) // never fails (crypto/rand)
	k := &Keys{keys: map[string]cipher.AEAD{}, index: index}
	if k.AddKey() != nil {
		return nil
	}
	k.using = k.active
	return k
}

// Node returns the keyring of another node, which has the same keys until Refresh takes those that are added later.
func (k *Keys) Node() *Keys {
	k.mu.Lock()
	defer k.mu.Unlock()
	return &Keys{keys: maps.Clone(k.keys), active: k.active, using: k.using, made: k.made, index: k.index, Source: k}
}

// AddKey adds a key and makes it the active one.
func (k *Keys) AddKey() error {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.active = fmt.Sprintf("key%d", k.made)
	k.made++
	k.keys[k.active] = aead
	return nil
}

// Forget makes a key unknown, as if the keyring file had been cut.
func (k *Keys) Forget(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.keys, id)
}

// KeyIDs implements meta.Keyring.
func (k *Keys) KeyIDs() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Sorted(maps.Keys(k.keys))
}

// ActiveKey implements meta.Keyring.
func (k *Keys) ActiveKey() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.active
}

// WrappingKey implements meta.Keyring.
func (k *Keys) WrappingKey() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.using
}

// Use implements meta.Keyring.
func (k *Keys) Use(id string) error {
	if !slices.Contains(k.KeyIDs(), id) {
		return errors.New("there is no such key")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.using = id
	return nil
}

// Refresh implements meta.Keyring.
func (k *Keys) Refresh() error {
	if k.Source == nil {
		return nil
	}
	fresh := k.Source.Node()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys, k.active = fresh.keys, fresh.active
	return nil
}

// Mark implements meta.Keyring.
func (k *Keys) Mark(id string) ([]byte, error) { return []byte(id), nil }

// Wrap implements meta.Wrapper.
func (k *Keys) Wrap(table, column, rowID string, plaintext []byte) ([]byte, error) {
	if table == "" || column == "" || rowID == "" {
		return nil, errors.New("a wrapped value needs a table, a column and a row")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	aead := k.keys[k.using]
	nonce := make([]byte, aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails (crypto/rand)
	out := append([]byte(k.using), nonce...)
	return aead.Seal(out, nonce, plaintext, []byte(table+"\x00"+column+"\x00"+rowID)), nil
}

// Unwrap implements meta.Wrapper.
func (k *Keys) Unwrap(table, column, rowID string, wrapped []byte) ([]byte, error) {
	id, rest := wrapped[:min(keyIDLength, len(wrapped))], bytes.TrimPrefix(wrapped, wrapped[:min(keyIDLength, len(wrapped))])
	k.mu.Lock()
	defer k.mu.Unlock()
	aead, ok := k.keys[string(id)]
	if !ok || len(rest) < aead.NonceSize() {
		return nil, errors.New("the wrapped value is cut, or its key is not known")
	}
	n := aead.NonceSize()
	return aead.Open(nil, rest[:n], rest[n:], []byte(table+"\x00"+column+"\x00"+rowID))
}

// Lookup implements meta.Wrapper.
func (k *Keys) Lookup(column, value string) []byte {
	h := hmac.New(sha256.New, k.index)
	h.Write([]byte(column + "\x00" + value))
	return h.Sum(nil)
}

// LookupAddress implements meta.Wrapper.
func (k *Keys) LookupAddress(column, address string) []byte {
	return k.Lookup(column, strings.ToLower(strings.TrimSpace(address)))
}
