package encoded

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// Open gives the file: decoded, or as it stands without what quotes or indents it. Text must give the bytes from Start
// to End of the text that Find read; it is the caller's to close. If it gives fewer, or others of which not exactly Size
// bytes come out, the reader ends with io.ErrUnexpectedEOF. Memory is bounded.
func (b Block) Open(text io.Reader) io.Reader {
	block := &io.LimitedReader{R: text, N: b.End - b.Start}
	file := io.Reader(block)
	switch {
	case !b.AsItStands:
		d := &decodeReader{lines: newLineReader(block), prefix: b.prefix, form: uuLines{}, begun: b.headless}
		if b.base64 {
			d.form = base64Lines{}
		}
		file = d
	case b.prefix != "":
		file = &unquoteReader{r: bufio.NewReader(block), prefix: b.prefix, fresh: true}
	}
	return &sizedReader{r: file, block: block, left: b.Size}
}

// sizedReader gives exactly left bytes, out of the whole block, or fails.
type sizedReader struct {
	r     io.Reader
	block *io.LimitedReader
	left  int64
}

func (s *sizedReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.left -= int64(n)
	if errors.Is(err, io.EOF) && (s.left != 0 || s.block.N != 0) {
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

// decodeReader decodes the lines of data.
type decodeReader struct {
	lines  *lineReader
	prefix string
	form   decoder
	begun  bool // the first line was read
	buf    []byte
	rest   []byte // of buf
}

func (d *decodeReader) Read(p []byte) (int, error) {
	for len(d.rest) == 0 {
		l := d.lines.next(nil)
		if l == nil {
			return 0, d.lines.err
		}
		if !d.begun {
			d.begun = true
			continue
		}
		text, _, fits := unquote(d.prefix, l.text)
		if !fits {
			continue
		}
		if k := d.form.classify(text, l); k == hint || k == partial || k == full {
			d.buf, _ = d.form.decode(d.buf[:0], text)
			d.rest = d.buf
		}
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

// unquoteReader takes the prefix off each line.
type unquoteReader struct {
	r      *bufio.Reader
	prefix string
	fresh  bool // a line begins
}

func (u *unquoteReader) Read(p []byte) (int, error) {
	if u.fresh {
		if err := u.skipPrefix(); err != nil {
			return 0, err
		}
	}
	if _, err := u.r.Peek(1); err != nil {
		return 0, err
	}
	ready, err := u.r.Peek(min(u.r.Buffered(), len(p)))
	if err != nil {
		return 0, err
	}
	if i := bytes.IndexAny(ready, "\r\n"); i >= 0 {
		ready, u.fresh = ready[:i+1], true
	}
	return u.r.Discard(copy(p, ready))
}

func (u *unquoteReader) skipPrefix() error {
	front, err := u.r.Peek(len(u.prefix))
	if len(front) == 0 || err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if i := bytes.IndexAny(front, "\r\n"); i >= 0 {
		front = front[:i]
	}
	_, n, _ := unquote(u.prefix, front)
	_, err = u.r.Discard(n)
	u.fresh = false
	return err
}
