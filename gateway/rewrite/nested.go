package rewrite

import (
	"bytes"
	"slices"
)

// maxScans is how often a mail is read at most because forwarded messages in it are ambiguous. At the last time, none is
// walked.
const maxScans = 4

// isMessageType reports whether a body of this type is a mail (RFC 2046 section 5.2.1, RFC 6532 section 3.7).
func isMessageType(typ string) bool {
	return typ == "message/rfc822" || typ == "message/global" || typ == "message/news"
}

// isMessageName reports whether nobody's computer takes a file of this name for anything but a mail.
func isMessageName(name string) bool {
	return slices.Contains([]string{"", ".eml", ".txt", ".mail", ".msg", ".email"}, nameExtension(name))
}

// isIdentity reports whether a body in this transfer encoding stands as it is (RFC 2045 section 6.2).
func isIdentity(encoding string) bool {
	switch encoding {
	case "", "7bit", "8bit", "binary":
		return true
	}
	return false
}

// walks reports whether the parts of p, a leaf so far, are looked for: it is a forwarded message, by its first line and its
// name too, and nobody can read its header, its type or its encoding in another way. To some readers the "From " line of an
// mbox is no header and ends it.
func (s *scanner) walks(p *part, depth int) bool {
	return isMessageType(p.typ) && isIdentity(p.encoding) && p.doubt == "" && p.blank && !s.stopped() &&
		isField(s.line.text) && !bytes.HasPrefix(s.line.text, []byte("From ")) && isMessageName(p.name) &&
		depth < s.limits.Depth && len(s.shut) < maxScans-1 && !slices.Contains(s.shut, p.start)
}

// forwarded reads a message in the body of p.
func (s *scanner) forwarded(p *part, depth int) {
	child := &part{parent: p}
	p.message, p.children = true, []*part{child}
	before := s.in
	s.in = p
	s.entity(child, depth+1)
	s.in = before
	p.end = child.end
}

// closeMessage seals a forwarded message that is nothing but a file, or that must not stay in pieces: a part that would
// stay in it can be read in another way, or its boundaries can, and a file is taken from between them.
func (p *Plan) closeMessage(q *part) {
	switch {
	case p.fates[q] != stays:
	case p.fates[q.children[0]] != stays:
		p.sealAsOne(q, "a forwarded message of which nothing would stay")
	case p.isRisky(q):
		p.sealAsOne(q, "a forwarded message that can be read in two ways")
	}
}

func (p *Plan) isRisky(message *part) bool {
	doubt, shaky, changes := false, false, false
	message.children[0].walk(func(q *part) bool {
		_, inside := p.inside[q]
		changes = changes || inside || p.fates[q] != stays
		if p.fates[q] == leaves {
			return false
		}
		doubt = doubt || q.doubt != ""
		shaky = shaky || q.isMultipart() && q.boundary.shaky
		return true
	})
	return doubt || shaky && changes
}

// sealAsOne seals q with all that is in it.
func (p *Plan) sealAsOne(q *part, why string) {
	q.walk(func(r *part) bool {
		delete(p.fates, r)
		delete(p.inside, r)
		delete(p.unsigned, r)
		p.whys[r] = why
		return true
	})
	p.fates[q] = leaves
}
