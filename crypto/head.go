package crypto

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

const (
	maxHead = maxManifest + 4<<20
	maxESK  = 64 << 10 // bytes of all encrypted session keys of a head
	maxESKs = 32       // and how many, since a forged one costs up to 65 MB of hashing

	maxRecipients = 16
)

// writeHead writes the head: the session key under each recovery key (PKESK v6) and under the passphrase
// (SKESK v6), then the signed manifest (SEIPD v2). RFC 9580 sections 5.1.2, 5.3.2, 5.13.2 and 10.3.
func (p *Package) writeHead(w io.Writer, manifest []byte) error {
	config := packetConfig(p.manifest.Created)
	if err := p.sealer.writeRecipients(w, p.sessionKey, config); err != nil {
		return err
	}
	pass := passphrase(p.server, p.keycode)
	if err := packet.SerializeSymmetricKeyEncryptedAEADReuseKey(w, p.sessionKey, pass, true, config); err != nil {
		return fmt.Errorf("encrypt the session key to the passphrase: %w", err)
	}
	body, err := encryptTo(w, p.sessionKey)
	if err != nil {
		return err
	}
	if err := p.sealer.signer.sign(body, manifest, p.manifest.Created); err != nil {
		return err
	}
	return body.Close()
}

// SignatureStatus says what is known about the signature of a head that was opened.
type SignatureStatus string

// What can be known. A signature that does not verify is an error, never a status.
const (
	Unverified SignatureStatus = "unverified" // there was no key to verify it with
	Verified   SignatureStatus = "verified"
)

// Opened is a package whose head was opened. It may be used concurrently.
type Opened struct {
	hidden
	manifest   Manifest
	sessionKey []byte
	signature  SignatureStatus
}

// Manifest returns the manifest. The caller must not change its slices.
func (o *Opened) Manifest() Manifest { return o.manifest }

// Signature tells whether the manifest is known to be by the gateway.
func (o *Opened) Signature() SignatureStatus { return o.signature }

// OpenHead opens the head of package id with both halves of its secret. With a signer the signature must
// be by it; without one (nil) it is left unverified. Errors: ErrWrongSecret, ErrAltered, ErrSignature,
// ErrManifest, and head's own.
func OpenHead(head io.Reader, id ID, s ServerSecret, k Keycode, signer *VerifyKey) (*Opened, error) {
	pass := passphrase(s, k)
	return openHead(head, id, signer, ErrWrongSecret, func(esk *packet.OpaquePacket) []byte {
		return bySecret(esk, pass)
	})
}

// OpenHeadWithRecoveryKey opens the head of package id with the recovery key alone. Errors are those of
// OpenHead, with ErrNotForKey in place of ErrWrongSecret.
func OpenHeadWithRecoveryKey(head io.Reader, id ID, key *RecoveryPrivateKey, signer *VerifyKey) (*Opened, error) {
	return openHead(head, id, signer, ErrNotForKey, key.sessionKey)
}

// openHead tries unlock on each encrypted session key; when none opens, the error is locked.
func openHead(head io.Reader, id ID, signer *VerifyKey, locked error, unlock func(*packet.OpaquePacket) []byte) (*Opened, error) {
	src := &source{r: head, stop: never}
	outer := bufio.NewReaderSize(io.LimitReader(src, maxHead), bufferSize)
	o, err := readHead(outer, signer, locked, unlock)
	if err != nil {
		return nil, src.explain(err)
	}
	if o.manifest.Package != id {
		return nil, fmt.Errorf("%w: it is the head of another package", ErrAltered)
	}
	return o, nil
}

func readHead(outer *bufio.Reader, signer *VerifyKey, locked error, unlock func(*packet.OpaquePacket) []byte) (*Opened, error) {
	key, err := readSessionKey(outer, locked, unlock)
	if err != nil {
		return nil, err
	}
	e, err := decryptPacket(outer, key)
	if err != nil {
		return nil, err
	}
	text, status, err := readSigned(e, signer)
	if err != nil {
		return nil, err
	}
	if err := e.finish(); err != nil {
		return nil, err
	}
	m, err := ParseManifest(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	return &Opened{manifest: m, sessionKey: key, signature: status}, nil
}

// readSessionKey reads the encrypted session keys up to the encrypted data.
func readSessionKey(outer *bufio.Reader, locked error, unlock func(*packet.OpaquePacket) []byte) ([]byte, error) {
	limited := &io.LimitedReader{R: outer, N: maxESK}
	var key []byte
	for n := 0; ; n++ {
		next, err := outer.Peek(1)
		if err != nil {
			return nil, altered(err)
		}
		if next[0] != headerPKESK && next[0] != headerSKESK {
			break
		}
		if n == maxESKs {
			return nil, altered(errors.New("too many encrypted session keys"))
		}
		esk, err := packet.NewOpaqueReader(limited).Next()
		if err != nil {
			return nil, altered(err)
		}
		if key == nil {
			key = unlock(esk)
		}
	}
	if key == nil {
		return nil, locked
	}
	return key, nil
}

// bySecret returns the session key out of a SKESK v6 of our profile, nil if it is none or does not open.
// The profile is looked at before anything is computed: a forged one could ask for terabytes of Argon2.
func bySecret(esk *packet.OpaquePacket, pass []byte) []byte {
	// RFC 9580 section 5.3.2: version 6, octets up to the nonce's end, cipher, AEAD mode, octets of the S2K,
	// which is iterated and salted (section 3.7.1.3) and so has 11.
	profile := []byte{6, 26, byte(packet.CipherAES256), byte(packet.AEADModeGCM), 11, 3}
	if esk.Tag != headerSKESK&0x3F || !bytes.HasPrefix(esk.Contents, profile) {
		return nil
	}
	p, err := esk.Parse()
	if err != nil {
		return nil
	}
	skesk, ok := p.(*packet.SymmetricKeyEncrypted)
	if !ok {
		return nil
	}
	key, _, err := skesk.Decrypt(pass)
	if err != nil || len(key) != sessionKeySize {
		return nil
	}
	return key
}

// readSigned reads the signed manifest out of the head and verifies its signature. The text may be
// believed only after e.finish.
func readSigned(e *encrypted, signer *VerifyKey) ([]byte, SignatureStatus, error) {
	if err := expect(e.inner, headerOPS); err != nil {
		return nil, "", err
	}
	config := packetConfig(time.Time{}) // the zero time leaves the reader's clock out of it
	config.CheckIntendedRecipients = packet.BoolPointer(false)
	config.MaxDecompressedMessageSize = new(int64) // nothing may be compressed
	var keys openpgp.EntityList
	if signer != nil {
		keys = openpgp.EntityList{signer.entity}
	}
	message, err := openpgp.ReadMessage(e.inner, keys, nil, config)
	if err != nil {
		return nil, "", altered(err)
	}
	text, err := io.ReadAll(io.LimitReader(message.UnverifiedBody, maxManifest+1))
	if err != nil {
		return nil, "", altered(err)
	}
	if len(text) > maxManifest {
		return nil, "", fmt.Errorf("%w: it is over %d bytes", ErrManifest, maxManifest)
	}
	status, err := signatureStatus(message, signer)
	return text, status, err
}

func signatureStatus(message *openpgp.MessageDetails, signer *VerifyKey) (SignatureStatus, error) {
	switch {
	case !message.IsVerified || len(message.SignatureCandidates) != 1:
		return "", fmt.Errorf("%w: there must be one", ErrSignature)
	case signer == nil && errors.Is(message.SignatureError, pgperrors.ErrUnknownIssuer):
		return Unverified, nil
	case message.SignatureError != nil:
		return "", fmt.Errorf("%w: %w", ErrSignature, message.SignatureError)
	case signer == nil || message.SignedBy == nil:
		return "", fmt.Errorf("%w: its issuer is not known", ErrSignature)
	}
	return Verified, nil
}
