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

// TestReportsCarryNoFile: what a machine wrote stays, but not what hides a file in it.
func TestReportsCarryNoFile(t *testing.T) {
	const (
		status = "Reporting-MTA: dns; mx.example.com\r\n\r\nFinal-Recipient: rfc822; a@customer.example\r\nAction: failed\r\nStatus: 5.1.1\r\n"
		line   = "JVBERi0xLjQKMSAwIG9iagoyIDAgb2JqCjMgMCBvYmoKNCAwIG9iago1IDAgb2JqCjYg\r\n"
		uu     = "begin 644 a.bin\r\n#:&D*\r\n`\r\nend\r\n"
	)
	for _, test := range []struct {
		name, part string
		sealed     int
	}{
		{"status", "Content-Type: message/delivery-status\r\n\r\n" + status, 0},
		{"status in a multipart", "Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\nContent-Type: message/delivery-status\r\nContent-Disposition: attachment\r\n\r\n" + status + "--c--\r\n", 0},
		{"status in base64", "Content-Type: message/delivery-status\r\nContent-Transfer-Encoding: base64\r\n\r\n" + encodeAs(t, status, "base64"), 0},
		{"status in broken base64", "Content-Type: message/delivery-status\r\nContent-Transfer-Encoding: base64\r\n\r\n!" + encodeAs(t, status, "base64"), 1},
		{"uuencode in a status", "Content-Type: message/delivery-status\r\n\r\n" + status + uu, 1},
		{"base64 in a status", "Content-Type: message/delivery-status\r\n\r\n" + status + "\r\n" + line + line, 1},
		{"a signature in a header", "Content-Type: text/rfc822-headers\r\n\r\nDKIM-Signature: v=1; b=\r\n\t" + line + "Subject: x\r\n", 0},
		{"a mail without files", "Content-Type: text/rfc822-headers\r\n\r\nSubject: x\r\n\r\nMessage removed\r\n", 0},
		{"a mail with a file", "Content-Type: text/rfc822-headers\r\n\r\nSubject: x\r\nContent-Transfer-Encoding: base64\r\n\r\n" + line, 1},
		{"a mail with uuencode", "Content-Type: text/rfc822-headers\r\n\r\nSubject: x\r\n\r\n" + uu, 1},
	} {
		r := rewriteMail(t, []byte("Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n"+test.part+"--b--\r\n"))
		if why, whole := r.plan.Whole(); whole || len(r.files) != test.sealed {
			t.Errorf("%s: %d files are sealed, whole: %q", test.name, len(r.files), why)
		}
	}
}
