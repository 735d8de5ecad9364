package rewrite

import (
	"slices"
	"strconv"
	"strings"

	"sealpost/gateway"
)

// Message is the structure of one mail: the tree of its parts, each with its place in the source.
type Message struct {
	// Ambiguity says why the mail can only be sealed whole, in a fixed phrase that is safe to log; "" if it
	// can be taken apart.
	Ambiguity string

	src        Source
	root       *part
	messageID  string
	identified bool // there is a Message-ID field
	bodySum    [32]byte
}

// MessageID returns the value of the first Message-ID field as it stands, with its angle brackets; "" if there is none.
func (m *Message) MessageID() string { return m.messageID }

// BodySum is a cryptographic digest of what follows the top header, as it stands. It is compared with others that this
// program took, and kept no longer than a day: BLAKE3, since SHA-256 takes more than twice the time.
func (m *Message) BodySum() [32]byte { return m.bodySum }

// HasMessageID tells that there is a Message-ID field, even if its value is empty: a second one would make
// readers disagree.
func (m *Message) HasMessageID() bool { return m.identified }

// part is a MIME entity (RFC 2045 section 2.4).
type part struct {
	parent *part
	index  int // among its parent's children

	// The header is [start, body), its empty line included; the body is [body, end).
	start, body, end int64
	// blank tells that an empty line ends the header.
	blank bool

	typ         string // the media type, lower-cased
	charset     string
	boundary    boundary
	disposition string
	name        string
	hinted      bool   // a malformed field may give a name that we cannot read
	encoding    string // the transfer encoding, lower-cased; "" if none is given
	commented   bool   // there are comments in it, which not all readers know

	// decoded is the size of what a base64 body gives, if measured: else only decoding can tell.
	decoded  int64
	measured bool

	// described tells that the header says how the body is built, well or badly.
	described bool

	// doubt says why this part must not stay as it is: another reader may see a file in it. A fixed phrase.
	doubt string

	// message tells of a forwarded message that was walked: its only child is the mail in it.
	message bool

	// Of a multipart only, but for that child. A child stands between two lines; the last line may be missing.
	children []*part
	lines    []span
	closed   bool // the last line is the closing one
	empty    bool // there is neither a boundary line nor anything else
}

func (p *part) isMultipart() bool { return len(p.children) > 0 && !p.message }

// inMultipart reports whether a boundary line can end p.
func (p *part) inMultipart() bool {
	for q := p.parent; q != nil; q = q.parent {
		if !q.message {
			return true
		}
	}
	return false
}

// around returns the innermost forwarded message that p is in, nil if there is none.
func (p *part) around() *part {
	for q := p.parent; q != nil; q = q.parent {
		if q.message {
			return q
		}
	}
	return nil
}

// lastBody returns where the body begins that the end of p belongs to: of its last part, if no boundary line closes it.
func (p *part) lastBody() int64 {
	for len(p.children) > 0 && !p.closed {
		p = p.children[len(p.children)-1]
	}
	return p.body
}

// slot returns the whole place of child i: its boundary line, its header and body, and the CRLF that
// belongs to the next boundary line (RFC 2046 section 5.1.1).
func (p *part) slot(i int) span {
	if i+1 < len(p.lines) {
		return span{p.lines[i].start, p.lines[i+1].start}
	}
	return span{p.lines[i].start, p.end}
}

// path returns the IMAP-style number of the part (RFC 3501 section 6.4.5). A multipart that is a forwarded message has
// none of its own: its parts are numbered below the message.
func (p *part) path() string {
	if p.parent == nil {
		return "1"
	}
	var numbers []string
	for q := p; q.parent != nil; q = q.parent {
		if !q.parent.message || !q.isMultipart() {
			numbers = append(numbers, strconv.Itoa(q.index+1))
		}
		if q.parent.parent == nil && q.parent.message {
			numbers = append(numbers, "1")
		}
	}
	slices.Reverse(numbers)
	return strings.Join(numbers, ".")
}

// facts returns what policy may know of a leaf. One that may have a name which we cannot read is no report
// part, since policy judges those by their names.
func (p *part) facts() gateway.Part {
	return gateway.Part{
		Path: p.path(), Type: p.typ, Disposition: p.disposition, Filename: gateway.NewSecret(p.name),
		Encoding: p.encoding, Size: p.end - p.body,
		InReport:  !p.hinted && p.isBelow("multipart/report"),
		InMacFile: p.isIn("multipart/appledouble"),
		Unclear:   p.hinted, Walked: p.message,
	}
}

// isBelow reports whether p is in a multipart of this type, at any depth, and in no message forwarded there.
func (p *part) isBelow(typ string) bool {
	for q := p.parent; q != nil && !q.message; q = q.parent {
		if q.typ == typ {
			return true
		}
	}
	return false
}

func (p *part) isIn(typ string) bool { return p.parent != nil && p.parent.typ == typ }

// walk calls f for p and everything below it, in order, until f returns false for a part: what is below
// that one is left out.
func (p *part) walk(f func(*part) bool) {
	if !f(p) {
		return
	}
	for _, child := range p.children {
		child.walk(f)
	}
}
