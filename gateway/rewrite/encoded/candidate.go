package encoded

import "strings"

// candidate is a block of which not all lines are read.
type candidate struct {
	block Block
	form  form
	need  int // full lines, if the last line is missing
	early int // lines that do not fit before the data
	// proof says that the last line is known for sure, whatever is before it.
	proof bool

	lines   int   // of data, before block.End
	last    class // of the line before
	data    bool  // something that may be data was seen
	closed  bool  // the line of length zero was seen
	ended   bool  // the last line was seen
	misfits int   // since block.End

	// Of all lines, and of those before block.End:
	undecodable     bool
	decoded, raw    int64 // sizes
	endDecoded, end int64
	scratch         []byte
}

// take looks whether a line belongs to the block, or may if others follow.
func (c *candidate) take(l *line) bool {
	k, text, stripped := c.classify(l)
	if !c.goesOn(k, text) || k <= partial && k != blank && begin(l) != nil {
		return false
	}
	c.count(k, text, l, stripped)
	isData := k == full || k == partial && c.last == full
	if isData {
		c.lines++
	}
	if isData || k == nothing || k == ending {
		c.confirm(l.end)
	}
	c.last = k
	c.ended = k == ending
	return true
}

// classify also returns the line without what quotes it, and the length of that.
func (c *candidate) classify(l *line) (class, []byte, int) {
	text, stripped, fits := unquote(c.block.prefix, l.text)
	if !fits {
		if len(trimRight(l.text)) == 0 {
			return blank, nil, 0
		}
		return misfit, nil, 0
	}
	k := c.form.classify(text, l)
	// Behind lines that do not fit, only what is hardly prose goes on.
	if c.misfits > 0 && (k == hint || k == partial || k == full && len(text) < sureLine || k == nothing && len(text) > 1) {
		k = misfit
	}
	return k, text, stripped
}

// goesOn says whether a line of a class can be part of the block.
func (c *candidate) goesOn(k class, text []byte) bool {
	switch k {
	case misfit:
		limit := maxMisfits
		if c.lines < c.need {
			limit = c.early
		}
		return !c.closed && c.misfits < limit
	case hint, partial:
		return !c.closed && (c.need == needSure || c.lines >= c.need)
	case full:
		return !c.closed || len(text) >= sureLine
	case nothing:
		return !c.closed
	case ending:
		return c.endable()
	default:
		return true
	}
}

// endable says whether the block is one if its last line is there.
func (c *candidate) endable() bool {
	switch {
	case c.proof || c.block.Kind == PGP && c.lines > 0:
		return true
	case c.misfits > 0: // prose may have a line "end"
		return false
	case c.need == needSure:
		return c.data || c.closed
	case c.need == needLoose:
		return c.lines > 0 || c.closed
	default:
		return c.lines > 1
	}
}

func (c *candidate) count(k class, text []byte, l *line, stripped int) {
	c.raw += l.end - l.start - int64(stripped)
	switch k {
	case misfit:
		c.misfits++
		c.undecodable = true
	case hint, partial, full:
		c.data, c.closed = true, false
		decoder, decodes := c.form.(decoder)
		if !decodes || l.long() {
			c.undecodable = true
			return
		}
		var whole bool
		c.scratch, whole = decoder.decode(c.scratch[:0], text)
		c.decoded += int64(len(c.scratch))
		c.undecodable = c.undecodable || !whole
	case nothing:
		c.closed = true
	}
}

// confirm makes a line the last of the block so far.
func (c *candidate) confirm(end int64) {
	c.misfits = 0
	c.block.End = end
	c.block.AsItStands = c.undecodable
	c.endDecoded, c.end = c.decoded, c.raw
}

func (c *candidate) result() Block {
	b := c.block
	b.AsItStands = b.AsItStands || b.Kind != UU
	b.Size = c.endDecoded
	if b.AsItStands {
		b.Size = c.end
	}
	return b
}

// unquote takes prefix off a line and returns how many bytes it took, or false if it was not there. Of an empty line,
// the white space at the end of the prefix may be missing.
func unquote(prefix string, text []byte) ([]byte, int, bool) {
	n := len(prefix)
	switch {
	case len(text) >= n && string(text[:n]) == prefix:
		return text[n:], n, true
	case len(text) < n && string(text) == prefix[:len(text)] && strings.Trim(prefix[len(text):], " \t") == "":
		return nil, len(text), true
	default:
		return text, 0, false
	}
}
