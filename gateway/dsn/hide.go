package dsn

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"html"
	"io"
	"mime"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/emersion/go-message/charset"
)

const (
	// longPart is from what length on a local part or a domain gives an address away by itself.
	longPart = 8
	hidden   = "[hidden]"
	// overlap is how much of a piece is searched again together with the next: an address in any spelling.
	overlap = 8 << 10
)

var (
	escaped = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)
	soft    = regexp.MustCompile(`=[ \t]*\r?\n|=[0-9A-Fa-f]{2}`)
	tags    = regexp.MustCompile(`<[^<>]*>`)
	encoded = mime.WordDecoder{CharsetReader: charset.Reader}
)

// needles are the spellings to hide, in lower case and without blanks, and where each stands for a public address.
type needles struct {
	public map[string]string // whole addresses, as they are compared
	parts  []string          // all, parts included
	owner  map[string]string // the public address that a part tells of; empty: of several
}

func newNeedles(hide map[string]string, hostname string) needles {
	n := needles{public: make(map[string]string, len(hide)), owner: map[string]string{}}
	known := []string{squeeze(hostname)}
	for _, public := range hide {
		known = append(known, squeeze(public))
	}
	for secret, public := range hide {
		secret = squeeze(secret)
		if secret == "" || secret == squeeze(public) {
			continue
		}
		n.public[secret] = mailbox(public, hostname)
		n.add(secret, n.public[secret])
		at := strings.LastIndexByte(secret, '@')
		local, domain := secret[:max(at, 0)], secret[at+1:]
		for _, part := range []string{local, domain} {
			if len(part) >= longPart && !within(known, part) {
				n.add(part, n.public[secret])
			}
		}
	}
	// The longest first: a domain taken out before its address would leave the local part.
	slices.SortFunc(n.parts, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	n.parts = slices.Compact(n.parts)
	return n
}

func (n *needles) add(part, public string) {
	if before, ok := n.owner[part]; ok && before != public {
		public = ""
	}
	n.owner[part] = public
	n.parts = append(n.parts, part)
}

// mailbox completes an address without a domain, as that of postmaster may be (RFC 5321 section 4.5.1).
func mailbox(address, hostname string) string {
	if address == "" || strings.Contains(address, "@") {
		return address
	}
	return address + "@" + hostname
}

func within(known []string, part string) bool {
	for _, k := range known {
		if strings.Contains(k, part) {
			return true
		}
	}
	return false
}

// squeeze is the form in which texts are compared: lower case, without blanks and what cannot be seen.
func squeeze(s string) string {
	return strings.Map(func(c rune) rune {
		if c = printable(c); c == ' ' || c == -1 {
			return -1
		}
		return unicode.ToLower(c)
	}, s)
}

func printable(c rune) rune {
	switch {
	case unicode.IsSpace(c):
		return ' '
	case unicode.IsControl(c), unicode.Is(unicode.Cf, c):
		return -1
	}
	return c
}

// in reports whether text holds something to hide.
func (n needles) in(text string) bool { return n.find(text) != "" }

// find returns the first part to hide in text, in plain or in a common encoding of text; "" is none.
func (n needles) find(text string) string {
	for _, view := range []string{text, unquotePrintable(text)} {
		for _, view := range []string{view, html.UnescapeString(unescape(view)), tags.ReplaceAllString(view, "")} {
			view = squeeze(view)
			for _, part := range n.parts {
				if strings.Contains(view, part) {
					return part
				}
			}
		}
	}
	return ""
}

// undecodable is found in a field that cannot be read.
const undecodable = "?"

// inField is find for the value of a header field, encoded words (RFC 2047) included.
func (n needles) inField(value string) string {
	decoded, err := encoded.DecodeHeader(value)
	if found := cmp.Or(n.find(value), n.find(decoded)); found != "" || err == nil {
		return found
	}
	return undecodable
}

// inStream is find for a stream, in bounded memory.
func (n needles) inStream(r io.Reader) (string, error) {
	buffer := make([]byte, overlap+32<<10)
	kept := 0
	for {
		got, err := io.ReadFull(r, buffer[kept:])
		if found := n.find(string(buffer[:kept+got])); found != "" {
			return found, nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return "", nil
		}
		if err != nil {
			return "", fmt.Errorf("search the mail: %w", err)
		}
		kept = copy(buffer, buffer[len(buffer)-overlap:])
	}
}

func unquotePrintable(text string) string {
	return soft.ReplaceAllStringFunc(text, func(s string) string {
		if strings.HasSuffix(s, "\n") {
			return ""
		}
		return unhex(s[1:])
	})
}

func unescape(text string) string {
	return escaped.ReplaceAllStringFunc(text, func(s string) string { return unhex(s[1:]) })
}

func unhex(two string) string {
	var b [1]byte
	if _, err := fmt.Sscanf(two, "%02x", &b[0]); err != nil {
		return two
	}
	return string(b[:])
}

// scrub puts the public address in the place of each hidden one, broken by blanks or not, and takes out the long parts.
// A text that cannot be cleaned is given up whole.
func (n needles) scrub(text string) string {
	text = oneLine(text)
	for _, part := range n.parts {
		with, whole := n.public[part]
		if !whole {
			with = hidden
		}
		var pattern bytes.Buffer
		pattern.WriteString("(?i)")
		for i, c := range []rune(part) {
			if i > 0 {
				pattern.WriteString(" ?")
			}
			pattern.WriteString(regexp.QuoteMeta(string(c)))
		}
		find, err := regexp.Compile(pattern.String())
		if err != nil {
			return ""
		}
		text = find.ReplaceAllLiteralString(text, with)
	}
	if n.in(text) {
		return ""
	}
	return text
}
