package personal

import (
	"bytes"
	"cmp"
	"slices"
	"unicode/utf8"
)

const (
	maxToken   = 128 // bytes of a threading token
	maxLocal   = 64  // bytes before the @ of an address, RFC 5321 section 4.5.3.1
	maxDomain  = 255 // and after it
	maxBracket = 254 // bytes on either side of the @ of what stands in angle brackets
)

// protected are the pieces of the text that are never masked, in order and apart from each other: links, threading
// tokens, mail addresses and Message-IDs. inLink says that the text begins within a link.
func protected(text []byte, inLink bool) []span {
	spans := links(text, inLink)
	spans = tokens(spans, text, "thread::", "::")
	spans = tokens(spans, text, "ref:", ":ref")
	spans = addresses(spans, text)
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	merged := spans[:0]
	for _, s := range spans {
		if n := len(merged); n > 0 && s.from <= merged[n-1].to {
			merged[n-1].to = max(merged[n-1].to, s.to)
			continue
		}
		merged = append(merged, s)
	}
	return merged
}

// links finds what readers make links of, up to white space, a quote or an angle bracket: a scheme and "://", "www.", or a
// host and a path.
func links(text []byte, inLink bool) []span {
	var spans []span
	at := 0
	if inLink {
		at = unlinked(text, 0)
		spans = append(spans, span{0, at})
	}
	for {
		i := nextLink(text, at)
		if i < 0 {
			return spans
		}
		if start, ok := linkStart(text, at, i); ok {
			at = unlinked(text, i)
			spans = append(spans, span{start, at})
			continue
		}
		at = i + 1
	}
}

// nextLink returns the index of the next letter by which a link is known: a slash, or the first dot of "www."; -1 if there
// is none.
func nextLink(text []byte, from int) int {
	for i := from; ; i++ {
		n := bytes.IndexAny(text[i:], "/.")
		if n < 0 {
			return -1
		}
		if i += n; text[i] == '/' || i-from >= 3 && bytes.EqualFold(text[i-3:i], []byte("www")) {
			return i
		}
	}
}

// linkStart returns where the link begins, not before from, that is known by the letter at i.
func linkStart(text []byte, from, i int) (int, bool) {
	switch {
	case text[i] == '.':
		start := i - 3
		return start, start == 0 || !alnum(text[start-1])
	case i > from && text[i-1] == ':' && i+1 < len(text) && text[i+1] == '/':
		return scheme(text[:i-1])
	}
	return host(text, from, i)
}

// scheme finds the scheme of a link at the end of the text.
func scheme(text []byte) (int, bool) {
	for _, name := range []string{"https", "http", "ftps", "sftp", "ftp"} {
		start := len(text) - len(name)
		if start >= 0 && bytes.EqualFold(text[start:], []byte(name)) {
			return start, true
		}
	}
	return 0, false
}

// host finds the name of a host that ends at i with a domain of letters.
func host(text []byte, from, i int) (int, bool) {
	start := i
	for start > from && i-start <= maxDomain && (alnum(text[start-1]) || text[start-1] == '.' || text[start-1] == '-') {
		start--
	}
	top := i
	for top > start && letter(text[top-1]) {
		top--
	}
	return start, i-top >= 2 && top-1 > start && text[top-1] == '.' && !onlyNumber(text[i+1:])
}

// onlyNumber reports whether a text begins with a number and nothing else up to its end or a space: then a word with a dot, as
// in "Ref.No/1234", is more likely than a host.
func onlyNumber(text []byte) bool {
	n := 0
	for n < len(text) && (text[n] >= '0' && text[n] <= '9' || text[n] == '-') {
		n++
	}
	return n > 0 && (n == len(text) || endsLink(text[n]) || bytes.IndexByte([]byte(".,;:)"), text[n]) >= 0)
}

// unlinked is the index where a link around i ends.
func unlinked(text []byte, i int) int {
	for i < len(text) && !endsLink(text[i]) {
		i++
	}
	return i
}

func endsLink(c byte) bool {
	return c <= ' ' || c == '"' || c == '\'' || c == '<' || c == '>'
}

// linkAt says whether the index i is within a link that begins before it.
func linkAt(text []byte, i int, inLink bool) bool {
	start := i
	for start > 0 && !endsLink(text[start-1]) {
		start--
	}
	if start == 0 && inLink {
		return true
	}
	near := text[:min(len(text), i+len("https://"))]
	for at := start; ; at++ {
		if at = nextLink(near, at); at < 0 {
			return false
		}
		if from, ok := linkStart(near, start, at); ok && from < i {
			return true
		}
	}
}

// tokens finds what Email-to-Case threads on.
func tokens(spans []span, text []byte, begin, end string) []span {
	for at := 0; ; {
		i := bytes.Index(text[at:], []byte(begin))
		if i < 0 {
			return spans
		}
		i += at
		at = i + len(begin)
		n := bytes.Index(text[at:min(len(text), at+maxToken)], []byte(end))
		if n > 0 && unlinked(text[:at+n], at) == at+n {
			at += n + len(end)
			spans = append(spans, span{i, at})
		}
	}
}

// addresses finds mail addresses, and whatever holds an @ in angle brackets.
func addresses(spans []span, text []byte) []span {
	for at := 0; ; at++ {
		i := bytes.IndexByte(text[at:], '@')
		if i < 0 {
			return spans
		}
		at += i
		if s, ok := bracketed(text, at); ok {
			spans = append(spans, s)
			continue
		}
		from, to := at, at+1
		for from > 0 && at-from < maxLocal && localByte(text[from-1]) {
			from--
		}
		dots := 0
		for to < len(text) && to-at <= maxDomain && domainByte(text[to]) {
			if text[to] == '.' && to+1 < len(text) && (letter(text[to+1]) || text[to+1] >= utf8.RuneSelf) {
				dots++
			}
			to++
		}
		if from < at && dots > 0 {
			spans = append(spans, span{from, to})
		}
	}
}

// bracketed finds the angle brackets around the @ at i.
func bracketed(text []byte, i int) (span, bool) {
	from, to := i, i+1
	for from > 0 && i-from < maxBracket && bracketByte(text[from-1]) {
		from--
	}
	for to < len(text) && to-i < maxBracket && bracketByte(text[to]) {
		to++
	}
	if from == 0 || to == len(text) || text[from-1] != '<' || text[to] != '>' {
		return span{}, false
	}
	return span{from - 1, to + 1}, true
}

func bracketByte(c byte) bool {
	return c > ' ' && c != '<' && c != '>' && c != '@'
}

// localByte tells what the part before the @ may hold, RFC 5322 section 3.2.3 and RFC 6532.
func localByte(c byte) bool {
	return alnum(c) || c >= utf8.RuneSelf || bytes.IndexByte([]byte(".!#$%&'*+/=?^_`{|}~-"), c) >= 0
}

func domainByte(c byte) bool {
	return alnum(c) || c >= utf8.RuneSelf || c == '.' || c == '-'
}
