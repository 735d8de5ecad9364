package downgrade

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"slices"
	"strings"
)

const (
	maxHeader = 128 << 10
	maxDepth  = 100
	lineChunk = 64 << 10
	maxParts  = 100_000
)

type encoding byte

const (
	asItIs encoding = iota
	quotedPrintable
	base64Encoding
)

// entity is what the first pass finds out about one MIME entity.
type entity struct {
	encoding encoding
	// container tells that its label is to become 7bit, if it has one.
	container bool
}

// frame is a multipart that is open.
type frame struct {
	delimiter []byte // two hyphens and the boundary
	digest    bool
	sealed    bool // signed or encrypted
}

// current is the entity whose header or body is being read.
type current struct {
	kind       string // lower-case media type; "?" when it cannot be told
	transfer   string
	leaf       bool
	outer      bool // it begins a message, so that MIME-Version belongs here
	eightBit   bool
	needs64    bool
	global     bool // of a type that may hold UTF-8 anywhere (RFC 6532 section 3.7)
	unreadable bool // signed, encrypted, or of a form that is not converted
}

type converter struct {
	out            io.Writer
	eightBit, utf8 bool
	writing        bool
	plan           []entity // of the first pass, while writing
	entities       []entity
	bareLF         bool
	changes        bool

	frames   []frame
	header   bytes.Buffer
	inHeader bool
	inBody   bool // of a leaf; otherwise preamble or epilogue
	now      current
	encoder  *encoder
}

func (c *converter) run(r io.Reader) error {
	lines := bufio.NewReaderSize(r, lineChunk)
	c.begin(true)
	start := true
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("read the mail: %w", err)
		}
		if len(line) > 0 {
			if err := c.line(line, start); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return c.finish()
		}
		start = err == nil
	}
}

func (c *converter) begin(outer bool) {
	c.header.Reset()
	c.inHeader, c.inBody = true, false
	c.now = current{outer: outer}
}

func (c *converter) line(line []byte, start bool) error {
	if bytes.HasSuffix(line, []byte("\n")) && !bytes.HasSuffix(line, []byte("\r\n")) {
		c.bareLF = true
	}
	if start {
		if depth, last := c.boundary(line); depth >= 0 {
			return c.delimiter(line, depth, last)
		}
	}
	if c.inHeader {
		if start && (string(line) == "\r\n" || string(line) == "\n") {
			return c.endHeader(line)
		}
		if c.header.Len()+len(line) > maxHeader {
			return ErrNotExact
		}
		c.header.Write(line)
		return nil
	}
	return c.body(line, start)
}

// boundary finds the open multipart that a line delimits, the innermost first (RFC 2046 section 5.1.1).
func (c *converter) boundary(line []byte) (depth int, last bool) {
	if !bytes.HasPrefix(line, []byte("--")) {
		return -1, false
	}
	text := bytes.TrimRight(line, " \t\r\n")
	for i, f := range slices.Backward(c.frames) {
		if bytes.Equal(text, f.delimiter) {
			return i, false
		}
		if bytes.HasPrefix(text, f.delimiter) && string(text[len(f.delimiter):]) == "--" {
			return i, true
		}
	}
	return -1, false
}

func (c *converter) delimiter(line []byte, depth int, last bool) error {
	if !isASCII(line) {
		return ErrNotExact
	}
	if err := c.endEntity(false); err != nil {
		return err
	}
	if err := c.emit(line); err != nil {
		return err
	}
	if last {
		// The closed frame's boundary is forgotten: what follows is an epilogue.
		c.frames = c.frames[:depth]
		c.inHeader, c.inBody = false, false
		c.now = current{}
		return nil
	}
	c.frames = c.frames[:depth+1]
	c.begin(false)
	return nil
}

func (c *converter) emit(p []byte) error {
	if _, err := c.out.Write(p); err != nil {
		return fmt.Errorf("write the mail: %w", err)
	}
	return nil
}

func (c *converter) sealed() bool {
	return slices.ContainsFunc(c.frames, func(f frame) bool { return f.sealed })
}

// endHeader writes the header section and decides what its body is.
func (c *converter) endHeader(empty []byte) error {
	fields := split(c.header.Bytes())
	sealed := c.sealed()
	c.classify(fields)
	if len(c.entities) >= maxParts {
		return ErrNotExact
	}
	planned := entity{}
	if c.writing {
		planned = c.plan[len(c.entities)]
	}
	c.entities = append(c.entities, entity{container: !c.now.leaf && !sealed})
	if err := c.writeFields(fields, planned, sealed); err != nil {
		return err
	}
	if len(empty) > 0 {
		if err := c.emit(empty); err != nil {
			return err
		}
	}
	if planned.encoding != asItIs {
		c.encoder = newEncoder(c.out, planned.encoding)
	}
	c.inHeader = false
	return c.descend(fields)
}

// descend opens what is inside a container.
func (c *converter) descend(fields []field) error {
	switch {
	case c.now.leaf:
		c.inBody = true
		c.now.unreadable = c.now.unreadable || c.sealed() || c.now.kind == "?"
	case strings.HasPrefix(c.now.kind, "multipart/"):
		_, params, _ := mime.ParseMediaType(valueOf(fields, "content-type"))
		if len(c.frames) >= maxDepth {
			return ErrNotExact
		}
		sealed := c.now.kind == "multipart/signed" || c.now.kind == "multipart/encrypted"
		c.frames = append(c.frames, frame{delimiter: []byte("--" + params["boundary"]), digest: c.now.kind == "multipart/digest", sealed: sealed})
		c.now = current{}
	default:
		c.begin(true)
	}
	return nil
}

func valueOf(fields []field, name string) string {
	for _, f := range fields {
		if f.name() == name {
			return f.value()
		}
	}
	return ""
}

func count(fields []field, name string) (n int) {
	for _, f := range fields {
		if f.name() == name {
			n++
		}
	}
	return n
}

// classify tells leaves from containers.
func (c *converter) classify(fields []field) {
	c.now.kind, c.now.leaf = "text/plain", true
	if n := len(c.frames); n > 0 && c.frames[n-1].digest && !c.now.outer {
		c.now.kind = "message/rfc822"
	}
	params := map[string]string{}
	if value := valueOf(fields, "content-type"); value != "" {
		kind, p, err := mime.ParseMediaType(value)
		if c.now.kind, params = kind, p; err != nil {
			c.now.kind = "?"
		}
	}
	c.now.transfer = strings.ToLower(valueOf(fields, "content-transfer-encoding"))
	if count(fields, "content-type") > 1 || count(fields, "content-transfer-encoding") > 1 {
		c.now.kind = "?"
	}
	if !slices.Contains([]string{"", "7bit", "8bit", "binary"}, c.now.transfer) {
		c.now.unreadable = true
		return
	}
	switch {
	case strings.HasPrefix(c.now.kind, "multipart/"):
		if c.now.leaf = strings.TrimSpace(params["boundary"]) == ""; c.now.leaf {
			c.now.kind = "?"
		}
	case c.now.kind == "message/rfc822":
		c.now.leaf = false
	case strings.HasPrefix(c.now.kind, "message/"):
		c.now.unreadable = true
		c.now.global = strings.HasPrefix(c.now.kind, "message/global")
	}
}

func (c *converter) writeFields(fields []field, planned entity, sealed bool) error {
	labelled := false
	for _, f := range fields {
		raw := f.raw
		if c.utf8 && !isASCII(raw) {
			converted, err := convertField(f)
			if err != nil {
				return err
			}
			if sealed {
				return ErrNotExact
			}
			raw, c.changes = converted, true
		}
		if f.name() == "content-transfer-encoding" {
			switch {
			case planned.encoding != asItIs:
				raw, labelled = label(planned.encoding), true
			case planned.container && c.eightBit && (c.now.transfer == "8bit" || c.now.transfer == "binary"):
				raw = []byte("Content-Transfer-Encoding: 7bit\r\n")
			}
		}
		if err := c.emit(raw); err != nil {
			return err
		}
	}
	if planned.encoding == asItIs {
		return nil
	}
	if !labelled {
		if err := c.emit(label(planned.encoding)); err != nil {
			return err
		}
	}
	if c.now.outer && count(fields, "mime-version") == 0 {
		return c.emit([]byte("MIME-Version: 1.0\r\n"))
	}
	return nil
}

func label(e encoding) []byte {
	if e == quotedPrintable {
		return []byte("Content-Transfer-Encoding: quoted-printable\r\n")
	}
	return []byte("Content-Transfer-Encoding: base64\r\n")
}

func (c *converter) body(line []byte, start bool) error {
	if (c.eightBit || c.now.global && c.utf8) && !isASCII(line) {
		if !c.inBody || c.now.unreadable {
			return ErrNotExact
		}
		c.now.eightBit, c.changes = true, true
	}
	if !start || len(line) > maxFieldLine {
		c.now.needs64 = true // a boundary within it could be cut in two
	}
	for _, f := range c.frames {
		c.now.needs64 = c.now.needs64 || bytes.Contains(line, f.delimiter)
	}
	if c.encoder != nil {
		return c.encoder.line(line)
	}
	return c.emit(line)
}

// endEntity closes what is open: before a delimiter, to which the line end before it belongs, or at the end.
func (c *converter) endEntity(atEnd bool) error {
	if c.inHeader {
		if err := c.endHeader(nil); err != nil {
			return err
		}
	}
	if !c.inBody {
		return nil
	}
	c.inBody = false
	if c.now.eightBit {
		chosen := base64Encoding
		if strings.HasPrefix(c.now.kind, "text/") && !c.now.needs64 {
			chosen = quotedPrintable
		}
		c.entities[len(c.entities)-1].encoding = chosen
	}
	if c.encoder == nil {
		return nil
	}
	err := c.encoder.close(atEnd)
	c.encoder = nil
	return err
}

func (c *converter) finish() error { return c.endEntity(true) }
