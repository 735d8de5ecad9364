package rewrite

import (
	"cmp"
	"errors"
	"fmt"
	"io"
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

// insertion returns the edits that put the notice into h, beside others of the same text.
func (h *host) insertion(src io.ReaderAt, n *notice, others []splice) ([]edit, error) {
	charset, requote := h.change(n)
	var edits []edit
	if charset || requote {
		var err error
		if edits, err = h.headerEdits(src, charset, requote); err != nil {
			return nil, err
		}
	}
	at := h.at
	if at < 0 {
		at = inOriginal(others, int64(h.size))
	}
	words, err := h.script.write(h.words(n))
	if err != nil {
		return nil, err
	}
	splices := append(slices.Clone(others), splice{start: at, end: at, text: words})
	if requote {
		return append(edits, requoted(src, h.part, splices)), nil
	}
	more, err := textEdits(src, h.part, splices)
	return append(edits, more...), err
}

// words returns the notice in h's form, with the lines that set it apart from the text.
func (h *host) words(n *notice) string {
	switch {
	case h.html:
		return n.html()
	case h.at >= 0:
		return n.plain() + "\r\n"
	case h.text.endsLine():
		return "\r\n" + n.plain()
	}
	return "\r\n\r\n" + n.plain()
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
