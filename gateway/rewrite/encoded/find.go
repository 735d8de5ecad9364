package encoded

import (
	"fmt"
	"io"
)

// Kind is the form of a block.
type Kind string

// The forms that are found.
const (
	UU     Kind = "uuencode" // or its base64 variant
	Yenc   Kind = "yenc"
	Binhex Kind = "binhex"
	PGP    Kind = "pgp"
)

// Block is a run of whole lines of a text that carries a file.
type Block struct {
	Kind Kind
	// Name is the file's, byte for byte as given on the first line without white space around it; "" if none is there.
	Name string
	// Start and End are offsets in the text, from the first byte of the first line to the one after the last
	// line's end.
	Start, End int64
	// Size is how many bytes Open gives.
	Size int64
	// AsItStands says that Open does not decode the block: always but for uuencode, and there if it is damaged.
	AsItStands bool

	prefix   string // quotes or indents each line
	base64   bool   // the base64 variant of uuencode
	headless bool   // it begins with a line of data
}

// Find reads a decoded text to its end and returns the first limit of its blocks in their order, and whether there are
// more. They do not overlap. Memory does not depend on the text but for the blocks returned. An error is the reader's.
func Find(r io.Reader, limit int) ([]Block, bool, error) {
	lines := newLineReader(r)
	f := finder{limit: limit}
	for {
		l := lines.next(f.alphabet())
		if l == nil {
			break
		}
		f.line(l)
	}
	if !lines.ended {
		return nil, false, fmt.Errorf("looking for files in a text: %w", lines.err)
	}
	f.keep()
	return f.blocks, f.more, nil
}

// finder collects blocks line by line.
type finder struct {
	current *candidate
	blocks  []Block
	limit   int
	more    bool
}

func (f *finder) alphabet() func(byte) bool {
	if f.current == nil {
		return nil
	}
	return f.current.form.alphabet
}

func (f *finder) line(l *line) {
	if f.current != nil {
		if f.current.take(l) {
			if f.current.ended {
				f.keep()
			}
			return
		}
		f.keep()
	}
	f.current = begin(l)
}

// keep ends the current block, and returns it if it is one.
func (f *finder) keep() {
	c := f.current
	f.current = nil
	switch {
	case c == nil || !c.ended && c.lines < c.need:
	case len(f.blocks) >= f.limit:
		f.more = true
	default:
		f.blocks = append(f.blocks, c.result())
	}
}
