package rewrite

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// pieces returns the whole mail again, cut along the structure.
func (p *part) pieces(mail []byte) []byte {
	out := bytes.Clone(mail[p.start:p.body])
	if p.message {
		return append(out, p.children[0].pieces(mail)...)
	}
	if !p.isMultipart() {
		return append(out, mail[p.body:p.end]...)
	}
	at := p.body
	for i, child := range p.children {
		out = append(out, mail[at:p.lines[i].end]...)
		out = append(out, child.pieces(mail)...)
		at = child.end
	}
	return append(out, mail[at:p.end]...)
}

func FuzzScan(f *testing.F) {
	seeds, err := filepath.Glob(goldenDir + "/*/in.eml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range seeds {
		mail, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if len(mail) < 10000 {
			f.Add(mail)
		}
	}
	f.Fuzz(func(t *testing.T, mail []byte) {
		r := rewriteMail(t, mail)
		root := r.plan.msg.root
		if _, whole := r.plan.Whole(); whole {
			if len(r.files) != 1 || !bytes.Equal(r.files[0], mail) {
				t.Fatal("sealed whole, and not all of it")
			}
			return
		}
		if !bytes.Equal(root.pieces(mail), mail) {
			t.Fatal("the pieces do not make the mail")
		}
		root.walk(func(p *part) bool {
			if p.start > p.body || p.body > p.end || p.parent != nil && (p.start < p.parent.body || p.end > p.parent.end) {
				t.Fatalf("offsets out of order: %+v", p)
			}
			if !p.isMultipart() && !p.message && r.plan.fates[p] == stays && !isHost(r.plan, p) && len(r.plan.inside[p].items) == 0 && !bytes.Contains(r.mail, mail[p.body:p.end]) {
				t.Fatal("a part that stays is changed")
			}
			return r.plan.fates[p] == stays
		})
	})
}

func isHost(plan *Plan, p *part) bool {
	for _, h := range plan.hosts {
		if h.part == p {
			return true
		}
	}
	return false
}

func FuzzHTMLInsert(f *testing.F) {
	for _, page := range []string{"", "<html><body>x</body></html>", "<!-- <body>", "<p a=\"</body>\">", "<style></body>", "text</BODY\n>", "<title>", "<!doctype html><head></head>", "<body><![CDATA[</body>]]>"} {
		f.Add(page)
	}
	f.Fuzz(func(t *testing.T, page string) {
		for _, long := range []bool{false, true} {
			place := &htmlPlace{}
			if err := place.find(strings.NewReader(page)); err != nil {
				t.Fatal(err)
			}
			at := place.choose(long)
			if at < -1 || at > int64(len(page)) {
				t.Fatalf("place %d in %d bytes", at, len(page))
			}
			if at > 0 && place.bodyEnd == at && !hasFold([]byte(page[at:]), "</body") {
				t.Fatalf("no </body> at %d", at)
			}
		}
	})
}

func FuzzFilename(f *testing.F) {
	for _, text := range []string{`attachment; filename="a.pdf"`, `x; filename*0*=utf-8''%41; filename*1="b"`, `x; filename="=?utf-8?b?4oKs?="`, `x (; filename="\`, `;;=;"`, strings.Repeat("(;", 5000) + ")", strings.Repeat(`";`, 5001), strings.Repeat("a=;", 5000)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v := parseValue(text)
		name, _, _ := v.get("filename")
		name = decodeName(name)
		if !utf8.ValidString(name) {
			t.Fatalf("%q is not UTF-8", name)
		}
		shown := shownName(name)
		if strings.ContainsAny(shown, "\r\n\x00\u202e\u2066/\\") || utf8.RuneCountInString(shown) > maxName {
			t.Fatalf("%q is not safe to show", shown)
		}
		if strings.ContainsAny(escape(shown), "<>\"\u00a0") {
			t.Fatalf("%q is not safe in HTML", escape(shown))
		}
	})
}
