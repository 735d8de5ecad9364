package crypto

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

func parseKeyID(s string) (id keyID, err error) {
	if err := decodeHex(id[:], []byte(s)); err != nil {
		return id, errors.New("a key ID has 8 lower-case hex digits")
	}
	return id, nil
}

// String returns the 8 hex digits.
func (id keyID) String() string { return hex.EncodeToString(id[:]) }

// mark returns what each value begins with that the key has wrapped.
func (id keyID) mark() []byte { return append([]byte{wrapVersion}, id[:]...) }

// OpenKeyring reads a keyring file that is read again when a key is missing, and by Refresh.
func OpenKeyring(source func() (io.ReadCloser, error)) (*Keyring, error) {
	k, err := readSource(source)
	if err != nil {
		return nil, err
	}
	k.source = source
	return k, nil
}

func readSource(source func() (io.ReadCloser, error)) (*Keyring, error) {
	f, err := source()
	if err != nil {
		return nil, err
	}
	k, err := ReadKeyring(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return k, nil
}

// KeyIDs returns the IDs of the wrapping keys, sorted. They tell nothing of the keys.
func (k *Keyring) KeyIDs() []string {
	var ids []string
	for id := range k.wrapping.Load().keys {
		ids = append(ids, id.String())
	}
	slices.Sort(ids)
	return ids
}

// ActiveKey returns the ID of the key that the file calls active.
func (k *Keyring) ActiveKey() string { return k.wrapping.Load().active.String() }

// WrappingKey returns the ID of the key that values are wrapped under: the active one, until Use names another.
func (k *Keyring) WrappingKey() string { return k.wrapping.Load().using.String() }

// Mark returns what each value begins with that the key with this ID has wrapped, and no other value.
func (k *Keyring) Mark(id string) ([]byte, error) {
	parsed, err := parseKeyID(id)
	return parsed.mark(), err
}

// Use wraps values under the key with this ID from here on. A key that is not there is looked for in the source;
// ErrUnknownKey if it is not there either.
func (k *Keyring) Use(id string) error {
	wanted, err := parseKeyID(id)
	if err != nil {
		return err
	}
	if k.wrapping.Load().using == wanted {
		return nil
	}
	if _, err := k.find(wanted); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	w := *k.wrapping.Load()
	if _, ok := w.keys[wanted]; !ok {
		return fmt.Errorf("%w: key %s", ErrUnknownKey, wanted)
	}
	w.using = wanted
	k.wrapping.Store(&w)
	return nil
}

// find returns a key, if need be out of the source, which is asked once for each that it does not have.
func (k *Keyring) find(id keyID) (wrappingKey, error) {
	w := k.wrapping.Load()
	key, ok := w.keys[id]
	if ok {
		return key, nil
	}
	unknown := fmt.Errorf("%w: key %s", ErrUnknownKey, id)
	if _, missed := w.missed[id]; missed || k.source == nil {
		return key, unknown
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	failed := k.refresh()
	next := *k.wrapping.Load()
	if key, ok = next.keys[id]; ok {
		return key, nil
	}
	if failed != nil { // a source that cannot be read now says nothing of the key
		return key, errors.Join(unknown, failed)
	}
	next.missed = maps.Clone(next.missed)
	if next.missed == nil {
		next.missed = make(map[keyID]struct{}, 1)
	}
	next.missed[id] = struct{}{}
	k.wrapping.Store(&next)
	return key, unknown
}

// Refresh takes over the wrapping keys that the source has by then. The key that values are wrapped under stays; a
// source without it, or of another installation, is refused, and all stays as it is.
func (k *Keyring) Refresh() error {
	if k.source == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.refresh()
}

func (k *Keyring) refresh() error {
	fresh, err := readSource(k.source)
	if err != nil {
		return err
	}
	if fresh.index != k.index || fresh.VerifyKey().Fingerprint() != k.VerifyKey().Fingerprint() {
		return errors.New("the keyring was replaced by that of another installation")
	}
	w := fresh.wrapping.Load()
	w.using = k.wrapping.Load().using
	if _, ok := w.keys[w.using]; !ok {
		return fmt.Errorf("the keyring was replaced by one that lacks key %s, which is in use", w.using)
	}
	k.wrapping.Store(w)
	return nil
}

// AddKey adds a fresh wrapping key, which the file will call active, and returns its ID. Values are wrapped as before.
func (k *Keyring) AddKey() (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := *k.wrapping.Load()
	w.keys = maps.Clone(w.keys)
	for taken := true; taken; {
		_, _ = rand.Read(w.active[:]) // never fails (crypto/rand)
		_, taken = w.keys[w.active]
	}
	if err := w.add(w.active, newSecret()); err != nil {
		return "", err
	}
	k.wrapping.Store(&w)
	return w.active.String(), nil
}

// RemoveKey removes a wrapping key, but neither the active one nor the one that is in use. What it has wrapped is lost.
func (k *Keyring) RemoveKey(id string) error {
	unwanted, err := parseKeyID(id)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	w := *k.wrapping.Load()
	if unwanted == w.active || unwanted == w.using {
		return fmt.Errorf("key %s is in use", unwanted)
	}
	w.keys = maps.Clone(w.keys)
	delete(w.keys, unwanted)
	k.wrapping.Store(&w)
	return nil
}
