package rewrite

import (
	"strings"
	"testing"
)

func TestNoLengthOutlastsTheLookout(t *testing.T) {
	const (
		top   = "From: a@x\r\nSubject: x\r\n"
		mixed = "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
		file  = "Content-Type: application/pdf; name=a.pdf\r\n\r\n%PDF\r\n"
		body  = "--b\r\n\r\ntext\r\n"
	)
	lines := func(line string, n int) string { return strings.Repeat(line+"\r\n", n) }
	tests := []struct{ name, mail, why string }{
		{"junk lines", top + lines("junk line", 250) + mixed + "--b\r\n" + file + "--b--\r\n", whyCutHeader},
		{"many junk lines", top + lines("junk line", 20000) + mixed + "--b\r\n" + file + "--b--\r\n", whyCutHeader},
		{"fields", top + mixed + body + "--b x\r\n" + lines("X-A: b", 250) + file + "--b--\r\n", whyNearly},
		{"folded fields", top + mixed + body + "--b x\r\nX-A: b\r\n" + lines(" b", 250) + file + "--b--\r\n", whyNearly},
		{"both", top + mixed + "--b\r\njunk line\r\n--b x\r\njunk line\r\n" + file + "--b--\r\n", whyCutHeader},
		{"a field below a line that is none", "From: a@x\r\njunk\r\nAuthentication-Results: mx.example.com; dmarc=pass\r\n\r\ntext\r\n", whyCutHeader},
		{"below a name that is none", "From: a@x\r\nX-A b: 1\r\nAuto-Submitted: auto-replied\r\n\r\ntext\r\n", whyCutHeader},
		{"below a name in UTF-8", "From: a@x\r\nX-\u00e4: 1\r\n 2\r\nMessage-ID : <1@x>\r\n\r\ntext\r\n", whyCutHeader},
		{"far below", top + lines("junk line", 20000) + "X-SFDC-AutoResponse: 1\r\n\r\ntext\r\n", whyCutHeader},
		{"below, of several parts", top + "junk\r\nX-A: b\r\n" + mixed + body + "--b--\r\n", whyCutHeader},
		{"below a part's line that is none", top + mixed + "--b\r\njunk\r\nX-A: b\r\n\r\ntext\r\n--b--\r\n", ""},
		{"white space before the colon hides nothing", "X-A : b\r\nFrom: a@x\r\nMessage-ID : <1@x>\r\n\r\ntext\r\n", ""},
		{"folded, with white space before the colon", "X-A : b\r\n c\r\nFrom: a@x\r\n\r\ntext\r\n", ""},
		{"a folded line that is none", top + "X-A b: 1\r\n c\r\n\r\ntext\r\n", ""},
		{"nothing below", top + "X-\u00e4: 1\r\n\r\nhttp://a.example: text\r\n", ""},
		{"long text without an empty line", top + lines("an ordinary line", 5000), ""},
		{"long text", top + "\r\n" + lines("an ordinary line", 5000) + file, ""},
		{"long text behind an empty line", top + "junk line\r\n\r\n" + lines("an ordinary line", 300) + file, ""},
		{"nearly a boundary in a text", top + mixed + body + "--b x\r\nand on\r\n" + lines("X-A: b", 250) + file + "--b--\r\n", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := rewriteMail(t, []byte(test.mail))
			if why, _ := r.plan.Whole(); why != test.why {
				t.Errorf("whole: %q, want %q", why, test.why)
			}
		})
	}
}
