package rewrite

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"slices"
	"strings"
)

// host is a body that may carry the notice.
type host struct {
	part   *part
	html   bool
	text   *textCount
	script script
	// usable is false where the notice cannot be written exactly: then it gets a part of its own.
	usable bool
	// at is where it goes, in decoded bytes; -1 is the end.
	at int64
	// size is that of the decoded text without what is taken out of it, in bytes as it stands.
	size tally
}

// tally counts what is written to it.
type tally int64

func (t *tally) Write(p []byte) (int, error) {
	*t += tally(len(p))
	return len(p), nil
}

// bodies returns the first text/plain and the first text/html that stay, outside of signatures, reports and forwarded
// messages: what agents read. Either may be nil.
func (p *Plan) bodies() [2]*part {
	var bodies [2]*part
	p.msg.root.walk(func(q *part) bool {
		if p.fates[q] == leaves || q.message || q.typ == "multipart/signed" && !p.isUnsigned(q) || q.typ == "multipart/report" {
			return false
		}
		switch {
		case q.isMultipart():
		case bodies[0] == nil && q.typ == "text/plain":
			bodies[0] = q
		case bodies[1] == nil && q.typ == "text/html":
			bodies[1] = q
		}
		return true
	})
	return bodies
}

func (p *Plan) chooseHosts(place Place) error {
	p.hosts = nil
	for _, q := range p.bodies() {
		if q == nil || p.fates[q] == replaced {
			continue
		}
		h, err := p.newHost(q, place)
		if err != nil {
			return err
		}
		p.hosts = append(p.hosts, h)
	}
	return nil
}

func (p *Plan) newHost(q *part, place Place) (*host, error) {
	h := &host{part: q, html: q.typ == "text/html", text: newTextCount()}
	if !q.blank && q.body < q.end || !knownEncoding(q.encoding) {
		return h, nil
	}
	err := p.measureHost(h, place)
	switch {
	case err == nil:
		h.usable = true
	case errors.Is(err, errDirty), errors.Is(err, errCharset), errors.Is(err, errText):
	default:
		return nil, fmt.Errorf("read a text: %w", err)
	}
	return h, nil
}

// measureHost reads the text of h without what is taken out of it, and finds the place of the notice.
func (p *Plan) measureHost(h *host, at Place) error {
	head, err := readHead(decoder(p.msg.src, h.part), 3)
	if err != nil {
		return err
	}
	if h.script, err = scriptOf(h.part.charset, head); err != nil {
		return err
	}
	left, err := p.textOf(h.part)
	if err != nil {
		return err
	}
	page := &htmlPlace{}
	broken := &brokenFinder{}
	text := io.TeeReader(h.script.reader(io.TeeReader(left, &h.size)), io.MultiWriter(h.text, broken))
	if h.html {
		err = page.find(text)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, text)
	}
	if err == nil {
		err = h.text.Close()
	}
	if err != nil {
		return err
	}
	if h.html && page.nowhere() || broken.found && h.script.coding != nil && !h.script.single {
		return errText // half a character before the notice would take a part of it
	}
	return p.settleHost(h, page, at)
}

// brokenFinder looks for what a decoder writes in the place of what it cannot read.
type brokenFinder struct {
	found bool
	tail  []byte
}

func (f *brokenFinder) Write(p []byte) (int, error) {
	const replacement = "\uFFFD"
	edge := slices.Concat(f.tail, p[:min(len(p), len(replacement)-1)])
	f.found = f.found || bytes.Contains(edge, []byte(replacement)) || bytes.Contains(p, []byte(replacement))
	f.tail = append(f.tail[:0], p[max(0, len(p)-len(replacement)+1):]...)
	return len(p), nil
}

// settleHost turns the place of the notice into one of the text as it came.
func (p *Plan) settleHost(h *host, page *htmlPlace, at Place) error {
	top := h.text.characters > longText || p.fates[h.part] == copied || at == PlaceTop
	switch {
	case h.html:
		h.at = page.choose(top)
	case top || h.text.signature && at != PlaceBottom:
		h.at = 0
	default:
		h.at = -1
	}
	switch {
	case h.at == 0:
		h.at = h.script.mark // in every charset the text begins there, and in its first state
		return nil
	case h.at < 0 && !h.script.stateful:
		return nil
	}
	left, err := p.textOf(h.part)
	if err != nil {
		return err
	}
	place := h.at
	if place < 0 {
		place = h.text.size // where the text must be back in ASCII
	}
	if place, err = h.script.offset(left, place); err != nil {
		return err
	}
	if h.at >= 0 {
		h.at = inOriginal(p.inside[h.part].splices, place)
	}
	return nil
}

// carries reports whether h can carry the notice exactly.
func (h *host) carries(n *notice) bool {
	switch {
	case !h.usable:
		return false
	case h.html, n.ascii(), isUTF8(h.part.charset):
		return true
	case h.script.coding != nil:
		return h.script.length(n.plain()) <= maxNotice
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
	return h.script.coding == nil && !isUTF8(h.part.charset), identity && !eightBit && !h.script.stateful
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
