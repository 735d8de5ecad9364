package rewrite

import (
	"fmt"
	"io"
)

// place is where a part of the notice's own goes.
type place struct {
	in    *part // the multipart
	index int   // the child of in that it follows, or whose place it takes if that child leaves
	wrap  bool  // instead: around the whole mail, which becomes the first part of a new multipart/mixed
}

// settle moves the notice's part from behind a child that stays into the place of the next, if that leaves.
func (p *Plan) settle(at place) place {
	if at.in == nil || p.fates[at.in.children[at.index]] == leaves || at.index+1 == len(at.in.children) {
		return at
	}
	if p.fates[at.in.children[at.index+1]] == leaves {
		at.index++
	}
	return at
}

// findPlace looks for the innermost multipart around the first sealed part in which a further text is just
// one more text. In an alternative it would be shown instead of the others, in related not at all.
func (p *Plan) findPlace() place {
	first := p.firstLeaving(p.msg.root)
	if first == nil { // the mail is one page, which stays
		return place{wrap: true}
	}
	child := first
	for q := first.parent; q != nil; child, q = q, q.parent {
		if p.fates[q] == leaves && q.parent != nil || q.message || q.around() != nil {
			continue
		}
		if p.fates[q] == leaves || addable(q.typ) || p.isUnsigned(q) {
			return place{in: q, index: child.index}
		}
	}
	return place{wrap: true}
}

func (p *Plan) firstLeaving(root *part) *part {
	var first *part
	root.walk(func(q *part) bool {
		if first == nil && q.parent != nil && p.fates[q] != stays {
			first = q
		}
		return first == nil
	})
	return first
}

func addable(typ string) bool {
	switch typ {
	case "multipart/alternative", "multipart/related", "multipart/signed", "multipart/encrypted",
		"multipart/appledouble", "multipart/form-data", "multipart/byteranges", "multipart/x-mixed-replace":
		return false
	}
	return true // RFC 2046 section 5.1.7: an unknown subtype is treated as mixed
}

// removals returns the edits that take the sealed children out of q and put the notice's part in.
func (p *Plan) removals(q *part, n *notice, home *place) ([]edit, error) {
	var edits []edit
	trailing := p.trailing(q)
	for i, child := range q.children {
		here := home != nil && home.in == q && home.index == i
		if p.fates[child] == leaves {
			edits = append(edits, edit{p.hole(q, i, trailing), p.filling(q, i, n, here)})
			continue
		}
		inner, err := p.removals(child, n, home)
		if err != nil {
			return nil, err
		}
		edits = append(edits, inner...)
		if here {
			at := q.slot(i).end
			edits = append(edits, edit{span{at, at}, p.added(q, i, n)})
		}
	}
	return edits, nil
}

// hole returns what goes with child i. Where the last boundary line of q is missing, the CRLF before the
// first of the trailing holes goes as well: the boundary line that it belonged to is gone.
func (p *Plan) hole(q *part, i, trailing int) span {
	s := q.slot(i)
	if q.closed || i < trailing || p.fates[q] == leaves || q.end == p.msg.src.Size() {
		return s
	}
	if i > 0 && p.fates[q.children[i-1]] != leaves {
		s.start = max(s.start-2, q.children[i-1].lastBody())
	}
	return s
}

// trailing returns the first child of q from which on all leave.
func (p *Plan) trailing(q *part) int {
	i := len(q.children)
	for i > 0 && p.fates[q.children[i-1]] == leaves {
		i--
	}
	return i
}

// filling returns what takes the place of child i, which leaves.
func (p *Plan) filling(q *part, i int, n *notice, here bool) func(io.Writer) error {
	atEnd := !q.closed && q.end == p.msg.src.Size() && i == len(q.children)-1
	return func(w io.Writer) error {
		if here {
			if p.hole(q, i, p.trailing(q)).start < q.slot(i).start {
				if err := writeString(w, "\r\n"); err != nil {
					return err
				}
			}
			if err := p.writePart(w, q, n); err != nil {
				return err
			}
			if i < len(q.children)-1 || q.closed || atEnd {
				if err := writeString(w, "\r\n"); err != nil {
					return err
				}
			}
		}
		if atEnd { // the mail must end with a line end, and the part before has none
			return writeString(w, "--"+q.boundary.value+"--\r\n")
		}
		return nil
	}
}

// added returns the notice's part as it follows child i, which stays.
func (p *Plan) added(q *part, i int, n *notice) func(io.Writer) error {
	return func(w io.Writer) error {
		before, after := "", "\r\n"
		if i == len(q.children)-1 && !q.closed {
			before, after = "\r\n", ""
			if q.end == p.msg.src.Size() {
				after = "\r\n--" + q.boundary.value + "--\r\n"
			}
		}
		if err := writeString(w, before); err != nil {
			return err
		}
		if err := p.writePart(w, q, n); err != nil {
			return err
		}
		return writeString(w, after)
	}
}

// writePart writes a boundary line of q and the notice's part.
func (p *Plan) writePart(w io.Writer, q *part, n *notice) error {
	if err := writeString(w, "--"+q.boundary.value+"\r\n"); err != nil {
		return err
	}
	text, err := n.part()
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return fmt.Errorf("write the notice: %w", err)
	}
	return nil
}
