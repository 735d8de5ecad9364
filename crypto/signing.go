package crypto

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

const signingUserID = "Sealpost gateway"

// SigningKey is the gateway's own OpenPGP key (version 6, Ed25519), which signs manifests. It may be used
// concurrently.
type SigningKey struct {
	hidden
	entity *openpgp.Entity
}

// VerifyKey is the public half of a SigningKey. It may be used concurrently.
type VerifyKey struct{ entity *openpgp.Entity }

func newSigningKey(created time.Time) (*SigningKey, error) {
	entity, err := newEntity(signingUserID, created)
	if err != nil {
		return nil, fmt.Errorf("make the signing key: %w", err)
	}
	entity.Subkeys = nil // they encrypt, and nothing is encrypted to the gateway
	return checkedSigningKey(entity)
}

// checkedSigningKey makes sure that the key can sign. The library keeps what it found out about a key
// inside it, so this also makes later use free of writes.
func checkedSigningKey(entity *openpgp.Entity) (*SigningKey, error) {
	created := entity.PrimaryKey.CreationTime
	key, ok := entity.SigningKey(created, packetConfig(created))
	if !ok || key.PrivateKey == nil || key.PrivateKey.Encrypted {
		return nil, errors.New("the gateway's signing key cannot sign")
	}
	return &SigningKey{entity: entity}, nil
}

// readSigningKey reads what serialize wrote.
func readSigningKey(raw []byte) (*SigningKey, error) {
	entity, err := openpgp.ReadEntity(packet.NewReader(bytes.NewReader(raw)))
	if err != nil {
		return nil, fmt.Errorf("read the gateway's signing key: %w", err)
	}
	return checkedSigningKey(entity)
}

// serialize returns the unlocked key as a transferable secret key (RFC 9580 section 10.2).
func (k *SigningKey) serialize() ([]byte, error) {
	var out bytes.Buffer
	if err := k.entity.SerializePrivateWithoutSigning(&out, nil); err != nil {
		return nil, fmt.Errorf("serialize the gateway's signing key: %w", err)
	}
	return out.Bytes(), nil
}

// VerifyKey returns the public half.
func (k *SigningKey) VerifyKey() *VerifyKey { return &VerifyKey{entity: k.entity} }

// ReadVerifyKey reads what WriteArmored wrote.
func ReadVerifyKey(r io.Reader) (*VerifyKey, error) {
	entities, err := readArmor(r)
	if err != nil {
		return nil, err
	}
	if len(entities) != 1 || entities[0].PrivateKey != nil {
		return nil, errors.New("want one public key, the one that verifies the gateway's signatures")
	}
	created := entities[0].PrimaryKey.CreationTime
	if _, ok := entities[0].SigningKey(created, packetConfig(created)); !ok {
		return nil, errors.New("this key verifies no signatures")
	}
	return &VerifyKey{entity: entities[0]}, nil
}

// Fingerprint returns the fingerprint in upper-case hex.
func (k *VerifyKey) Fingerprint() string { return fingerprint(k.entity) }

// WriteArmored writes the key, for a browser or a program that verifies manifests.
func (k *VerifyKey) WriteArmored(w io.Writer) error {
	return writeArmor(w, openpgp.PublicKeyType, k.entity.Serialize)
}

// sign writes text to w as a signed message: one-pass signature, literal, signature (RFC 9580 section
// 10.3). It does not close w.
func (k *SigningKey) sign(w io.Writer, text []byte, at time.Time) error {
	if created := k.entity.PrimaryKey.CreationTime; at.Before(created) {
		at = created // a signature older than its key would never verify
	}
	in, err := openpgp.SignWithParams(w, []*openpgp.Entity{k.entity}, &openpgp.SignParams{Config: packetConfig(at)})
	if err != nil {
		return fmt.Errorf("sign the manifest: %w", err)
	}
	if _, err := in.Write(text); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	if err := in.Close(); err != nil {
		return fmt.Errorf("sign the manifest: %w", err)
	}
	return nil
}
