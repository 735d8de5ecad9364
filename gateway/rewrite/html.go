package rewrite

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/net/html"
)

// htmlPlace finds where the notice goes in a page, in one pass and bounded memory.
type htmlPlace struct {
	size                              int64
	doctype, htmlStart, headEnd, body int64 // the end of these tags, 0 if there is none
	bodyEnd, htmlEnd                  int64 // the beginning of the last of these tags, 0 if there is none
	swallowed                         bool  // what is appended would be part of a comment, a script or a style
	raw                               string
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
		case html.StartTagToken:
			name, _ := z.TagName()
			h.startTag(string(name))
		case html.EndTagToken:
			name, _ := z.TagName()
			h.endTag(string(name), start)
		}
	}
}

func (h *htmlPlace) first(at *int64) {
	if *at == 0 {
		*at = h.size
	}
}

func (h *htmlPlace) startTag(name string) {
	switch name {
	case "html":
		h.first(&h.htmlStart)
	case "body":
		h.first(&h.body)
	case "script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes", "noscript", "plaintext":
		h.raw = name
	}
}

func (h *htmlPlace) endTag(name string, start int64) {
	switch name {
	case h.raw:
		h.raw = ""
	case "head":
		h.first(&h.headEnd)
	case "body":
		h.bodyEnd = start
	case "html":
		h.htmlEnd = start
	}
}

// choose returns the place in bytes, -1 for the end. A long page is cut from its end by Email-to-Case.
func (h *htmlPlace) choose(long bool) int64 {
	if long || h.swallowed || h.raw != "" {
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
