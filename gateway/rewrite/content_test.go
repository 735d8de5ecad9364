package rewrite

import (
	"bytes"
	"strings"
	"testing"
)

func TestFilesCalledTextsAreKnownByTheirBytes(t *testing.T) {
	zip := "PK\x03\x04\x14\x00\x00\x00\x08\x00" + strings.Repeat("\x01", 30)
	for name, test := range map[string]struct{ text, want string }{
		"PDF":                     {"%PDF-1.4\n1 0 obj", "application/pdf"},
		"PDF behind line ends":    {"\r\n\r\n%PDF-1.4\n", "application/pdf"},
		"zip":                     {zip, "application/zip"},
		"zip behind white space":  {"\r\n " + zip, "application/zip"},
		"OLE":                     {"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + strings.Repeat("\x00", 600), "application/x-ole-storage"},
		"RTF":                     {`{\rtf1\ansi Hello}`, "text/rtf"},
		"PostScript":              {"%!PS-Adobe-3.0\n", "application/postscript"},
		"program":                 {"MZ\x90\x00\x03\x00\x00\x00", "application/vnd.microsoft.portable-executable"},
		"PNG":                     {"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "image/png"},
		"JPEG":                    {"\xff\xd8\xff\xe0\x00\x10JFIF\x00", "image/jpeg"},
		"gzip":                    {"\x1f\x8b\x08\x00\x00\x00\x00\x00", "application/gzip"},
		"TNEF":                    {"\x78\x9f\x3e\x22\x01\x00", typeTNEF},
		"empty":                   {"", ""},
		"short":                   {"OK", ""},
		"begins like a program":   {"MZ is not a program", ""},
		"begins like a picture":   {"BM, please call", ""},
		"begins like music":       {"ID3 is the model", ""},
		"begins like a film":      {"FWS\x20is a word", ""},
		"page":                    {"<!DOCTYPE html><html><body>x</body></html>", ""},
		"SVG":                     {`<svg xmlns="http://www.w3.org/2000/svg"></svg>`, ""},
		"JSON":                    {`{"a": [1, 2]}`, ""},
		"XML":                     {`<?xml version="1.0"?><a/>`, ""},
		"Latin-1":                 {"Gr\xfc\xdfe\r\n", ""},
		"UTF-8 with a mark":       {"\xef\xbb\xbfHello", ""},
		"UTF-16LE with a mark":    {"\xff\xfeH\x00e\x00l\x00l\x00o\x00", ""},
		"UTF-16BE with a mark":    {"\xfe\xff\x00H\x00e\x00l\x00l\x00o", ""},
		"UTF-16LE without a mark": {strings.Repeat("H\x00e\x00l\x00l\x00o\x00", 20), ""},
		"UTF-32":                  {"\xff\xfe\x00\x00H\x00\x00\x00i\x00\x00\x00", ""},
		"ISO-2022-JP":             {"\x1b$B%F%9%H\x1b(B\r\n", ""},
		"ISO-2022-KR":             {"\x1b$)C\x0e>H\x0f\r\n", ""},
		"form feed":               {"page one\fpage two", ""},
		"control bytes":           {"a\x01b\x02c", ""},
		"encoded file":            {"begin 644 a.bin\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, encoding := range []string{"base64", "quoted-printable", "8bit"} {
				body := encodeAs(t, test.text, encoding)
				if encoding == "quoted-printable" {
					body = quoteAll(test.text)
				}
				p := &part{encoding: encoding, end: int64(len(body))}
				got, err := contentOf(strings.NewReader(body), p)
				if err != nil || got != test.want {
					t.Errorf("%s: %q, %v; want %q", encoding, got, err, test.want)
				}
			}
		})
	}
}

func quoteAll(text string) string {
	var b bytes.Buffer
	for i := range len(text) {
		b.WriteString("=" + string("0123456789ABCDEF"[text[i]>>4]) + string("0123456789ABCDEF"[text[i]&15]))
		if i%20 == 19 {
			b.WriteString("=\r\n")
		}
	}
	return b.String()
}

// TestContentIsReadAsTheMostForgivingReaderDoes: what hides a file from us must hide it from everybody.
func TestContentIsReadAsTheMostForgivingReaderDoes(t *testing.T) {
	for _, test := range []struct{ encoding, body string }{
		{"base64", "JVBERi0xLjQK"},
		{"base64", "!J*V\r\n\r\nB-ERi0xLjQK"},
		{"base64", strings.Repeat("\r\n \t!", 20000) + "JVBERi0xLjQK"},
		{"base64", "====\r\nJVBERi0xLjQK"},
		{"base64", "JVBERi0xLjQKx"},
		{"base64", "IA==\r\nJVBERi0xLjQK"},
		{"base64;", "JVBERi0xLjQK"},
		{"quoted-printable", "=25PDF=2D1.4"},
		{"quoted-printable", strings.Repeat("=\r\n", 20000) + "%PDF-1.4"},
		{"quoted-printables", "=25PDF-1.4"},
		{"", "%PDF-1.4"},
		{"x-unknown", "%PDF-1.4"},
	} {
		p := &part{encoding: test.encoding, end: int64(len(test.body))}
		if got, err := contentOf(strings.NewReader(test.body), p); err != nil || got != "application/pdf" {
			t.Errorf("%s %.30q: %q, %v", test.encoding, test.body, got, err)
		}
	}
}
