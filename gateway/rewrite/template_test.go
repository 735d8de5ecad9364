package rewrite

import (
	"strings"
	"testing"
)

func TestTemplateIsTriedWhenItIsParsed(t *testing.T) {
	const text, page = "{{.Reason}}\n{{range .Files}}{{.Name}} {{.Size}}\n{{end}}{{.Link}}\n", `<p>{{.Reason}} <a href="{{.Link}}">{{.Link}}</a></p>`
	for _, test := range []struct{ name, text, page, want string }{
		{"sound", text, page, ""},
		{"no link in the text", "{{.Reason}}", page, "text"},
		{"no link on the page", text, "<p>{{.Reason}}</p>", "HTML"},
		{"an unknown field", text + "{{.Password}}", page, "Password"},
		{"bad syntax", "{{.Link", page, "text template"},
		{"bad HTML syntax", text, "{{end}}", "HTML template"},
		{"a picture from elsewhere", text, page + `<img src="https://tracker.example/x.png">`, "HTML"},
		{"a script", text, page + "<script>alert(1)</script>", "HTML"},
		{"too long", text + strings.Repeat("word ", 500), page, "2000"},
		{"an open comment", text, page + "<!--", "HTML"},
	} {
		_, err := ParseTemplate(test.text, test.page)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

func TestTemplateMakesTheNotice(t *testing.T) {
	template, err := ParseTemplate("Files of Example Corp. {{.Reason}}\n{{range .Files}}- {{.Name}} ({{.Size}})\n{{end}}{{.Link}} {{.Expires}}\n",
		"<p>Files of Example Corp. {{range .Files}}<i>{{.Name}}</i>\n{{end}}<a href='{{.Link}}'>{{.Link}}</a></p>")
	if err != nil {
		t.Fatal(err)
	}
	n := Notice{Link: testLink, ShowNames: true, Template: template, Files: []File{{"</p><script>x.pdf", 5}, {"\u6771\u4eac.pdf", 6}}}
	made := newNotice(n, aboutFiles, 0)
	if made.failed || !strings.HasPrefix(made.plain(), "Files of Example Corp. 2 files") || !strings.Contains(made.plain(), "\r\n- \u6771\u4eac.pdf (6 bytes)\r\n") {
		t.Errorf("text: %q", made.plain())
	}
	if page := made.html(); strings.Contains(page, "<script>") || !strings.Contains(page, testLink) || isWide([]byte(page)) {
		t.Errorf("page: %q", page)
	}
}
