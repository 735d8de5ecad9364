package rewrite

import (
	"bytes"
	"io"
	"strings"
)

// field is one header field as it stands, folding and final line end included.
type field struct {
	name string // lower-cased; "" for what is no field
	span        // of the source, or of the block it was cut from
	raw  []byte
}

// isHeaderLine reports whether text can stand in a header: a field, a continuation, or the "From " of an
// mbox. Anything else begins the body, as most readers have it.
func isHeaderLine(text []byte) bool {
	if len(text) == 0 {
		return false
	}
	if text[0] == ' ' || text[0] == '\t' || bytes.HasPrefix(text, []byte("From ")) {
		return true
	}
	name, _, ok := bytes.Cut(text, []byte{':'})
	return ok && isName(name)
}

// isName reports whether all of name is printable US-ASCII (RFC 5322 section 2.2).
func isName(name []byte) bool {
	for _, c := range name {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// fields cuts a header block, which may end with its empty line.
func fields(block []byte, base int64) []field {
	var found []field
	for at := 0; at < len(block); {
		end := len(block)
		if i := bytes.IndexByte(block[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		text := block[at:end]
		switch {
		case len(bytes.TrimRight(text, "\r\n")) == 0:
			return found
		case (text[0] == ' ' || text[0] == '\t') && len(found) > 0:
			last := &found[len(found)-1]
			last.end = base + int64(end)
			last.raw = block[last.start-base : end]
		default:
			found = append(found, field{name: fieldName(text), span: span{base + int64(at), base + int64(end)}, raw: text})
		}
		at = end
	}
	return found
}

func fieldName(text []byte) string {
	name, _, ok := bytes.Cut(text, []byte{':'})
	if !ok {
		return ""
	}
	return strings.ToLower(strings.TrimRight(string(name), " \t"))
}

// value returns the unfolded value (RFC 5322 section 2.2.3) without white space around it.
func (f field) value() string {
	_, v, _ := bytes.Cut(f.raw, []byte{':'})
	text := strings.TrimSpace(string(v))
	if !strings.ContainsAny(text, "\r\n") {
		return text
	}
	return strings.NewReplacer("\r", "", "\n", "").Replace(text)
}

// isMIME reports whether the field says how the body is built.
func (f field) isMIME() bool {
	return f.name == "mime-version" || strings.HasPrefix(f.name, "content-")
}

// fieldReader reads the fields of the top header one by one. It holds at most maxField bytes of each, so it
// works on headers of any size.
type fieldReader struct {
	lines *lineReader
	held  line
	begun bool
}

func newFieldReader(src Source) *fieldReader {
	return &fieldReader{lines: newLineReader(src, 16<<10)} // a line must have room for more than maxField
}

// next returns the next field, or io.EOF at the end of the header. A field over the limit comes without raw.
func (r *fieldReader) next() (field, error) {
	if !r.begun {
		r.begun = true
		if err := r.advance(); err != nil {
			return field{}, err
		}
	}
	if r.held.eof || !isField(r.held.text) {
		return field{}, io.EOF
	}
	f := field{name: fieldName(r.held.text), span: r.held.span}
	for {
		f.end = r.held.end
		if f.size() <= maxField {
			f.raw = append(append(f.raw, r.held.text...), '\r', '\n')
		}
		if err := r.advance(); err != nil {
			return field{}, err
		}
		if r.held.eof || len(r.held.text) == 0 || r.held.text[0] != ' ' && r.held.text[0] != '\t' {
			break
		}
	}
	if f.size() > maxField {
		f.raw = nil
	}
	return f, nil
}

func (r *fieldReader) advance() (err error) {
	r.held, err = r.lines.next()
	return err
}

// isField is isHeaderLine, and also takes white space before the colon, which RFC 5322 calls obsolete.
func isField(text []byte) bool {
	name, _, ok := bytes.Cut(text, []byte{':'})
	return isHeaderLine(text) || ok && isName(bytes.TrimRight(name, " \t"))
}
