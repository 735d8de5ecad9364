package crypto

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
)

// source is a reader that stops when its context does, and remembers why it failed: parsers in between
// would pass a failed read off as broken data.
type source struct {
	r    io.Reader
	stop func() error
	err  error
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	if err := s.stop(); err != nil {
		s.err = err
		return 0, err
	}
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// explain returns err, or what made the source fail if that is behind it.
func (s *source) explain(err error) error {
	if err != nil && s.err != nil {
		return fmt.Errorf("read the sealed data: %w", s.err)
	}
	return err
}

func never() error { return nil }

// sum counts and digests what is written to it.
type sum struct {
	hash hash.Hash
	size int64
}

func newSum() *sum { return &sum{hash: sha256.New()} }

// Write implements io.Writer; it never fails.
func (s *sum) Write(p []byte) (int, error) {
	s.size += int64(len(p))
	return s.hash.Write(p)
}

func (s *sum) digest() Digest { return Digest(s.hash.Sum(nil)) }
