package senderauth

import (
	"strings"

	"sealpost/gateway"
)

const (
	fieldName  = "Authentication-Results: "
	maxColumns = 77
	maxField   = 1500
)

// field writes our Authentication-Results field (RFC 8601 section 2.2).
func (m *judgement) field() []byte {
	if m.a.id == "" {
		return nil
	}
	var results [][]string
	if v := m.verdict; v.result != "" {
		words := []string{"dmarc=" + string(v.result)}
		if v.policy != "" {
			words = append(words, "(p="+v.policy+")")
		}
		switch {
		case v.advisory && v.stated == nil:
			words = append(words, "(SPF is not known)")
		case v.advisory:
			words = append(words, "(overruled)")
		}
		results = append(results, property(told(words, v.stated != nil), "header.from", v.domain))
	}
	if m.spf.result != "" {
		name := "smtp.mailfrom"
		if m.spf.helo {
			name = "smtp.helo"
		}
		words := told([]string{"spf=" + string(m.spf.result)}, m.spfByRelay)
		if m.spf.reason != "" {
			words = append(words, "("+m.spf.reason+")")
		}
		results = append(results, property(words, name, m.spf.domain))
	}
	for _, f := range m.dkim {
		words := told([]string{"dkim=" + string(f.result)}, m.dkimByRelay)
		if f.reason != "" {
			words = append(words, `reason="`+f.reason+`"`)
		}
		results = append(results, property(words, "header.d", f.domain))
	}
	return fold(m.a.id, results)
}

// told tells that a result is not of our own finding.
func told(words []string, yes bool) []string {
	if yes {
		words = append(words, "(by relay)")
	}
	return words
}

func property(words []string, name, domain string) []string {
	if domain == "" {
		return words
	}
	return append(words, name+"="+domain)
}

// fold joins the results, a line for each at least. A result for which there is no room is left out; the
// most telling ones come first.
func fold(id string, results [][]string) []byte {
	var b strings.Builder
	b.WriteString(fieldName)
	b.WriteString(id)
	if len(results) == 0 {
		b.WriteString("; " + string(gateway.AuthNone))
	}
	for _, words := range results {
		var r strings.Builder
		r.WriteString(";\r\n\t" + words[0])
		column := 8 + len(words[0])
		for _, word := range words[1:] {
			if column+1+len(word) > maxColumns {
				r.WriteString("\r\n\t" + word)
				column = 8 + len(word)
				continue
			}
			r.WriteString(" " + word)
			column += 1 + len(word)
		}
		if b.Len()+r.Len()+2 > maxField {
			break
		}
		b.WriteString(r.String())
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}
