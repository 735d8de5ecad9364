package rewrite

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"

	"sealpost/gateway/policy/personal"
)

// maskedSubject is the subject of the mail in which personal data are masked: its field as it came, and what goes on.
type maskedSubject struct {
	field   field
	instead string
	decoded string
}

func (s maskedSubject) masked() bool { return s.instead != "" }

// maskSubject looks for personal data in the first Subject field of the mail. They are masked by each action but that of
// counting, since a mail needs a subject.
func (p *Plan) maskSubject() error {
	if p.rules.Text == nil {
		return nil
	}
	r := newFieldReader(p.msg.src)
	for {
		f, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the header: %w", err)
		}
		if f.name == "subject" && f.raw != nil {
			f.raw = bytes.Clone(f.raw)
			return p.maskField(f)
		}
	}
}

func (p *Plan) maskField(f field) error {
	decoded := decodeName(f.value())
	found, err := p.personalIn(strings.NewReader(decoded), false)
	if err != nil {
		return err
	}
	for detector, n := range found.counts {
		p.personal[detector] += n
	}
	masked, err := p.maskShort(decoded)
	if err != nil || masked == decoded {
		return err
	}
	p.subject = maskedSubject{field: f, decoded: decoded}
	raw, err := p.maskShort(string(f.raw))
	if err == nil && decodeName(field{raw: []byte(raw)}.value()) == masked {
		p.subject.instead = raw // nothing else of the field changes
		return nil
	}
	words := strings.ReplaceAll(mime.QEncoding.Encode("utf-8", masked), "?= =?", "?=\r\n =?")
	p.subject.instead = string(f.raw[:bytes.IndexByte(f.raw, ':')]) + ": " + words + "\r\n"
	return err
}

// maskShort masks what the detectors find in a short text and is not only to be counted.
func (p *Plan) maskShort(text string) (string, error) {
	masked := []byte(text)
	err := p.rules.Text.Detectors.Find(strings.NewReader(text), func(m personal.Match) error {
		if action := p.rules.Text.Actions[m.Detector]; action != ActionMask && action != ActionSeal {
			return nil
		}
		var match []byte
		for _, r := range m.Ranges {
			match = append(match, text[r[0]:r[1]]...)
		}
		instead := p.rules.Text.Detectors.Mask(m.Detector, match)
		for _, r := range m.Ranges {
			instead = instead[copy(masked[r[0]:r[1]], instead):]
		}
		return nil
	})
	return string(masked), err
}

// addSubject seals the subject as it came.
func (p *Plan) addSubject() {
	if !p.subject.masked() {
		return
	}
	text := p.subject.decoded
	p.items = append(p.items, Item{
		Name: "subject.txt", Type: "text/plain", Size: int64(len(text)), open: func() io.Reader { return strings.NewReader(text) },
	})
	p.sealed++
	p.originals++
}

// shownField returns a field of the top header as it goes on.
func (p *Plan) shownField(f field) []byte {
	if p.subject.masked() && f.start == p.subject.field.start {
		return []byte(p.subject.instead)
	}
	return f.raw
}
