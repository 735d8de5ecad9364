package rewrite

import (
	"bytes"
	"io"
	"mime"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
)

// value is a structured field value (RFC 2045 section 5.1), read as forgivingly as mail readers do.
type value struct {
	first  string // what stands before the first semicolon, lower-cased, without comments
	params []param
	odd    bool // another reader may see other parameters
	long   bool // not all of it was read
}

const (
	// maxValue is the most bytes of a value that are read: room for a name of 10,000 characters in any form.
	maxValue = 256 << 10
	// maxParams and maxUnclosed bound the work that a hostile value makes.
	maxParams   = 4096
	maxUnclosed = 20
)

// param is one parameter; RFC 2231 continuations are not joined yet.
type param struct {
	name   string // lower-cased, as written: "filename*0*"
	value  string
	quoted bool
	odd    bool
}

// parseValue never fails: what makes no sense is marked odd or left out.
func parseValue(s string) value {
	var v value
	if len(s) > maxValue {
		s, v.long = s[:maxValue], true
	}
	c := cutter{rest: s, lastParen: strings.LastIndexByte(s, ')')}
	head, more := c.cut()
	words := strings.Fields(stripComments(head))
	joined := strings.Join(words, "")
	switch {
	case len(words) > 1 && strings.Contains(words[0], "/") && !strings.HasSuffix(words[0], "/") && !strings.HasPrefix(words[1], "/"):
		joined = words[0] // "text/plain charset=x": a forgotten semicolon
		v.params = appendParam(v.params, strings.Join(words[1:], " "))
		v.odd = true
	case len(words) > 1 && !strings.Contains(joined, "/"):
		joined = words[0]
	}
	v.first = strings.ToLower(strings.Trim(joined, `"`))
	for more && len(v.params) < maxParams {
		head, more = c.cut()
		v.params = appendParam(v.params, head)
	}
	v.long = v.long || more || c.unclosed > maxUnclosed
	return v
}

// cutter cuts a value into its parameters.
type cutter struct {
	rest      string
	lastParen int // index of the last closing parenthesis in rest; negative if there is none
	unclosed  int // how often an end was missing
}

// cut cuts rest at the first semicolon that is neither quoted nor in a comment.
func (c *cutter) cut() (head string, more bool) {
	i, ok := c.semicolon()
	if !ok {
		head, c.rest = c.rest, ""
		return head, false
	}
	head, c.rest = c.rest[:i], c.rest[i+1:]
	c.lastParen -= i + 1
	return head, true
}

func (c *cutter) semicolon() (int, bool) {
	s, quoted, depth := c.rest, false, 0
	first := strings.IndexByte(s, ';')
	if first < 0 || c.unclosed > maxUnclosed {
		return first, first >= 0
	}
	for i := 0; i < len(s); i++ {
		switch char := s[i]; {
		case char == '\\' && (quoted || depth > 0):
			i++
		case char == '"' && depth == 0:
			quoted = !quoted
		case quoted:
		case char == '(' && i < c.lastParen && beginsWord(s, i):
			depth++
		case char == ')' && depth > 0:
			depth--
		case char == ';' && depth == 0:
			return i, true
		}
	}
	if quoted || depth > 0 { // an end is missing: the next semicolon it is
		c.unclosed++
		return first, true
	}
	return 0, false
}

// beginsWord reports whether the parenthesis at i can begin a comment. In name=a(1).pdf it belongs to the name.
func beginsWord(s string, i int) bool {
	return i == 0 || strings.ContainsRune(" \t;(", rune(s[i-1]))
}

// stripComments removes comments (RFC 822 section 3.4.3) that are outside quotes.
func stripComments(s string) string {
	if !strings.Contains(s, "(") {
		return s
	}
	var b strings.Builder
	quoted, depth, lastParen := false, 0, strings.LastIndexByte(s, ')')
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s):
			if depth == 0 {
				b.WriteString(s[i : i+2])
			}
			i++
			continue
		case c == '"' && depth == 0:
			quoted = !quoted
		case quoted:
		case c == '(' && i < lastParen:
			depth++
			continue
		case c == ')' && depth > 0:
			depth--
			b.WriteByte(' ')
			continue
		}
		if depth == 0 {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// appendParam reads one "name=value" without the semicolons around it.
func appendParam(params []param, s string) []param {
	name, val, ok := strings.Cut(s, "=")
	if !ok {
		return params
	}
	p := param{name: strings.ToLower(strings.TrimSpace(stripComments(name)))}
	val = strings.TrimSpace(val)
	if !strings.HasPrefix(val, `"`) {
		p.value = val
		return append(params, p)
	}
	p.quoted = true
	var b strings.Builder
	i := 1
	for ; i < len(val) && val[i] != '"'; i++ {
		if val[i] == '\\' && i+1 < len(val) {
			p.odd = true
			if val[i+1] == '"' || val[i+1] == '\\' {
				i++ // only these two: senders on Windows write paths as they are
			}
		}
		b.WriteByte(val[i])
	}
	p.quoted = i < len(val) // else its end is missing
	p.odd = p.odd || p.quoted && strings.TrimSpace(stripComments(val[i+1:])) != ""
	p.value = b.String()
	return append(params, p)
}

// get returns the parameter with RFC 2231 continuations and charsets resolved, the extended form before
// the plain one. odd tells that another reader may see another value.
func (v value) get(name string) (val string, odd, found bool) {
	var plain, extended []string
	parts := make(map[int]param)
	for _, p := range v.params {
		base, suffix, star := strings.Cut(p.name, "*")
		if base != name {
			continue
		}
		odd = odd || p.odd
		switch index := strings.TrimSuffix(suffix, "*"); {
		case !star:
			plain = append(plain, p.value)
		case suffix == "":
			extended = append(extended, decodeExtended(p.value))
		default:
			n, err := strconv.Atoi(index)
			if _, twice := parts[n]; err != nil || n < 0 || twice {
				odd = true
				continue
			}
			parts[n] = p
		}
	}
	if joined, ok := joinParts(parts); ok {
		extended = append(extended, joined)
	} else if len(parts) > 0 {
		odd = true
	}
	all := slices.Concat(extended, plain)
	if len(all) == 0 {
		return "", odd, false
	}
	for _, other := range all[1:] {
		odd = odd || other != all[0]
	}
	return all[0], odd || v.odd, true
}

// boundary is a boundary parameter as it is read.
type boundary struct {
	value string
	odd   bool   // it can be anything
	shaky bool   // some readers take something else for it, or no boundary at all
	other string // what those readers take for it; "" if that is not known
}

func (v value) boundary() boundary {
	var b boundary
	b.value, b.odd, _ = v.get("boundary")
	for _, p := range v.params {
		base, _, extended := strings.Cut(p.name, "*")
		switch {
		case base != "boundary":
		case extended: // RFC 2231; whoever does not know it sees no multipart
			b.odd = b.odd || !isASCIIText(b.value)
		case !p.quoted:
			// RFC 2045 section 5.1 wants such characters quoted, and some readers end it before them.
			b.value = strings.TrimSpace(stripComments(b.value))
			if i := strings.IndexAny(b.value, " \t()<>@,;:\\\"/[]?='*"); i >= 0 {
				b.shaky, b.other = true, b.value[:i]
			}
		}
	}
	b.value = strings.TrimRight(b.value, " \t")
	if trimmed := strings.TrimLeft(b.value, " \t"); trimmed != b.value {
		b.shaky, b.other = true, trimmed
	}
	return b
}

func isASCIIText(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

// resembles reports whether a line that begins with "--" and text delimits the multipart for some other reader.
func (b boundary) resembles(text []byte) bool {
	if b.other != "" && hasPrefix(text, b.other) {
		return true
	}
	bare := strings.TrimLeft(b.value, "-")
	return bare != "" && hasFold(bytes.TrimLeft(text, "-"), bare)
}

// joinParts joins name*0, name*1 ... (RFC 2231 section 3); pieces whose name ends with * are percent-encoded.
func joinParts(parts map[int]param) (string, bool) {
	if _, ok := parts[0]; !ok {
		return "", false
	}
	var raw strings.Builder
	charset := ""
	for i := 0; ; i++ {
		p, ok := parts[i]
		if !ok {
			break
		}
		val := p.value
		if strings.HasSuffix(p.name, "*") {
			if i == 0 {
				charset, val = cutCharset(val)
			}
			val = percentDecode(val)
		}
		raw.WriteString(val)
	}
	return toUTF8(raw.String(), charset), true
}

func decodeExtended(s string) string {
	charset, val := cutCharset(s)
	return toUTF8(percentDecode(val), charset)
}

// cutCharset cuts charset'language'value (RFC 2231 section 4).
func cutCharset(s string) (charset, val string) {
	charset, rest, ok := strings.Cut(s, "'")
	if !ok {
		return "", s
	}
	_, val, ok = strings.Cut(rest, "'")
	if !ok {
		return "", s
	}
	return charset, val
}

func percentDecode(s string) string {
	if decoded, err := url.PathUnescape(s); err == nil {
		return decoded
	}
	return s
}

// toUTF8 decodes s. Without a charset, or with an unknown one, it is UTF-8 if it can be, else Windows-1252.
func toUTF8(s, charset string) string {
	if enc := encodingOf(charset); enc != nil {
		if decoded, err := enc.NewDecoder().String(s); err == nil {
			return decoded
		}
	}
	if utf8.ValidString(s) {
		return s
	}
	decoded, err := charmap.Windows1252.NewDecoder().String(s)
	if err != nil {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	return decoded
}

// encodingOf returns nil for UTF-8, for no charset and for one that is not known, or known to be dropped by browsers, such as
// ISO-2022-KR.
func encodingOf(charset string) encoding.Encoding {
	if charset == "" || isUTF8(charset) || isASCII(charset) {
		return nil
	}
	enc, err := htmlindex.Get(charset)
	if err != nil || enc == encoding.Replacement {
		return nil
	}
	return enc
}

func isUTF8(charset string) bool {
	return strings.EqualFold(charset, "utf-8") || strings.EqualFold(charset, "utf8")
}

func isASCII(charset string) bool {
	return strings.EqualFold(charset, "us-ascii") || strings.EqualFold(charset, "ascii") ||
		strings.EqualFold(charset, "ansi_x3.4-1968")
}

// decodeName decodes encoded words (RFC 2047), which many senders put into file names although they must
// not, and raw 8-bit names. The result is valid UTF-8.
func decodeName(s string) string {
	if strings.Contains(s, "=?") {
		words := mime.WordDecoder{CharsetReader: func(charset string, in io.Reader) (io.Reader, error) {
			enc, err := htmlindex.Get(charset)
			if err != nil {
				return nil, err
			}
			return enc.NewDecoder().Reader(in), nil
		}}
		if decoded, err := words.DecodeHeader(s); err == nil {
			s = decoded
		}
	}
	return toUTF8(s, "")
}
