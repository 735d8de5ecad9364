package rewrite

import (
	"strings"
	"testing"
)

func TestAReportPartThatMayHaveANameIsSealed(t *testing.T) {
	const top = "Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n"
	for field, want := range map[string]string{
		"Content-Disposition: attachment":                          "",
		"Content-Disposition: attachment; filename*1=\"b.html\"":   "attachment-1.txt",
		"Content-Disposition: attachment, filename=\"b.html\"":     "attachment-1.txt",
		"Content-Disposition: inline; filename*1=\"b.html\"":       "attachment-1.txt",
		"Content-Disposition: inline; creation-date=\"yesterday\"": "",
	} {
		r := rewriteMail(t, []byte(top+"Content-Type: message/delivery-status\r\n"+field+"\r\n\r\nAction: failed\r\n--b--\r\n"))
		if got := strings.Join(r.names, ", "); got != want {
			t.Errorf("%s: sealed %q, want %q", field, got, want)
		}
	}
}

func TestMalformedFieldsThatMayNameAFile(t *testing.T) {
	tests := []struct {
		field  string
		sealed bool
	}{
		{`Content-Disposition: attachment filename="a/b.html"`, true},
		{`Content-Disposition: attachment, filename="b.html"`, true},
		{`Content-Disposition: =?utf-8?q?attachment?=`, true},
		{`Content-Disposition: =?utf-8?q?=61ttachment?=`, true},
		{`Content-Disposition: =?utf-8?b?YXR0YWNobWVudA==?=`, true},
		{`Content-Disposition: att(x)achment`, true},
		{`Content-Disposition: AT TACHMENT`, true},
		{`Content-Disposition: x-attachment`, true},
		{`Content-Disposition: inline; filename*1="b.html"`, true},
		{`Content-Disposition: inline; filename:"b.html"`, true},
		{`Content-Disposition: inline; x=y (; filename=a.exe)`, true},
		{"Content-Disposition: inline; x=y;\r\n file\r\n name\r\n :b.html", true},
		{`Content-Type: text/plain; name*1="b.html"`, true},
		{`Content-Type: text/plain; name:"b.html"`, true},
		{`Content-Type: text/html; charset=utf-8, name="b.html"`, true},
		{`Content-Type: text/html; charset=utf-8 name="b.html"`, true},
		{`Content-Type: text/html; charset="utf-8" name=b.html`, true},
		{`Content-Type: text/plain; x=y (; name=a.exe)`, true},
		{`Content-Type: text/plain; x="y\"; name=a.exe; z="`, true},
		{`Content-Type: text/plain; =?utf-8?q?name=3Da.exe?=`, true},
		{`Content-Disposition: inline`, false},
		{`Content-Disposition: inlin`, false},
		{`Content-Disposition: inline; size=4711`, false},
		{`Content-Disposition: inline; creation-date="Tue, 24 Nov 2026 09:00:00 +0000"`, false},
		{`Content-Disposition: inline; filename=""`, false},
		{`Content-Disposition:`, false},
		{`Content-Type: text/plain; charset=utf-8; name=""; format=flowed`, false},
		{`Content-Type: text/plain; charset="utf-8"; format=flowed; delsp=yes`, false},
		{`Content-Type: text/html; charset=utf-8 (a comment)`, false},
		{`Content-Type: text/plain; x="name=a"; charset=utf-8`, false},
		{`Content-Type: text/plain; x=name:a; charset=utf-8`, false},
	}
	for _, test := range tests {
		t.Run(test.field, func(t *testing.T) {
			r := rewriteMail(t, []byte("Subject: x\r\n"+test.field+"\r\n\r\ntext\r\n"))
			why, _ := r.plan.Whole()
			if sealed := len(r.files) == 1; sealed != test.sealed || why != "" {
				t.Errorf("sealed: %t, want %t; whole: %q", sealed, test.sealed, why)
			}
		})
	}
}
