package rewrite

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/net/html"
)

// htmlPlace finds where the notice goes in a page, in one pass and bounded memory. It is given UTF-8, or what has the tags
// in ASCII, and counts bytes of that.
type htmlPlace struct {
	size                              int64
	doctype, htmlStart, headEnd, body int64 // the end of these tags, 0 if there is none
	bodyEnd, htmlEnd                  int64 // the beginning of the last of these tags, 0 if there is none
	swallowed                         bool  // what is appended would be part of a comment, a script or a style
	raw                               string
	open                              openElements
	endHidden                         bool // what stands before bodyEnd or htmlEnd is in an element that is not shown
	frames                            bool // the page is one of frames: nothing else of it is shown
	hidden                            bool // so is nothing of the page

	// said takes what the page says outside of tags, if it is given.
	said *imitations
}

// maxToken bounds what one tag or text may take. After a longer one the rest of the page is not looked at.
const maxToken = 256 << 10

func (h *htmlPlace) find(r io.Reader) error {
	z := html.NewTokenizer(r)
	z.SetMaxBuf(maxToken)
	for {
		kind := z.Next()
		if kind == html.ErrorToken {
			if err := z.Err(); errors.Is(err, html.ErrBufferExceeded) {
				h.swallowed = true
			} else if !errors.Is(err, io.EOF) {
				return fmt.Errorf("parse HTML: %w", err)
			}
			h.swallowed = h.swallowed || h.raw != "" || len(z.Raw()) > 0
			return nil
		}
		start := h.size
		raw := z.Raw()
		h.size += int64(len(raw))
		h.swallowed = kind == html.CommentToken && !strings.HasSuffix(string(raw), "-->")
		switch kind {
		case html.DoctypeToken:
			h.first(&h.doctype)
		case html.StartTagToken, html.SelfClosingTagToken: // in HTML the slash means nothing
			h.startTag(z)
		case html.EndTagToken:
			name, _ := z.TagName()
			h.endTag(string(name), start)
		case html.TextToken:
			if h.said != nil && (h.raw == "" || h.raw == "noscript") {
				h.said.text(z.Text())
			}
		}
	}
}

// first notes the place behind a tag, if it is the first and something can be seen there.
func (h *htmlPlace) first(at *int64) {
	if *at == 0 && !h.open.hide() {
		*at = h.size
	}
}

func (h *htmlPlace) startTag(z *html.Tokenizer) {
	tag, more := z.TagName()
	name, e := string(tag), element{name: string(tag), hides: hidesContent(string(tag))}
	for more {
		var key, value []byte
		key, value, more = z.TagAttr()
		switch k := string(key); k {
		case "hidden":
			e.hides = true
		case "open":
			e.hides = e.hides && name != "details" && name != "dialog"
		case "style":
			e.hides = e.hides || hidesByStyle(string(value))
		case "href", "src":
			if h.said != nil && !h.said.quoted() {
				h.said.address(value)
			}
		case "id", "class":
			h.said.named(string(value))
		}
	}
	h.said.tag(name, true)
	switch name {
	case "html":
		h.first(&h.htmlStart)
		h.hidden = h.hidden || e.hides
	case "body": // a second one gives its attributes to the first
		h.first(&h.body)
		h.hidden = h.hidden || e.hides
	case "frameset":
		h.frames = h.frames || h.body == 0
	case "script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes", "noscript", "plaintext":
		h.raw = name
	case "head":
	default:
		h.open.start(e)
	}
}

func (h *htmlPlace) endTag(name string, start int64) {
	h.said.tag(name, false)
	switch name {
	case h.raw:
		h.raw = ""
	case "head":
		h.first(&h.headEnd)
	case "body":
		h.bodyEnd, h.endHidden = start, h.open.hide()
	case "html":
		h.htmlEnd = start
		if h.bodyEnd == 0 {
			h.endHidden = h.open.hide()
		}
	default:
		h.open.end(name)
	}
}

// nowhere reports whether nothing that is put into the page can be seen.
func (h *htmlPlace) nowhere() bool { return h.frames || h.hidden }

// choose returns the place in bytes, -1 for the end. top asks for the beginning of the body: a long page is cut from its
// end by Email-to-Case.
func (h *htmlPlace) choose(top bool) int64 {
	if top || h.endIsHidden() {
		for _, at := range []int64{h.body, h.headEnd, h.htmlStart, h.doctype} {
			if at > 0 {
				return at
			}
		}
		return 0
	}
	switch {
	case h.bodyEnd > 0:
		return h.bodyEnd
	case h.htmlEnd > 0:
		return h.htmlEnd
	}
	return -1
}

// endIsHidden tells that nothing at the end of the page can be seen.
func (h *htmlPlace) endIsHidden() bool {
	switch {
	case h.swallowed || h.raw != "":
		return true
	case h.bodyEnd > 0 || h.htmlEnd > 0:
		return h.endHidden
	}
	return h.open.hide()
}
