package encoded

import (
	"bytes"
	"io"
)

const (
	bufferSize = 64 << 10
	headSize   = 32 << 10
)

// line is one line of a text. Its bytes are valid until the next one is read.
type line struct {
	text       []byte // without the line end; the first headSize bytes of a longer one
	size       int64  // of the whole line, without the line end
	start, end int64  // offsets in the text, with the line end
	clean      bool   // all bytes behind text are in the alphabet that was asked for, if it is longer
	last       byte   // the last byte of a line that is longer than text
}

func (l *line) long() bool { return l.size > int64(len(l.text)) }

// lineReader reads lines that end with LF, CRLF or CR.
type lineReader struct {
	r        io.Reader
	buf      []byte
	pos, end int
	lf       int   // where the next LF is, or end if there is none in the buffer; unknown if below pos
	base     int64 // offset of buf[0] in the text
	head     []byte
	line     line // the last one that was read
	err      error
	ended    bool // err is io.EOF
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: r, buf: make([]byte, bufferSize), lf: -1}
}

// next returns the next line, nil at the end of the text or at an error. The alphabet may be nil.
func (r *lineReader) next(alphabet func(byte) bool) *line {
	for {
		if n, width := r.ending(); n >= 0 {
			return r.cut(n, width, alphabet)
		}
		if r.err != nil {
			if !r.ended || r.pos == r.end {
				return nil
			}
			return r.cut(r.end-r.pos, 0, alphabet)
		}
		if r.end-r.pos == len(r.buf) {
			return r.long(alphabet)
		}
		r.fill()
	}
}

// ending returns how many bytes stand before the next line end and how long that is, or -1 if it is not in
// the buffer.
func (r *lineReader) ending() (int, int) {
	if r.lf < r.pos {
		r.lf = r.end
		if i := bytes.IndexByte(r.buf[r.pos:r.end], '\n'); i >= 0 {
			r.lf = r.pos + i
		}
	}
	n := bytes.IndexByte(r.buf[r.pos:r.lf], '\r')
	switch next := r.pos + n + 1; {
	case n < 0 && r.lf < r.end:
		return r.lf - r.pos, 1
	case n < 0:
		return -1, 0
	case next < r.end && r.buf[next] == '\n':
		return n, 2
	case next < r.end || r.err != nil:
		return n, 1
	default:
		return -1, 0
	}
}

// cut takes a line of n bytes out of the buffer.
func (r *lineReader) cut(n, width int, alphabet func(byte) bool) *line {
	start := r.base + int64(r.pos)
	whole := r.buf[r.pos : r.pos+n]
	r.pos += n + width
	l := &r.line
	l.text, l.size, l.start, l.end = whole, int64(n), start, start+int64(n+width)
	if n > headSize {
		l.text, l.clean = whole[:headSize], alphabet != nil
		l.see(whole[headSize:], alphabet)
	}
	return l
}

// see looks at more of a line than its text.
func (l *line) see(more []byte, alphabet func(byte) bool) {
	for _, b := range more {
		l.clean = l.clean && alphabet(b)
		l.last = b
	}
}

// long reads a line that does not fit into the buffer.
func (r *lineReader) long(alphabet func(byte) bool) *line {
	r.head = append(r.head[:0], r.buf[r.pos:r.pos+headSize]...)
	l := &r.line
	*l = line{text: r.head, start: r.base + int64(r.pos), clean: alphabet != nil}
	r.pos += headSize
	for {
		n, width := r.ending()
		ended := n >= 0
		if !ended {
			n = r.end - r.pos
			if n > 0 && r.buf[r.end-1] == '\r' && r.err == nil {
				n-- // an LF may follow
			}
		}
		l.see(r.buf[r.pos:r.pos+n], alphabet)
		r.pos += n
		l.end = r.base + int64(r.pos)
		if ended || r.err != nil {
			l.size = l.end - l.start
			r.pos += width
			l.end += int64(width)
			return l
		}
		r.fill()
	}
}

// fill moves what is left to the front of the buffer and reads until it is full.
func (r *lineReader) fill() {
	copy(r.buf, r.buf[r.pos:r.end])
	r.base += int64(r.pos)
	r.end -= r.pos
	r.pos, r.lf = 0, -1
	for idle := 0; r.end < len(r.buf) && r.err == nil; idle++ {
		n, err := r.r.Read(r.buf[r.end:])
		r.end += n
		r.err, r.ended = err, err == io.EOF
		if n > 0 {
			idle = 0
		} else if idle == 100 && err == nil {
			r.err = io.ErrNoProgress
		}
	}
}
