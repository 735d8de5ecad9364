package rewrite

import (
	"regexp"
	"strings"
)

// A malformed field may name a file for another reader and not for us. What hints at that makes the part an
// attachment; a text that stays has no use for such words.
var (
	emptyName  = regexp.MustCompile(`(?i)(?:^|[;\s])(?:file)?name\s*=\s*(?:""\s*)?(?:;|$)`)
	paramValue = regexp.MustCompile(`=\s*(?:"[^"\\]*"|[^\s;"(),]+)`)
	nameHint   = regexp.MustCompile(`name[=*:]`)
)

// readHints looks for a disposition and a name in the fields of a part whose name is not known.
func (p *part) readHints(contentType, disposition string) {
	p.hinted = hintsAt(disposition, "filename") || hintsAtName(contentType)
	if p.hinted || hintsAt(disposition, "attachment") {
		p.disposition = "attachment"
	}
}

// hintsAt reports whether a Content-Disposition could say word to another reader.
func hintsAt(raw, word string) bool {
	for _, text := range readings(raw) {
		if strings.Contains(packed(text), word) {
			return true
		}
	}
	return false
}

// hintsAtName reports whether a Content-Type could give a name to another reader. What is quoted, and the
// word behind an equals sign, is the value of a parameter and no hint.
func hintsAtName(raw string) bool {
	for _, text := range readings(raw) {
		if nameHint.MatchString(packed(paramValue.ReplaceAllString(text, "= "))) {
			return true
		}
	}
	return false
}

// readings returns the ways to read a field: as it stands, without comments, and with its encoded words
// decoded. A name that is there and empty is left out: it names nothing for anybody.
func readings(raw string) []string {
	raw = emptyName.ReplaceAllString(raw, ";")
	if raw == "" {
		return nil
	}
	return []string{raw, stripComments(raw), decodeName(raw)}
}

// packed returns s in lower case and without white space, where a comment may have been.
func packed(s string) string { return strings.ToLower(strings.Join(strings.Fields(s), "")) }
