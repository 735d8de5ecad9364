package crypto

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

const maxKeyFile = 1 << 20

// writeArmor writes one armored block (RFC 9580 section 6), without the checksum, as section 6.1 asks.
func writeArmor(w io.Writer, blockType string, serialize func(io.Writer) error) error {
	out, err := armor.EncodeWithChecksumOption(w, blockType, nil, false)
	if err != nil {
		return fmt.Errorf("write the armor: %w", err)
	}
	if err := serialize(out); err != nil {
		return fmt.Errorf("write the key: %w", err)
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("end the armor: %w", err)
	}
	_, err = io.WriteString(w, "\n")
	return err
}

// readArmor reads all keys out of all armored blocks of r. Unlike openpgp.ReadArmoredKeyRing it skips none:
// a recovery key that is silently left out would be missed on the worst day.
func readArmor(r io.Reader) ([]*openpgp.Entity, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	if len(text) > maxKeyFile {
		return nil, fmt.Errorf("this is not a key: it is over %d bytes", maxKeyFile)
	}
	in := bufio.NewReader(bytes.NewReader(text)) // armor.Decode goes on with the same buffer
	var keys []*openpgp.Entity
	for {
		block, err := armor.Decode(in)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("this is not an armored OpenPGP key: %w", err)
		}
		if block.Type != openpgp.PublicKeyType && block.Type != openpgp.PrivateKeyType {
			return nil, fmt.Errorf("this is not an OpenPGP key but a %q block", block.Type)
		}
		if keys, err = readEntities(keys, block.Body); err != nil {
			return nil, err
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("this is not an armored OpenPGP key: no line begins with -----BEGIN PGP")
	}
	return keys, nil
}

func readEntities(keys []*openpgp.Entity, r io.Reader) ([]*openpgp.Entity, error) {
	packets := packet.NewReader(r)
	for n := 0; ; n++ {
		key, err := openpgp.ReadEntity(packets)
		if errors.Is(err, io.EOF) && n > 0 {
			return keys, nil
		}
		if err != nil {
			return nil, fmt.Errorf("the OpenPGP key is damaged or of a kind that is not supported: %w", err)
		}
		keys = append(keys, key)
	}
}

// copyKey returns a copy of a private key, with what locks it.
func copyKey(key *openpgp.Entity) (*openpgp.Entity, error) {
	var out bytes.Buffer
	if err := key.SerializePrivateWithoutSigning(&out, nil); err != nil {
		return nil, fmt.Errorf("copy the key: %w", err)
	}
	return openpgp.ReadEntity(packet.NewReader(&out))
}
