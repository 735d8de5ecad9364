package rewrite

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"strings"

	"github.com/gabriel-vasile/mimetype"
)

// DefaultInlineImage is how many bytes a picture that a page shows may have, decoded, if it is to stay.
const DefaultInlineImage = 16 << 10

// maxReference is how long a reference to a part may be.
const maxReference = 2048

// isPictureType reports whether a media type is that of a picture which can stay. An SVG is a document that can hold others.
func isPictureType(typ string) bool {
	switch typ {
	case "image/png", "image/x-png", "image/jpeg", "image/jpg", "image/pjpeg", "image/gif", "image/webp", "image/bmp", "image/x-ms-bmp":
		return true
	}
	return false
}

// isPicture reports whether a file that begins with head is what isPictureType promises.
func isPicture(head []byte) bool {
	for found := mimetype.Detect(head); found != nil; found = found.Parent() {
		switch found.String() {
		case "image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp":
			return true
		}
	}
	return false
}

// keepPictures settles the pictures that are to be sealed and that a page which stays shows, by their Content-ID (RFC
// 2392) or their Content-Location (RFC 2557): a small one stays as it is, and another is taken the place of.
func (p *Plan) keepPictures() error {
	wanted, err := p.namedPictures()
	if err != nil || len(wanted) == 0 {
		return err
	}
	var shown []*part
	p.msg.root.walk(func(q *part) bool {
		if err == nil && q.typ == "text/html" && p.fates[q] != leaves && len(q.children) == 0 {
			err = p.eachReference(q, func(ref string) {
				shown = append(shown, wanted[ref]...)
				delete(wanted, ref)
			})
		}
		return err == nil && p.fates[q] != leaves
	})
	if err != nil {
		return fmt.Errorf("look for pictures in a page: %w", err)
	}
	for _, q := range shown {
		p.fates[q] = pictured
	}
	for _, q := range shown {
		if err := p.keepPicture(q); err != nil {
			return err
		}
	}
	return nil
}

// keepPicture lets q stay if a page shows it and it is small.
func (p *Plan) keepPicture(q *part) error {
	if p.fates[q] != pictured {
		return nil
	}
	item, err := leafItem(p.msg.src, q, "")
	if err != nil {
		return err
	}
	if q.doubt != "" || !knownEncoding(q.encoding) || item.Size == 0 || item.Size > p.rules.InlineImage || !isPictureType(q.typ) || !isPictureName(q.name) {
		return nil
	}
	head, err := readHead(item.Open(), min(maxHead, item.Size))
	if err != nil || !isPicture(head) {
		return err
	}
	archive, err := holdsArchive(item.Open())
	if err == nil && !archive {
		delete(p.fates, q)
		p.whys[q] = "a small picture that the page shows"
	}
	return err
}

// isPictureName reports whether nobody's computer takes a file of this name for more than a picture.
func isPictureName(name string) bool {
	switch nameExtension(name) {
	case "", ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".webp", ".bmp", ".dib":
		return true
	}
	return false
}

// holdsArchive reports whether a file has the end of a ZIP in it: readers of those look for it from behind, and so take a
// picture for one.
func holdsArchive(r io.Reader) (bool, error) {
	const end = "PK\x05\x06"
	chunk := make([]byte, 8<<10)
	held := 0
	for {
		n, err := io.ReadFull(r, chunk[held:])
		text := chunk[:held+n]
		switch {
		case bytes.Contains(text, []byte(end)):
			return true, nil
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return false, nil
		case err != nil:
			return false, fmt.Errorf("look for an archive in a picture: %w", err)
		}
		held = copy(chunk, text[len(text)-len(end)+1:])
	}
}

// namedPictures returns the pictures that would leave, by what a page can call them: "cid:" and an identifier, or a
// location.
func (p *Plan) namedPictures() (map[string][]*part, error) {
	wanted := make(map[string][]*part)
	var err error
	p.msg.root.walk(func(q *part) bool {
		if err != nil || q.parent == nil || len(q.children) > 0 || p.fates[q] != leaves || !strings.HasPrefix(q.typ, "image/") {
			return err == nil
		}
		block := make([]byte, q.body-q.start)
		if _, failed := p.msg.src.ReadAt(block, q.start); failed != nil && !errors.Is(failed, io.EOF) {
			err = fmt.Errorf("read a header: %w", failed)
			return false
		}
		for _, f := range fields(block, q.start) {
			switch value := f.value(); {
			case value == "":
			case f.name == "content-id":
				id := "cid:" + strings.TrimSuffix(strings.TrimPrefix(value, "<"), ">")
				wanted[id] = append(wanted[id], q)
			case f.name == "content-location":
				at := strings.Join(strings.Fields(value), "")
				wanted[at] = append(wanted[at], q)
			}
		}
		return true
	})
	return wanted, err
}

// eachReference calls found with every word of the page q that may be a reference, a "cid:" in lower case and percent-
// decoded (RFC 2392 section 2).
func (p *Plan) eachReference(q *part, found func(string)) error {
	open, _, err := p.view(q)
	if err != nil {
		return err
	}
	in := bufio.NewReaderSize(open(), bufferSize/2)
	var word []byte
	for {
		b, err := in.ReadByte()
		if err == nil && strings.IndexByte(" \t\r\n\"'()<>", b) < 0 {
			if len(word) <= maxReference {
				word = append(word, b)
			}
			continue
		}
		if len(word) > 0 && len(word) <= maxReference {
			refer(word, found)
		}
		word = word[:0]
		if errors.Is(err, io.EOF) || errors.Is(err, errDirty) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func refer(word []byte, found func(string)) {
	text := html.UnescapeString(string(word))
	found(text)
	if _, value, ok := strings.Cut(text, "="); ok { // an attribute without quotation marks
		found(value)
	}
	if at := bytes.Index(bytes.ToLower(word), []byte("cid:")); at >= 0 {
		id := html.UnescapeString(string(word[at+len("cid:"):]))
		for _, id := range []string{id, strings.TrimRight(id, ",;")} {
			found("cid:" + id)
			found("cid:" + percentDecode(id))
		}
	}
}

// pictureEdits put placeholders in the place of pictures. The header stays but for what describes the picture.
func (p *Plan) pictureEdits() ([]edit, error) {
	var edits []edit
	for q, fate := range p.fates {
		if fate != pictured {
			continue
		}
		picture, err := placeholder()
		if err != nil {
			return nil, err
		}
		var body bytes.Buffer
		lines := &base64Lines{w: &body}
		if _, err := lines.Write([]byte(base64.StdEncoding.EncodeToString(picture))); err != nil {
			return nil, err
		}
		if err := lines.flush(); err != nil {
			return nil, err
		}
		described := "Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: inline\r\n"
		more, err := replaceBody(p.msg.src, q, described, strings.TrimSuffix(body.String(), "\r\n"))
		if err != nil {
			return nil, err
		}
		edits = append(edits, more...)
	}
	return edits, nil
}

// placeholder returns the picture that stands for a sealed one: a lock in grey, as PNG, of some hundred bytes.
func placeholder() ([]byte, error) {
	ground, ink := color.Gray{Y: 0xe4}, color.Gray{Y: 0x80}
	canvas := image.NewPaletted(image.Rect(0, 0, 48, 48), color.Palette{ground, ink})
	fill := func(x0, y0, x1, y1 int, c color.Color) {
		draw.Draw(canvas, image.Rect(x0, y0, x1, y1), image.NewUniform(c), image.Point{}, draw.Src)
	}
	fill(16, 10, 32, 24, ink) // the shackle
	fill(19, 13, 29, 24, ground)
	fill(12, 22, 36, 39, ink) // the body, with a keyhole
	fill(22, 27, 26, 34, ground)
	var out bytes.Buffer
	if err := png.Encode(&out, canvas); err != nil {
		return nil, fmt.Errorf("draw a placeholder: %w", err)
	}
	return out.Bytes(), nil
}
