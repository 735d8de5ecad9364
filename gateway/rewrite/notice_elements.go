package rewrite

import (
	"slices"
	"strconv"
	"strings"
)

// maxOpen is the most open elements that are told apart. Browsers have such a limit, too.
const maxOpen = 500

// element is an open element of a page.
type element struct {
	name  string
	hides bool // its content is not shown
}

// openElements are the elements that are open at a place of a page (section 13.2.4.2 of the HTML standard), roughly: in
// doubt one that hides its content counts as open.
type openElements struct {
	stack []element
	names map[string]int // how many of the stack have each name; pages close much that is not open
	lost  bool           // something that hides may be open for the rest of the page
}

// hide reports whether what stands here is in an element that is not shown.
func (o *openElements) hide() bool {
	return o.lost || slices.ContainsFunc(o.stack, func(e element) bool { return e.hides })
}

func (o *openElements) start(e element) {
	o.implyEnds(e.name)
	if isVoid(e.name) || !e.hides && isClosedByOthers(e.name) {
		return
	}
	if len(o.stack) == maxOpen {
		o.lost = true
		return
	}
	if o.names == nil {
		o.names = make(map[string]int)
	}
	o.names[e.name]++
	o.stack = append(o.stack, e)
}

// end closes the innermost element of that name, and those in it, unless a table or the like is between.
func (o *openElements) end(name string) {
	for i := len(o.stack) - 1; i >= 0 && o.names[name] > 0; i-- {
		if o.stack[i].name == name {
			o.cut(i)
			return
		}
		if bounds(o.stack[i].name) && !inTable(name) {
			return
		}
	}
}

// cut closes all elements from i on. A formatting element that another one closes goes on behind that one.
func (o *openElements) cut(i int) {
	for j, e := range o.stack[i:] {
		o.names[e.name]--
		o.lost = o.lost || j > 0 && e.hides && isFormatting(e.name)
	}
	o.stack = o.stack[:i]
}

// implyEnds closes the cell and the row that a further one ends, and what lists close.
func (o *openElements) implyEnds(name string) {
	var closes []string
	switch name {
	case "td", "th":
		closes = []string{"td", "th"}
	case "tr":
		closes = []string{"td", "th", "tr"}
	case "tbody", "thead", "tfoot":
		closes = []string{"td", "th", "tr", "tbody", "thead", "tfoot", "caption"}
	case "li", "option":
		closes = []string{name}
	case "dt", "dd":
		closes = []string{"dt", "dd"}
	}
	for len(o.stack) > 0 && slices.Contains(closes, o.stack[len(o.stack)-1].name) {
		o.cut(len(o.stack) - 1)
	}
}

// hidesContent reports whether an element shows nothing, or not what a reader of the mail is to see, of what is in it.
func hidesContent(name string) bool {
	switch name {
	case "template", "select", "datalist", "dialog", "details", "audio", "video", "object", "canvas", "svg", "math", "meter", "progress", "map":
		return true
	}
	return false
}

// isClosedByOthers reports whether pages often leave an element open which ends by itself.
func isClosedByOthers(name string) bool {
	switch name {
	case "p", "li", "dt", "dd", "option", "optgroup", "colgroup", "rp", "rt", "tr", "tbody", "thead", "tfoot", "td", "th":
		return true
	}
	return false
}

func isFormatting(name string) bool {
	switch name {
	case "a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u":
		return true
	}
	return false
}

// bounds reports whether an element keeps an end tag in it from closing what is around it.
func bounds(name string) bool {
	switch name {
	case "table", "td", "th", "caption", "template", "object", "marquee", "applet", "select", "svg", "math":
		return true
	}
	return false
}

func inTable(name string) bool {
	switch name {
	case "table", "td", "th", "tr", "tbody", "thead", "tfoot", "caption", "template", "object", "select", "svg", "math":
		return true
	}
	return false
}

// hidesByStyle reports whether a style attribute makes an element, or what stands in it, invisible.
func hidesByStyle(style string) bool {
	for declaration := range strings.SplitSeq(strings.ToLower(style), ";") {
		property, value, _ := strings.Cut(declaration, ":")
		value, _, _ = strings.Cut(value, "!")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(property) {
		case "display":
			if value == "none" {
				return true
			}
		case "visibility":
			if value == "hidden" || value == "collapse" {
				return true
			}
		case "mso-hide":
			if value == "all" {
				return true
			}
		case "color":
			if value == "transparent" {
				return true
			}
		case "opacity", "font-size", "font", "height", "max-height", "width", "max-width", "line-height", "zoom":
			if isZero(value) {
				return true
			}
		case "left", "top", "margin-left", "margin-top", "text-indent":
			if isFarAway(value) {
				return true
			}
		}
	}
	return false
}

// number returns the number that a length or a share begins with.
func number(value string) (float64, bool) {
	n, err := strconv.ParseFloat(strings.TrimRight(value, "%abcdefghijklmnopqrstuvwxyz "), 64)
	return n, err == nil
}

func isZero(value string) bool {
	n, ok := number(value)
	return ok && n == 0
}

func isFarAway(value string) bool {
	n, ok := number(value)
	return ok && n <= -500
}
