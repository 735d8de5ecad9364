package personal

// ssnAt finds the social security number that begins with the run of digits.
func ssnAt(text []byte, run span) (span, bool) {
	switch run.to - run.from {
	case 9:
		return undelimited(text, run)
	case 3:
		return delimited(text, run)
	}
	return span{}, false
}

// undelimited judges nine digits, which mean something near a word that says so only.
func undelimited(text []byte, run span) (span, bool) {
	if !issued(text[run.from:run.to]) || !bounded(text, run) || !labelled(text, run) {
		return span{}, false
	}
	return run, true
}

// delimited judges groups of three, two and four digits.
func delimited(text []byte, run span) (span, bool) {
	digits := append(make([]byte, 0, 9), text[run.from:run.to]...)
	whole, inner := run, apart
	for _, size := range []int{2, 4} {
		skip, kind := separator(text, whole.to)
		if kind == apart || kind == broken || inner != apart && kind != inner {
			return span{}, false
		}
		from := whole.to + skip
		end := digitsEnd(text, from)
		if end-from != size {
			return span{}, false
		}
		digits = append(digits, text[from:end]...)
		whole.to, inner = end, kind
	}
	if !issued(digits) || !bounded(text, whole) {
		return span{}, false
	}
	if inner == hyphened {
		label := labelOf(text, whole.from, isSSNWord)
		return whole, label == wanted || label == unlabelled && !calledForeign(text, whole.to)
	}
	return whole, labelled(text, whole)
}

// issued says that nine digits can be a number: area, group and serial are none of those never given out.
func issued(d []byte) bool {
	area, group, serial := string(d[:3]), string(d[3:5]), string(d[5:])
	return area != "000" && area != "666" && area[0] != '9' && group != "00" && serial != "0000"
}

// bounded says that the number is not part of something longer.
func bounded(text []byte, s span) bool {
	before, after := runeBefore(text, s.from), runeAt(text, s.to)
	switch before {
	case '+', '$', '€', '£':
		return false
	case '.', ',', '/':
		if s.from > 1 && digit(text[s.from-2]) {
			return false
		}
	}
	if wordRune(before) || wordRune(after) || isHyphen(before) {
		return false
	}
	if isHyphen(after) || after == '.' || after == ',' || after == '/' {
		at := s.to + len(string(after))
		return at >= len(text) || !alnum(text[at])
	}
	return true
}

// labelled says that a word near the number calls it a social security number.
func labelled(text []byte, s span) bool {
	switch labelOf(text, s.from, isSSNWord) {
	case wanted:
		return true
	case foreign:
		return false
	}
	return followedBy(text, s.to, isSSNWord)
}
