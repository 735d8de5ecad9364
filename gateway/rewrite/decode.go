package rewrite

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"io"
)

// errDirty tells that a body is not what its transfer encoding says, so that two readers may decode it differently.
var errDirty = errors.New("the body breaks its transfer encoding")

// decoder returns the decoded bytes of a body. Reading fails with errDirty where base64 is malformed.
func decoder(src io.ReaderAt, p *part) io.Reader {
	raw := section(src, span{p.body, p.end})
	switch p.encoding {
	case "base64":
		size := max(4, min(bufferSize/2, p.end-p.body))
		return &base64Reader{in: raw, raw: make([]byte, size), buf: make([]byte, size)}
	case "quoted-printable":
		return newQPReader(raw)
	}
	return raw
}

// knownEncoding reports whether the decoder of p gives what the sender had.
func knownEncoding(encoding string) bool {
	switch encoding {
	case "", "7bit", "8bit", "binary", "base64", "quoted-printable":
		return true
	}
	return false
}

// base64Reader decodes RFC 2045 section 6.8: line breaks and white space are passed over, padding may be
// missing at the end. Anything else is errDirty.
type base64Reader struct {
	in     io.Reader
	raw    []byte
	out    []byte // decoded, not handed out yet
	buf    []byte
	left   [4]byte // digits that make no group of four yet; held of them
	held   int
	padded bool
	err    error
}

func (r *base64Reader) Read(p []byte) (int, error) {
	for len(r.out) == 0 && r.err == nil {
		r.fill()
	}
	if len(r.out) > 0 {
		n := copy(p, r.out)
		r.out = r.out[n:]
		return n, nil
	}
	return 0, r.err
}

func (r *base64Reader) fill() {
	n, err := r.in.Read(r.raw)
	r.out = r.buf[:0]
	clean := r.decodeLines(r.raw[:n])
	if clean && err != nil {
		clean = r.decode(r.left[:r.held])
		r.held = 0
	}
	switch {
	case !clean:
		r.out, r.err = nil, errDirty
	case err != nil:
		r.err = err
	}
}

// decodeLines decodes the lines of chunk; it reports false if anything but white space follows the padding.
func (r *base64Reader) decodeLines(chunk []byte) bool {
	for len(chunk) > 0 {
		text := chunk
		if i := bytes.IndexByte(chunk, '\n'); i >= 0 {
			text, chunk = chunk[:i], chunk[i+1:]
		} else {
			chunk = nil
		}
		text = bytes.Trim(text, "\r \t")
		if len(text) == 0 {
			continue
		}
		if r.padded || text[len(text)-1] == '=' {
			digits := bytes.TrimRight(text, "=")
			if r.padded && len(digits) > 0 {
				return false
			}
			r.padded = true
			text = digits
		}
		if !r.decodeLine(text) {
			return false
		}
	}
	return true
}

// decodeLine decodes whole groups of four digits, and keeps the rest for the next line.
func (r *base64Reader) decodeLine(digits []byte) bool {
	for r.held > 0 && len(digits) > 0 {
		r.left[r.held] = digits[0]
		digits = digits[1:]
		if r.held++; r.held == len(r.left) {
			r.held = 0
			if !r.decode(r.left[:]) {
				return false
			}
		}
	}
	whole := len(digits) / 4 * 4
	r.held += copy(r.left[r.held:], digits[whole:])
	return r.decode(digits[:whole])
}

// decode appends to out, in which there is room: what is decoded is shorter than what was read.
func (r *base64Reader) decode(digits []byte) bool {
	at := len(r.out)
	n, err := base64.RawStdEncoding.Decode(r.buf[at:], digits)
	r.out = r.buf[:at+n]
	return err == nil && n == base64.RawStdEncoding.DecodedLen(len(digits))
}

// qpReader decodes RFC 2045 section 6.7. It takes no more from the body than it needs for what it returns,
// so at tells where in the body the next decoded byte begins. A "=" that means nothing stays as it is.
type qpReader struct {
	in    *bufio.Reader
	at    int64
	dirty bool
}

func newQPReader(raw io.Reader) *qpReader {
	return &qpReader{in: bufio.NewReaderSize(raw, bufferSize/2)}
}

func (r *qpReader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if r.in.Buffered() == 0 && n > 0 {
			return n, nil
		}
		if _, err := r.in.Peek(1); err != nil {
			return n, err
		}
		text, err := r.in.Peek(min(r.in.Buffered(), len(p)-n))
		if err != nil {
			return n, err
		}
		if i := bytes.IndexByte(text, '='); i >= 0 {
			text = text[:i]
		}
		if len(text) == 0 {
			if c, ok := r.escape(); ok {
				p[n] = c
				n++
			}
			continue
		}
		n += copy(p[n:], text)
		r.discard(len(text))
	}
	return n, nil
}

// discard passes over n bytes that were peeked at, which cannot fail.
func (r *qpReader) discard(n int) {
	n, _ = r.in.Discard(n)
	r.at += int64(n)
}

// escape reads what begins with "=": a byte, or a soft line break, which gives none.
func (r *qpReader) escape() (byte, bool) {
	text, _ := r.in.Peek(3)
	if len(text) == 3 {
		high, low := unhex(text[1]), unhex(text[2])
		if high >= 0 && low >= 0 {
			r.discard(3)
			return byte(high<<4 | low), true
		}
	}
	if n := r.softBreak(); n > 0 {
		r.discard(n)
		return 0, false
	}
	r.dirty = true
	r.discard(1)
	return '=', true
}

// softBreak returns the length of the soft line break that comes next, 0 if there is none. White space
// before the line end was added on the way.
func (r *qpReader) softBreak() int {
	text, err := r.in.Peek(128)
	for i, c := range text {
		switch {
		case i == 0, c == ' ', c == '\t':
		case c == '\n':
			return i + 1
		case c == '\r' && i+1 < len(text) && text[i+1] == '\n':
			return i + 2
		default:
			return 0
		}
	}
	if errors.Is(err, io.EOF) {
		return len(text)
	}
	return 0
}

// skipBreaks passes over soft line breaks, up to where the next decoded byte begins.
func (r *qpReader) skipBreaks() {
	for {
		text, err := r.in.Peek(1)
		if err != nil || text[0] != '=' {
			return
		}
		n := r.softBreak()
		if n == 0 {
			return
		}
		r.discard(n)
	}
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}
