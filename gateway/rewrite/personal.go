package rewrite

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

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

// lookForPersonal looks for personal data in a body that stays, the mail's own or one in a forwarded message. What is found
// in a text that not all readers decode alike cannot be masked in it.
func (p *Plan) lookForPersonal(q *part) error {
	if p.rules.Text == nil || !isBodyType(q.typ) {
		return nil
	}
	text, exact, err := p.personalText(q)
	if err != nil {
		return fmt.Errorf("look for personal data: %w", err)
	}
	found, err := p.personalIn(text, isPage(q.typ))
	if errors.Is(err, errDirty) {
		exact = false
		found, err = p.personalIn(&junkReader{in: section(p.msg.src, span{q.body, q.end})}, isPage(q.typ))
	}
	if err != nil {
		return fmt.Errorf("look for personal data: %w", err)
	}
	for detector, n := range found.counts {
		p.personal[detector] += n
	}
	switch {
	case found.worst == ActionSeal, found.worst == ActionMask && (!exact || len(found.masks) > maxMasked):
		p.tooPersonal = true
	case found.worst == ActionMask:
		p.masks[q] = found.masks[len(found.masks)-1].match + 1
		_, spaces := text.(*spaceReader)
		return p.mask(q, found.masks, spaces)
	}
	return nil
}

// compareAlternatives seals the texts if more is masked in one of them than in another that says the same: there the
// detectors have not understood it. One without digits says something else.
func (p *Plan) compareAlternatives() error {
	var err error
	p.msg.root.walk(func(q *part) bool {
		if q.typ != "multipart/alternative" || p.fates[q] == leaves || len(p.masks) == 0 {
			return !p.tooPersonal && err == nil
		}
		var counts []int
		for _, child := range q.children {
			var body bool
			var masks int
			if body, masks, err = p.masksIn(child); err != nil {
				return false
			}
			if body {
				counts = append(counts, masks)
			}
		}
		p.tooPersonal = p.tooPersonal || len(counts) > 0 && slices.Min(counts) < slices.Max(counts)
		return !p.tooPersonal
	})
	return err
}

// masksIn reports whether a text with digits stays in q, and how many matches are masked in those that do.
func (p *Plan) masksIn(q *part) (body bool, masks int, err error) {
	q.walk(func(r *part) bool {
		if !r.isMultipart() && !r.message && p.fates[r] == stays && isBodyType(r.typ) && err == nil {
			var digits bool
			digits, err = hasDigits(decoder(p.msg.src, r))
			body, masks = body || digits, masks+p.masks[r]
		}
		return p.fates[r] != leaves && err == nil
	})
	return body, masks, err
}

// hasDigits reports whether a digit stands in text, or cannot be told.
func hasDigits(text io.Reader) (bool, error) {
	in := bufio.NewReader(text)
	for {
		b, err := in.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			return false, nil
		case err == nil && isDigit(b), errors.Is(err, errDirty):
			return true, nil
		case err != nil:
			return false, fmt.Errorf("look for digits: %w", err)
		}
	}
}

// sealPersonalMessages seals each forwarded message that stays and whose fields hold what would be masked in the mail's own.
func (p *Plan) sealPersonalMessages() error {
	if p.rules.Text == nil {
		return nil
	}
	var err error
	p.msg.root.walk(func(q *part) bool {
		if err != nil || p.fates[q] == leaves || !q.message {
			return err == nil && p.fates[q] != leaves
		}
		var personal bool
		if personal, err = p.isAboutPersonal(q.children[0]); personal {
			p.sealAsOne(q, "a forwarded message with personal data in its subject")
		}
		return !personal
	})
	return err
}

func (p *Plan) isAboutPersonal(message *part) (bool, error) {
	block := make([]byte, message.body-message.start)
	if _, err := p.msg.src.ReadAt(block, message.start); err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read a header: %w", err)
	}
	for _, f := range fields(block, message.start) {
		if !isAbout(f.name) {
			continue
		}
		found, err := p.personalIn(strings.NewReader(decodeName(f.value())), false)
		if err != nil {
			return false, err
		}
		for detector, n := range found.counts {
			p.personal[detector] += n
		}
		if found.worst != ActionCount {
			return true, nil
		}
	}
	return false, nil
}

// personalText returns the text of q in UTF-8, or in bytes in which ASCII is found. exact tells that they are those of the
// decoded text itself.
func (p *Plan) personalText(q *part) (text io.Reader, exact bool, err error) {
	switch {
	case knownEncoding(q.encoding):
	case strings.Contains(q.encoding, "64"):
		return &junkReader{in: section(p.msg.src, span{q.body, q.end})}, false, nil
	case strings.Contains(q.encoding, "quoted"):
		return newQPReader(section(p.msg.src, span{q.body, q.end})), false, nil
	}
	head, err := readHead(decoder(p.msg.src, q), min(256, q.end-q.body))
	if err != nil && !errors.Is(err, errDirty) {
		return nil, false, err
	}
	s, failed := scriptOf(q.charset, head)
	switch {
	case failed == nil && (s.coding == nil || s.single) && bytes.IndexByte(head, 0) < 0:
		text = decoder(p.msg.src, q)
		if s.coding != nil && s.has('\u00a0') {
			text = &spaceReader{text}
		}
		return text, knownEncoding(q.encoding), nil
	case failed == nil && s.coding != nil:
		return s.reader(decoder(p.msg.src, q)), false, nil
	case isUTF16(q.charset, head):
		return &narrowReader{r: decoder(p.msg.src, q)}, false, nil
	}
	return decoder(p.msg.src, q), false, nil
}

// spaceReader makes spaces of no-break spaces in a charset of one byte for a character.
type spaceReader struct{ r io.Reader }

func (r *spaceReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	for i, b := range p[:n] {
		if b == 0xa0 {
			p[i] = ' '
		}
	}
	return n, err
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

// mask replaces what was found by as many bytes of mask, but for what is taken out of the text anyway. spaces tells that no-
// break spaces of one byte are in it, which stay.
func (p *Plan) mask(q *part, masks []maskedRange, spaces bool) error {
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
		instead := p.masked(q, masks[first].detector, match, spaces)
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

func (p *Plan) masked(q *part, detector string, match []byte, spaces bool) []byte {
	if spaces {
		instead := p.masked(q, detector, bytes.ReplaceAll(match, []byte{0xa0}, []byte{' '}), false)
		for i, b := range match {
			if b == 0xa0 {
				instead[i] = b
			}
		}
		return instead
	}
	if isPage(q.typ) {
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
	return typ == "text/plain" || typ == "text/enriched" || typ == "text/richtext" || isPage(typ)
}

// isPage reports whether a text of this type is HTML.
func isPage(typ string) bool {
	return typ == "text/html" || typ == "text/x-amp-html" || typ == "text/watch-html"
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
	if isPage(q.typ) {
		return "message.html"
	}
	return "message.txt"
}
