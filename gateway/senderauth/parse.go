package senderauth

import (
	"strings"

	"sealpost/gateway"
)

// statement is one result of an Authentication-Results field as others write it.
type statement struct {
	method     string // spf, dkim, dmarc
	result     gateway.AuthResult
	properties map[string]string // lower-case names
	comments   string
}

// parseResults reads the value of an Authentication-Results field (RFC 8601 section 2.2) as tolerantly as
// what is out there asks for: Microsoft 365 writes no authserv-id. What is not understood is left out.
func parseResults(value string) (id string, statements []statement) {
	for i, s := range segments(value) {
		if i == 0 && (len(s.words) == 0 || !strings.Contains(s.words[0], "=")) {
			if len(s.words) > 0 {
				id = canonicalID(s.words[0])
			}
			continue
		}
		if st, ok := parseStatement(s); ok {
			statements = append(statements, st)
		}
	}
	return id, statements
}

func parseStatement(s segment) (statement, bool) {
	if len(s.words) == 0 {
		return statement{}, false
	}
	method, word, ok := strings.Cut(strings.ToLower(s.words[0]), "=")
	method, _, _ = strings.Cut(method, "/") // the method's version
	result := resultWord(word)
	if !ok || result == "" || method != "spf" && method != "dkim" && method != "dmarc" {
		return statement{}, false
	}
	st := statement{method: method, result: result, properties: map[string]string{}, comments: s.comments}
	for _, word := range s.words[1:] {
		key, value, ok := strings.Cut(word, "=")
		key = strings.ToLower(key)
		if _, given := st.properties[key]; ok && !given {
			st.properties[key] = value
		}
	}
	return st, true
}

// resultWord returns the result that a word means; empty: none that is known.
func resultWord(word string) gateway.AuthResult {
	switch r := gateway.AuthResult(word); r {
	case gateway.AuthPass, gateway.AuthFail, gateway.AuthSoftFail, gateway.AuthNeutral, gateway.AuthNone,
		gateway.AuthPolicy, gateway.AuthTempError, gateway.AuthPermError:
		return r
	}
	switch word {
	case "hardfail":
		return gateway.AuthFail
	case "bestguesspass": // Microsoft: no record, but it would have passed
		return gateway.AuthNone
	case "error":
		return gateway.AuthTempError
	case "unknown":
		return gateway.AuthPermError
	}
	return ""
}

// segment is what stands between two semicolons.
type segment struct {
	words    []string // without quotes; white space around = is gone
	comments string   // all of them, with a space before each
}

// splitter takes a value apart.
type splitter struct {
	done     []segment
	words    []string
	word     strings.Builder
	inWord   bool
	comments strings.Builder
	broken   bool // a comment or a quoted string has no end
}

func segments(value string) []segment {
	s := split(value)
	return s.done
}

func split(value string) *splitter {
	s := &splitter{}
	for i := 0; i < len(value); {
		switch c := value[i]; {
		case c == '(':
			i = s.comment(value, i)
		case c == '"':
			i = s.quoted(value, i)
		case c == ';':
			s.endSegment()
			i++
		case c <= ' ' || c == 0x7f:
			s.endWord()
			i++
		default:
			s.word.WriteByte(c)
			s.inWord = true
			i++
		}
	}
	s.endSegment()
	return s
}

// comment reads a comment that begins at i, nested ones included, and returns where it ends.
func (s *splitter) comment(value string, i int) int {
	s.endWord()
	s.comments.WriteByte(' ')
	for depth := 0; i < len(value); i++ {
		switch value[i] {
		case '(':
			depth++
			continue
		case ')':
			if depth--; depth == 0 {
				return i + 1
			}
			continue
		case '\\':
			if i++; i == len(value) {
				continue
			}
		}
		s.comments.WriteByte(value[i])
	}
	s.broken = true
	return i
}

func (s *splitter) quoted(value string, i int) int {
	s.inWord = true
	for i++; i < len(value); i++ {
		switch value[i] {
		case '"':
			return i + 1
		case '\\':
			if i++; i == len(value) {
				continue
			}
		}
		s.word.WriteByte(value[i])
	}
	s.broken = true
	return i
}

// endWord ends a word, and joins what stood around an = sign.
func (s *splitter) endWord() {
	if !s.inWord {
		return
	}
	word := s.word.String()
	s.word.Reset()
	s.inWord = false
	last := len(s.words) - 1
	if last >= 0 && (strings.HasPrefix(word, "=") || strings.HasSuffix(s.words[last], "=")) {
		s.words[last] += word
		return
	}
	s.words = append(s.words, word)
}

func (s *splitter) endSegment() {
	s.endWord()
	s.done = append(s.done, segment{words: s.words, comments: s.comments.String()})
	s.words = nil
	s.comments.Reset()
}
