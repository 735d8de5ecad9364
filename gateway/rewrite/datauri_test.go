package rewrite

import (
	"bytes"
	"encoding/base64"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

const testLimit = 300

// pngOf returns a file of size bytes that begins like a PNG.
func pngOf(size int) string {
	file := "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
	return file + strings.Repeat("\x00\x10\x83\xff", size)[:size-len(file)]
}

func base64Of(file string) string { return base64.StdEncoding.EncodeToString([]byte(file)) }

// takeURIs returns what is taken out of a page, as "type: data", and the page with "*" in the place of each.
func takeURIs(t testing.TB, page string, wrap func(io.Reader) io.Reader) (files []string, rest string) {
	t.Helper()
	uris, tooMany, err := findDataURIs(wrap(strings.NewReader(page)), 1000, func(u *dataURI) bool { return u.isFile(testLimit) })
	if err != nil || tooMany {
		t.Fatalf("too many: %t, %v", tooMany, err)
	}
	at := int64(0)
	for _, u := range uris {
		if u.start < at || u.payload < u.start || u.end < u.payload || u.end > int64(len(page)) {
			t.Fatalf("[%d, %d, %d) behind %d in %d bytes", u.start, u.payload, u.end, at, len(page))
		}
		rest += page[at:u.start] + "*"
		at = u.end
		if u.broken {
			files = append(files, "broken: "+page[u.start:u.end])
			continue
		}
		data, err := io.ReadAll(u.data(wrap(strings.NewReader(page[u.payload:u.end]))))
		if err != nil || int64(len(data)) != u.size {
			t.Fatalf("%d bytes of %d in %q, %v", len(data), u.size, page[u.start:u.end], err)
		}
		files = append(files, u.typ+": "+string(data))
	}
	return files, rest + page[at:]
}

func same(r io.Reader) io.Reader { return r }

func TestDataURIsAreFoundInEveryForm(t *testing.T) {
	large := base64Of(pngOf(600))
	small := base64Of(pngOf(90))
	entities := strings.NewReplacer("d", "&#100;", "t", "&#x0074;", ":", "&colon;").Replace("data:")
	tests := []struct{ name, page, rest, typ string }{
		{"small picture", `<img src="data:image/png;base64,` + small + `">`, "", ""},
		{"large picture", `<p><img src="data:image/png;base64,` + large + `"></p>`, `<p><img src="*"></p>`, "image/png"},
		{"small picture in single quotes", `<img src='data:image/gif;base64,` + base64Of("GIF89a") + `'>`, "", ""},
		{"without quotes", `<img src=data:image/png;base64,` + large + ` width=1>`, `<img src=* width=1>`, "image/png"},
		{"case", `<img src="DaTa:Image/PNG;BASE64,` + large + `">`, `<img src="*">`, "image/png"},
		{"white space in front", `<img src=" data:image/png;base64,` + large + `">`, `<img src=" *">`, "image/png"},
		{"line ends in the scheme", "<img src=\"da\r\nta:image/png;base64," + large + `">`, `<img src="*">`, "image/png"},
		{"entities", `<img src="` + entities + `image/png;base64,` + large + `">`, `<img src="*">`, "image/png"},
		{"zeros", `<img src="&#` + strings.Repeat("0", 3000) + `100;ata:image/png;base64,` + large + `">`, `<img src="*">`, "image/png"},
		{"wrapped", "<img src=\"data:image/png;base64,\r\n" + large[:76] + "\r\n " + large[76:] + "\r\n\">", `<img src="*">`, "image/png"},
		{"blanks", `<img src="data:image/png;base64,` + large[:100] + " " + large[100:] + `">`, `<img src="*">`, "image/png"},
		{"percent", `<img src="data:image/png;base64,%69` + large[1:] + `">`, `<img src="*">`, "image/png"},
		{"no padding", `<img src="data:image/png;base64,` + strings.TrimRight(large, "=") + `">`, `<img src="*">`, "image/png"},
		{"style sheet", `<style>p{background:url(data:image/png;base64,` + large + `) red}</style>`, `<style>p{background:url(*) red}</style>`, "image/png"},
		{"style sheet escape", `<style>p{background:url(\64 ata:image/png;base64,` + large + `)}</style>`, `<style>p{background:url(*)}</style>`, "image/png"},
		{"style attribute", `<p style="background:url('data:image/png;base64,` + large + `')">`, `<p style="background:url('*')">`, "image/png"},
		{"style attribute with entities", `<p style="background:url(&quot;data:image/png;base64,` + large + `&quot;)">`, `<p style="background:url(&quot;*&quot;)">`, "image/png"},
		{"srcset", `<img srcset="data:image/png;base64,` + large + ` 1x, b.png 2x">`, `<img srcset="* 1x, b.png 2x">`, "image/png"},
		{"second of a srcset", `<img srcset="b.png 2x, data:image/png;base64,` + large + ` 1x">`, `<img srcset="b.png 2x, * 1x">`, "image/png"},
		{"unclosed", `<img src="data:image/png;base64,` + large, `<img src="*`, "image/png"},
		{"text", `<p>data:image/png;base64,` + large + `</p>`, `<p>*</p>`, "image/png"},
		{"comment", `<!-- data:image/png;base64,` + large + ` -->`, `<!-- * -->`, "image/png"},
		{"parameters", `<img src="data:image/png;name=a.png;charset=x;base64,` + large + `">`, `<img src="*">`, "image/png"},
		{"long parameter", `<img src="data:image/png;x=` + strings.Repeat("y", 5000) + `;base64,` + large + `">`, `<img src="*">`, "image/png"},
		{"angle in a parameter", `<img src="data:image/png;x=>;base64,` + large + `">`, `<img src="*">`, "image/png"},
		{"no type", `<img src="data:;base64,` + large + `">`, `<img src="*">`, "text/plain"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			files, rest := takeURIs(t, test.page, same)
			if test.rest == "" {
				if len(files) > 0 || rest != test.page {
					t.Errorf("taken out: %q", files)
				}
				return
			}
			if want := test.typ + ": " + pngOf(600); len(files) != 1 || files[0] != want && test.name != "percent" {
				t.Errorf("files %.200q", files)
			}
			if rest != test.rest {
				t.Errorf("left is %.200q, want %q", rest, test.rest)
			}
		})
	}
}

func TestDataURIsOfOtherKinds(t *testing.T) {
	tests := []struct {
		name, page, rest string
		files            []string
	}{
		{"prose", `<p>The "data: what we know, and what not" of metadata:image/png;base64,AAAA</p>`, "", nil},
		{"empty", `<img src="data:,"><img src="data:image/png;base64,">`, "", nil},
		{"script", `<a href="data:text/html,%3Cb%3E&amp;x">a</a>`, `<a href="*">a</a>`, []string{"text/html: <b>&x"}},
		{"small SVG", `<img src="data:image/svg+xml;utf8,<svg xmlns='http://www.w3.org/2000/svg'/>">`, `<img src="*">`, []string{"image/svg+xml: <svg xmlns='http://www.w3.org/2000/svg'/>"}},
		{"SVG in an escaped quotation", `<p style="a:url(&quot;data:image/svg+xml,%3Csvg a='b'/&quot;)">`, `<p style="a:url(&quot;*&quot;)">`, []string{"image/svg+xml: <svg a='b'/"}},
		{"base64 behind a stray quotation mark", `<p title='it"data:a/b;base64,YQ=='>`, `<p title='it"*'>`, []string{"a/b: a"}},
		{"refresh", `<meta content="0;url=data:a/b,c"><p>`, `<meta content="0;url=*"><p>`, []string{"a/b: c"}},
		{"refresh without a name", `<meta content="0;data:text/html,c"><p>`, `<meta content="0;*"><p>`, []string{"text/html: c"}},
		{"markup behind a refresh", `<meta content="0;data:text/html,<svg/onload=x>"><p>`, `<meta content="0;*>"><p>`, []string{"text/html: <svg/onload=x"}},
		{"markup in a style", `<p style="background:url(data:image/svg+xml,<svg/>)">`, `<p style="background:url(*>)">`, []string{"image/svg+xml: <svg/"}},
		{"marks without quotes", `<a href=data:application/pdf,'%25PDF"-1.4>x</a>`, `<a href=*>x</a>`, []string{`application/pdf: '%PDF"-1.4`}},
		{"a tag without quotes", `<img src=data:image/svg+xml,<svg%20xmlns=x%3E> b`, `<img src=*> b`, []string{"image/svg+xml: <svg xmlns=x>"}},
		{"an equals sign in quotes of an empty element", `<img src="?u=data:text/html,x"/><p title="a">`, `<img src="?u=*"/><p title="a">`, []string{"text/html: x"}},
		{"an equals sign in quotes", `<a href="?u=data:text/html,x">a</a>`, `<a href="?u=*">a</a>`, []string{"text/html: x"}},
		{"a control character", "<a href=\"\x01data:text/html,x\">a</a>", "<a href=\"\x01*\">a</a>", []string{"text/html: x"}},
		{"an escaped control character", `<a href="&#1;data:text/html,x">a</a>`, `<a href="&#1;*">a</a>`, []string{"text/html: x"}},
		{"second of a srcset", `<img srcset="a.png 1x, data:image/svg+xml,%3Csvg/> 2x">`, `<img srcset="a.png 1x, *> 2x">`, []string{"image/svg+xml: <svg/"}},
		{"PDF", `<a href="data:application/pdf;base64,JVBERi0x">a</a>`, `<a href="*">a</a>`, []string{"application/pdf: %PDF-1"}},
		{"PDF that says PNG", `<img src="data:image/png;base64,JVBERi0x">`, `<img src="*">`, []string{"image/png: %PDF-1"}},
		{"PNG that says HTML", `<a href="data:text/html;base64,` + base64Of(pngOf(60)) + `">`, `<a href="*">`, []string{"text/html: " + pngOf(60)}},
		{"broken", `<img src="data:image/png;base64,AA*A==B">`, `<img src="*">`, []string{"broken: data:image/png;base64,AA*A==B"}},
		{"long without a type", `<a href="data:xyz,` + strings.Repeat("a", maxProse+1) + `">`, `<a href="*">`, []string{": " + strings.Repeat("a", maxProse+1)}},
		{"two", `<a href="data:a/b,c"><a href='data:a/b,"d"'>`, `<a href="*"><a href='*'>`, []string{"a/b: c", `a/b: "d"`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			files, rest := takeURIs(t, test.page, same)
			if test.rest == "" {
				test.rest = test.page
			}
			if strings.Join(files, "|") != strings.Join(test.files, "|") || rest != test.rest {
				t.Errorf("files %.200q\nleft %.200q", files, rest)
			}
		})
	}
}

// TestLargePageTakesBoundedMemory also shows that no length hides a URI.
func TestLargePageTakesBoundedMemory(t *testing.T) {
	unit := "VGhpcyBpcyBhIGZpbGUu"
	page := io.MultiReader(strings.NewReader(`<img src="data:image/png;base64,`), io.LimitReader(&repeating{text: unit}, 30<<20), strings.NewReader(`"><p>end`))
	var found []dataURI
	allocated := testing.AllocsPerRun(1, func() {
		if found != nil {
			return
		}
		var err error
		if found, _, err = findDataURIs(page, 10, func(*dataURI) bool { return true }); err != nil {
			t.Fatal(err)
		}
	})
	if len(found) != 1 || found[0].end-found[0].payload != 30<<20 || found[0].broken {
		t.Fatalf("%d found", len(found))
	}
	if allocated > 1000 {
		t.Errorf("%.0f allocations", allocated)
	}
}

type repeating struct {
	text string
	at   int
}

func (r *repeating) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = r.text[r.at]
		r.at = (r.at + 1) % len(r.text)
	}
	return len(p), nil
}

func TestJunkReaderDecodesAsForgivingReaders(t *testing.T) {
	text := "begin 644 a\r\nbytes \x00\xff\x80"
	digits := base64Of(text)
	for _, junk := range []string{digits, "*" + digits[:5] + "!\r\n-" + digits[5:], strings.TrimRight(digits, "=")} {
		got, err := io.ReadAll(iotest.OneByteReader(&junkReader{in: strings.NewReader(junk)}))
		if err != nil || string(got) != text {
			t.Errorf("%q: %q, %v", junk, got, err)
		}
	}
	got, err := io.ReadAll(&junkReader{in: strings.NewReader(base64Of("a") + base64Of("bc") + base64Of("def"))})
	if err != nil || string(got) != "abcdef" {
		t.Errorf("behind padding: %q, %v", got, err)
	}
}

func FuzzDataURI(f *testing.F) {
	for _, page := range []string{
		`<img src="data:image/png;base64,iVBORw0KGgo=">`, `url(\64 ata:a/b,%41&quot;)`, "'da\nta:;base64,AA A=\r\n'", `&#x64;ata&colon;x/y,&NotEqualTilde;&#0;"`,
		`ddata:data:a/b,<`, `"data:,` + strings.Repeat("x", maxProse+1), "=data:a/b;base64,AAAA%", "data:a/b;base64,\\64", "\"data:a/b,% 1x,\"",
	} {
		f.Add(page)
	}
	f.Fuzz(func(t *testing.T, page string) {
		files, rest := takeURIs(t, page, same)
		slowly, again := takeURIs(t, page, iotest.OneByteReader)
		if strings.Join(files, "|") != strings.Join(slowly, "|") || rest != again {
			t.Fatalf("at once %q, byte by byte %q", files, slowly)
		}
	})
}

func BenchmarkFindDataURIs(b *testing.B) {
	page := bytes.Repeat([]byte(`<p class="a" style="color:red">Good day, &nbsp;data and such: <a href="https://www.example.com/">here</a></p>`+"\r\n"), 1000)
	b.SetBytes(int64(len(page)))
	for b.Loop() {
		if _, _, err := findDataURIs(bytes.NewReader(page), 10, func(*dataURI) bool { return true }); err != nil {
			b.Fatal(err)
		}
	}
}
