package personal

import (
	"bytes"
	"io"
	"strings"
)

// htmlText is the text that a reader sees of HTML. It follows the tokenizer of HTML section 13.2.5 as far as that
// decides what is text, save that a script within a comment within a script ends at the first end tag.
type htmlText struct {
	r     io.Reader
	buf   [4096]byte
	i, n  int   // what of buf is yet to be read
	off   int64 // the offset in what was read of buf[0]
	ended bool

	state   state
	start   int64   // where the markup or reference begins
	saved   []byte  // the reference, or the name of the tag
	closing bool    // the tag is an end tag
	named   bool    // the tag's attribute has a name
	raw     string  // the element whose content is no text
	matched int     // how much of its end tag was seen
	dashes  int     // how many precede, in a comment
	opening bool    // they are those that begin it
	bang    bool    // -- and ! precede
	last    spacing // what the text ends with
}

type state int

const (
	inText state = iota
	inReference
	afterLess
	afterSlash
	inName
	inTag
	afterEquals
	inUnquoted
	inDouble
	inSingle
	inMarkup
	inComment
	inBogus
	inRaw
)

// spacing is what separates the text before from the text after, the strongest last.
type spacing int

const (
	closed    spacing = iota // nothing
	space                    // white space
	cell                     // another column
	line                     // another line
	paragraph                // another paragraph
)

// maxName is how much of a tag's name is kept: one more than any that means something.
const maxName = 11

func (h *htmlText) fill(w *window) error {
	for len(w.text) < full {
		if h.i == h.n {
			if h.ended {
				h.finish(w)
				w.ended = true
				return nil
			}
			h.off += int64(h.n)
			n, ended, err := read(h.r, h.buf[:])
			h.i, h.n, h.ended = 0, n, ended
			if err != nil {
				return err
			}
			continue
		}
		switch h.state {
		case inText:
			h.text(w)
		case inReference:
			h.reference(w)
		case afterLess:
			h.less(w)
		default:
			h.skip()
			h.markup(w, h.buf[h.i])
			h.i++
		}
	}
	return nil
}

// skip passes over markup that means nothing, up to the last byte of buf at most.
func (h *htmlText) skip() {
	var until byte
	switch {
	case h.state == inDouble:
		until = '"'
	case h.state == inSingle:
		until = '\''
	case h.state == inBogus:
		until = '>'
	case h.state == inRaw && h.matched == 0:
		until = '<'
	case h.state == inComment && h.dashes == 0 && !h.bang:
		until = '-'
	default:
		return
	}
	if n := bytes.IndexByte(h.buf[h.i:h.n], until); n >= 0 {
		h.i += n
	} else {
		h.i = h.n - 1
	}
}

// finish ends the text within whatever it ends.
func (h *htmlText) finish(w *window) {
	switch h.state {
	case inReference:
		h.resolve(w)
	case afterLess:
		w.appendLinear([]byte("<"), h.start)
	case afterSlash:
		w.appendLinear([]byte("</"), h.start)
	}
	h.state = inText
}

// text takes text up to the next byte that means something, or to where the window is full.
func (h *htmlText) text(w *window) {
	start := h.i
	end := min(h.n, start+full-len(w.text))
	for h.i < end && h.buf[h.i] != '<' && h.buf[h.i] != '&' {
		if c := h.buf[h.i]; c <= ' ' && (c != ' ' || h.i == start || h.buf[h.i-1] == ' ') {
			break
		}
		h.i++
	}
	if h.i > start {
		w.appendLinear(h.buf[start:h.i], h.off+int64(start))
		h.last = closed
		if h.buf[h.i-1] == ' ' {
			h.last = space
		}
		return
	}
	at := h.off + int64(h.i)
	switch c := h.buf[h.i]; c {
	case '<':
		h.state, h.start = afterLess, at
	case '&':
		h.state, h.start = inReference, at
		h.saved = append(h.saved[:0], c)
	case ' ', '\t', '\n', '\f', '\r':
		if h.last == closed {
			w.appendLinear([]byte(" "), at)
			h.last = space
		}
	default:
		w.appendLinear([]byte{c}, at)
		h.last = closed
	}
	h.i++
}

// reference gathers a character reference.
func (h *htmlText) reference(w *window) {
	c := h.buf[h.i]
	goesOn := alnum(c) || c == '#' && len(h.saved) == 1
	if goesOn || c == ';' {
		h.saved = append(h.saved, c)
		h.i++
	}
	if !goesOn || len(h.saved) == maxReference {
		h.resolve(w)
	}
}

// resolve adds what the reference means, and as text what turned out not to belong to it.
func (h *htmlText) resolve(w *window) {
	n, meaning := reference(h.saved)
	if n > 0 {
		w.appendAtomic(meaning, h.start, int64(n))
	}
	if n < len(h.saved) {
		w.appendLinear(h.saved[n:], h.start+int64(n))
	}
	h.last = closed
	h.state = inText
}

// less decides what a < begins.
func (h *htmlText) less(w *window) {
	c := h.buf[h.i]
	h.saved, h.closing = h.saved[:0], false
	switch {
	case letter(c):
		h.state = inName
		return
	case c == '/':
		h.state = afterSlash
	case c == '!':
		h.state, h.dashes = inMarkup, 0
	case c == '?':
		h.state = inBogus
	default:
		w.appendLinear([]byte("<"), h.start)
		h.state, h.last = inText, closed
		return
	}
	h.i++
}

// markup takes one byte of markup.
func (h *htmlText) markup(w *window, c byte) {
	switch h.state {
	case afterSlash:
		switch {
		case letter(c):
			h.closing = true
			h.saved = append(h.saved, lower(c))
			h.state = inName
		case c == '>':
			h.state = inText
		default:
			h.state = inBogus
		}
	case inMarkup:
		h.declaration(c)
	case inComment:
		h.comment(c)
	case inBogus:
		if c == '>' {
			h.state = inText
		}
	case inRaw:
		h.content(w, c)
	default:
		h.tag(w, c)
	}
}

// declaration decides what <! begins.
func (h *htmlText) declaration(c byte) {
	switch {
	case c == '-' && h.dashes == 1:
		h.state, h.dashes, h.opening, h.bang = inComment, 2, true, false
	case c == '-' && h.dashes == 0:
		h.dashes = 1
	case c == '>':
		h.state = inText
	default:
		h.state = inBogus
	}
}

// comment takes one byte of a comment. The two dashes that begin it may be those that end it,
// if no exclamation mark follows them.
func (h *htmlText) comment(c byte) {
	switch {
	case c == '>' && (h.dashes >= 2 || h.bang):
		h.state = inText
	case c == '-':
		h.dashes++
		h.bang = false
	default:
		h.bang = c == '!' && (h.dashes >= 4 || h.dashes >= 2 && !h.opening)
		h.dashes, h.opening = 0, false
	}
}

// tag takes one byte of a tag.
func (h *htmlText) tag(w *window, c byte) {
	isSpace := strings.IndexByte(" \t\n\f\r", c) >= 0
	switch h.state {
	case inDouble, inSingle:
		if c == '"' && h.state == inDouble || c == '\'' && h.state == inSingle {
			h.state, h.named = inTag, false
		}
		return
	case afterEquals:
		switch {
		case c == '"':
			h.state = inDouble
			return
		case c == '\'':
			h.state = inSingle
			return
		case isSpace:
			return
		}
		h.state = inUnquoted
	}
	switch {
	case c == '>':
		h.endTag(w)
	case isSpace && h.state != inTag, c == '/' && h.state == inName:
		h.state, h.named = inTag, false
	case isSpace:
	case h.state == inName && len(h.saved) < maxName:
		h.saved = append(h.saved, lower(c))
	case h.state == inTag && c == '=' && h.named:
		h.state = afterEquals
	case h.state == inTag:
		h.named = c != '/'
	}
}

// lower is the lower case of a letter.
func lower(c byte) byte {
	if letter(c) {
		c |= 0x20
	}
	return c
}

// endTag ends a tag, and separates the text before it from that after it as the element does.
func (h *htmlText) endTag(w *window) {
	h.state = inText
	switch name := string(h.saved); name {
	case "script", "style":
		if !h.closing {
			h.state, h.raw, h.matched = inRaw, "</"+name, 0
		}
	case "br":
		h.separate(w, line)
	case "td", "th":
		h.separate(w, cell)
	case "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins", "kbd",
		"label", "mark", "nobr", "o:p", "q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u",
		"var", "wbr":
	default:
		h.separate(w, paragraph)
	}
}

// separate adds a separation where there is none as strong. A line break after another one leaves an empty line.
func (h *htmlText) separate(w *window, by spacing) {
	if h.last == line && by == line {
		by = paragraph
	}
	if h.last >= by {
		return
	}
	text := "\t"
	switch {
	case by == line, by == paragraph && h.last == line:
		text = "\n"
	case by == paragraph:
		text = "\n\n"
	}
	w.appendAtomic(text, h.off+int64(h.i), 0)
	h.last = by
}

// content takes one byte of an element without text, and looks for its end tag.
func (h *htmlText) content(w *window, c byte) {
	if h.matched == len(h.raw) {
		h.matched = 0
		if strings.IndexByte(" \t\n\f\r/>", c) >= 0 {
			h.closing = true
			h.saved = append(h.saved[:0], h.raw[2:]...)
			h.state = inName
			h.tag(w, c)
			return
		}
	}
	switch {
	case lower(c) == h.raw[h.matched]:
		h.matched++
	case c == '<':
		h.matched = 1
	default:
		h.matched = 0
	}
}
