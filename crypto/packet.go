package crypto

import (
	"bufio"
	stdcrypto "crypto"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/ProtonMail/go-crypto/openpgp/s2k"
)

const (
	sessionKeySize = 32
	chunkSize      = 256 << 10
	chunkSizeOctet = 12       // RFC 9580 section 5.13.2: chunks of 2^(12+6) octets
	bufferSize     = 64 << 10 // of what passes between two stages

	// First octets of packets, in the only header format that is written (RFC 9580 section 4.2.1).
	headerPKESK   = 0xC0 | 1
	headerSKESK   = 0xC0 | 3
	headerOPS     = 0xC0 | 4
	headerLiteral = 0xC0 | 11
	headerSEIPD   = 0xC0 | 18
)

func cipherSuite() packet.CipherSuite {
	return packet.CipherSuite{Cipher: packet.CipherAES256, Mode: packet.AEADModeGCM}
}

// packetConfig returns the one profile that this package writes. at dates what is signed or generated.
func packetConfig(at time.Time) *packet.Config {
	return &packet.Config{
		DefaultCipher: packet.CipherAES256,
		DefaultHash:   stdcrypto.SHA512,
		AEADConfig:    &packet.AEADConfig{DefaultMode: packet.AEADModeGCM, ChunkSize: chunkSize},
		// A head's passphrase holds 512 random bits, so stretching it would buy nothing.
		S2KConfig:  &s2k.Config{S2KMode: s2k.IteratedSaltedS2K, Hash: stdcrypto.SHA256, S2KCount: 65536},
		MinRSABits: 2048,
		Time:       func() time.Time { return at },
	}
}

// encryptTo starts a SEIPD v2 packet on w; what is written to it are packets. Close ends the packet, not w.
func encryptTo(w io.Writer, key []byte) (io.WriteCloser, error) {
	suite := cipherSuite()
	body, err := packet.SerializeSymmetricallyEncrypted(w, suite.Cipher, true, suite, key, packetConfig(time.Time{}))
	if err != nil {
		return nil, fmt.Errorf("begin the encrypted packet: %w", err)
	}
	return body, nil
}

// sealPacket starts a SEIPD v2 packet on w around one literal packet: binary, without a name, time 0.
// Close ends both packets, not w. Writes of bufferSize make the best partial lengths.
func sealPacket(w io.Writer, key []byte) (io.WriteCloser, error) {
	body, err := encryptTo(w, key)
	if err != nil {
		return nil, err
	}
	literal, err := packet.SerializeLiteral(body, true, "", 0)
	if err != nil {
		return nil, fmt.Errorf("begin the literal packet: %w", err)
	}
	return literal, nil
}

// encrypted is one SEIPD v2 packet while it is decrypted.
type encrypted struct {
	outer    *bufio.Reader
	contents io.Reader // of the packet
	plain    io.ReadCloser
	inner    *bufio.Reader // over plain
}

// decryptPacket reads the head of a packet that encryptTo wrote. Nothing but that profile is accepted.
func decryptPacket(outer *bufio.Reader, key []byte) (*encrypted, error) {
	if err := expect(outer, headerSEIPD); err != nil {
		return nil, err
	}
	p, err := packet.Read(outer)
	if err != nil {
		return nil, altered(err)
	}
	seipd, ok := p.(*packet.SymmetricallyEncrypted)
	suite := cipherSuite()
	if !ok || seipd.Version != 2 || seipd.Cipher != suite.Cipher || seipd.Mode != suite.Mode || seipd.ChunkSizeByte != chunkSizeOctet {
		return nil, altered(errors.New("not AES-256-GCM in chunks of 256 KiB"))
	}
	plain, err := seipd.Decrypt(suite.Cipher, key)
	if err != nil {
		return nil, altered(err)
	}
	// The smallest buffer there is: it serves to look at one octet, and longer reads go past it.
	return &encrypted{outer: outer, contents: seipd.Contents, plain: plain, inner: bufio.NewReaderSize(plain, 16)}, nil
}

// finish verifies that the plaintext, the packet and the object end here, and the packet's final tag.
func (e *encrypted) finish() error {
	if err := atEnd(e.inner); err != nil {
		return fmt.Errorf("after the plaintext: %w", err)
	}
	if err := e.plain.Close(); err != nil {
		return altered(err)
	}
	// The decrypter takes a missing end of the packet for its end.
	if err := atEnd(e.contents); err != nil {
		return fmt.Errorf("after the final tag: %w", err)
	}
	if err := atEnd(e.outer); err != nil {
		return fmt.Errorf("after the encrypted packet: %w", err)
	}
	return nil
}

// sealedReader reads the content of a packet that sealPacket wrote. It gives io.EOF only after everything
// about the packet has been verified; until then what was read may lack its end.
type sealedReader struct {
	packet *encrypted
	body   io.Reader
	err    error
}

// openPacket reads up to the content of a packet that sealPacket wrote.
func openPacket(outer *bufio.Reader, key []byte) (*sealedReader, error) {
	e, err := decryptPacket(outer, key)
	if err != nil {
		return nil, err
	}
	if err := expect(e.inner, headerLiteral); err != nil {
		return nil, err
	}
	p, err := packet.Read(e.inner)
	if err != nil {
		return nil, altered(err)
	}
	literal, ok := p.(*packet.LiteralData)
	if !ok || !literal.IsBinary || literal.FileName != "" || literal.Time != 0 {
		return nil, altered(errors.New("not a nameless binary literal packet"))
	}
	return &sealedReader{packet: e, body: literal.Body}, nil
}

// Read implements io.Reader.
func (r *sealedReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.body.Read(p)
	switch {
	case err == io.EOF:
		r.err = io.EOF
		if failed := r.packet.finish(); failed != nil {
			r.err = failed
		}
	case err != nil:
		r.err = altered(err)
	}
	return n, r.err
}

// expect looks whether the next octet begins the wanted packet.
func expect(r *bufio.Reader, header byte) error {
	next, err := r.Peek(1)
	if err != nil {
		return altered(err)
	}
	if next[0] != header {
		return altered(fmt.Errorf("want packet type %d", header&0x3F))
	}
	return nil
}

// atEnd verifies that r ends, and ends well.
func atEnd(r io.Reader) error {
	var one [1]byte
	switch n, err := io.ReadFull(r, one[:]); {
	case n > 0:
		return altered(errors.New("more data than belongs here"))
	case errors.Is(err, io.EOF):
		return nil
	default:
		return altered(err)
	}
}

// altered makes ErrAltered of what a parser or a decrypter says. source.explain gives a failed read its own
// name again.
func altered(err error) error {
	switch {
	case errors.Is(err, ErrAltered):
		return err
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF // no caller may take it for a proper end
	}
	return fmt.Errorf("%w: %w", ErrAltered, err)
}
