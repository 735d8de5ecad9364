package personal

const (
	minCard = 12 // digits
	maxCard = 19

	minGroup = 3 // digits of a group but the last
)

// group is a run of digits and how it is set apart from the one before.
type group struct {
	span
	kind separation
}

// issuance says how usual a number of its length is in its issuer's range.
type issuance int

const (
	never  issuance = iota
	rare            // needs a card word near it
	common          // enough
)

// cardAt finds a card number that begins with the run of digits.
func (n *numbers) cardAt(run span) (span, bool) {
	c, size := n.text[run.from], run.to-run.from
	if c < '2' || c > '8' || size < minGroup || size > maxCard {
		return span{}, false
	}
	var list [10]group
	groups := n.groups(run, list[:0])
	var best span
	var digits [maxCard]byte
	total := 0
	for k, g := range groups {
		if total+g.to-g.from > maxCard {
			break
		}
		for _, c := range n.text[g.from:g.to] {
			digits[total] = c - '0'
			total++
		}
		if total < minCard || !n.isCard(digits[:total], groups[:k+1], groups[k+1:]) {
			continue
		}
		best = span{run.from, g.to}
		if usual(issuer(digits[:total]), groups[:k+1]) && !n.continues(groups[:k+1], groups[k+1:]) {
			break
		}
	}
	return best, best.to > 0
}

// groups are the run of digits and those after it that may belong to the same number, and one more.
func (n *numbers) groups(run span, groups []group) []group {
	groups = append(groups, group{run, apart})
	for total := run.to - run.from; total <= maxCard && len(groups) < cap(groups); {
		last := groups[len(groups)-1]
		skip, kind := separator(n.text, last.to)
		if kind == apart || !digit(n.text[last.to+skip]) {
			break
		}
		next := span{last.to + skip, digitsEnd(n.text, last.to+skip)}
		groups = append(groups, group{next, kind})
		size := next.to - next.from
		if size < minGroup {
			break
		}
		total += size
	}
	return groups
}

// isCard judges the digits of the groups; rest are the groups after them.
func (n *numbers) isCard(digits []byte, groups, rest []group) bool {
	issued := issuer(digits)
	if issued == never || !luhn(digits) {
		return false
	}
	first, last := groups[0], groups[len(groups)-1]
	if !n.standsAlone(first.from) || !n.endsAlone(last.to) || !n.positioned(groups, rest) {
		return false
	}
	label := labelOf(n.text, first.from, isCardWord)
	if label == foreign || label == unlabelled && calledForeign(n.text, last.to) {
		return false
	}
	if usual(issued, groups) {
		return true
	}
	return (label == wanted || followedBy(n.text, last.to, isCardWord)) && !n.continues(groups, rest)
}

// usual says that a number needs no card word.
func usual(issued issuance, groups []group) bool {
	if issued != common {
		return false
	}
	inner, breaks := apart, 0
	for _, g := range groups[1:] {
		if g.kind == broken {
			breaks++
			continue
		}
		if inner != apart && g.kind != inner {
			return false
		}
		inner = g.kind
	}
	return len(groups) == 1 || breaks <= 1 && len(groups) >= 2+breaks && customary(groups)
}

// customary tells the groups in which card numbers are printed and typed.
func customary(groups []group) bool {
	var shape [10]byte
	for i, g := range groups {
		shape[i] = '0' + byte(min(g.to-g.from, 9))
	}
	switch string(shape[:len(groups)]) {
	case "4444", "44443", "465", "464", "4443", "4442", "88", "448", "484", "844", "66", "646":
		return true
	}
	return false
}

// continues says that the number goes on after the groups in the same way.
func (n *numbers) continues(groups, rest []group) bool {
	if len(rest) == 0 {
		return false
	}
	if len(groups) == 1 {
		return rest[0].kind == hyphened || rest[0].kind == dotted
	}
	return rest[0].kind == inner(groups)
}

// inner is what mostly stands between the groups.
func inner(groups []group) separation {
	for _, g := range groups[1:] {
		if g.kind != broken {
			return g.kind
		}
	}
	return broken
}

// positioned says that the groups are not cut out of the middle of a longer list of groups. An expiry date or a
// check number may follow, a short number (of a list, a quantity) may stand before.
func (n *numbers) positioned(groups, rest []group) bool {
	follows := n.continues(groups, rest)
	tight := inner(groups)
	if len(groups) == 1 {
		tight = hyphened
	}
	if follows && (tight == hyphened || tight == dotted) {
		return false
	}
	length := n.before.to - n.before.from
	if length == 0 || n.before.to <= n.done {
		return true
	}
	skip, kind := separator(n.text, n.before.to)
	if kind != tight || n.before.to+skip != groups[0].from {
		return true
	}
	return kind == spaced && (length <= 2 || !follows)
}

// standsAlone says that the number that begins at i is not the end of something longer.
func (n *numbers) standsAlone(i int) bool {
	before := runeBefore(n.text, i)
	if wordRune(before) || before == '+' || before == '$' || before == '€' || before == '£' {
		return false
	}
	if i < 2 {
		return true
	}
	earlier := n.text[i-2]
	switch before {
	case '.':
		return !digit(earlier)
	case ',':
		return earlier != '0'
	case '-', '/':
		return !letter(earlier) || isCardWord(wordBefore(n.text, i-1))
	case ' ':
		return !codeWord(wordBefore(n.text, i-1))
	}
	return true
}

// endsAlone says that the number that ends at i is not the beginning of something longer.
func (n *numbers) endsAlone(i int) bool {
	after := runeAt(n.text, i)
	if wordRune(after) || after == '%' || after == '€' {
		return false
	}
	if i+1 >= len(n.text) {
		return true
	}
	switch next := n.text[i+1]; after {
	case '.':
		return !digit(next)
	case '-':
		return !letter(next)
	case ' ':
		end := i + 1
		for end < len(n.text) && alnum(n.text[end]) {
			end++
		}
		return !hexWord(string(n.text[i+1 : end]))
	}
	return true
}

// luhn checks the last digit, ISO/IEC 7812-1 annex B.
func luhn(digits []byte) bool {
	sum := 0
	for i := range digits {
		d := int(digits[len(digits)-1-i])
		if i%2 == 1 {
			d *= 2
			if d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}
