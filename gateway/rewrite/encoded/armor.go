package encoded

import (
	"bytes"
	"strings"
)

// pgpLines is OpenPGP's armor (RFC 9580 section 6.2).
type pgpLines struct{}

func (pgpLines) alphabet(b byte) bool { return isBase64(b) || b == '=' }

func (pgpLines) classify(text []byte, l *line) class {
	text = trimRight(text)
	switch {
	case len(text) == 0:
		return blank
	case l.long():
		return longLine(allOf(text, isBase64), l)
	case pgpBoundary(text, "END"):
		return ending
	case isArmorHeader(text):
		return blank
	case text[0] == '=' && len(text) == 5 && allOf(text[1:], isBase64): // the checksum
		return full
	case !isPaddedBase64(text):
		return misfit
	case len(text) >= sureLine:
		return full
	default:
		return partial
	}
}

// pgpBoundary says whether a line begins or ends the armor of something that is a file.
func pgpBoundary(text []byte, word string) bool {
	// Inside of cleartext signed text (RFC 9580 section 7.2), lines that begin with a dash are escaped.
	text = bytes.TrimPrefix(text, []byte("- "))
	text, begins := bytes.CutPrefix(text, []byte("-----"+word+" PGP "))
	text, ends := bytes.CutSuffix(trimRight(text), []byte("-----"))
	return begins && ends &&
		(string(text) == "MESSAGE" || string(text) == "ARMORED FILE" || bytes.HasPrefix(text, []byte("MESSAGE, PART ")))
}

func isArmorHeader(text []byte) bool {
	key, _, found := bytes.Cut(text, []byte(": "))
	return found && len(key) > 0 && len(key) <= 32 &&
		allOf(key, func(b byte) bool { return b == '-' || isBase64(b) && b != '+' && b != '/' })
}

const binhexLine = "(This file must be converted with BinHex"

// binhexLines is BinHex 4.0 (RFC 1741 appendix A).
type binhexLines struct {
	started bool // the colon was seen
}

const binhexAlphabet = "!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr"

func (*binhexLines) alphabet(b byte) bool {
	return b == ':' || strings.IndexByte(binhexAlphabet, b) >= 0
}

func (h *binhexLines) classify(text []byte, l *line) class {
	text = trimRight(text)
	if len(text) == 0 {
		return blank
	}
	first := false
	if !h.started {
		if text[0] != ':' {
			return misfit
		}
		text, first = text[1:], true
	}
	body, ended := bytes.CutSuffix(text, []byte(":"))
	if l.long() {
		body, ended = text, l.last == ':'
	}
	// A colon stands only at the start and the end.
	fits := allOf(body, h.alphabet) && bytes.IndexByte(body, ':') < 0 && (!l.long() || l.clean)
	if !fits || first && len(body) < sureLine/2 {
		return misfit
	}
	h.started = true
	switch {
	case ended:
		return ending
	case len(text) >= sureLine:
		return full
	default:
		return partial
	}
}

// yencLines is yEnc: the lines have a given length, and any bytes.
type yencLines struct {
	width int64 // as announced
	first int64 // of the first line, which may have another
}

func (*yencLines) alphabet(byte) bool { return true }

func (y *yencLines) classify(text []byte, l *line) class {
	size := int64(len(text))
	if l.long() {
		size = l.size
	}
	switch {
	case size == 0:
		return blank
	case bytes.HasPrefix(text, []byte("=yend")):
		return ending
	case bytes.HasPrefix(text, []byte("=ypart ")):
		return blank
	}
	if y.first == 0 {
		y.first = size
	}
	if isProse(text) {
		return hint
	}
	// An escaped byte or a doubled dot may pass the width.
	if size >= y.width && size <= y.width+2 || y.first >= sureLine && size >= y.first-1 && size <= y.first+2 {
		return full
	}
	return partial
}

// isProse says whether a line has a space and printable ASCII only: there are files with such a line in yEnc, but hardly one
// of such lines alone.
func isProse(text []byte) bool {
	return bytes.IndexByte(text, ' ') >= 0 && allOf(text, func(b byte) bool { return b >= ' ' && b < 0x7f || b == '\t' })
}
