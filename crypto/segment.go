package crypto

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"hash"
	"hash/crc32"
	"io"
)

// segmentReader gives the object of one segment. Reading it reads the plaintext, encrypts it, and takes
// the sums of both.
type segmentReader struct {
	in      *bufio.Reader // over the item; src is a part of it
	src     io.Reader     // the segment's plaintext
	literal io.WriteCloser
	ready   bytes.Buffer // encrypted and not yet read
	buf     []byte
	err     error // io.EOF once all is encrypted

	plain, stored    hash.Hash
	size, storedSize int64
	crc              Checksum // of the item up to here
}

func newSegmentReader() *segmentReader {
	return &segmentReader{
		in: bufio.NewReaderSize(nil, bufferSize), buf: make([]byte, bufferSize), plain: sha256.New(), stored: sha256.New(),
	}
}

// forget drops what belongs to a package, so that the buffers can serve another.
func (s *segmentReader) forget() {
	s.in.Reset(nil)
	s.src, s.literal = nil, nil
}

// reset starts another segment, keeping the buffers.
func (s *segmentReader) reset(src io.Reader, key []byte, crc Checksum) error {
	s.ready.Reset()
	literal, err := sealPacket(&s.ready, key)
	if err != nil {
		return err
	}
	s.plain.Reset()
	s.stored.Reset()
	s.src, s.literal, s.err, s.size, s.storedSize, s.crc = src, literal, nil, 0, 0, crc
	return nil
}

// Read implements io.Reader.
func (s *segmentReader) Read(p []byte) (int, error) {
	for s.ready.Len() == 0 && s.err == nil {
		s.err = s.encryptSome()
	}
	if s.ready.Len() == 0 {
		return 0, s.err
	}
	n, _ := s.ready.Read(p) // fails only when it is empty
	s.stored.Write(p[:n])
	s.storedSize += int64(n)
	return n, nil
}

// encryptSome encrypts one buffer of plaintext, or ends the segment and returns io.EOF.
func (s *segmentReader) encryptSome() error {
	n, ended, err := fill(s.src, s.buf)
	chunk := s.buf[:n]
	s.plain.Write(chunk)
	s.crc = Checksum(crc32.Update(uint32(s.crc), crc32.IEEETable, chunk))
	s.size += int64(n)
	if err != nil {
		return err
	}
	if _, err := s.literal.Write(chunk); err != nil {
		return err
	}
	if !ended {
		return nil
	}
	if err := s.literal.Close(); err != nil {
		return err
	}
	return io.EOF
}

// fill reads until buf is full or r ends. Unlike io.ReadFull it does not use io.ErrUnexpectedEOF for a
// proper end: readers of broken mail give that for a cut one, which must not pass for the end of a file.
func fill(r io.Reader, buf []byte) (n int, ended bool, err error) {
	for n < len(buf) {
		m, err := r.Read(buf[n:])
		n += m
		if err == io.EOF {
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
	}
	return n, false, nil
}
