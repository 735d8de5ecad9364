package rewrite

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/unicode"
)

// script is how a text is read, and the notice written into it.
type script struct {
	// coding is nil where the bytes are those of UTF-8, of US-ASCII, or of a charset that was not given.
	coding encoding.Encoding
	// ascii tells that ASCII characters are written as in ASCII, and nothing else is while no escape sequence has changed
	// that; false is UTF-16.
	ascii    bool
	stateful bool  // ISO-2022-JP (RFC 1468)
	single   bool  // each byte is a character
	mark     int64 // the bytes of the byte order mark that the text begins with
}

var (
	errCharset = errors.New("the charset is one in which the notice cannot be written")
	errText    = errors.New("the text is not in its charset")
)

// scriptOf finds out how a text with this beginning is written. Its error is errCharset where that is not known for sure.
func scriptOf(charset string, head []byte) (script, error) {
	big, little := bytes.HasPrefix(head, []byte{0xFE, 0xFF}), bytes.HasPrefix(head, []byte{0xFF, 0xFE})
	s := script{ascii: true}
	if charset == "" || isUTF8(charset) || isASCII(charset) {
		if bytes.HasPrefix(head, []byte("\xEF\xBB\xBF")) {
			s.mark = 3
		}
		if big || little { // which overrides the charset for a browser
			return s, errCharset
		}
		return s, nil
	}
	switch name := strings.ToLower(charset); name {
	case "utf-16be", "utf-16le", "utf-16":
		if big || little {
			s.mark = 2
		}
		if name == "utf-16be" && little || name == "utf-16le" && big || name == "utf-16" && s.mark == 0 {
			return s, errCharset
		}
		order := unicode.BigEndian
		if name == "utf-16le" || little {
			order = unicode.LittleEndian
		}
		s.coding, s.ascii = unicode.UTF16(order, unicode.IgnoreBOM), false
		return s, nil
	}
	s.coding = exactly(charset)
	if s.coding == nil || !hasASCII(s.coding) {
		return s, errCharset
	}
	s.stateful = s.coding == japanese.ISO2022JP
	s.single = isSingle(s.coding)
	return s, nil
}

// exactly returns the encoding that a charset names: by IANA's index, since that of browsers writes Windows-1252 for
// ISO-8859-1, and by theirs where IANA's has no such encoding; nil if there is none.
func exactly(charset string) encoding.Encoding {
	if coding, err := ianaindex.MIME.Encoding(charset); err == nil && coding != nil {
		return coding
	}
	if coding, err := htmlindex.Get(charset); err == nil && coding != encoding.Replacement {
		return coding
	}
	return nil
}

const printable = "\t\r\n !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"

// hasASCII reports whether ASCII is written as it is.
func hasASCII(coding encoding.Encoding) bool {
	written, err := coding.NewEncoder().String(printable)
	read, err2 := coding.NewDecoder().String(printable)
	return err == nil && err2 == nil && written == printable && read == printable
}

// isSingle reports whether each byte is a character by itself.
func isSingle(coding encoding.Encoding) bool {
	for b := 0x80; b <= 0xFF; b++ {
		_, used, err := coding.NewDecoder().Transform(make([]byte, utf8.UTFMax), []byte{byte(b)}, false)
		if err != nil || used != 1 {
			return false
		}
	}
	return true
}

// reader returns a text in UTF-8.
func (s script) reader(text io.Reader) io.Reader {
	if s.coding == nil {
		return text
	}
	return s.coding.NewDecoder().Reader(text)
}

// write returns text in the charset. What the charset lacks is told by what it has.
func (s script) write(text string) (string, error) {
	if s.coding == nil {
		return text, nil
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case s.has(r):
			b.WriteRune(r)
		default:
			b.WriteString(substitute(r))
		}
	}
	written, err := s.coding.NewEncoder().String(b.String())
	if err != nil {
		return "", fmt.Errorf("write the notice in a charset: %w", err)
	}
	return written, nil
}

// length is how many characters write makes of text.
func (s script) length(text string) int {
	n := 0
	for _, r := range text {
		if n++; !s.has(r) {
			n += utf8.RuneCountInString(substitute(r)) - 1
		}
	}
	return n
}

func (s script) has(r rune) bool {
	if r < utf8.RuneSelf {
		return true
	}
	written, err := s.coding.NewEncoder().String(string(r))
	if err != nil {
		return false
	}
	read, err := s.coding.NewDecoder().String(written)
	return err == nil && read == string(r)
}

// substitute is how German is written without umlauts, and how shownName tells of what cannot be shown.
func substitute(r rune) string {
	switch r {
	case 'ä':
		return "ae"
	case 'ö':
		return "oe"
	case 'ü':
		return "ue"
	case 'Ä':
		return "Ae"
	case 'Ö':
		return "Oe"
	case 'Ü':
		return "Ue"
	case 'ß':
		return "ss"
	}
	return codePoint(r)
}

// offset returns where in text, as it stands, that character begins which begins at the given place in UTF-8. There a text
// in ASCII can stand: else the error is errText.
func (s script) offset(text io.Reader, at int64) (int64, error) {
	if s.coding == nil {
		return at, nil
	}
	decoder := s.coding.NewDecoder()
	var done, read int64
	var rest []byte
	var char [16]byte
	escaped := false
	buf := make([]byte, bufferSize)
	for done < at {
		if len(rest) < 16 {
			n, err := io.ReadFull(text, buf[copy(buf, rest):])
			rest = buf[:len(rest)+n]
			if len(rest) == 0 {
				return 0, errText
			}
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return 0, err
			}
		}
		wrote, used, n := 0, 0, 1
		for ; used == 0 && n <= min(len(rest), len(char)); n++ {
			wrote, used, _ = decoder.Transform(char[:], rest[:n], false)
		}
		if used == 0 {
			return 0, errText
		}
		if s.stateful && rest[0] == 0x1B {
			escaped = !bytes.HasPrefix(rest, []byte("\x1B(B"))
		}
		done, read, rest = done+int64(wrote), read+int64(used), rest[used:]
	}
	if escaped { // the way back to ASCII may stand right here
		back := []byte("\x1B(B")
		next, err := io.ReadAll(io.LimitReader(io.MultiReader(bytes.NewReader(bytes.Clone(rest)), text), int64(len(back))))
		if err != nil {
			return 0, err
		}
		escaped = !bytes.Equal(next, back)
		read += int64(len(back))
	}
	if done > at || escaped {
		return 0, errText
	}
	return read, nil
}
