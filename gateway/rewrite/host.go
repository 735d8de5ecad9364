package rewrite

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
)

// host is a body that may carry the notice.
type host struct {
	part *part
	html bool
	text *textCount
	// usable is false where the notice cannot be written exactly: then it gets a part of its own.
	usable bool
	// at is where it goes, in decoded bytes; -1 is the end.
	at int64
}

// chooseHosts looks for the first text/plain and the first text/html that stay, outside of signatures and
// reports: what agents read.
func (p *Plan) chooseHosts() error {
	var plain, markup *part
	p.msg.root.walk(func(q *part) bool {
		if p.fates[q] == leaves || q.typ == "multipart/signed" || q.typ == "multipart/report" {
			return false
		}
		switch {
		case q.isMultipart():
		case plain == nil && q.typ == "text/plain":
			plain = q
		case markup == nil && q.typ == "text/html":
			markup = q
		}
		return true
	})
	for _, q := range []*part{plain, markup} {
		if q == nil || p.fates[q] == replaced {
			continue
		}
		h, err := p.newHost(q)
		if err != nil {
			return err
		}
		p.hosts = append(p.hosts, h)
	}
	return nil
}

func (p *Plan) newHost(q *part) (*host, error) {
	h := &host{part: q, html: q.typ == "text/html", text: newTextCount()}
	if !q.blank && q.body < q.end || !knownEncoding(q.encoding) || !p.takesNotice(q) {
		return h, nil
	}
	place := &htmlPlace{}
	text := io.TeeReader(decoder(p.msg.src, q), h.text)
	var err error
	if h.html {
		err = place.find(text)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, text)
	}
	if errors.Is(err, errDirty) {
		return h, nil
	}
	if err == nil {
		err = h.text.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("read a text: %w", err)
	}
	h.usable = true
	long := h.text.characters > longText || p.fates[q] == copied
	switch {
	case h.html:
		h.at = place.choose(long)
	case long || h.text.signature:
		h.at = 0
	default:
		h.at = -1
	}
	return h, nil
}

// takesNotice reports whether the notice can be written in q's charset. In a page that will be cut, where nothing but the
// place above the text is sure to be seen, that is any charset of one byte each that contains ASCII, as the notice is then.
func (p *Plan) takesNotice(q *part) bool {
	if q.charset == "" || isUTF8(q.charset) || isASCII(q.charset) {
		return true
	}
	table, ok := encodingOf(q.charset).(*charmap.Charmap)
	if !ok || p.fates[q] != copied {
		return false
	}
	for b := range byte(utf8.RuneSelf) {
		if table.DecodeByte(b) != rune(b) {
			return false
		}
	}
	return true
}

// carries reports whether h can carry the notice exactly.
func (h *host) carries(n *notice) bool {
	switch {
	case !h.usable:
		return false
	case h.html, n.ascii(), isUTF8(h.part.charset):
		return true
	}
	return !h.text.broken // it will be labelled UTF-8
}

// change says how the header of h must change so that it can carry the notice: its charset to UTF-8, its
// transfer encoding to quoted-printable.
func (h *host) change(n *notice) (charset, requote bool) {
	if h.html || n.ascii() {
		return false, false // the HTML notice is ASCII always
	}
	identity := h.part.encoding != "base64" && h.part.encoding != "quoted-printable"
	eightBit := h.part.encoding == "8bit" || h.part.encoding == "binary" || h.text.wide
	return !isUTF8(h.part.charset), identity && !eightBit
}

// withCharset returns a Content-Type field like the given one, but in UTF-8. typ is the type where there is no field.
func withCharset(old []byte, typ string) string {
	params := map[string]string{}
	if old != nil {
		v := parseValue(field{raw: old}.value())
		for _, p := range v.params {
			name, _, _ := strings.Cut(p.name, "*")
			if text, _, ok := v.get(name); ok {
				params[name] = text
			}
		}
	}
	params["charset"] = "utf-8"
	if text := mime.FormatMediaType(typ, params); text != "" {
		return "Content-Type: " + text + "\r\n"
	}
	return "Content-Type: " + typ + "; charset=utf-8\r\n"
}
