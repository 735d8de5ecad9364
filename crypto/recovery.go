package crypto

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/ProtonMail/go-crypto/openpgp/s2k"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

const recoveryUserID = "Sealpost recovery key"

// RecoveryPublicKey is the half of a recovery key that the gateway seals to.
type RecoveryPublicKey struct{ entity *openpgp.Entity }

// RecoveryPrivateKey is the half of a recovery key that is kept offline, unlocked. It may be used
// concurrently.
type RecoveryPrivateKey struct {
	hidden
	entity     *openpgp.Entity
	decryption []openpgp.Key
}

// recipient is a public key that a session key may be encrypted to.
type recipient struct {
	fingerprint string
	key         *packet.PublicKey
}

// GenerateRecoveryKey makes a version 6 OpenPGP key (Ed25519 and X25519) that does not expire and announces
// AES-256 with GCM and SEIPD v2.
func GenerateRecoveryKey(created time.Time) (*RecoveryPrivateKey, error) {
	entity, err := newEntity(recoveryUserID, created)
	if err != nil {
		return nil, fmt.Errorf("make the recovery key: %w", err)
	}
	return newRecoveryPrivateKey(entity)
}

func newEntity(userID string, created time.Time) (*openpgp.Entity, error) {
	config := packetConfig(created)
	config.V6Keys = true
	config.Algorithm = packet.PubKeyAlgoEd25519
	return openpgp.NewEntity(userID, "", "", config)
}

func newRecoveryPrivateKey(entity *openpgp.Entity) (*RecoveryPrivateKey, error) {
	// The zero time looks at no expiry: what was sealed stays readable.
	keys := entity.DecryptionKeys(0, time.Time{}, packetConfig(time.Time{}))
	if len(keys) == 0 {
		return nil, errors.New("the key has no part that decrypts")
	}
	return &RecoveryPrivateKey{entity: entity, decryption: keys}, nil
}

// Public returns the half that the gateway needs.
func (k *RecoveryPrivateKey) Public() *RecoveryPublicKey { return &RecoveryPublicKey{entity: k.entity} }

// Fingerprint returns the fingerprint in upper-case hex.
func (k *RecoveryPrivateKey) Fingerprint() string { return fingerprint(k.entity) }

// Fingerprint returns the fingerprint in upper-case hex.
func (k *RecoveryPublicKey) Fingerprint() string { return fingerprint(k.entity) }

func fingerprint(e *openpgp.Entity) string { return fmt.Sprintf("%X", e.PrimaryKey.Fingerprint) }

// WriteArmored writes the public half.
func (k *RecoveryPublicKey) WriteArmored(w io.Writer) error {
	return writeArmor(w, openpgp.PublicKeyType, k.entity.Serialize)
}

// WriteArmored writes the private half, locked under a passphrase: Argon2id and AEAD (RFC 9580 sections
// 3.7.1.4 and 3.7.2.1).
func (k *RecoveryPrivateKey) WriteArmored(w io.Writer, passphrase []byte) error {
	if len(passphrase) == 0 {
		return errors.New("the recovery key needs a passphrase")
	}
	locked, err := copyKey(k.entity)
	if err != nil {
		return err
	}
	config := packetConfig(time.Time{})
	config.S2KConfig = &s2k.Config{S2KMode: s2k.Argon2S2K}
	if err := locked.EncryptPrivateKeys(passphrase, config); err != nil {
		return fmt.Errorf("lock the recovery key: %w", err)
	}
	return writeArmor(w, openpgp.PrivateKeyType, func(w io.Writer) error {
		return locked.SerializePrivateWithoutSigning(w, config)
	})
}

// ReadRecoveryPublicKeys reads one or more armored public keys. A private key is refused: its place is not
// on the gateway. Whether a key can be used is for Check to tell.
func ReadRecoveryPublicKeys(r io.Reader) ([]*RecoveryPublicKey, error) {
	entities, err := readArmor(r)
	if err != nil {
		return nil, err
	}
	keys := make([]*RecoveryPublicKey, 0, len(entities))
	for _, e := range entities {
		if e.PrivateKey != nil {
			return nil, errors.New("this is the private half of a recovery key; give the public half here, and keep the private one offline")
		}
		keys = append(keys, &RecoveryPublicKey{entity: e})
	}
	return keys, nil
}

// ReadRecoveryPrivateKey reads one armored private key and unlocks it; the passphrase of a key that is not
// locked is not looked at. A wrong passphrase is ErrPassphrase.
func ReadRecoveryPrivateKey(r io.Reader, passphrase []byte) (*RecoveryPrivateKey, error) {
	entities, err := readArmor(r)
	if err != nil {
		return nil, err
	}
	if len(entities) != 1 {
		return nil, fmt.Errorf("want one private key, this has %d keys", len(entities))
	}
	key := entities[0]
	if key.PrivateKey == nil {
		return nil, errors.New("this is the public half of a recovery key; its private half is needed")
	}
	if isLocked(key) && len(passphrase) == 0 {
		return nil, fmt.Errorf("%w: it is locked, and no passphrase was given", ErrPassphrase)
	}
	if err := key.DecryptPrivateKeys(passphrase); err != nil {
		return nil, ErrPassphrase // the library tells a wrong passphrase and a damaged key apart by no means
	}
	return newRecoveryPrivateKey(key)
}

func isLocked(e *openpgp.Entity) bool {
	return e.PrivateKey.Encrypted || slices.ContainsFunc(e.Subkeys, func(s openpgp.Subkey) bool {
		return s.PrivateKey != nil && s.PrivateKey.Encrypted
	})
}

// Check tells why nothing can be sealed to the key at that time, in words for an admin: nil if it can. A
// key serves if it is neither expired nor revoked, has a strong part that encrypts, and announces AES-256
// with GCM and SEIPD v2 (RFC 9580 sections 5.2.3.15 and 5.2.3.32).
func (k *RecoveryPublicKey) Check(at time.Time) error {
	_, err := k.recipient(at)
	return err
}

func (k *RecoveryPublicKey) recipient(at time.Time) (recipient, error) {
	fail := func(format string, args ...any) (recipient, error) {
		return recipient{}, fmt.Errorf("recovery key %s "+format, append([]any{k.Fingerprint()}, args...)...)
	}
	if created := k.entity.PrimaryKey.CreationTime; at.Before(created) {
		at = created // a clock that was set back makes no key invalid
	}
	config := packetConfig(at)
	signature, err := k.entity.VerifyPrimaryKey(at, config)
	switch {
	case errors.Is(err, pgperrors.ErrKeyRevoked):
		return fail("is revoked; use another one")
	case errors.Is(err, pgperrors.ErrKeyExpired):
		return fail("has expired; extend it or use another one")
	case err != nil:
		return fail("cannot be used: %w", err)
	}
	// This also weighs the strength of primary key and subkey, and their revocations.
	key, err := k.entity.EncryptionKeyWithError(at, config)
	if err != nil {
		return fail("cannot be encrypted to: %w", err)
	}
	if isRSA(key.PublicKey) {
		if bits, err := key.PublicKey.BitLength(); err != nil || bits < config.MinRSABits {
			return fail("has an RSA key of %d bits; it must have at least %d", bits, config.MinRSABits)
		}
	}
	suite := [2]uint8{uint8(packet.CipherAES256), uint8(packet.AEADModeGCM)}
	if !signature.SEIPDv2 || !slices.Contains(signature.PreferredCipherSuites, suite) {
		return fail("does not announce AES-256 with GCM and SEIPD v2 (RFC 9580), as keys made by GnuPG never do; make one with \"sealpost init\"")
	}
	return recipient{fingerprint: k.Fingerprint(), key: key.PublicKey}, nil
}

func isRSA(key *packet.PublicKey) bool {
	return key.PubKeyAlgo == packet.PubKeyAlgoRSA || key.PubKeyAlgo == packet.PubKeyAlgoRSAEncryptOnly
}

// sessionKey returns the session key out of a PKESK v6, nil if it is none or is for another key.
func (k *RecoveryPrivateKey) sessionKey(esk *packet.OpaquePacket) []byte {
	if esk.Tag != headerPKESK&0x3F || len(esk.Contents) < 2 || esk.Contents[0] != 6 {
		return nil
	}
	p, err := esk.Parse()
	if err != nil {
		return nil
	}
	pkesk, ok := p.(*packet.EncryptedKey)
	if !ok {
		return nil
	}
	// The octet before says how long key version and fingerprint are (RFC 9580 section 5.1.2).
	if int(esk.Contents[1]) != 1+len(pkesk.KeyFingerprint) {
		return nil
	}
	for _, key := range k.decryption {
		if !bytes.Equal(pkesk.KeyFingerprint, key.PublicKey.Fingerprint) {
			continue
		}
		if err := pkesk.Decrypt(key.PrivateKey, nil); err == nil && len(pkesk.Key) == sessionKeySize {
			return pkesk.Key
		}
	}
	return nil
}
