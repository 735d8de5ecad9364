package smtpd

import (
	"bytes"
	"fmt"
	"io"

	"sealpost/gateway"
)

// position is where in a line the next octet of message text stands.
type position int

const (
	lineStart position = iota // after CRLF, or at the very beginning
	lineDot                   // after a dot at the start of a line
	lineDotCR                 // after a dot and CR at the start of a line
	inLine
	afterCR
)

// body checks message text while it streams into the spool. After the first failure it writes no more,
// but still finds the end of the text.
type body struct {
	dots  bool // the text is dot-stuffed and ends with CRLF "." CRLF (RFC 5321 section 4.5.2)
	mend  bool // a bare LF or CR becomes a line end instead of a failure
	spool io.Writer
	out   []byte // waits to be written to spool; its capacity is never exceeded

	at      position
	soft    bool  // the current line began behind a line end that was mended
	mended  bool  // a line end was
	altered bool  // so was one of the header section
	returns bool  // there was a CR before the one that was read last
	line    int64 // number of the current line, from 0
	length  int64 // octets in the current line
	size    int64
	maxSize int64
	loops   receivedCounter
	id      idFinder
	err     error // the first failure
}

// feed takes the next octets of text. It returns how many of them belong to the text, and whether the
// text has ended; without dots it never ends by itself.
func (b *body) feed(p []byte) (n int, done bool) {
	for n < len(p) {
		if b.at == inLine {
			n += b.run(p[n:])
			continue
		}
		if b.at == lineStart {
			if n += b.lines(p[n:]); n == len(p) {
				break
			}
		}
		used, end := b.step(p[n])
		n += used
		if end {
			return n, true
		}
	}
	return n, false
}

// step looks at one octet outside the middle of a line. It uses it up, or only moves on.
func (b *body) step(c byte) (used int, end bool) {
	switch b.at {
	case lineStart:
		switch {
		case c == '.' && b.dots:
			b.at = lineDot
			return 1, false
		case c == '\r':
			b.at = afterCR
			return 1, false
		}
		b.at = inLine
	case lineDot:
		return b.afterDot(c), false
	case lineDotCR:
		if c == '\n' {
			return 1, true
		}
		b.take([]byte{'.'}) // it was no end: the dot is text
		b.at = afterCR      // which finds the bare CR
	case afterCR:
		return b.afterReturn(c), false
	}
	return 0, false
}

// afterDot looks at what follows a dot at the start of a line. Only CRLF "." CRLF ends the text, or what other servers
// take for one mail would be two here: so a dot alone between line ends of which one is bare is text. Behind a bare line
// end only a second dot tells that the first was put there by the sender's server: one that takes CRLF alone for a line
// end puts none.
func (b *body) afterDot(c byte) (used int) {
	alone := c == '\n' || c == '\r' && b.soft
	switch {
	case b.mend && (alone || b.soft && c != '.'):
		b.take([]byte{'.'})
	case c == '\r':
		b.at = lineDotCR
		return 1
	}
	b.at = inLine
	return 0
}

// afterReturn looks at what follows a CR. Several of them before an LF are one line end where line ends are mended.
func (b *body) afterReturn(c byte) (used int) {
	switch {
	case c == '\n':
		b.endLine(b.returns)
		return 1
	case !b.mend:
		b.malformed("bare CR")
		if c == '\r' {
			return 1
		}
		b.at = inLine
	case c == '\r':
		b.returns = true
		return 1
	default:
		b.endLine(true)
	}
	return 0
}

// endLine ends the current line; mended tells that no CRLF did.
func (b *body) endLine(mended bool) {
	b.altered = b.altered || mended && !b.loops.over
	b.emit([]byte("\r\n"))
	b.loops.endLine(b.length == 0)
	b.id.scan([]byte{'\n'})
	b.line++
	b.length = 0
	b.at, b.soft, b.returns = lineStart, mended, false
	b.mended = b.mended || mended
}

// lines takes whole lines below the header section at once, up to the first in which something is to be looked at.
func (b *body) lines(p []byte) int {
	if !b.loops.over || !b.id.over || b.err != nil {
		return 0
	}
	rest := p
	for len(rest) > 0 && (rest[0] != '.' || !b.dots) {
		end := bytes.IndexByte(rest, '\n')
		if end < 1 || bytes.IndexByte(rest[:end], '\r') != end-1 || bytes.IndexByte(rest[:end], 0) >= 0 {
			break
		}
		rest = rest[end+1:]
		b.line++
		b.soft = false
	}
	taken := p[:len(p)-len(rest)]
	b.emit(taken)
	return len(taken)
}

// run takes octets up to the next line end.
func (b *body) run(p []byte) int {
	end := bytes.IndexAny(p, "\r\n")
	if end < 0 {
		b.take(p)
		return len(p)
	}
	b.take(p[:end])
	switch {
	case p[end] == '\r':
		b.at = afterCR
	case b.mend:
		b.endLine(true)
	default:
		b.malformed("bare LF")
		b.take(p[end : end+1]) // the mail's Message-ID is still looked for
	}
	return end + 1
}

// take takes text of the current line.
func (b *body) take(text []byte) {
	if bytes.IndexByte(text, 0) >= 0 {
		b.malformed("NUL octet")
	}
	b.length += int64(len(text))
	b.loops.scan(text)
	b.id.scan(text)
	if b.loops.exceeded() {
		b.fail(gateway.Errorf(gateway.CodeLoop, nil, "mail loop: more than %d Received fields", b.loops.limit))
	}
	b.emit(text)
}

// finish tells that the last octet was fed, and returns what is wrong with the text. The spool then has
// all of it.
func (b *body) finish() error {
	switch {
	case b.at != afterCR || b.dots:
	case b.mend:
		b.endLine(true)
	default:
		b.malformed("bare CR")
	}
	b.flush()
	return b.err
}

func (b *body) malformed(what string) {
	b.fail(gateway.Errorf(gateway.CodeInvalid, nil,
		"%s in line %d of the message, nothing was accepted; lines must end with CRLF", what, b.line+1))
}

func (b *body) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *body) failed() bool { return b.err != nil }

func (b *body) emit(p []byte) {
	if b.size += int64(len(p)); b.size > b.maxSize {
		b.fail(gateway.Errorf(gateway.CodeTooLarge, nil, "message is larger than %d octets", b.maxSize))
	}
	for b.err == nil && len(p) > 0 {
		if len(b.out) == cap(b.out) {
			b.flush()
		}
		n := min(len(p), cap(b.out)-len(b.out))
		b.out = append(b.out, p[:n]...)
		p = p[n:]
	}
}

func (b *body) flush() {
	if b.err == nil && len(b.out) > 0 {
		if _, err := b.spool.Write(b.out); err != nil {
			b.fail(fmt.Errorf("spool the mail: %w", err))
		}
	}
	b.out = b.out[:0]
}

// receivedCounter counts the Received fields of a header section (RFC 5321 section 6.3).
type receivedCounter struct {
	limit   int
	count   int
	matched int  // octets of the field's name that the current line has matched
	other   bool // the current line is none
	over    bool // the header section has ended
}

func (r *receivedCounter) scan(p []byte) {
	const name = "received"
	for _, c := range p {
		switch {
		case r.over || r.other:
			return
		case r.matched < len(name) && c|0x20 == name[r.matched]:
			r.matched++
		case r.matched == len(name) && c == ':':
			r.count++
			r.other = true
		case r.matched == len(name) && (c == ' ' || c == '\t'): // RFC 5322 section 4.5.8
		default:
			r.other = true
		}
	}
}

func (r *receivedCounter) endLine(empty bool) {
	r.over = r.over || empty
	r.matched, r.other = 0, false
}

func (r *receivedCounter) exceeded() bool { return r.count > r.limit }
