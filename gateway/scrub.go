package gateway

import (
	"mime"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// longPart is from what length on a local part or a domain gives an address away by itself.
	longPart = 8
	// scrubbed stands where there is no public address to show.
	scrubbed = "[hidden]"
	// MaxSpelling is how many bytes of a text are taken for one address, however it is spelt: who searches a text in
	// pieces lets them overlap by that.
	MaxSpelling = 8 << 10
	// fewSteps is how long a reading goes on before it is remembered where it has been.
	fewSteps = 4096
)

// Scrub puts what is to be shown in the place of what is to be hidden. hide maps each forward_to, in any letter case, to
// the public address. It is found in any letter case; with blanks, line ends, marks of quoting, control characters or
// HTML tags in between; with its local part quoted; percent-encoded, in quoted-printable, xtext (RFC 3461 section 4) or
// HTML entities; and with its domain in either spelling of RFC 5890. A long local part, domain, or label with a digit that
// stands alone is hidden too, unless it is part of what is shown. A text that cannot be cleaned is given up whole: "".
func Scrub(text string, hide map[string]string) string { return NewScrubber(hide).Scrub(text) }

// Scrubber is Scrub made ready for many texts. It may be used by several goroutines at once.
type Scrubber struct {
	root   *spelling
	starts [256]bool // by which bytes a part can begin
}

// spelling is a node of the tree of all parts, letter by letter, folded.
type spelling struct {
	next map[rune]*spelling
	part *hiddenPart // that ends here; nil: none
}

// hiddenPart is an address, or a part that tells of it.
type hiddenPart struct {
	show   string
	public string // the address that it tells of; empty: of several
	whole  bool
}

// NewScrubber makes a Scrubber. An entry that stands for itself hides nothing; it tells that its parts are public.
func NewScrubber(hide map[string]string) *Scrubber {
	s := &Scrubber{root: &spelling{}}
	for _, c := range []byte(`%=+&\`) {
		s.starts[c] = true
	}
	for c := 0xC0; c < 0x100; c++ {
		s.starts[c] = true
	}
	known := make([]string, 0, len(hide))
	for _, public := range hide {
		known = append(known, folded(public))
	}
	for secret, public := range hide {
		if folded(secret) != folded(public) {
			s.hide(secret, public, known)
		}
	}
	return s
}

func (s *Scrubber) hide(secret, public string, known []string) {
	at := strings.LastIndexByte(secret, '@')
	local, domain := secret[:max(at, 0)], secret[at+1:]
	for _, domain := range domainSpellings(domain) {
		s.add(secret[:at+1]+domain, hiddenPart{public, public, true})
		parts := []string{local, domain}
		for label := range strings.SplitSeq(domain, ".") {
			if strings.ContainsFunc(label, unicode.IsDigit) {
				parts = append(parts, label)
			}
		}
		for _, part := range parts {
			if len(part) >= longPart && !within(known, folded(part)) {
				s.add(part, hiddenPart{scrubbed, public, false})
			}
		}
	}
}

func (s *Scrubber) add(text string, part hiddenPart) {
	letters := folded(text)
	if letters == "" {
		return
	}
	n := s.root
	for _, c := range letters {
		child := n.next[c]
		if child == nil {
			child = &spelling{}
			if n.next == nil {
				n.next = map[rune]*spelling{}
			}
			n.next[c] = child
		}
		n = child
	}
	if c := letters[0]; c < utf8.RuneSelf {
		s.starts[c], s.starts[byte(unicode.ToUpper(rune(c)))] = true, true
	}
	switch {
	case n.part == nil:
		n.part = &part
	case !n.part.whole && part.whole:
		n.part = &part
	case n.part.whole == part.whole && n.part.public != part.public:
		n.part = &hiddenPart{scrubbed, "", part.whole}
	}
}

func within(known []string, part string) bool {
	for _, k := range known {
		if strings.Contains(k, part) {
			return true
		}
	}
	return false
}

// Find reports whether text holds something to hide, and the public address that the first such part tells of; "" when
// it tells of several.
func (s *Scrubber) Find(text string) (public string, found bool) {
	m := s.first(text, 0)
	if m.part == nil {
		return "", false
	}
	return m.part.public, true
}

// Scrub is the function Scrub.
func (s *Scrubber) Scrub(text string) string {
	text = s.replace(text, func(p *hiddenPart) string { return p.show })
	// What was put in may have made the address anew, together with what stood around it.
	text = s.replace(text, func(*hiddenPart) string { return scrubbed })
	if _, found := s.Find(text); found {
		return ""
	}
	if decoded, err := new(mime.WordDecoder).DecodeHeader(text); err == nil && decoded != text {
		if _, found := s.Find(decoded); found {
			return ""
		}
	}
	return text
}

func (s *Scrubber) replace(text string, with func(*hiddenPart) string) string {
	var out strings.Builder
	from := 0
	for {
		m := s.first(text, from)
		if m.part == nil {
			break
		}
		out.WriteString(text[from:m.start])
		out.WriteString(with(m.part))
		from = m.end
	}
	if from == 0 {
		return text
	}
	out.WriteString(text[from:])
	return out.String()
}

// match is where a part stands in a text.
type match struct {
	start, end int
	part       *hiddenPart
	steps      int
	seen       map[place]bool // so that a text that can be read in many ways is not read in each of them
}

// place is a step of reading a text.
type place struct {
	node *spelling
	at   int
}

// again reports whether the reading has been at a place before.
func (m *match) again(n *spelling, i int) bool {
	if m.steps++; m.steps < fewSteps {
		return false
	}
	if m.seen == nil {
		m.seen = map[place]bool{}
	}
	before := m.seen[place{n, i}]
	m.seen[place{n, i}] = true
	return before
}

// first returns the first part in text from from on, the longest of those that begin there.
func (s *Scrubber) first(text string, from int) match {
	if len(s.root.next) == 0 {
		return match{}
	}
	for i := from; i < len(text); i++ {
		if !s.starts[text[i]] {
			continue
		}
		m := match{start: i}
		s.root.letter(text[:min(len(text), i+MaxSpelling)], i, &m)
		if m.part != nil {
			return m
		}
	}
	return match{}
}

// follow takes n as read up to i, and goes on behind what may stand between two letters.
func (n *spelling) follow(text string, i int, m *match) {
	if n.part != nil && i > m.end {
		m.end, m.part = i, n.part
	}
	if len(n.next) == 0 {
		return
	}
	next, other := skipBetween(text, i)
	n.letter(text, next, m)
	if other != next {
		n.letter(text, other, m)
	}
}

// letter reads the letter at i, plain and in each encoding that it could be in.
func (n *spelling) letter(text string, i int, m *match) {
	if i >= len(text) || m.again(n, i) {
		return
	}
	plain, size := utf8.DecodeRuneInString(text[i:])
	if child := n.next[fold(plain)]; child != nil {
		child.follow(text, i+size, m)
	}
	c, end := decodeLetter(text, i)
	switch {
	case end <= i:
	case invisible(c):
		if i > m.start {
			next, _ := skipBetween(text, end)
			n.letter(text, next, m)
		}
	default:
		if child := n.next[fold(c)]; child != nil {
			child.follow(text, end, m)
		}
	}
}
