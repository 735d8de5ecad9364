package rewrite

import (
	"errors"
	"fmt"
	"io"

	"sealpost/gateway"
)

// Judge gives the verdict on a leaf, and says why, in words for an admin.
type Judge func(gateway.Part) (verdict gateway.Verdict, why string)

// Cause is why a mail is sealed whole that might have been taken apart.
type Cause int

// The causes: each has words of its own in the notice.
const (
	CauseDisowned Cause = iota + 1 // the author's domain says that it did not send it
	CauseUnproven                  // whether it did could not be found out
	CauseVirus                     // a virus scanner found something
	CauseTooLarge                  // Salesforce does not take it
)

// fate is what becomes of a part.
type fate int

const (
	stays    fate = iota
	leaves        // it is sealed and goes with its header
	replaced      // it is sealed, and a short text takes the place of its body
	copied        // it stays, and a copy of it is sealed
)

// Plan is what becomes of a mail: which parts stay, what is sealed, where the notice goes.
type Plan struct {
	msg    *Message
	whole  string
	items  []Item
	fates  map[*part]fate // of leaves that do not just stay, and of multiparts of which nothing stays
	whys   map[*part]string
	hosts  []*host
	kept   int
	sealed int
	copies int   // of the items, those of parts that stay
	cause  Cause // 0: it could not be taken apart
	// dropped are the fields of the top header that do not go on, by where they begin.
	dropped map[int64]span
}

// NewPlan asks judge for each leaf and decides the rest. A Reject or Defer verdict comes back as a
// gateway.Error; other errors are those of reading the source. The source must outlive the plan.
func NewPlan(m *Message, judge Judge) (*Plan, error) {
	return newPlan(m, judge, m.Ambiguity)
}

// NewWholePlan seals the mail as one file, for a reason that is safe to log.
func NewWholePlan(m *Message, reason string, cause Cause) (*Plan, error) {
	p, err := newPlan(m, nil, reason)
	if err == nil {
		p.cause = cause
	}
	return p, err
}

// Drop leaves out of the top header each field for which drop is true, given its lower-cased name and the first
// bytes of its unfolded value, and returns how many. Fields count as a lenient reader has them: with white space
// before the colon too. A mail that is sealed whole takes few fields along and needs no such care.
func (p *Plan) Drop(drop func(name, value string) bool) (int, error) {
	if p.whole != "" {
		return 0, nil
	}
	r := newFieldReader(p.msg.src)
	p.dropped = map[int64]span{}
	for {
		f, err := r.next()
		if errors.Is(err, io.EOF) {
			return len(p.dropped), nil
		}
		if err != nil {
			return 0, fmt.Errorf("read the header: %w", err)
		}
		if f.raw == nil {
			f.raw = make([]byte, maxField)
			if _, err := p.msg.src.ReadAt(f.raw, f.start); err != nil {
				return 0, fmt.Errorf("read a long field: %w", err)
			}
		}
		if drop(f.name, f.value()) {
			p.dropped[f.start] = f.span
		}
	}
}

func newPlan(m *Message, judge Judge, whole string) (*Plan, error) {
	p := &Plan{msg: m, whole: whole, fates: make(map[*part]fate), whys: make(map[*part]string)}
	if p.whole == "" {
		if err := p.judge(judge); err != nil {
			return nil, err
		}
	}
	if p.whole == "" && len(p.fates) > 0 {
		p.msg.root.walk(func(q *part) bool {
			if q.boundary.shaky && q.isMultipart() {
				p.whole = whyShaky
			}
			return true
		})
	}
	if p.whole == "" {
		if err := p.collect(); err != nil {
			return nil, fmt.Errorf("plan the mail: %w", err)
		}
	}
	if p.whole != "" {
		item := rawItem(m.src, span{0, m.src.Size()}, "message.eml", "message/rfc822")
		p.items, p.kept, p.sealed = []Item{item}, 0, 1
		return p, nil
	}
	if len(p.items) > 0 {
		if err := p.chooseHosts(); err != nil {
			return nil, fmt.Errorf("place the notice: %w", err)
		}
	}
	return p, nil
}

// Items returns what is to be sealed, in the mail's order. Without any, the mail leaves byte-identical
// behind the added header fields.
func (p *Plan) Items() []Item { return p.items }

// Whole reports whether the mail is sealed as one file, and why, in a phrase that is safe to log.
func (p *Plan) Whole() (reason string, whole bool) { return p.whole, p.whole != "" }

// Parts returns how many leaves stay and how many files are sealed.
func (p *Plan) Parts() (kept, sealed int) { return p.kept, p.sealed }

// judge sets the fates of all leaves, and then of the multiparts around them.
func (p *Plan) judge(judge Judge) error {
	var err error
	p.msg.root.walk(func(q *part) bool {
		if q.isMultipart() || q.empty || err != nil {
			return err == nil
		}
		verdict, why := judge(q.facts())
		p.whys[q] = why
		switch verdict {
		case gateway.Keep:
			if q.doubt != "" {
				p.whole = q.doubt
				return true
			}
			err = p.replaceLongText(q)
		case gateway.Reject:
			err = gateway.Errorf(gateway.CodeRejected, nil, "a part of the mail is not accepted here")
		case gateway.Defer:
			err = gateway.Errorf(gateway.CodeUnavailable, nil, "a part of the mail cannot be judged now")
		default: // an unknown verdict seals, too
			p.fates[q] = leaves
		}
		return true
	})
	if err != nil {
		return err
	}
	root := p.msg.root
	if p.whole == "" && p.fates[root] == leaves && root.doubt != "" {
		p.whole = root.doubt
	}
	if err := p.closeUp(root); err != nil {
		return err
	}
	return p.copyLongPages()
}

// closeUp settles the multiparts below q, and q itself.
func (p *Plan) closeUp(q *part) error {
	if !q.isMultipart() {
		return nil
	}
	for _, child := range q.children {
		if err := p.closeUp(child); err != nil {
			return err
		}
	}
	if q.typ == "multipart/signed" || q.typ == "multipart/encrypted" {
		return p.closeEnvelope(q)
	}
	for _, child := range q.children {
		if p.fates[child] != leaves {
			return nil
		}
	}
	p.fates[q] = leaves
	return nil
}

// closeEnvelope keeps a signed or encrypted entity untouched or seals it as one: half of it is worth nothing.
func (p *Plan) closeEnvelope(q *part) error {
	signature, err := signatureOf(p.msg.src, q)
	if err != nil {
		return err
	}
	sealed := false
	q.walk(func(r *part) bool {
		sealed = sealed || p.fates[r] != stays && r != signature
		return true
	})
	q.walk(func(r *part) bool {
		switch {
		case sealed:
			p.whys[r] = "it is in a signed or encrypted message with a file"
		case r == signature:
			p.whys[r] = "the signature of what stays as it is"
		}
		delete(p.fates, r)
		return true
	})
	switch {
	case !sealed:
	case q.parent == nil:
		p.whole = whyEnvelope
	default:
		p.fates[q] = leaves
	}
	return nil
}

func envelopeName(q *part) string {
	if q.typ == "multipart/signed" {
		return "signed-message.eml"
	}
	return "encrypted-message.eml"
}

// collect makes the items and counts the parts.
func (p *Plan) collect() error {
	var err error
	p.msg.root.walk(func(q *part) bool {
		if err != nil {
			return false
		}
		envelope := q.typ == "multipart/signed" || q.typ == "multipart/encrypted"
		switch {
		case q.isMultipart() && p.fates[q] == leaves && envelope:
			p.items = append(p.items, rawItem(p.msg.src, span{q.start, q.end}, envelopeName(q), "message/rfc822"))
			p.sealed++
			return false
		case q.isMultipart():
		case p.fates[q] == stays:
			p.kept++
		default:
			if p.fates[q] == copied {
				p.kept++
				p.copies++
			}
			p.sealed++
			err = p.addLeaf(q)
		}
		return true
	})
	return err
}

func (p *Plan) addLeaf(q *part) error {
	name := q.name
	switch p.fates[q] {
	case replaced:
		name = "message.txt"
	case copied:
		name = "message.html"
	}
	item, err := leafItem(p.msg.src, q, name)
	if err == nil && item.Name == "" {
		item.Name, err = madeName(len(p.items)+1, item)
	}
	p.items = append(p.items, item)
	return err
}

// Leaf is a part of the mail and what becomes of it.
type Leaf struct {
	Part   gateway.Part
	Sealed bool
	// Why is the judge's reason, or that which overruled it.
	Why string
}

// Leaves returns what becomes of each part that is no multipart, in the mail's order.
func (p *Plan) Leaves() []Leaf {
	var leaves []Leaf
	p.msg.root.walk(func(q *part) bool {
		if !q.isMultipart() && !q.empty {
			leaves = append(leaves, Leaf{Part: q.facts(), Sealed: p.whole != "" || p.leaves(q), Why: p.why(q)})
		}
		return true
	})
	return leaves
}

// why says what became of q for which reason.
func (p *Plan) why(q *part) string {
	switch {
	case p.whole != "":
		return "the mail is sealed whole"
	case p.fates[q] == replaced:
		return p.whys[q] + ", but longer than Salesforce takes"
	case p.fates[q] == copied:
		return p.whys[q] + ", which Salesforce cuts: a copy is sealed as message.html"
	}
	return p.whys[q]
}

// leaves reports whether q is sealed, by itself or with what it is in.
func (p *Plan) leaves(q *part) bool {
	for ; q != nil; q = q.parent {
		if p.fates[q] == leaves || p.fates[q] == replaced {
			return true
		}
	}
	return false
}
