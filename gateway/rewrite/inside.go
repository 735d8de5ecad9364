package rewrite

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"sealpost/gateway/rewrite/encoded"
)

const (
	// maxInside is the most files in the text of one part that are taken out one by one. A text with more is sealed.
	maxInside = 100
	// maxPassedOver bounds the bytes that are decoded to come to the files in a text, each time that they are read.
	maxPassedOver = 512 << 20
)

// inside is what is taken out of the text of a part that stays.
type inside struct {
	splices []splice // in the order of the text
	items   []Item   // likewise
	masked  bool     // some splices are masks of personal data
}

// passedOver is how much of the text stands before the files in it, counted for each.
func (i inside) passedOver() (total int64) {
	for _, s := range i.splices {
		total += s.start
	}
	return total
}

// lookInside finds the files in the text of q, which is to stay, and takes them out. Where a file is found and the text
// cannot be cut as exactly as it was read, all of q is sealed.
func (p *Plan) lookInside(q *part) error {
	if !isBodyType(q.typ) {
		return nil
	}
	open, exact, err := p.view(q)
	if err != nil {
		return fmt.Errorf("look for files in a text: %w", err)
	}
	found, tooMany, err := p.search(q, open)
	if errors.Is(err, errDirty) {
		raw := span{q.body, q.end}
		open, exact = func() io.Reader { return &junkReader{in: section(p.msg.src, raw)} }, false
		found, tooMany, err = p.search(q, open)
	}
	switch {
	case err != nil:
		return fmt.Errorf("look for files in a text: %w", err)
	case tooMany, !exact && len(found.items) > 0, found.passedOver() > maxPassedOver:
		p.fates[q] = leaves
		p.whys[q] += ", but with files in it that cannot be cut out"
	case len(found.items) > 0:
		p.inside[q] = found
	}
	return nil
}

// view returns how the text of q is read to find something in it, in bytes that contain ASCII. exact tells that they are
// those of the text itself.
func (p *Plan) view(q *part) (open func() io.Reader, exact bool, err error) {
	decoded := func() io.Reader { return decoder(p.msg.src, q) }
	if !knownEncoding(q.encoding) {
		return decoded, false, nil
	}
	head := make([]byte, 256)
	n, err := io.ReadFull(decoded(), head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, errDirty) {
		return nil, false, err
	}
	if isUTF16(q.charset, head[:n]) {
		return func() io.Reader { return &narrowReader{r: decoded()} }, false, nil
	}
	const sample = "<data:begin =MESSAGE-644>"
	enc := encodingOf(q.charset)
	if enc == nil {
		return decoded, true, nil
	}
	if text, err := enc.NewDecoder().String(sample); err == nil && text == sample {
		return decoded, true, nil
	}
	return func() io.Reader { return enc.NewDecoder().Reader(decoded()) }, false, nil
}

// isUTF16 reports whether a text is in UTF-16 or UTF-32, of either byte order, by its charset or its first bytes.
func isUTF16(charset string, head []byte) bool {
	charset = strings.ToLower(strings.ReplaceAll(charset, "-", ""))
	for _, prefix := range []string{"utf16", "utf32", "ucs", "iso10646"} {
		if strings.HasPrefix(charset, prefix) {
			return true
		}
	}
	return bytes.IndexByte(head, 0) >= 0 || bytes.HasPrefix(head, []byte("\xfe\xff")) || bytes.HasPrefix(head, []byte("\xff\xfe"))
}

// narrowReader gives the ASCII of a text in UTF-16 or UTF-32 without the zero bytes beside it; the rest becomes junk.
type narrowReader struct{ r io.Reader }

func (r *narrowReader) Read(p []byte) (int, error) {
	for {
		n, err := r.r.Read(p)
		kept := 0
		for _, b := range p[:n] {
			if b != 0 {
				p[kept] = b
				kept++
			}
		}
		if kept > 0 || err != nil || len(p) == 0 {
			return kept, err
		}
	}
}

// search reads the text of q twice if it is HTML, and else once.
func (p *Plan) search(q *part, open func() io.Reader) (found inside, tooMany bool, err error) {
	blocks, tooMany, err := encoded.Find(open(), maxInside)
	if err != nil || tooMany {
		return found, tooMany, err
	}
	for _, b := range blocks {
		found.splices = append(found.splices, splice{start: b.Start, end: b.End})
		found.items = append(found.items, p.blockItem(q, b))
	}
	if !isPage(q.typ) {
		return found, false, nil
	}
	uris, tooMany, err := findDataURIs(open(), maxInside, func(u *dataURI) bool { return u.isFile(p.rules.InlineImage) })
	if err != nil || tooMany {
		return found, tooMany, err
	}
	for _, u := range uris {
		if err := p.takeURI(q, &u, &found); err != nil {
			return found, false, err
		}
	}
	return found, false, nil
}

// takeURI puts a URI among what was found, unless it stands in a block, with which it goes.
func (p *Plan) takeURI(q *part, u *dataURI, found *inside) error {
	at, _ := slices.BinarySearchFunc(found.splices, u.start, func(s splice, start int64) int { return cmp.Compare(s.end, start+1) })
	if at < len(found.splices) && found.splices[at].start < u.end {
		return nil
	}
	instead, err := u.instead()
	if err != nil {
		return err
	}
	p.taken++
	found.splices = slices.Insert(found.splices, at, splice{start: u.start, end: u.end, text: instead})
	found.items = slices.Insert(found.items, at, p.uriItem(q, u, p.taken))
	return nil
}

// blockItem is the file in a block of text. In HTML its characters may be escaped, so there it is sealed as it stands.
func (p *Plan) blockItem(q *part, b encoded.Block) Item {
	item := Item{Name: toUTF8(b.Name, q.charset), Type: "application/octet-stream", Size: b.Size, open: func() io.Reader {
		return b.Open(p.textBetween(q, b.Start, b.End))
	}}
	if isPage(q.typ) {
		b.AsItStands = true
		item.Size = b.End - b.Start
		item.open = func() io.Reader { return p.textBetween(q, b.Start, b.End) }
	}
	if b.AsItStands {
		item.ext = blockExtension(b.Kind)
	}
	if item.Name != "" {
		item.Name += item.ext
	}
	return item
}

// blockExtension says in which form a file is that was sealed as it stands.
func blockExtension(kind encoded.Kind) string {
	switch kind {
	case encoded.UU:
		return ".uue"
	case encoded.Yenc:
		return ".yenc"
	case encoded.Binhex:
		return ".hqx"
	case encoded.PGP:
		return ".asc"
	}
	return ".txt"
}

// textBetween reads a range of the decoded text of q.
func (p *Plan) textBetween(q *part, start, end int64) io.Reader {
	r := decoder(p.msg.src, q)
	return io.MultiReader(&dropReader{r: r, left: start}, &exactReader{r: r, left: end - start})
}

// textOf reads the decoded text of q without what is taken out of it.
func (p *Plan) textOf(q *part) (io.Reader, error) {
	return spliced(decoder(p.msg.src, q), p.inside[q].splices)
}

// junkReader decodes base64 as the most forgiving readers do: whatever is no digit is passed over, and padding ends a
// group. It is for looking only.
type junkReader struct {
	in     io.Reader
	buf    *bufio.Reader
	bits   uint32
	digits int
}

func (r *junkReader) Read(p []byte) (int, error) {
	if r.buf == nil {
		r.buf = bufio.NewReader(r.in)
	}
	n := 0
	for n < len(p) {
		c, err := r.buf.ReadByte()
		if err != nil {
			return n, err
		}
		v, ok := base64Digit(c)
		if c == '=' {
			r.bits, r.digits = 0, 0
		}
		if !ok {
			continue
		}
		r.bits = r.bits<<6 | uint32(v)
		if r.digits++; r.digits > 1 {
			p[n] = byte(r.bits >> (2 * (4 - r.digits)))
			n++
		}
		if r.digits == 4 {
			r.bits, r.digits = 0, 0
		}
	}
	return n, nil
}

func base64Digit(c byte) (byte, bool) {
	switch {
	case c >= 'A' && c <= 'Z':
		return c - 'A', true
	case c >= 'a' && c <= 'z':
		return c - 'a' + 26, true
	case c >= '0' && c <= '9':
		return c - '0' + 52, true
	case c == '+':
		return 62, true
	case c == '/':
		return 63, true
	}
	return 0, false
}
