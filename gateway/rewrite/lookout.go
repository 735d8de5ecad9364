package rewrite

import "bytes"

const (
	// maxOutside is how much may stand before or after the parts of a multipart.
	maxOutside = 16 << 10
	// fileLine is how long a line of an encoded file is at least.
	fileLine = 60
)

// lookout watches a text for places where another reader would see the header of a part: after a line that
// begins like a boundary, or where a malformed line has ended our header but perhaps not theirs. It has no
// end but that of such a header: whoever could outlast it could hide a file behind it.
type lookout struct {
	why string // "" if nothing is watched for
	// top tells that the header that ended is the mail's own. Once a line was no field at all, any field below counts
	// for some readers and not for us, such as a result forged in our name.
	top, junk bool
}

func (l *lookout) cutHeader(top bool) { l.why, l.top = whyCutHeader, top }

// idle tells that see has nothing to do until a line is nearly a boundary.
func (l *lookout) idle() bool { return l.why == "" && !l.top }

// see returns why the text is ambiguous, or "". nearly tells that another reader may take the line for a boundary line.
func (l *lookout) see(text []byte, nearly bool) string {
	if nearly {
		if l.why == "" { // the other watch is the stricter
			l.why = whyNearly
		}
		return ""
	}
	if len(text) == 0 || l.why == whyNearly && !isField(text) {
		l.why = ""
		return ""
	}
	if hasFold(text, "content-") || l.top && l.hides(text) {
		return l.why
	}
	return ""
}

// hides reports whether text is a field below a line that is none. A continuation is neither.
func (l *lookout) hides(text []byte) bool {
	if text[0] == ' ' || text[0] == '\t' {
		return false
	}
	if isField(text) {
		return l.junk
	}
	l.junk = true
	return false
}

// looksLikeFile reports whether a line is one of an encoded file, or of the header of one.
func looksLikeFile(text []byte) bool {
	return hasFold(text, "content-type:") || hasFold(text, "content-disposition:") || hasFold(text, "content-transfer-encoding:") ||
		isEncodedLine(text)
}

// isEncodedLine reports whether a line is one of an encoded file.
func isEncodedLine(text []byte) bool {
	switch {
	case bytes.HasPrefix(text, []byte("begin ")) && len(text) > 9 && isDigit(text[6]) && isDigit(text[7]) && isDigit(text[8]):
		return true
	case bytes.HasPrefix(text, []byte("begin-base64 ")), bytes.HasPrefix(text, []byte("=ybegin ")),
		bytes.HasPrefix(text, []byte("(This file must be converted with BinHex")):
		return true
	}
	return isBase64Line(text)
}

func isBase64Line(text []byte) bool {
	text = bytes.TrimRight(text, "= \t")
	if len(text) < fileLine {
		return false
	}
	var seen [128]bool
	kinds := 0
	for _, c := range text {
		if !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'z') && c != '+' && c != '/' {
			return false
		}
		if !seen[c] {
			seen[c] = true
			kinds++
		}
	}
	return kinds >= 10
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func hasFold(text []byte, prefix string) bool {
	return len(text) >= len(prefix) && bytes.EqualFold(text[:len(prefix)], []byte(prefix))
}
