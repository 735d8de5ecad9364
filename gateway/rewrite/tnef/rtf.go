package tnef

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

const (
	dictionarySize = 4096
	rtfHeader      = 16
	kindCompressed = 0x75465a4c // LZFu
	kindStored     = 0x414c454d // MELA
)

// dictionary is what the decoder of [MS-OXRTFCP] section 2.1.2.1 begins with.
const dictionary = `{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript \fdecor ` +
	"MS Sans SerifSymbolArialTimes New RomanCourier" + `{\colortbl\red0\green0\blue0` + "\r\n" +
	`\par \pard\plain\f0\fs20\b\i\u\tab\tx`

// rtfReader decompresses the RTF of a message. Its sizes, its checksum and what it refers to must be right, else it
// fails with ErrDamaged at its end, or before.
type rtfReader struct {
	octets io.Reader // length of them, and then io.EOF
	length int64
	err    error

	in      *bufio.Reader // behind the header
	sum     *sumReader
	stored  bool
	want    uint32 // checksum
	left    int64  // octets of RTF that are yet to come
	window  [dictionarySize]byte
	at      int  // where the next octet goes in the window
	written int  // octets of the window that were written
	control byte // bits for the next tokens
	bits    int  // how many
	from    int  // where the reference that is being copied goes on
	copying int  // octets of it
}

func newRTFReader(octets io.Reader, length int64) *rtfReader {
	r := &rtfReader{octets: octets, length: length}
	r.at = copy(r.window[:], dictionary)
	r.written = r.at
	return r
}

func (r *rtfReader) Read(p []byte) (int, error) {
	if r.in == nil && r.err == nil {
		r.err = r.begin()
	}
	n := 0
	for r.err == nil && n < len(p) {
		var octet byte
		if octet, r.err = r.next(); r.err == nil {
			p[n] = octet
			n++
		}
	}
	if n > 0 {
		return n, nil
	}
	return 0, r.err
}

// begin reads the header ([MS-OXRTFCP] section 2.1.3.1.1).
func (r *rtfReader) begin() error {
	if r.length < rtfHeader {
		return damaged("compressed RTF of %d octets", r.length)
	}
	var head [rtfHeader]byte
	if _, err := io.ReadFull(r.octets, head[:]); err != nil {
		return err
	}
	size := int64(binary.LittleEndian.Uint32(head[:])) + 4 // itself counted in
	r.left = int64(binary.LittleEndian.Uint32(head[4:]))
	r.want = binary.LittleEndian.Uint32(head[12:])
	if size != r.length {
		return damaged("compressed RTF of %d octets says that it has %d", r.length, size)
	}
	switch kind := binary.LittleEndian.Uint32(head[8:]); kind {
	case kindStored:
		r.stored = true
	case kindCompressed:
	default:
		return damaged("compressed RTF of the unknown kind %#08x", kind)
	}
	r.sum = newSumReader(r.octets)
	r.in = bufio.NewReader(r.sum)
	return nil
}

// next returns the next octet of RTF.
func (r *rtfReader) next() (byte, error) {
	octet, err := r.token()
	if errors.Is(err, io.EOF) {
		return 0, r.end()
	}
	if err != nil {
		return 0, err
	}
	if r.left--; r.left < 0 {
		return 0, damaged("more RTF than it says")
	}
	r.window[r.at] = octet
	r.at = (r.at + 1) % dictionarySize
	r.written = min(r.written+1, dictionarySize)
	return octet, nil
}

// token returns the next octet of RTF, a literal or one of a reference, and io.EOF at its end ([MS-OXRTFCP]
// section 3.1.3).
func (r *rtfReader) token() (byte, error) {
	if r.stored {
		return r.in.ReadByte()
	}
	if r.copying == 0 {
		if r.bits == 0 {
			control, err := r.in.ReadByte()
			if err != nil {
				return 0, err
			}
			r.control, r.bits = control, 8
		}
		isReference := r.control&1 != 0
		r.control >>= 1
		r.bits--
		if !isReference {
			return r.in.ReadByte()
		}
		if err := r.reference(); err != nil {
			return 0, err
		}
	}
	octet := r.window[r.from]
	r.from = (r.from + 1) % dictionarySize
	r.copying--
	return octet, nil
}

// reference reads where in the window the next octets stand, in 12 bits, and how many, in 4. One to where the next
// octet goes is the end.
func (r *rtfReader) reference() error {
	high, err := r.in.ReadByte()
	if err != nil {
		return err
	}
	low, err := r.in.ReadByte()
	if errors.Is(err, io.EOF) {
		return damaged("compressed RTF is cut")
	}
	if err != nil {
		return err
	}
	r.from, r.copying = int(high)<<4|int(low>>4), int(low&15)+2
	if r.from == r.at {
		return io.EOF
	}
	if r.from >= r.written {
		return damaged("compressed RTF refers to what does not stand in it")
	}
	return nil
}

// end checks what the header says.
func (r *rtfReader) end() error {
	if r.left != 0 {
		return damaged("%d octets of RTF are missing", r.left)
	}
	if _, err := io.Copy(io.Discard, r.in); err != nil {
		return err
	}
	if got := r.sum.value(); !r.stored && got != r.want {
		return damaged("the checksum of compressed RTF is %#08x, not %#08x", r.want, got)
	}
	return io.EOF
}

// sumReader sums up what is read, by the CRC of [MS-OXRTFCP] section 2.1.3.2: the usual one with no bits inverted
// before and after.
type sumReader struct {
	in  io.Reader
	sum uint32 // inverted, as hash/crc32 wants it
}

func newSumReader(in io.Reader) *sumReader { return &sumReader{in: in, sum: ^uint32(0)} }

func (s *sumReader) Read(p []byte) (int, error) {
	n, err := s.in.Read(p)
	s.sum = crc32.Update(s.sum, crc32.IEEETable, p[:n])
	return n, err
}

func (s *sumReader) value() uint32 { return ^s.sum }
