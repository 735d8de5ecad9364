package rewrite

import (
	"strings"
	"testing"
)

// TestHonestButBrokenMailsAreTakenApart is the list of what is harmless, in the package's comment.
func TestHonestButBrokenMailsAreTakenApart(t *testing.T) {
	const file = "Content-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBERi0xLjQK\r\n"
	mixed := func(head, body string) string { return head + "\r\n\r\n" + body }
	parts := "--B\r\n\r\ntext\r\n--B\r\n" + file + "--B--\r\n"
	multi := "Content-Type: multipart/mixed; boundary=B"
	for name, mail := range map[string]string{
		"no MIME-Version":                 mixed(multi, parts),
		"MIME-Version of another kind":    mixed("MIME-Version: 2.0 (x)\r\n"+multi, parts),
		"no last boundary line":           mixed(multi, strings.TrimSuffix(parts, "--B--\r\n")),
		"no line end at the end":          mixed(multi, strings.TrimSuffix(parts, "\r\n")),
		"doubled boundary lines":          mixed(multi, strings.ReplaceAll(parts, "--B\r\n", "--B\r\n--B\r\n")),
		"white space behind boundaries":   mixed(multi, strings.ReplaceAll(parts, "--B\r\n", "--B \t\r\n")),
		"prefix of another boundary":      mixed(strings.ReplaceAll(multi, "=B", "=BB"), "--BB\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n"+parts+"\r\n--BB--\r\n"),
		"the same field twice":            mixed(multi+"\r\n"+multi, parts),
		"8-bit fields":                    mixed("Subject: Gr\xfc\xdfe\r\nFrom: \"J\xc3\xb6rg\" <a@customer.example>\r\n"+multi, parts),
		"white space lines in the header": mixed("Subject: x\r\n \r\n\t\r\n"+multi, parts),
		"comments":                        mixed("MIME-Version: 1.0 (a)\r\nContent-Type: multipart/mixed (b); boundary=\"B\" (c)", parts),
		"folded parameters":               mixed("Content-Type: multipart/mixed;\r\n\t\r\n boundary=\r\n \"B\"", parts),
		"empty parameters":                mixed("Content-Type: multipart/mixed;; charset=; boundary=B;", parts),
		"spaces around the equals sign":   mixed("Content-Type: multipart/mixed; boundary = \"B\"", parts),
		"a boundary in pieces":            mixed("Content-Type: multipart/mixed; boundary*0=\"\"; boundary*1*=B", parts),
		"upper case":                      mixed("CONTENT-TYPE: MULTIPART/MIXED; BOUNDARY=B", parts),
		"a forgotten boundary quote":      mixed("Content-Type: multipart/mixed; boundary=\"B", parts),
		"unknown disposition":             mixed(multi, strings.Replace(parts, "\r\n\r\ntext", "\r\nContent-Disposition: somewhere\r\n\r\ntext", 1)),
		"invalid type of a text":          mixed(multi, strings.Replace(parts, "\r\n\r\ntext", "\r\nContent-Type: text\r\n\r\ntext", 1)),
		"unknown charset":                 mixed(multi, strings.Replace(parts, "\r\n\r\ntext", "\r\nContent-Type: text/plain; charset=x-none\r\n\r\ntext", 1)),
		"words that may be base64":        mixed(multi, strings.Replace(parts, "text", "TV please call me back and bring the remote", 1)),
		"a word that may be base64":       mixed(multi, strings.Replace(parts, "text", "Thanks", 1)),
		"misspelt encoding":               mixed(multi, strings.Replace(parts, "\r\n\r\ntext", "\r\nContent-Transfer-Encoding: 8-bit\r\n\r\ntext", 1)),
		"junk in base64":                  mixed(multi, strings.Replace(parts, "JVBERi0", "JVB*ERi0", 1)),
		"base64 without padding":          mixed(multi, strings.Replace(parts, "xLjQK", "xLjQKCg", 1)),
		"a name of the whole mail":        mixed(multi+"; name=a", "This is a multipart message in MIME format.\r\n"+parts),
		"a preamble":                      mixed(multi, "This is a multipart message in MIME format.\r\n"+parts),
		"an epilogue":                     mixed(multi, parts+"\r\nsent by a fax gateway\r\n"),
		"a line of an mbox":               mixed("From a@customer.example Tue Nov 24 09:00:00 2026\r\n"+multi, parts),
		"long lines":                      mixed(multi, strings.Replace(parts, "text", strings.Repeat("text ", 5000), 1)),
		"lone dots":                       mixed(multi, strings.Replace(parts, "text", ".\r\ntext\r\n.", 1)),
		"a header without an end":         mixed(multi, "--B\r\n\r\ntext\r\n--B\r\nContent-Type: application/pdf; name=a.pdf\r\n--B--\r\n"),
		"an empty part without an end":    mixed(multi, "--B\r\n"+file+"--B\r\nContent-Type: text/plain\r\n--B--\r\n"),
		"a part without a header":         mixed(multi, "--B\r\nplain words\r\n--B\r\n"+file+"--B--\r\n"),
	} {
		r := rewriteMail(t, []byte(mail))
		if why, whole := r.plan.Whole(); whole {
			t.Errorf("%s: sealed whole: %s", name, why)
			continue
		}
		if len(r.files) != 1 || r.names[0] != "a.pdf" {
			t.Errorf("%s: sealed %q", name, r.names)
		}
	}
}

// TestEachAmbiguitySealsWhole is the rest of the list in the package's comment, of what no golden mail shows.
func TestEachAmbiguitySealsWhole(t *testing.T) {
	const (
		multi    = "Content-Type: multipart/mixed; boundary=B\r\n\r\n"
		attached = "Content-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBERi0xLjQK\r\n"
	)
	for name, test := range map[string]struct{ mail, why string }{
		"NUL":                            {"Subject: x\r\n\r\na\x00b\r\n", whyBytes},
		"bare CR":                        {"Subject: x\r\n\r\na\rb\r\n", whyBytes},
		"bare LF":                        {"Subject: x\r\n\r\na\nb\r\n", whyBytes},
		"a line over the limit":          {"Subject: x\r\n\r\n" + strings.Repeat("x", 1<<20) + "\r\n", whyLineLength},
		"an odd boundary":                {"Content-Type: multipart/mixed; boundary=\"B\"; boundary*=C\r\n\r\n--B--\r\n", whyOddBoundary},
		"one line for two multiparts":    {multi + "--B\r\nContent-Type: multipart/mixed; boundary=\"B--\"\r\n\r\n--B--\r\n", whyTwins},
		"contradicting encodings":        {"Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64\r\n\r\ntext\r\n", whyTwice},
		"contradicting dispositions":     {"Content-Disposition: inline\r\nContent-Disposition: attachment; x=y\r\n\r\ntext\r\n", whyTwice},
		"fields in a preamble":           {multi + "Content-Disposition: attachment\r\n\r\nx\r\n--B\r\n\r\ntext\r\n--B--\r\n", whyOutside},
		"a base64 file in an epilogue":   {multi + "--B\r\n\r\ntext\r\n--B--\r\nJVBERi0xLjQKMSAwIG9iagoyIDAgb2JqCjMgMCBvYmoKNCAwIG9iago1IDAgb2JqCjYg\r\n", whyOutside},
		"much before the first part":     {multi + strings.Repeat("words\r\n", 3000) + "--B\r\n\r\ntext\r\n--B--\r\n", whyOutside},
		"fields behind a near boundary":  {multi + "--B\r\n\r\ntext\r\n--Bx\r\nContent-Type: application/pdf\r\n\r\nx\r\n--B--\r\n", whyNearly},
		"another case of a boundary":     {multi + "--B\r\n\r\ntext\r\n--b\r\nContent-Type: application/pdf\r\n\r\nx\r\n--B--\r\n", whyNearly},
		"a boundary with more dashes":    {multi + "--B\r\n\r\ntext\r\n---B\r\nContent-Type : application/pdf\r\n\r\nx\r\n--B--\r\n", whyNearly},
		"a space before a boundary line": {multi + "--B\r\n\r\ntext\r\n --B\r\nContent-Type: application/pdf\r\n\r\nx\r\n--B--\r\n", whyNearly},
		"a boundary line that is cut":    {multi + "--B\r\n\r\ntext\r\n--B" + strings.Repeat(" ", 70<<10) + "x\r\nContent-Type: application/pdf\r\n\r\nx\r\n--B--\r\n", whyNearly},
		"no header, and then one":        {"\r\nSubject: x\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\n" + attached + "--B--\r\n", whyCutHeader},
		"a header that a boundary ends":  {multi + "--B\r\nContent-Type: text/html\r\n--B\r\n\r\ntext\r\n--B--\r\n", whyCutHeader},
		"a backslash in the type":        {"Content-Type: multipart\\mixed; boundary=B\r\n\r\n--B\r\n" + attached + "--B--\r\n", whyOddType},
		"a comment before the type":      {"Content-Type: (x) multipart/mixed; boundary=B\r\n\r\n--B\r\n\r\ntext\r\n--B\r\n" + attached + "--B--\r\n", whyShaky},
		"a control in the type":          {"Content-Type: multipart/mixed;\f boundary=B\r\n\r\n--B\r\n\r\ntext\r\n--B\r\n" + attached + "--B--\r\n", whyShaky},
		"a boundary beyond ASCII":        {"Content-Type: multipart/mixed; boundary*=utf-8''%C3%84\r\n\r\n--\xc3\x84\r\n\r\ntext\r\n--\xc3\x84--\r\n", whyOddBoundary},
		"a space before a boundary":      {"Content-Type: multipart/mixed; boundary=\" B\"\r\n\r\n-- B\r\n\r\ntext\r\n-- B\r\n" + attached + "-- B--\r\n", whyShaky},
		"a multipart that is one file":   {"Content-Type: multipart/mixed; boundary=A\r\n\r\n--A\r\nContent-Disposition: attachment; filename=a.com\r\n" + multi + "program\r\n--B\r\n\r\ntext\r\n--B--\r\n--A--\r\n", whyOutside},
		"empty lines, and then a header": {"\r\n\r\n\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\n" + attached + "--B--\r\n", whyCutHeader},
		"base64 that is not declared":    {"Content-Type: text/plain\r\n\r\nJVBERi0xLjQK\r\nMSAwIG9iago=\r\n", whyDecoding},
		"escapes of another encoding":    {"Content-Transfer-Encoding: 7bit\r\n\r\n=25PDF-1.4\r\n", whyDecoding},
		"a test virus behind a comment":  {"Content-Transfer-Encoding: base64 (x)\r\n\r\nWDVPIVAlQEFQWzRcUFpYNTQoUF4pN0ND\r\nKTd9JEVJQ0FSLVNUQU5EQVJE\r\n", whyDecoding},
		"parameters without end":         {"Content-Type: text/plain; " + strings.Repeat("a=b;", maxParams) + " name=a.pdf\r\n\r\ntext\r\n", whyHeaderSize},
		"a field without end":            {"Content-Type: text/plain; a=" + strings.Repeat("b", maxValue) + "; name=a.pdf\r\n\r\ntext\r\n", whyHeaderSize},
	} {
		if why, _ := rewriteMail(t, []byte(test.mail)).plan.Whole(); why != test.why {
			t.Errorf("%s: whole: %q, want %q", name, why, test.why)
		}
	}
}
