package rewrite

import (
	"errors"
	"fmt"
	"io"

	"sealpost/gateway"
)

// Judge gives the verdict on a leaf, and says why, in words for an admin.
type Judge func(gateway.Part) (verdict gateway.Verdict, why string)

// Rules say what becomes of what.
type Rules struct {
	// Judge is needed.
	Judge Judge
	// InlineImage is how many bytes a picture that a page shows may have, decoded, if it is to stay; 0 seals all.
	InlineImage int64
	// Text is nil if no personal data are looked for.
	Text *TextRules
	// PortalURL is what Secure Links begin with, so that those which a mail came with can be told; "" if not known.
	PortalURL string
	// SealSigned seals a signed message with a file as one. Else its text stays, without the signature.
	SealSigned bool
}

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
	pictured      // it is a picture and sealed, and a placeholder takes its place
)

// Plan is what becomes of a mail: which parts stay, what is sealed, where the notice goes.
type Plan struct {
	msg    *Message
	rules  Rules
	whole  string
	items  []Item
	fates  map[*part]fate // of leaves that do not just stay, and of multiparts of which nothing stays
	inside map[*part]inside
	// unsigned are the signed entities that lose their signature, which may be nil.
	unsigned  map[*part]*part
	whys      map[*part]string
	hosts     []*host
	kept      int
	sealed    int
	copies    int // of the items, those of parts that stay
	taken     int // of the items, those out of pages
	unpacked  int // of the items, those that were in other items
	evidences int // of the items, signed messages whose parts are judged one by one
	imitated  bool
	// personal is how often each detector of personal data found something, and tooPersonal tells that the text must not
	// stay; originals are, of the items, the texts and the subject that stay masked.
	personal       map[string]int
	tooPersonal    bool
	templateFailed bool
	masks          map[*part]int // how many matches are masked in a text
	originals      int
	subject        maskedFields
	cause          Cause // 0: it could not be taken apart
	// dropped are the fields of the top header that do not go on, by where they begin.
	dropped map[int64]span
}

// ErrPlan tells that a mail cannot be taken apart as planned, for what is in it or because it cannot be read: NewWholePlan
// may still do.
var ErrPlan = errors.New("the mail cannot be taken apart as planned")

// NewPlan asks the judge for each leaf and decides the rest. A Reject or Defer verdict comes back as a
// gateway.Error; any other error is ErrPlan. The source must outlive the plan.
func NewPlan(m *Message, rules Rules) (*Plan, error) {
	p, err := newPlan(m, rules, m.Ambiguity)
	if err != nil && gateway.ErrorCode(err) == gateway.CodeInternal {
		err = fmt.Errorf("%w: %w", ErrPlan, err)
	}
	return p, err
}

// NewWholePlan seals the mail as one file, for a reason that is safe to log. Of the rules those about the subject count.
func NewWholePlan(m *Message, rules Rules, reason string, cause Cause) (*Plan, error) {
	p, err := newPlan(m, rules, reason)
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

func newPlan(m *Message, rules Rules, whole string) (*Plan, error) {
	p := &Plan{msg: m, rules: rules, whole: whole, fates: make(map[*part]fate), inside: make(map[*part]inside), unsigned: make(map[*part]*part), whys: make(map[*part]string), personal: make(map[string]int), masks: make(map[*part]int)}
	if err := p.maskSubject(); err != nil {
		return nil, err
	}
	if p.whole == "" {
		if err := p.judge(); err != nil {
			return nil, err
		}
	}
	if p.whole == "" && p.changes() {
		p.msg.root.walk(func(q *part) bool {
			if q.boundary.shaky && q.isMultipart() {
				p.whole = whyShaky
			}
			return !q.message // it was settled by itself
		})
	}
	if p.whole == "" {
		p.addSubject()
		if err := p.collect(); err != nil {
			return nil, fmt.Errorf("plan the mail: %w", err)
		}
	}
	if p.whole != "" {
		item := rawItem(m.src, span{0, m.src.Size()}, "message.eml", "message/rfc822")
		p.items, p.kept, p.sealed = []Item{item}, 0, 1
		return p, nil
	}
	if err := p.findImitations(); err != nil {
		return nil, err
	}
	if len(p.items) > 0 {
		if err := p.chooseHosts(PlaceAuto); err != nil {
			return nil, fmt.Errorf("place the notice: %w", err)
		}
	}
	return p, nil
}

// changes tells that something is taken out of the mail.
func (p *Plan) changes() bool { return len(p.fates) > 0 || len(p.inside) > 0 || p.subject.masked() }

// Items returns what is to be sealed, in the mail's order. Without any, the mail leaves byte-identical
// behind the added header fields.
func (p *Plan) Items() []Item { return p.items }

// Whole reports whether the mail is sealed as one file, and why, in a phrase that is safe to log.
func (p *Plan) Whole() (reason string, whole bool) { return p.whole, p.whole != "" }

// Parts returns how many leaves stay and how many files are sealed.
func (p *Plan) Parts() (kept, sealed int) { return p.kept, p.sealed }

// judge sets the fates of all leaves, and then of the multiparts around them.
func (p *Plan) judge() error {
	var err error
	p.msg.root.walk(func(q *part) bool {
		if q.isMultipart() || q.empty || err != nil {
			return err == nil
		}
		err = p.judgeLeaf(q)
		return p.fates[q] != leaves
	})
	if err != nil {
		return err
	}
	if err := p.keepPictures(); err != nil {
		return err
	}
	if err := p.compareAlternatives(); err != nil {
		return err
	}
	p.sealBodies()
	if err := p.sealPersonalMessages(); err != nil {
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

func (p *Plan) judgeLeaf(q *part) error {
	verdict, why, err := p.verdict(q)
	if err != nil {
		return err
	}
	p.whys[q] = why
	switch verdict {
	case gateway.Keep:
		return p.keep(q)
	case gateway.Reject:
		return gateway.Errorf(gateway.CodeRejected, nil, "a part of the mail is not accepted here")
	case gateway.Defer:
		return gateway.Errorf(gateway.CodeUnavailable, nil, "a part of the mail cannot be judged now")
	}
	p.fates[q] = leaves // an unknown verdict seals, too
	return nil
}

// verdict asks the judge for q, and again for what would stay although its bytes are those of a file.
func (p *Plan) verdict(q *part) (gateway.Verdict, string, error) {
	facts := q.facts()
	verdict, why := p.rules.Judge(facts)
	if verdict != gateway.Keep || q.message {
		return verdict, why, nil
	}
	var err error
	if facts.Content, err = contentOf(p.msg.src, q); err != nil {
		return verdict, why, err
	}
	if facts.Content == "" && facts.InReport && !isBodyType(q.typ) {
		var carries bool
		if carries, err = carriesFile(p.msg.src, q); err != nil {
			return verdict, why, err
		}
		if carries {
			facts.Content = "application/octet-stream"
		}
	}
	if facts.Content != "" {
		verdict, why = p.rules.Judge(facts)
		return verdict, why, nil
	}
	hides, err := hidesFile(p.msg.src, q)
	if hides {
		q.doubt = whyDecoding
	}
	return verdict, why, err
}

// keep settles a part that the judge lets stay. The limits of Salesforce are about the mail's own text alone, without the
// files in it.
func (p *Plan) keep(q *part) error {
	nested := q.around() != nil
	switch {
	case q.message:
		return nil
	case q.doubt != "" && !nested:
		p.whole = q.doubt
		return nil
	}
	if err := p.lookInside(q); err != nil || p.fates[q] != stays {
		return err
	}
	if !nested {
		if err := p.replaceLongText(q); err != nil || p.fates[q] != stays {
			return err
		}
	}
	return p.lookForPersonal(q)
}

// closeUp settles the multiparts and the forwarded messages below q, and q itself.
func (p *Plan) closeUp(q *part) error {
	if len(q.children) == 0 {
		return nil
	}
	for _, child := range q.children {
		if err := p.closeUp(child); err != nil {
			return err
		}
	}
	switch {
	case q.message:
		p.closeMessage(q)
		return nil
	case q.typ == "multipart/signed", q.typ == "multipart/encrypted":
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
			if item, is := p.evidence(q); is {
				p.items = append(p.items, item)
				p.sealed++
				p.evidences++
			}
		case p.isSignature(q), q.message && p.fates[q] == stays:
		case p.fates[q] == stays:
			p.kept++
			if err = p.addOriginal(q); err == nil {
				err = p.addInside(q)
			}
		default:
			if p.fates[q] == copied {
				p.kept++
				p.copies++
			}
			p.sealed++
			err = p.addLeaf(q)
			if p.fates[q] == copied && err == nil {
				err = p.addInside(q)
			}
			return !q.message
		}
		return true
	})
	return err
}

func (p *Plan) addInside(q *part) error {
	for _, item := range p.inside[q].items {
		if item.Name == "" {
			var err error
			if item.Name, err = madeName(len(p.items)+1, item); err != nil {
				return err
			}
		}
		p.items = append(p.items, item)
		p.sealed++
		if err := p.unpack(item); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plan) addLeaf(q *part) error {
	name := q.name
	switch p.fates[q] {
	case replaced, copied:
		name = bodyName(q)
	}
	item, err := leafItem(p.msg.src, q, name)
	if err == nil && item.Name == "" {
		item.Name, err = madeName(len(p.items)+1, item)
	}
	p.items = append(p.items, item)
	if err != nil || p.fates[q] != leaves {
		return err
	}
	return p.unpackLeaf(q, item)
}

// Leaf is a part of the mail that is no multipart, and what becomes of it: a file, a text, or a forwarded message, whose
// parts follow it if it stays.
type Leaf struct {
	Part   gateway.Part
	Sealed bool
	// Inside is how many files are taken out of its text, which stays.
	Inside int
	// Why is the judge's reason, or that which overruled it.
	Why string
}

// Leaves returns what becomes of each part that is no multipart, in the mail's order.
func (p *Plan) Leaves() []Leaf {
	var leaves []Leaf
	p.msg.root.walk(func(q *part) bool {
		if !q.isMultipart() && !q.empty {
			leaves = append(leaves, Leaf{Part: q.facts(), Sealed: p.whole != "" || p.leaves(q), Inside: p.insideOf(q), Why: p.why(q)})
		}
		return !q.message || !p.leaves(q)
	})
	return leaves
}

// why says what became of q for which reason.
func (p *Plan) why(q *part) string {
	switch {
	case p.whole != "":
		return "the mail is sealed whole"
	case p.fates[q] == replaced && p.tooPersonal:
		return p.whys[q]
	case p.fates[q] == replaced:
		return p.whys[q] + ", but longer than Salesforce takes"
	case p.fates[q] == pictured:
		return p.whys[q] + ", but the page shows it: a placeholder takes its place"
	case p.fates[q] == copied:
		return p.whys[q] + ", which Salesforce cuts: a copy is sealed as message.html"
	}
	return p.whys[q]
}

func (p *Plan) insideOf(q *part) int {
	if p.whole != "" || p.leaves(q) {
		return 0
	}
	return len(p.inside[q].items)
}

// leaves reports whether q is sealed, by itself or with what it is in.
func (p *Plan) leaves(q *part) bool {
	for ; q != nil; q = q.parent {
		if p.fates[q] == leaves || p.fates[q] == replaced || p.fates[q] == pictured {
			return true
		}
	}
	return false
}
