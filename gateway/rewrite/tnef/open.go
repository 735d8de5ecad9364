package tnef

import (
	"bufio"
	"errors"
	"io"

	"golang.org/x/text/transform"
)

// form is how the bytes of a file stand in the stream.
type form int

const (
	plain      form = iota // as they are
	narrow                 // with a NUL behind them
	wide                   // in UTF-16, with a NUL behind them
	compressed             // [MS-OXRTFCP]
)

// place is where the bytes of a file stand in the outermost stream.
type place struct {
	offset, length int64
	form           form
}

// decode returns the bytes of a file, given the octets at its place.
func (p place) decode(octets io.Reader) io.Reader {
	switch p.form {
	case narrow:
		return newUnterminated(octets)
	case wide:
		return newUnterminated(transform.NewReader(octets, utf16LE().NewDecoder()))
	case compressed:
		return newRTFReader(octets, p.length)
	}
	return octets
}

// Open gives the file's bytes, Size of them, out of the TNEF stream that Read listed it from, read again from its
// beginning. It reads nothing before the first Read of what it returns. If the stream is another one, the bytes may be
// wrong; if they are too few, the error is ErrDamaged. Other errors of the stream are wrapped.
func (f File) Open(tnef io.Reader) io.Reader {
	return &opened{at: newCursor(tnef), place: f.place, left: f.Size}
}

type opened struct {
	at    *cursor
	place place
	bytes io.Reader // nil until the file is found
	left  int64
}

func (o *opened) Read(p []byte) (int, error) {
	if o.left == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if o.bytes == nil {
		if err := o.at.skip(o.place.offset); err != nil {
			return 0, err
		}
		o.bytes = o.place.decode(&section{o.at, o.place.offset + o.place.length})
	}
	n, err := o.bytes.Read(p[:min(int64(len(p)), o.left)])
	o.left -= int64(n)
	switch {
	case err == nil || o.left == 0:
		return n, nil
	case errors.Is(err, io.EOF):
		return n, damaged("the file is shorter than it was listed")
	}
	return n, err
}

// unterminated reads a text without the one NUL that ends it, if there is one.
type unterminated struct {
	in  *bufio.Reader
	err error
}

func newUnterminated(in io.Reader) *unterminated {
	return &unterminated{in: bufio.NewReader(in)}
}

func (u *unterminated) Read(p []byte) (int, error) {
	if u.err != nil || len(p) == 0 {
		return 0, u.err
	}
	n, err := u.in.Read(p)
	if err != nil {
		u.err = err
		return n, err
	}
	if p[n-1] == 0 {
		if _, u.err = u.in.Peek(1); errors.Is(u.err, io.EOF) {
			n--
		}
	}
	return n, nil
}
