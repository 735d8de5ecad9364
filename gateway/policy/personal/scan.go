package personal

import (
	"cmp"
	"slices"
	"unicode/utf8"
)

// span is a piece of the window, by indices.
type span struct{ from, to int }

// finding is what one detector wants, before it is compared with the others.
type finding struct {
	span
	detector string
	rank     int
}

// scanner looks through one text.
type scanner struct {
	d     *Detectors
	w     window
	found func(Match) error

	findings []finding
	taken    int64 // offset in the text up to which it belongs to a match already
	rawTaken int64 // likewise in what was read
}

func (d *Detectors) scan(src source, found func(Match) error) error {
	s := scanner{d: d, found: found}
	return s.run(src)
}

func (s *scanner) run(src source) error {
	s.w.text = make([]byte, 0, full+slack)
	next := 0 // from here on nothing is decided
	for {
		if err := src.fill(&s.w); err != nil {
			return err
		}
		limit := len(s.w.text)
		if !s.w.ended {
			limit -= ahead
		}
		if !s.d.none() {
			if err := s.decide(next, limit); err != nil {
				return err
			}
		}
		if s.w.ended {
			return nil
		}
		next = s.w.slide(limit)
	}
}

// decide reports the matches that begin between the indices from and to.
func (s *scanner) decide(from, to int) error {
	s.findings = s.findings[:0]
	s.numbers(from, to)
	for i, p := range s.d.patterns {
		for start := from; start < to; start += patternCore {
			s.matches(p, i+1, span{start, min(start+patternCore, to)})
		}
	}
	if len(s.findings) == 0 {
		return nil
	}
	slices.SortFunc(s.findings, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to), cmp.Compare(a.rank, b.rank))
	})
	kept := protected(s.w.text, s.w.inLink)
	for _, f := range s.findings {
		for len(kept) > 0 && kept[0].to <= f.from {
			kept = kept[1:]
		}
		if err := s.report(f, kept); err != nil {
			return err
		}
	}
	return nil
}

// matches adds what a pattern matches from an index within the span on.
func (s *scanner) matches(p pattern, rank int, within span) {
	low := max(0, within.from-patternBehind)
	high := min(len(s.w.text), within.to+patternAhead)
	for _, at := range p.re.FindAllIndex(s.w.text[low:high], -1) {
		if from := low + at[0]; from >= within.from && from < within.to {
			s.pieces(from, low+at[1], p.name, rank)
		}
	}
}

// pieces adds what a pattern matched, in pieces of at most maxMatch bytes that divide no character.
func (s *scanner) pieces(from, to int, name string, rank int) {
	for from < to {
		end := min(to, from+maxMatch)
		for back := 0; end < to && back < utf8.UTFMax-1 && !utf8.RuneStart(s.w.text[end]); back++ {
			end--
		}
		s.findings = append(s.findings, finding{span{from, end}, name, rank})
		from = end
	}
}

// report hands on what is left of a finding after the matches before it and what is never masked.
func (s *scanner) report(f finding, kept []span) error {
	m := Match{Detector: f.detector}
	from := max(f.from, int(s.taken-s.w.base))
	for from < f.to {
		to := f.to
		if len(kept) > 0 && kept[0].from < to {
			to = max(from, kept[0].from)
		}
		if from < to {
			m.Ranges = s.w.ranges(m.Ranges, from, to, s.rawTaken)
			m.letters += letters(s.w.text[from:to], false)
		}
		if to == f.to {
			break
		}
		from = max(from, kept[0].to)
		kept = kept[1:]
	}
	if len(m.Ranges) == 0 || m.letters == 0 {
		return nil
	}
	s.taken = s.w.base + int64(f.to)
	s.rawTaken = m.Ranges[len(m.Ranges)-1][1]
	return s.found(m)
}

// numbers adds what the built-in detectors find. All of them begin at, or just before, a digit.
func (s *scanner) numbers(from, to int) {
	if !s.d.cards && !s.d.ibans && !s.d.ssns {
		return
	}
	text := s.w.text
	n := numbers{text: text}
	if s.w.base > 0 {
		n.at = digitsEnd(text, 0)
	}
	for n.at = nextDigit(text, n.at); n.at < len(text); n.at = nextDigit(text, n.at) {
		run := span{n.at, digitsEnd(text, n.at)}
		m, name := n.match(s.d, run)
		if name == "" {
			n.before, n.at = run, max(n.at, run.to)
			continue
		}
		if m.from >= to {
			return
		}
		if m.from >= from {
			s.findings = append(s.findings, finding{m, name, 0})
		}
		n.before, n.done, n.at = span{m.to, m.to}, m.to, m.to
	}
}

// numbers is where a search for numbers stands.
type numbers struct {
	text   []byte
	at     int
	before span // the run of digits before
	done   int  // where the last match ended
	noCard int  // no card begins before this index: an IBAN with a wrong digit stands there
}

// match is what begins with, or just before, the run of digits.
func (n *numbers) match(d *Detectors, run span) (span, string) {
	if d.ibans || d.cards {
		m, valid := ibanAt(n.text, run, n.done)
		if valid && d.ibans {
			return m, IBAN
		}
		n.noCard = max(n.noCard, m.to)
	}
	if d.ssns {
		if m, ok := ssnAt(n.text, run); ok {
			return m, SSN
		}
	}
	if d.cards && run.from >= n.noCard {
		if m, ok := n.cardAt(run); ok {
			return m, Card
		}
	}
	return span{}, ""
}

// nextDigit is the index of the first digit from i on.
func nextDigit(text []byte, i int) int {
	for i < len(text) && !digit(text[i]) {
		i++
	}
	return i
}

// digitsEnd is the end of the digits that begin at i.
func digitsEnd(text []byte, i int) int {
	for i < len(text) && digit(text[i]) {
		i++
	}
	return i
}

func digit(c byte) bool { return c-'0' <= 9 }
