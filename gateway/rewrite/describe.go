package rewrite

import "strings"

// describe reads what the header says of the body: the first of each field counts, as most readers have it.
func describe(p *part, header []field) {
	p.typ = defaultType(p)
	seen := make(map[string]string, 3)
	for _, f := range header {
		if f.name != "content-type" && f.name != "content-disposition" && f.name != "content-transfer-encoding" {
			continue
		}
		p.described = true
		text := f.value()
		if before, twice := seen[f.name]; twice {
			if !strings.EqualFold(before, text) {
				p.doubt = whyTwice
			}
			continue
		}
		seen[f.name] = text
		switch f.name {
		case "content-type":
			describeType(p, parseValue(text), text)
		case "content-transfer-encoding":
			p.encoding = strings.ToLower(strings.TrimSpace(stripComments(text)))
			p.commented = !strings.EqualFold(p.encoding, text)
		}
	}
	if text, ok := seen["content-disposition"]; ok {
		v := parseValue(text)
		p.disposition = v.first
		p.doubtLong(v)
		if name, _, ok := v.get("filename"); ok && name != "" {
			p.name = decodeName(name)
		}
	}
	if p.name == "" && !strings.HasPrefix(p.typ, "multipart/") {
		p.readHints(seen["content-type"], seen["content-disposition"])
	}
}

// defaultType is text/plain, and message/rfc822 in a digest (RFC 2046 section 5.1.5).
func defaultType(p *part) string {
	if p.parent != nil && p.parent.typ == "multipart/digest" {
		return "message/rfc822"
	}
	return "text/plain"
}

// doubtLong doubts a part with a field of which not all was read.
func (p *part) doubtLong(v value) {
	if v.long {
		p.doubt = whyHeaderSize
	}
}

func describeType(p *part, v value, raw string) {
	p.doubtLong(v)
	first := v.first
	encoded := strings.Contains(first, "=?")
	if encoded { // some readers decode it, the others take it for text
		first = strings.ToLower(decodeName(first))
	}
	main, sub, ok := strings.Cut(first, "/")
	_, _, hasBoundary := v.get("boundary")
	switch {
	case encoded && main == "multipart":
		p.doubt = whyWord
	case ok && main != "" && sub != "" && !strings.Contains(sub, "/"):
		p.typ = first
	case main == "multipart" && hasBoundary:
		p.doubt = whyNoBoundary
	case isFileType(main), ok && main != "text":
		p.typ = "application/octet-stream"
	case namesMultipart(raw):
		p.doubt = whyOddType
	}
	if name, _, ok := v.get("name"); ok {
		p.name = decodeName(name)
	}
	p.charset, _, _ = v.get("charset")
	if main != "multipart" {
		return
	}
	p.boundary = v.boundary()
	p.boundary.shaky = p.boundary.shaky || !isPlainType(raw, p.typ)
	if p.boundary.odd || isEncodedWord(p.boundary.value) {
		p.doubt = whyOddBoundary
	}
}

// namesMultipart reports whether a media type that is none may tell a multipart to another reader.
func namesMultipart(raw string) bool {
	return hasFold([]byte(strings.TrimLeft(raw, "\"'()<> \t\v\f")), "multipart")
}

// isPlainType reports whether a value begins with its media type for every reader, and has no control characters.
func isPlainType(raw, typ string) bool {
	if !hasFold([]byte(raw), typ) || strings.ContainsFunc(raw, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return false
	}
	rest := raw[len(typ):]
	return rest == "" || strings.ContainsRune("; \t", rune(rest[0]))
}

// isFileType reports whether a media type without a valid subtype still tells a file (RFC 2045 section 5.2
// calls it text, some readers do not).
func isFileType(main string) bool {
	switch main {
	case "application", "audio", "font", "image", "message", "model", "video":
		return true
	}
	return false
}

func isEncodedWord(s string) bool {
	return strings.HasPrefix(s, "=?") && strings.HasSuffix(s, "?=") && strings.Count(s, "?") >= 4
}
