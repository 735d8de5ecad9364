package tnef

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// endless is the end of the outermost stream, which only io.EOF tells.
const endless = math.MaxInt64

// cursor goes forward through the outermost stream. The ends that its methods take are offsets in it: that of the
// attribute, property or embedded message which is being read.
type cursor struct {
	in  *bufio.Reader
	pos int64
	sum uint16 // of all octets so far: the difference of two is the checksum of what lies between them
}

func newCursor(in io.Reader) *cursor {
	return &cursor{in: bufio.NewReaderSize(in, 32<<10)}
}

// next returns at least one and at most limit octets, but io.EOF at the end of the stream. They are valid until the
// next call.
func (c *cursor) next(limit int64) ([]byte, error) {
	if _, err := c.in.Peek(1); err != nil {
		return nil, err
	}
	b, err := c.in.Peek(int(min(limit, int64(c.in.Buffered()))))
	if err != nil {
		return nil, err
	}
	sum := c.sum
	for _, octet := range b {
		sum += uint16(octet)
	}
	c.sum = sum
	c.pos += int64(len(b))
	_, err = c.in.Discard(len(b))
	return b, err
}

// more reports whether anything stands before end.
func (c *cursor) more(end int64) (bool, error) {
	if end != endless {
		return c.pos < end, nil
	}
	_, err := c.in.Peek(1)
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	return err == nil, err
}

// within checks that n more octets fit before end and returns where they end.
func (c *cursor) within(n, end int64) (int64, error) {
	if n > end-c.pos {
		return 0, damaged("a length of %d passes the end of what holds it", n)
	}
	return c.pos + n, nil
}

// fill reads exactly len(b) octets.
func (c *cursor) fill(b []byte, end int64) error {
	if _, err := c.within(int64(len(b)), end); err != nil {
		return err
	}
	for len(b) > 0 {
		got, err := c.next(int64(len(b)))
		if err != nil {
			return cut(err)
		}
		b = b[copy(b, got):]
	}
	return nil
}

func (c *cursor) skip(end int64) error {
	for c.pos < end {
		if _, err := c.next(end - c.pos); err != nil {
			return cut(err)
		}
	}
	return nil
}

func (c *cursor) uint16(end int64) (uint16, error) {
	var b [2]byte
	err := c.fill(b[:], end)
	return binary.LittleEndian.Uint16(b[:]), err
}

func (c *cursor) uint32(end int64) (uint32, error) {
	var b [4]byte
	err := c.fill(b[:], end)
	return binary.LittleEndian.Uint32(b[:]), err
}

// cut says that a stream that ends in the midst of something is damaged; other errors stay what they are.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return damaged("the stream is cut")
	}
	return fmt.Errorf("read the stream: %w", err)
}

// section reads what a cursor has before end.
type section struct {
	at  *cursor
	end int64
}

func (s *section) Read(p []byte) (int, error) {
	if s.at.pos >= s.end {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	b, err := s.at.next(min(int64(len(p)), s.end-s.at.pos))
	if err != nil {
		return 0, cut(err)
	}
	return copy(p, b), nil
}
