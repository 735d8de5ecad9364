package encoded

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"strings"
)

// How many full lines a block needs, by what announced it.
const (
	needSure   = 1
	needLoose  = 3 // "begin" without a proper mode
	needNoName = 8 // nothing did
)

const (
	maxPrefix  = 64
	maxMisfits = 16
)

// begin returns the block that a line announces, nil if it announces none. It is called for each line of a
// text: nearly all are let go by their first byte.
func begin(l *line) *candidate {
	text := l.text
	n := 0
	for n < len(text) && n < maxPrefix && isQuote(text[n]) {
		n++
	}
	prefix, text := text[:n], text[n:]
	if len(text) < 6 {
		return nil
	}
	var c *candidate
	switch text[0] {
	case 'b', 'B':
		c = beginUU(text)
	case '=':
		c = beginYenc(text)
	case '(':
		if bytes.HasPrefix(text, []byte(binhexLine)) {
			c = &candidate{block: Block{Kind: Binhex}, form: &binhexLines{}, need: needSure, early: maxMisfits, proof: true}
		}
	case '-':
		if pgpBoundary(text, "BEGIN") {
			c = &candidate{block: Block{Kind: PGP}, form: pgpLines{}, need: needSure, early: maxMisfits}
		}
	case 'M':
		if (len(text) == 61 || len(text) == 62) && (uuLines{}).classify(text, l) == full {
			c = &candidate{block: Block{Kind: UU}, form: uuLines{}, need: needNoName}
		}
	}
	if c == nil {
		return nil
	}
	c.block.Start, c.block.prefix = l.start, string(prefix)
	c.block.headless = c.need == needNoName
	if c.block.headless {
		c.take(l)
		return c
	}
	c.raw = l.end - l.start - int64(n)
	if c.early == 0 {
		c.last = full // a file of one line may have a short one
	}
	return c
}

func isQuote(b byte) bool { return b == ' ' || b == '\t' || b == '>' || b == '|' }

// beginUU reads "begin", its mode and the name.
func beginUU(text []byte) *candidate {
	word, rest := cutField(text)
	mode, name := cutField(rest)
	c := &candidate{block: Block{Kind: UU}, form: uuLines{}, need: needSure}
	switch proper := isOctal(mode) && len(mode) >= 3 && len(mode) <= 4; {
	case isOctal(mode) && (word == "begin-base64" || word == "begin-base64-encoded"):
		c.form, c.block.base64, c.proof = base64Lines{}, true, true
	case proper && (word == "begin-encoded" || strings.EqualFold(word, "begin")):
	case word == "begin":
		c.need = needLoose
		if !isOctal(mode) {
			name = rest
		}
	default:
		return nil
	}
	c.block.Name = string(trimRight(name))
	if strings.HasSuffix(word, "-encoded") {
		if decoded, err := base64.StdEncoding.DecodeString(c.block.Name); err == nil {
			c.block.Name = string(decoded)
		}
	}
	return c
}

// cutField returns the first field of a text, and what stands behind the white space after it.
func cutField(text []byte) (string, []byte) {
	n := bytes.IndexAny(text, " \t")
	if n < 0 {
		n = len(text)
	}
	return string(text[:n]), bytes.TrimLeft(text[n:], " \t")
}

func isOctal(mode string) bool {
	return mode != "" && strings.Trim(mode, "01234567") == ""
}

// beginYenc reads the parameters of "=ybegin"; the name is the last and goes up to the end of the line.
func beginYenc(text []byte) *candidate {
	rest, found := bytes.CutPrefix(text, []byte("=ybegin "))
	if !found {
		return nil
	}
	front, name, named := strings.Cut(" "+string(rest), " name=")
	width, lined := parameter(front, "line=")
	_, sized := parameter(front, "size=")
	if !named && !lined && !sized {
		return nil
	}
	if width <= 0 {
		width = 128
	}
	return &candidate{
		block: Block{Kind: Yenc, Name: strings.Trim(name, " \t")}, form: &yencLines{width: width}, need: needSure, proof: true,
	}
}

// parameter returns a number of the "=ybegin" line.
func parameter(text, name string) (int64, bool) {
	for _, field := range strings.Fields(text) {
		if value, found := strings.CutPrefix(field, name); found {
			n, err := strconv.ParseInt(value, 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
