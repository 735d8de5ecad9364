package rewrite

import (
	"bufio"
	"bytes"
	"errors"
	"hash"
	"io"
)

// Source is a mail as it came: CRLF line ends, no bare CR, bare LF or NUL. A mail that is not so is ambiguous.
type Source interface {
	io.ReaderAt
	Size() int64
}

// Limits are what a mail may have before it is sealed whole.
type Limits struct {
	HeaderBytes int64 // of one header block
	LineLength  int64 // in bytes, with the line end
	Depth       int   // of multiparts in multiparts
	Parts       int   // leaves and multiparts together
}

// DefaultLimits returns limits that no honest mail meets: Email-to-Case bounces larger headers.
func DefaultLimits() Limits {
	return Limits{HeaderBytes: 128 << 10, LineLength: 1 << 20, Depth: 32, Parts: 1000}
}

const bufferSize = 64 << 10

// span is a range of bytes of the source: [start, end).
type span struct{ start, end int64 }

func (s span) size() int64 { return s.end - s.start }

func section(src io.ReaderAt, s span) *io.SectionReader {
	return io.NewSectionReader(src, s.start, s.size())
}

// line is one line of the source. Of a line over the buffer's size text holds the beginning only.
type line struct {
	span
	text  []byte // without the line end; valid until the next line is read
	cut   bool   // text is not all of it
	ended bool   // there is a line end
	eof   bool   // there is no line: start and end are the end of the source
}

// lineReader cuts the source into lines and sees what no honest mail has: NUL, bare CR, bare LF.
type lineReader struct {
	src    Source
	bytes  byteCounter
	in     *bufio.Reader
	at     int64
	crlfs  int64
	bareLF bool
	head   []byte // of a line that is longer than the buffer
}

// byteCounter looks at every chunk once, at the speed of bytes.Count.
type byteCounter struct {
	r   io.Reader
	crs int64
	nul bool
	sum hash.Hash // takes what is read; nil until sumFrom
}

func (c *byteCounter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.crs += int64(bytes.Count(p[:n], []byte{'\r'}))
	c.nul = c.nul || bytes.IndexByte(p[:n], 0) >= 0
	if c.sum != nil {
		_, _ = c.sum.Write(p[:n]) // never fails (hash.Hash)
	}
	return n, err
}

// newLineReader reads with a buffer of size bytes, or less where the mail is smaller.
func newLineReader(src Source, size int) *lineReader {
	size = int(min(int64(size), src.Size()+1))
	r := &lineReader{src: src, bytes: byteCounter{r: io.NewSectionReader(src, 0, src.Size())}}
	r.in = bufio.NewReaderSize(&r.bytes, size)
	return r
}

// next returns the next line, or one with eof set.
func (r *lineReader) next() (line, error) {
	l := line{span: span{r.at, r.at}}
	text, err := r.in.ReadSlice('\n')
	r.at += int64(len(text))
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		r.head = append(r.head[:0], text...)
		l.text, l.cut = r.head, true
		err = r.skip(text)
		l.ended = err == nil
	case err == nil:
		r.count(text, 0)
		l.ended = true
		l.text = bytes.TrimSuffix(text[:len(text)-1], []byte{'\r'})
	default:
		l.text = text
	}
	l.end = r.at
	if err != nil && !errors.Is(err, io.EOF) {
		return l, err
	}
	l.eof = l.size() == 0
	return l, nil
}

// pass passes over the lines that follow in the buffer, whole ones of at most limit bytes that end with CRLF and do not
// begin with a dash, white space before it or not, and hands each to see, without its line end. It returns the last of them, or before if there is none.
func (r *lineReader) pass(before line, limit int64, see func(text []byte)) line {
	buffered, _ := r.in.Peek(r.in.Buffered()) // never fails: it is there
	rest := buffered
	for len(rest) > 1 && !mayDelimit(rest) {
		end := bytes.IndexByte(rest, '\n')
		if end < 1 || rest[end-1] != '\r' || int64(end) >= limit {
			break
		}
		before = line{span: span{r.at, r.at + int64(end) + 1}, text: rest[:end-1], ended: true}
		see(before.text)
		r.at, r.crlfs, rest = before.end, r.crlfs+1, rest[end+1:]
	}
	_, _ = r.in.Discard(len(buffered) - len(rest)) // likewise
	return before
}

// mayDelimit reports whether some reader could take the line that text begins with for a boundary line.
func mayDelimit(text []byte) bool {
	switch text[0] {
	case '-':
		return true
	case ' ', '\t':
		return bytes.HasPrefix(bytes.TrimLeft(text, " \t"), []byte("-"))
	}
	return false
}

// sumFrom takes the sum of everything from an offset on, which must not be after what was read, to the end of the source,
// as that is read.
func (r *lineReader) sumFrom(offset int64, sum hash.Hash) error {
	if _, err := io.Copy(sum, section(r.src, span{offset, r.at})); err != nil {
		return err
	}
	buffered, _ := r.in.Peek(r.in.Buffered()) // never fails: it is there
	_, _ = sum.Write(buffered)                // likewise (hash.Hash)
	r.bytes.sum = sum
	return nil
}

// drain reads the rest of the source.
func (r *lineReader) drain() error {
	_, err := io.Copy(io.Discard, r.in)
	return err
}

// skip reads the rest of a line that is longer than the buffer.
func (r *lineReader) skip(text []byte) error {
	err := bufio.ErrBufferFull
	before := byte(0)
	for errors.Is(err, bufio.ErrBufferFull) {
		before = text[len(text)-1]
		text, err = r.in.ReadSlice('\n')
		r.at += int64(len(text))
	}
	if err == nil {
		r.count(text, before)
	}
	return err
}

// count notes how a line ended; before is what came before text in the same line.
func (r *lineReader) count(text []byte, before byte) {
	if len(text) > 1 {
		before = text[len(text)-2]
	}
	if before == '\r' {
		r.crlfs++
	} else {
		r.bareLF = true
	}
}

// clean reports whether all line ends so far are CRLF and no NUL was seen. It is exact at the end only.
func (r *lineReader) clean() bool {
	return !r.bytes.nul && !r.bareLF && r.bytes.crs == r.crlfs
}
