package rewrite

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime/quotedprintable"
	"slices"
	"strings"
)

// splice replaces a range of the decoded text of a part that stays, in bytes; the text is in the part's charset.
type splice struct {
	start, end int64
	text       string
}

// sorted returns splices in the order of the text. What is only put in comes before what replaces something at the same
// place; else those stay in the order in which they were added.
func sorted(splices []splice) []splice {
	splices = slices.Clone(splices)
	slices.SortStableFunc(splices, func(a, b splice) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.end, b.end))
	})
	return splices
}

// inOriginal returns the place in a text that is at, in bytes, once splices are made: before one that is made there.
func inOriginal(splices []splice, at int64) int64 {
	shift := int64(0)
	for _, s := range sorted(splices) {
		start := s.start - shift
		if at <= start {
			break
		}
		if at < start+int64(len(s.text)) {
			return s.start
		}
		shift += s.end - s.start - int64(len(s.text))
	}
	return at + shift
}

// spliced reads a text with splices made.
func spliced(text io.Reader, splices []splice) (io.Reader, error) {
	readers := make([]io.Reader, 0, 3*len(splices)+1)
	at := int64(0)
	for _, s := range sorted(splices) {
		if s.start < at {
			return nil, errors.New("the plan's splices overlap")
		}
		readers = append(readers, &exactReader{r: text, left: s.start - at}, strings.NewReader(s.text), &dropReader{r: text, left: s.end - s.start})
		at = s.end
	}
	return io.MultiReader(append(readers, text)...), nil
}

// exactReader reads left bytes, and fails if there are fewer.
type exactReader struct {
	r    io.Reader
	left int64
}

func (e *exactReader) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	if e.left -= int64(n); errors.Is(err, io.EOF) && e.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// dropReader passes over left bytes at the first read, and gives none.
type dropReader struct {
	r    io.Reader
	left int64
}

func (d *dropReader) Read([]byte) (int, error) {
	n, err := io.CopyN(io.Discard, d.r, d.left)
	if d.left -= n; errors.Is(err, io.EOF) {
		return 0, io.ErrUnexpectedEOF
	}
	if err != nil {
		return 0, err
	}
	return 0, io.EOF
}

// textEdits returns the edits of the source that make splices of the decoded text of p. The bytes around them stay as they
// are, but for base64, which is encoded anew.
func textEdits(src io.ReaderAt, p *part, splices []splice) ([]edit, error) {
	splices = sorted(splices)
	switch p.encoding {
	case "base64":
		return []edit{{span{p.body, p.end}, func(w io.Writer) error {
			lines := &base64Lines{w: w}
			digits := base64.NewEncoder(base64.StdEncoding, lines)
			if err := merge(digits, src, p, splices); err != nil {
				return err
			}
			if err := closing(digits); err != nil {
				return err
			}
			return lines.flush()
		}}}, nil
	case "quoted-printable":
		return quotedEdits(src, p, splices)
	}
	edits := make([]edit, len(splices))
	for i, s := range splices {
		edits[i] = replace(span{p.body + s.start, p.body + s.end}, s.text)
	}
	return edits, nil
}

// requoted returns the edit that writes the text of p, with splices made, in quoted-printable.
func requoted(src io.ReaderAt, p *part, splices []splice) edit {
	return edit{span{p.body, p.end}, func(w io.Writer) error {
		q := quotedprintable.NewWriter(w)
		if err := merge(q, src, p, splices); err != nil {
			return err
		}
		return closing(q)
	}}
}

// merge writes the decoded text of p with splices made.
func merge(w io.Writer, src io.ReaderAt, p *part, splices []splice) error {
	text, err := spliced(decoder(src, p), splices)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, text); err != nil {
		return fmt.Errorf("write a text: %w", err)
	}
	return nil
}

func closing(c io.Closer) error {
	if err := c.Close(); err != nil {
		return fmt.Errorf("end a text: %w", err)
	}
	return nil
}

// quotedEdits leaves the encoded text around the splices as it stands.
func quotedEdits(src io.ReaderAt, p *part, splices []splice) ([]edit, error) {
	r, at := newQPReader(section(src, span{p.body, p.end})), int64(0)
	var edits []edit
	pass := func(to int64) error {
		_, err := io.CopyN(io.Discard, r, to-at)
		at = to
		return err
	}
	for _, s := range splices {
		if err := pass(s.start); err != nil {
			return nil, fmt.Errorf("find a place in a text: %w", err)
		}
		r.skipBreaks()
		from := p.body + r.at
		if err := pass(s.end); err != nil {
			return nil, fmt.Errorf("find a place in a text: %w", err)
		}
		text, err := quotedBetween(src, p, span{from, p.body + r.at}, s.text)
		if err != nil {
			return nil, err
		}
		edits = append(edits, replace(span{from, p.body + r.at}, text))
	}
	return edits, nil
}

// quotedBetween encodes what stands in the place of a range. Where it meets the middle of a line, a soft line break keeps
// lines short and white space from being lost at their ends.
func quotedBetween(src io.ReaderAt, p *part, hole span, text string) (string, error) {
	if text == "" {
		return "", nil
	}
	quoted, err := quote(text)
	if err != nil {
		return "", err
	}
	before := make([]byte, min(hole.start-p.body, 1))
	if _, err := src.ReadAt(before, hole.start-int64(len(before))); err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("find a place in a text: %w", err)
	}
	if len(before) > 0 && before[0] != '\n' && (isPage(p.typ) || quoted[0] != '\r') {
		quoted = append([]byte("=\r\n"), quoted...)
	}
	if hole.end < p.end && !bytes.HasSuffix(quoted, []byte{'\n'}) {
		quoted = append(quoted, "=\r\n"...)
	}
	return string(quoted), nil
}

// base64Lines breaks base64 into lines of 76 characters (RFC 2045 section 6.8).
type base64Lines struct {
	w   io.Writer
	buf [78]byte
	n   int
}

func (l *base64Lines) Write(digits []byte) (int, error) {
	for done := 0; done < len(digits); {
		n := copy(l.buf[l.n:76], digits[done:])
		l.n += n
		done += n
		if l.n == 76 {
			if err := l.flush(); err != nil {
				return done, err
			}
		}
	}
	return len(digits), nil
}

func (l *base64Lines) flush() error {
	if l.n == 0 {
		return nil
	}
	text := append(l.buf[:l.n], '\r', '\n')
	l.n = 0
	if _, err := l.w.Write(text); err != nil {
		return fmt.Errorf("write a text: %w", err)
	}
	return nil
}
