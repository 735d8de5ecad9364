package rewrite

import (
	"errors"
	"fmt"
	"io"

	"sealpost/gateway/policy/personal"
)

// maxMasked is the most ranges of one text that are masked one by one. A text with more is sealed.
const maxMasked = 1000

// Action is what becomes of a text in which personal data are found.
type Action string

// The actions, from the mildest to the strictest.
const (
	ActionCount Action = "count"
	// ActionMask masks what was found, and seals the text as it came.
	ActionMask Action = "mask"
	// ActionSeal seals the text; a line that says so takes its place.
	ActionSeal Action = "seal"
)

// TextRules say what is looked for in texts and subjects, and what becomes of it.
type TextRules struct {
	Detectors *personal.Detectors
	// Actions are by detector; ActionCount for one that is not named.
	Actions map[string]Action
}

// Personal returns how often each detector found something in the texts and the subject of the mail.
func (p *Plan) Personal() map[string]int { return p.personal }

// findings are the personal data of one text.
type findings struct {
	counts map[string]int
	worst  Action
	masks  []maskedRange
}

// maskedRange is a part of a match that is to be masked.
type maskedRange struct {
	start, end int64
	match      int // the number of the match, whose ranges are masked together
	detector   string
}

// lookForPersonal looks for personal data in a body that stays, the mail's own or one in a forwarded message.
func (p *Plan) lookForPersonal(q *part) error {
	if p.rules.Text == nil || q.typ != "text/plain" && q.typ != "text/html" || !knownEncoding(q.encoding) {
		return nil
	}
	head, err := readHead(decoder(p.msg.src, q), 3)
	if errors.Is(err, errDirty) {
		return nil
	}
	if err != nil {
		return err
	}
	s, err := scriptOf(q.charset, head)
	exact := err == nil && (s.coding == nil || s.single)
	text := decoder(p.msg.src, q)
	if !exact && err == nil {
		text = s.reader(text)
	}
	found, err := p.personalIn(text, q.typ == "text/html")
	switch {
	case errors.Is(err, errDirty):
		return nil // who reads such a text sees something else
	case err != nil:
		return fmt.Errorf("look for personal data: %w", err)
	}
	for detector, n := range found.counts {
		p.personal[detector] += n
	}
	switch {
	case found.worst == ActionSeal, found.worst == ActionMask && (!exact || len(found.masks) > maxMasked):
		p.tooPersonal = true
	case found.worst == ActionMask:
		return p.mask(q, found.masks)
	}
	return nil
}

func (p *Plan) personalIn(text io.Reader, page bool) (findings, error) {
	found := findings{counts: map[string]int{}, worst: ActionCount}
	find := p.rules.Text.Detectors.Find
	if page {
		find = p.rules.Text.Detectors.FindHTML
	}
	matches := 0
	err := find(text, func(m personal.Match) error {
		found.counts[m.Detector]++
		action := p.rules.Text.Actions[m.Detector]
		if action == ActionSeal || action == ActionMask && found.worst != ActionSeal {
			found.worst = action
		}
		if action == ActionMask && len(found.masks) <= maxMasked {
			for _, r := range m.Ranges {
				found.masks = append(found.masks, maskedRange{r[0], r[1], matches, m.Detector})
			}
		}
		matches++
		return nil
	})
	return found, err
}

// mask replaces what was found by as many bytes of mask, but for what is taken out of the text anyway.
func (p *Plan) mask(q *part, masks []maskedRange) error {
	text := decoder(p.msg.src, q)
	at := int64(0)
	read := func(m maskedRange) ([]byte, error) {
		if _, err := io.CopyN(io.Discard, text, m.start-at); err != nil {
			return nil, fmt.Errorf("mask a text: %w", err)
		}
		found := make([]byte, m.end-m.start)
		if _, err := io.ReadFull(text, found); err != nil {
			return nil, fmt.Errorf("mask a text: %w", err)
		}
		at = m.end
		return found, nil
	}
	inText := p.inside[q]
	for first := 0; first < len(masks); {
		last, match := first, []byte(nil)
		for ; last < len(masks) && masks[last].match == masks[first].match; last++ {
			found, err := read(masks[last])
			if err != nil {
				return err
			}
			match = append(match, found...)
		}
		instead := p.masked(q, masks[first].detector, match)
		for _, m := range masks[first:last] {
			n := m.end - m.start
			if !overlaps(inText.splices, m) {
				inText.splices = append(inText.splices, splice{start: m.start, end: m.end, text: string(instead[:n])})
			}
			instead = instead[n:]
		}
		first = last
	}
	inText.splices = sorted(inText.splices)
	inText.masked = true
	p.inside[q] = inText
	return nil
}

func (p *Plan) masked(q *part, detector string, match []byte) []byte {
	if q.typ == "text/html" {
		return p.rules.Text.Detectors.MaskHTML(detector, match)
	}
	return p.rules.Text.Detectors.Mask(detector, match)
}

func overlaps(splices []splice, m maskedRange) bool {
	for _, s := range splices {
		if s.start < m.end && m.start < s.end {
			return true
		}
	}
	return false
}

// sealBodies seals every text of the mail that would stay, if one of them holds what must not: its alternative says the
// same.
func (p *Plan) sealBodies() {
	if !p.tooPersonal {
		return
	}
	p.msg.root.walk(func(q *part) bool {
		switch {
		case p.fates[q] == leaves:
			return false
		case q.message: // it must not keep what the answer above it lost
			p.sealAsOne(q, "a forwarded message in a mail whose text holds personal data")
			return false
		case !q.isMultipart() && !q.empty && p.fates[q] == stays && isBodyType(q.typ):
			delete(p.inside, q)
			p.fates[q] = replaced
			p.whys[q] = "the text of the mail, but with personal data in it"
		}
		return true
	})
}

func isBodyType(typ string) bool {
	switch typ {
	case "text/plain", "text/html", "text/enriched", "text/richtext", "text/x-amp-html", "text/watch-html":
		return true
	}
	return false
}

// addOriginal seals a text as it came, of which a masked one stays.
func (p *Plan) addOriginal(q *part) error {
	if !p.inside[q].masked || p.fates[q] == copied { // which is sealed already
		return nil
	}
	item, err := leafItem(p.msg.src, q, bodyName(q))
	p.items = append(p.items, item)
	p.sealed++
	p.originals++
	return err
}

// bodyName is that of the file of a text.
func bodyName(q *part) string {
	if q.typ == "text/html" {
		return "message.html"
	}
	return "message.txt"
}
