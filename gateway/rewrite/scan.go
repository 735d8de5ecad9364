package rewrite

import (
	"bytes"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"github.com/zeebo/blake3"
)

// Why a mail is sealed whole. The phrases are safe to log.
const (
	whyBytes       = "bare CR, bare LF or NUL"
	whyHeaderSize  = "a header over the limit"
	whyLineLength  = "a line over the limit"
	whyDepth       = "multiparts nested over the limit"
	whyParts       = "more parts than the limit"
	whyNoBoundary  = "a multipart without a usable boundary"
	whyOddBoundary = "a boundary parameter that can be read in two ways"
	whyShaky       = "a multipart that not all readers take apart alike, and files"
	whyEnvelope    = "a signed or encrypted mail with a file in it"
	whyTwins       = "two multiparts with the same boundary"
	whyNeverOccurs = "a multipart whose boundary never occurs"
	whyEncoding    = "a multipart with a transfer encoding"
	whyDecoding    = "a text that is a file in another transfer encoding"
	whyTwice       = "contradicting Content-* fields"
	whyWord        = "a multipart type that is an encoded word"
	whyOddType     = "a multipart type that is malformed"
	whyFolded      = "a mail that begins with a continuation line"
	whyCutHeader   = "a header that can be read as ending in two places"
	whyNearly      = "a line that some readers take for a boundary"
	whyOutside     = "a file outside of all parts"
)

// maxBoundary is far above the 70 characters of RFC 2046 section 5.1.1.
const maxBoundary = 1000

// Scan reads the mail from front to end and returns its structure. Memory depends on the number of parts and on
// limits.HeaderBytes only. A malformed mail is no error: see Message.Ambiguity. It is read once, and at most maxScans
// times if forwarded messages in it are ambiguous.
func Scan(src Source, limits Limits) (*Message, error) {
	var shut []int64
	for {
		s := newScanner(src, limits, shut)
		failed, err := s.scan()
		switch {
		case err != nil:
			return nil, fmt.Errorf("scan the mail: %w", err)
		case failed == nil:
			return s.msg, nil
		}
		shut = append(shut, failed.start)
	}
}

func newScanner(src Source, limits Limits, shut []int64) *scanner {
	return &scanner{src: src, limits: limits, shut: shut, lines: newLineReader(src, bufferSize), msg: &Message{src: src, root: &part{}}}
}

// scan returns the forwarded message in which the scan failed, if it was in one: then it is to be made again, with that
// message shut.
func (s *scanner) scan() (failed *part, err error) {
	s.advance()
	s.entity(s.msg.root, 0)
	if s.err == nil && s.failed != nil {
		return s.failed, nil
	}
	if s.err == nil && s.msg.Ambiguity == "" && !s.lines.clean() {
		s.fail(whyBytes)
	}
	if s.err == nil {
		s.err = s.findMessageID()
	}
	if s.err == nil {
		s.err = s.finishSum()
	}
	return nil, s.err
}

// beginSum begins the sum of the mail's body, which so costs no reading of its own.
func (s *scanner) beginSum() error {
	s.sum = blake3.New()
	return s.lines.sumFrom(s.msg.root.body, s.sum)
}

// finishSum also serves mails of which the scan did not come to the end, or not to the body.
func (s *scanner) finishSum() error {
	if s.sum == nil {
		if err := s.beginSum(); err != nil {
			return fmt.Errorf("take the sum of the body: %w", err)
		}
	}
	if err := s.lines.drain(); err != nil {
		return fmt.Errorf("take the sum of the body: %w", err)
	}
	s.sum.Sum(s.msg.bodySum[:0])
	return nil
}

type scanner struct {
	src    Source
	limits Limits
	lines  *lineReader
	msg    *Message
	err    error
	block  []byte

	// The current line, which nobody has used up yet; which open multipart it delimits, if any, and whether
	// it closes it; whether another reader may take it for a boundary line.
	line     line
	hit      *part
	closes   bool
	nearly   bool
	endsLine bool // the line before it had a line end

	open  []*part
	count int

	// in is the innermost forwarded message that the line is in, and failed the one in which the scan failed; shut are the
	// starts of those that are taken as files.
	in, failed *part
	shut       []int64

	look lookout
	sum  hash.Hash // of the mail's body; nil before that begins
}

// fail ends the scan: the mail will be sealed whole.
func (s *scanner) fail(why string) {
	if s.msg.Ambiguity == "" {
		s.msg.Ambiguity, s.failed = why, s.in
	}
	s.line.eof, s.hit = true, nil
}

func (s *scanner) stopped() bool { return s.line.eof || s.hit != nil }

// advance reads the next line.
func (s *scanner) advance() {
	if s.err != nil || s.msg.Ambiguity != "" {
		return
	}
	s.endsLine = s.line.ended && s.line.size() > 1
	s.line, s.err = s.lines.next()
	s.hit, s.closes, s.nearly = nil, false, false
	if s.err != nil {
		s.line.eof = true
		return
	}
	if s.line.size() > s.limits.LineLength {
		s.fail(whyLineLength)
		return
	}
	s.delimit()
}

// delimit compares the current line with the boundaries of all open multiparts.
func (s *scanner) delimit() {
	s.hit, s.closes, s.nearly = nil, false, false
	text := s.line.text
	switch {
	case len(s.open) == 0 || len(text) == 0:
	case bytes.HasPrefix(text, []byte("--")):
		s.compare(text[2:])
	default:
		s.nearly = s.resembles(bytes.TrimLeft(text, " \t"))
	}
}

// resembles reports whether text would be a boundary line, or nearly one, if no white space stood before it.
func (s *scanner) resembles(text []byte) bool {
	return bytes.HasPrefix(text, []byte("--")) && slices.ContainsFunc(s.open, func(p *part) bool { return p.boundary.resembles(text[2:]) })
}

func (s *scanner) compare(text []byte) {
	for i := len(s.open) - 1; i >= 0; i-- {
		p := s.open[i]
		if !hasPrefix(text, p.boundary.value) {
			s.nearly = s.nearly || s.hit == nil && p.boundary.resembles(text)
			continue
		}
		if s.line.cut { // nobody else may read so far to find that only white space follows
			s.fail(whyNearly)
			return
		}
		rest := bytes.TrimRight(text[len(p.boundary.value):], " \t")
		closes := string(rest) == "--"
		switch {
		case len(rest) > 0 && !closes, p.closed:
			s.nearly = true
		case s.hit != nil:
			s.fail(whyTwins)
			return
		default:
			s.hit, s.closes = p, closes
		}
	}
}

// entity reads a header and what belongs to it, up to the line that ends it.
func (s *scanner) entity(p *part, depth int) {
	s.count++
	if s.count > s.limits.Parts {
		s.fail(whyParts)
	}
	s.header(p)
	if s.err != nil || s.msg.Ambiguity != "" {
		return
	}
	if strings.HasPrefix(p.typ, "multipart/") {
		s.multipart(p, depth)
		return
	}
	if s.walks(p, depth) {
		s.forwarded(p, depth)
		return
	}
	s.text(p)
	p.end = s.bodyEnd(p)
}

// bodyEnd leaves the CRLF before a boundary line to that line. Where the last boundary line is missing, the
// CRLF that ends the mail stands for the one before it, as other readers have it.
func (s *scanner) bodyEnd(p *part) int64 {
	end := s.line.start
	if !s.line.eof || p.inMultipart() && !p.isMultipart() && s.endsLine {
		end -= 2
	}
	return max(end, p.body)
}

func (s *scanner) header(p *part) {
	p.start = s.line.start
	s.look = lookout{}
	if first := s.line.text; p.parent == nil && len(first) > 0 && (first[0] == ' ' || first[0] == '\t') {
		s.fail(whyFolded) // it would continue a field that we put above it
		return
	}
	for !s.stopped() && isHeaderLine(s.line.text) {
		if s.line.end-p.start > s.limits.HeaderBytes {
			s.fail(whyHeaderSize)
			return
		}
		s.advance()
	}
	p.body = s.line.start
	switch {
	case s.stopped():
	case len(s.line.text) == 0:
		p.body, p.blank = s.line.end, true
		s.advance()
		if p.parent == nil && p.start == s.line.start-2 { // some readers pass over empty lines before the header
			for !s.stopped() && len(s.line.text) == 0 {
				s.advance()
			}
			s.look.cutHeader(false)
		}
	default:
		s.look.cutHeader(p.parent == nil)
	}
	if s.err != nil || s.msg.Ambiguity != "" {
		return
	}
	if s.err = s.readBlock(p); s.err == nil {
		describe(p, fields(s.block, p.start))
	}
	if s.hit != nil && !s.closes && !p.blank && p.described {
		p.doubt = whyCutHeader // some readers look for the end of a header only, and pass over the boundary line
	}
	if s.err == nil && p.parent == nil {
		s.err = s.beginSum()
	}
}

func (s *scanner) readBlock(p *part) error {
	size := int(p.body - p.start)
	if cap(s.block) < size {
		s.block = make([]byte, size)
	}
	s.block = s.block[:size]
	if _, err := s.src.ReadAt(s.block, p.start); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read a header: %w", err)
	}
	return nil
}

// text passes over the body of a leaf.
func (s *scanner) text(p *part) {
	measure := base64Size{}
	for !s.stopped() {
		if why := s.look.see(s.line.text, s.nearly); why != "" {
			p.doubt = why
		}
		if p.encoding == "base64" {
			measure.line(s.line)
		}
		if s.look.idle() {
			s.passOver(p, &measure)
		}
		s.advance()
	}
	if p.encoding == "base64" {
		p.decoded, p.measured = measure.size()
	}
}

// passOver passes quickly over lines of a leaf in which there is nothing to see: none of them can be a boundary.
func (s *scanner) passOver(p *part, measure *base64Size) {
	see := func([]byte) {}
	if p.encoding == "base64" {
		see = measure.text
	}
	s.line = s.lines.pass(s.line, s.limits.LineLength, see)
}

// outside passes over a preamble or an epilogue, which no reader shows, but some search for files.
func (s *scanner) outside() {
	start := s.line.start
	for !s.stopped() {
		why := s.look.see(s.line.text, s.nearly)
		if why == "" && (looksLikeFile(s.line.text) || s.line.end-start > maxOutside) {
			why = whyOutside
		}
		if why != "" {
			s.fail(why)
			return
		}
		s.advance()
	}
}

func (s *scanner) multipart(p *part, depth int) {
	if why := s.unusable(p, depth); why != "" {
		s.fail(why)
		return
	}
	s.open = append(s.open, p)
	s.recompare()
	s.outside()
	if p.parent != nil && !p.parent.message && (p.disposition == "attachment" || p.name != "") && !s.blank(span{p.body, max(p.body, s.line.start)}) {
		s.fail(whyOutside) // to a reader that saves it as one file, the preamble is how that begins
	}
	for s.hit == p && !s.closes {
		delimiter := s.line.span
		s.advance()
		for s.hit == p && !s.closes { // doubled boundary lines make no part
			delimiter.end = s.line.end
			s.advance()
		}
		child := &part{parent: p, index: len(p.children)}
		p.lines = append(p.lines, delimiter)
		p.children = append(p.children, child)
		s.entity(child, depth+1)
	}
	if s.hit == p {
		p.closed = true
		p.lines = append(p.lines, s.line.span)
		s.advance()
		s.look = lookout{}
		s.outside()
	}
	p.end = s.bodyEnd(p)
	if n := len(p.children); n > 0 { // an empty last part begins where the outer boundary line does
		p.end = max(p.end, p.children[n-1].end)
	}
	s.open = s.open[:len(s.open)-1]
	s.recompare()
	if len(p.children) > 0 || s.msg.Ambiguity != "" {
		return
	}
	if p.empty = !p.closed && s.blank(span{p.body, p.end}); !p.empty {
		s.fail(whyNeverOccurs)
	}
}

// blank reports whether there is nothing but white space: nobody can see a file there.
func (s *scanner) blank(in span) bool {
	if in.size() > maxOutside || s.err != nil {
		return false
	}
	text := make([]byte, in.size())
	if _, err := s.src.ReadAt(text, in.start); err != nil && !errors.Is(err, io.EOF) {
		s.err = fmt.Errorf("read a body: %w", err)
	}
	return len(bytes.TrimSpace(text)) == 0
}

func hasPrefix(text []byte, prefix string) bool {
	return len(text) >= len(prefix) && string(text[:len(prefix)]) == prefix
}

// recompare judges the current line again after the set of open multiparts has changed.
func (s *scanner) recompare() {
	if !s.line.eof {
		s.delimit()
	}
}

func (s *scanner) unusable(p *part, depth int) string {
	switch {
	case p.doubt != "":
		return p.doubt
	case depth >= s.limits.Depth:
		return whyDepth
	case p.boundary.value == "" || len(p.boundary.value) > maxBoundary:
		return whyNoBoundary
	case p.encoding != "" && p.encoding != "7bit" && p.encoding != "8bit" && p.encoding != "binary":
		return whyEncoding
	}
	for _, other := range s.open {
		if other.boundary.value == p.boundary.value {
			return whyTwins
		}
	}
	return ""
}

// findMessageID looks at every field of the top header, even of one that is over the limit.
func (s *scanner) findMessageID() error {
	r := newFieldReader(s.src)
	for {
		f, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the header: %w", err)
		}
		if f.name == "message-id" {
			s.msg.messageID, s.msg.identified = f.value(), true
			return nil
		}
	}
}
