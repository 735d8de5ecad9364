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
)

// edit replaces a range of the source by what write gives.
type edit struct {
	span
	write func(io.Writer) error
}

func replace(s span, with string) edit {
	return edit{s, func(w io.Writer) error { return writeString(w, with) }}
}

func remove(s span) edit { return edit{s, func(io.Writer) error { return nil }} }

func writeString(w io.Writer, s string) error {
	if _, err := io.WriteString(w, s); err != nil {
		return fmt.Errorf("write the mail: %w", err)
	}
	return nil
}

func copySpan(w io.Writer, src io.ReaderAt, s span) error {
	n, err := io.Copy(w, io.LimitReader(section(src, s), s.size())) // which makes io.Copy's buffer no larger
	if err == nil && n < s.size() {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("copy the mail: %w", err)
	}
	return nil
}

// apply copies a range of the source through the edits that lie in it. Edits at the same place are made in
// the order in which they were added.
func apply(w io.Writer, src io.ReaderAt, s span, edits []edit) error {
	slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Compare(a.start, b.start) })
	at := s.start
	for _, e := range edits {
		if e.start < at || e.end > s.end {
			return errors.New("the plan's edits overlap")
		}
		if err := copySpan(w, src, span{at, e.start}); err != nil {
			return err
		}
		if err := e.write(w); err != nil {
			return err
		}
		at = e.end
	}
	return copySpan(w, src, span{at, s.end})
}

// insertion returns the edits that put the notice into h.
func (h *host) insertion(src io.ReaderAt, n *notice) ([]edit, error) {
	charset, requote := h.change(n)
	var edits []edit
	if charset || requote {
		var err error
		if edits, err = h.headerEdits(src, charset, requote); err != nil {
			return nil, err
		}
	}
	text := h.words(n)
	body := span{h.part.body, h.part.end}
	switch {
	case requote:
		return append(edits, edit{body, func(w io.Writer) error {
			q := quotedprintable.NewWriter(w)
			if err := h.merge(q, src, text); err != nil {
				return err
			}
			return closing(q)
		}}), nil
	case h.part.encoding == "base64":
		return append(edits, edit{body, func(w io.Writer) error {
			lines := &base64Lines{w: w}
			digits := base64.NewEncoder(base64.StdEncoding, lines)
			if err := h.merge(digits, src, text); err != nil {
				return err
			}
			if err := closing(digits); err != nil {
				return err
			}
			return lines.flush()
		}}), nil
	case h.part.encoding == "quoted-printable":
		e, err := h.quotedInsertion(src, text)
		return append(edits, e), err
	}
	at := body.end
	if h.at >= 0 {
		at = body.start + h.at
	}
	return append(edits, replace(span{at, at}, text)), nil
}

// words returns the notice in h's form, with the lines that set it apart from the text.
func (h *host) words(n *notice) string {
	switch {
	case h.html:
		return n.html()
	case h.at == 0:
		return n.plain() + "\r\n"
	case h.text.endsLine():
		return "\r\n" + n.plain()
	}
	return "\r\n\r\n" + n.plain()
}

// merge writes the decoded text of h with the notice in it.
func (h *host) merge(w io.Writer, src io.ReaderAt, text string) error {
	r := decoder(src, h.part)
	if h.at >= 0 {
		if _, err := io.CopyN(w, r, h.at); err != nil {
			return fmt.Errorf("write a text: %w", err)
		}
		if err := writeString(w, text); err != nil {
			return err
		}
	}
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("write a text: %w", err)
	}
	if h.at < 0 {
		return writeString(w, text)
	}
	return nil
}

func closing(c io.Closer) error {
	if err := c.Close(); err != nil {
		return fmt.Errorf("end a text: %w", err)
	}
	return nil
}

// quotedInsertion leaves the encoded text as it stands, and adds the encoded notice between two of its bytes.
func (h *host) quotedInsertion(src io.ReaderAt, text string) (edit, error) {
	quoted, err := quote(text)
	if err != nil {
		return edit{}, err
	}
	body := span{h.part.body, h.part.end}
	at := body.end
	if h.at >= 0 {
		r := newQPReader(section(src, body))
		if _, err := io.CopyN(io.Discard, r, h.at); err != nil {
			return edit{}, fmt.Errorf("find the place of the notice: %w", err)
		}
		r.skipBreaks()
		at = body.start + r.at
	}
	before := make([]byte, min(at-body.start, 2))
	if _, err := src.ReadAt(before, at-int64(len(before))); err != nil && !errors.Is(err, io.EOF) {
		return edit{}, fmt.Errorf("find the place of the notice: %w", err)
	}
	if h.html && len(before) > 0 && !bytes.HasSuffix(before, []byte{'\n'}) {
		quoted = append([]byte("=\r\n"), quoted...) // white space before it would be lost at a hard line end
	}
	return replace(span{at, at}, string(quoted)), nil
}

// headerEdits returns the changes to the header of h.
func (h *host) headerEdits(src io.ReaderAt, charset, requote bool) ([]edit, error) {
	block := make([]byte, h.part.body-h.part.start)
	if _, err := src.ReadAt(block, h.part.start); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read a header: %w", err)
	}
	var edits []edit
	last := h.part.start
	typeDone, encodingDone := !charset, !requote
	for _, f := range fields(block, h.part.start) {
		last = f.end
		switch {
		case f.name == "content-type" && charset && typeDone, f.name == "content-transfer-encoding" && requote && encodingDone:
			edits = append(edits, remove(f.span)) // the same again
		case f.name == "content-type" && charset:
			edits = append(edits, replace(f.span, withCharset(f.raw, h.part.typ)))
			typeDone = true
		case f.name == "content-transfer-encoding" && requote:
			edits = append(edits, replace(f.span, "Content-Transfer-Encoding: quoted-printable\r\n"))
			encodingDone = true
		}
	}
	if !typeDone {
		edits = append(edits, replace(span{last, last}, withCharset(nil, h.part.typ)))
	}
	if !encodingDone {
		edits = append(edits, replace(span{last, last}, "Content-Transfer-Encoding: quoted-printable\r\n"))
	}
	return edits, nil
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
