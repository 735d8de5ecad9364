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

// maskedFields are the fields that say what the mail is about, and in which personal data are masked.
type maskedFields struct {
	instead map[int64]edited // by where a field begins
	decoded []string         // as they came
}

// edited is a range of the source and what takes its place.
type edited struct {
	span
	text string
}

func (s maskedFields) masked() bool { return len(s.instead) > 0 }

// isAbout reports whether a field says in words what a mail is about (RFC 5322 section 3.6.5).
func isAbout(name string) bool {
	return name == "subject" || name == "thread-topic" || name == "comments" || name == "keywords"
}

// maskSubject looks for personal data in the fields of the mail that say what it is about. They are masked by each action
// but that of counting, since a mail needs a subject. What a lenient reader takes for a field and we for text is text.
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
		if !isAbout(f.name) || f.raw == nil || p.whole == "" && f.end > p.msg.root.body {
			continue
		}
		f.raw = bytes.Clone(f.raw)
		if err := p.maskField(f); err != nil {
			return err
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
	instead, err := p.maskShort(string(f.raw))
	if err != nil {
		return err
	}
	if decodeName(field{raw: []byte(instead)}.value()) != masked { // it is encoded, and so changes as a whole
		instead = string(f.raw[:bytes.IndexByte(f.raw, ':')]) + ":" + folded(mime.QEncoding.Encode("utf-8", masked)) + "\r\n"
	}
	if p.subject.instead == nil {
		p.subject.instead = map[int64]edited{}
	}
	p.subject.instead[f.start] = edited{f.span, instead}
	p.subject.decoded = append(p.subject.decoded, decoded)
	return nil
}

// folded breaks a field's value into lines (RFC 5322 section 2.2.3).
func folded(value string) string {
	var b strings.Builder
	line := 0
	for word := range strings.FieldsSeq(value) {
		if line+len(word) > 70 && line > 0 {
			b.WriteString("\r\n")
			line = 0
		}
		b.WriteString(" " + word)
		line += len(word) + 1
	}
	return b.String()
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
	text := strings.Join(p.subject.decoded, "\n")
	p.items = append(p.items, Item{
		Name: "subject.txt", Type: "text/plain", Size: int64(len(text)), open: func() io.Reader { return strings.NewReader(text) },
	})
	p.sealed++
	p.originals++
}

// shownField returns a field of the top header as it goes on.
func (p *Plan) shownField(f field) []byte {
	if masked, is := p.subject.instead[f.start]; is {
		return []byte(masked.text)
	}
	return f.raw
}
