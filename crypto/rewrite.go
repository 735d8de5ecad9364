package crypto

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// SealsTo reports whether a head is sealed to exactly the recovery keys of the Sealer, by what its packets say.
func (s *Sealer) SealsTo(head io.Reader) (bool, error) {
	src := &source{r: head, stop: never}
	wanted := make(map[string]bool, len(s.recipients))
	for _, to := range s.recipients {
		wanted[string(to.key.Fingerprint)] = true
	}
	found := make(map[string]bool, len(wanted))
	others := false
	_, err := readSessionKey(bufio.NewReaderSize(src, bufferSize), nil, func(esk *packet.OpaquePacket) []byte {
		if esk.Tag == headerPKESK&0x3F {
			to := eskFingerprint(esk)
			found[to] = true
			others = others || !wanted[to]
		}
		return nil
	})
	if err != nil {
		return false, src.explain(err)
	}
	return !others && len(found) == len(wanted), nil
}

// eskFingerprint returns the fingerprint that a PKESK v6 names; empty if it is none.
func eskFingerprint(esk *packet.OpaquePacket) string {
	// RFC 9580 section 5.1.2: version, octets of what follows, key version, fingerprint.
	c := esk.Contents
	if len(c) < 3 || c[0] != 6 || c[1] < 1 || len(c) < 2+int(c[1]) {
		return ""
	}
	return string(c[3 : 2+int(c[1])])
}

// RewriteHead returns a head as it reads on, in which the session key is under each recovery key of the Sealer instead
// of those before. The old private key finds it. What else opens the head, and all that is encrypted, stays; none of
// it is verified here, so open the head first. Errors are those of OpenHeadWithRecoveryKey.
func (s *Sealer) RewriteHead(head io.Reader, old *RecoveryPrivateKey) (io.Reader, error) {
	src := &source{r: head, stop: never}
	outer := bufio.NewReaderSize(src, bufferSize)
	var kept bytes.Buffer
	var failed error
	var key []byte
	_, err := readSessionKey(outer, nil, func(esk *packet.OpaquePacket) []byte {
		if esk.Tag != headerPKESK&0x3F {
			failed = esk.Serialize(&kept)
		} else if key == nil {
			key = old.sessionKey(esk)
		}
		return nil // so that it shows all of them
	})
	switch {
	case err != nil:
		return nil, src.explain(err)
	case failed != nil:
		return nil, fmt.Errorf("keep the other encrypted session keys: %w", failed)
	case key == nil:
		return nil, ErrNotForKey
	}
	var fresh bytes.Buffer
	if err := s.writeRecipients(&fresh, key, packetConfig(time.Time{})); err != nil {
		return nil, err
	}
	return io.MultiReader(&fresh, &kept, outer), nil
}

// writeRecipients writes the session key under each recovery key: PKESK v6 (RFC 9580 section 5.1.2).
func (s *Sealer) writeRecipients(w io.Writer, key []byte, config *packet.Config) error {
	for _, to := range s.recipients {
		if err := packet.SerializeEncryptedKeyAEAD(w, to.key, config.Cipher(), true, key, config); err != nil {
			return fmt.Errorf("encrypt the session key to recovery key %s: %w", to.fingerprint, err)
		}
	}
	return nil
}
