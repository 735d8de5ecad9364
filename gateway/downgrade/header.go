package downgrade

import (
	"maps"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"
)

const maxFieldLine = 998

var (
	addressFields = []string{
		"from", "to", "cc", "bcc", "sender", "reply-to", "resent-from", "resent-to", "resent-cc", "resent-bcc", "resent-sender",
	}
	textFields = []string{"subject", "comments", "content-description", "thread-topic", "organization"}
)

// convertField spells a field in ASCII so that it reads the same.
func convertField(f field) ([]byte, error) {
	if isASCII(f.raw) {
		return f.raw, nil
	}
	name, value := f.name(), f.value()
	written, _, ok := strings.Cut(string(f.raw), ":")
	if !ok || !isASCII(written) || !utf8.Valid(f.raw) || strings.Contains(value, "=?") || strings.ContainsAny(value, "\r\n\x00") {
		return nil, ErrNotExact
	}
	var converted string
	var err error
	switch {
	case slices.Contains(addressFields, name):
		converted, err = convertAddresses(value)
	case name == "content-type" || name == "content-disposition":
		converted, err = convertParameters(value)
	case slices.Contains(textFields, name) || strings.HasPrefix(name, "x-"):
		converted, err = encodeText(mime.QEncoding, value)
	default:
		err = ErrNotExact
	}
	if err != nil {
		return nil, err
	}
	result := written + ": " + converted + "\r\n"
	for line := range strings.SplitSeq(result, "\r\n") {
		if len(line) > maxFieldLine {
			return nil, ErrNotExact
		}
	}
	return []byte(result), nil
}

// encodeText writes encoded words (RFC 2047), one a line, and makes sure that they read as text.
func encodeText(encoding mime.WordEncoder, text string) (string, error) {
	words := strings.ReplaceAll(encoding.Encode("utf-8", text), "?= =?", "?=\r\n =?")
	decoded, err := new(mime.WordDecoder).DecodeHeader(strings.ReplaceAll(words, "\r\n", ""))
	if err != nil || decoded != text {
		return "", ErrNotExact
	}
	return words, nil
}

// convertParameters writes parameters by RFC 2231.
func convertParameters(value string) (string, error) {
	kind, params, err := mime.ParseMediaType(value)
	if err != nil {
		return "", ErrNotExact
	}
	written := mime.FormatMediaType(kind, params)
	again, params2, err := mime.ParseMediaType(written)
	if err != nil || written == "" || !isASCII(written) || again != kind || !maps.Equal(params, params2) {
		return "", ErrNotExact
	}
	first, rest, ok := strings.Cut(written, "; ")
	if !ok {
		return "", ErrNotExact
	}
	return first + ";\r\n " + rest, nil
}

// convertAddresses goes through an address list (RFC 5322 section 3.4) piece by piece.
func convertAddresses(value string) (string, error) {
	var out strings.Builder
	for value != "" {
		end, err := phraseEnd(value)
		if err != nil {
			return "", err
		}
		phrase, stop := value[:end], byte(0)
		if value = value[end:]; value != "" {
			stop = value[0]
		}
		if phrase, err = convertPhrase(phrase, stop == '<' || stop == ':'); err != nil {
			return "", err
		}
		out.WriteString(phrase)
		if stop == 0 {
			break
		}
		length := 1
		if closing := map[byte]byte{'<': '>', '(': ')'}[stop]; closing != 0 {
			length = strings.IndexByte(value, closing) + 1
		}
		if length == 0 {
			return "", ErrNotExact
		}
		piece, err := convertPiece(value[:length])
		if err != nil {
			return "", err
		}
		out.WriteString(piece)
		value = value[length:]
	}
	return out.String(), nil
}

// phraseEnd finds what ends a run of words and quoted strings.
func phraseEnd(value string) (int, error) {
	inside := false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case inside && c == '\\':
			i++
		case c == '"':
			inside = !inside
		case !inside && strings.IndexByte("<(,;:", c) >= 0:
			return i, nil
		case !inside && strings.IndexByte(">)[]\\", c) >= 0:
			return 0, ErrNotExact
		}
	}
	if inside {
		return 0, ErrNotExact
	}
	return len(value), nil
}

// convertPhrase converts a display name, or an address that stands bare.
func convertPhrase(phrase string, name bool) (string, error) {
	if isASCII(phrase) {
		return phrase, nil
	}
	text := strings.Trim(phrase, " \t")
	if !name {
		address, ok := Address(text)
		if !ok || strings.ContainsAny(text, " \t\"") {
			return "", ErrNotExact
		}
		return strings.Replace(phrase, text, address, 1), nil
	}
	switch {
	case len(text) > 1 && text[0] == '"' && text[len(text)-1] == '"' && strings.Count(text, `"`) == 2 && !strings.Contains(text, `\`):
		text = text[1 : len(text)-1]
	case strings.ContainsAny(text, "\"\\@"):
		return "", ErrNotExact
	default:
		text = strings.Join(strings.FieldsFunc(text, func(c rune) bool { return c == ' ' || c == '\t' }), " ")
	}
	words, err := encodeText(mime.BEncoding, text)
	if err != nil {
		return "", err
	}
	return phrase[:len(phrase)-len(strings.TrimLeft(phrase, " \t"))] + words + " ", nil
}

// convertPiece converts an address in angle brackets or a comment; separators are themselves.
func convertPiece(piece string) (string, error) {
	if isASCII(piece) {
		return piece, nil
	}
	inner := piece[1 : len(piece)-1]
	if piece[0] == '<' {
		address, ok := Address(inner)
		if !ok || strings.ContainsAny(inner, " \t\"<(,:;") {
			return "", ErrNotExact
		}
		return "<" + address + ">", nil
	}
	if strings.ContainsAny(inner, `(\`) {
		return "", ErrNotExact
	}
	words, err := encodeText(mime.BEncoding, inner)
	return "(" + words + ")", err
}
