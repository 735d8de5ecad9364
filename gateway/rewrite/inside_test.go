package rewrite

import (
	"bytes"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/encoding/unicode"
)

const (
	uuBlock   = "begin 644 hello.txt\r\n,2&5L;&\\L('=O<FQD\r\n`\r\nend\r\n"
	uuFile    = "Hello, world"
	yencBlock = "=ybegin line=128 size=12 name=a.bin\r\nr\x8f\x96\x96\x99VJ\xa1\x99\x9c\x96\x8e\r\n=yend size=12\r\n"
	hqxBlock  = "(This file must be converted with BinHex 4.0)\r\n\r\n:$f*TEQKPH#jSCA0d,R0TG!\"6594%8dP8)3!!!!!!\"3!!!!!!!!!3m!!:\r\n"
	pgpBlock  = "-----BEGIN PGP MESSAGE-----\r\n\r\nhQEMA+b3kDdqV3FLAQf/ZGlzIGlzIG5vdCBhIHJlYWwgbWVzc2FnZSBhdCBhbGwh\r\n=aBcD\r\n-----END PGP MESSAGE-----\r\n"
)

// textMail is a mail of one part, and some more fields.
func textMail(t testing.TB, fields, encoding, text string) []byte {
	t.Helper()
	return []byte("Message-ID: <1@x>\r\nMIME-Version: 1.0\r\nContent-Type: " + fields + "\r\nContent-Transfer-Encoding: " + encoding + "\r\n\r\n" + encodeAs(t, text, encoding))
}

// checkLeft compares the decoded text of a mail of one part with before and after, between which the notice stands.
func checkLeft(t testing.TB, mail []byte, before, after string) {
	t.Helper()
	msg, err := Scan(bytes.NewReader(mail), DefaultLimits())
	if err != nil || msg.root.isMultipart() {
		t.Fatalf("not one part, %v:\n%s", err, mail)
	}
	text := decodeAll(t, msg.src, msg.root)
	notice, found := strings.CutPrefix(text, before)
	notice, ended := strings.CutSuffix(notice, after)
	notice = strings.TrimLeft(notice, "\r\n")
	if !found || !ended || notice == "" || notice[0] != '[' || !strings.Contains(notice, testLink) {
		t.Errorf("left is %q, want %q and %q", text, before, after)
	}
	for _, block := range []string{uuBlock, yencBlock, hqxBlock, pgpBlock} {
		for line := range strings.SplitSeq(block, "\r\n") {
			if len(line) > 1 && strings.Contains(text, line) {
				t.Errorf("%q is left of the block", line)
			}
		}
	}
}

func TestBlocksLeaveNothingBehindInAnyEncoding(t *testing.T) {
	tests := []struct {
		name, text, left string
		names, files     []string
	}{
		{"in the middle", "Hello,\r\n\r\n" + uuBlock + "\r\nBye = now\r\n", "Hello,\r\n\r\n\r\nBye = now|", []string{"hello.txt"}, []string{uuFile}},
		{"at the start", uuBlock + "Bye\r\n", "Bye|", []string{"hello.txt"}, []string{uuFile}},
		{"at the end", "Hello\r\n" + uuBlock, "Hello|", []string{"hello.txt"}, []string{uuFile}},
		{"without a last line end", "Hello\r\n" + strings.TrimSuffix(uuBlock, "\r\n"), "Hello|", []string{"hello.txt"}, []string{uuFile}},
		{"alone", uuBlock, "|", []string{"hello.txt"}, []string{uuFile}},
		{"two", uuBlock + "and\r\n" + uuBlock, "and|", []string{"hello.txt", "hello.txt"}, []string{uuFile, uuFile}},
		{"above a signature", uuBlock + "Bye\r\n-- \r\nAda\r\n", "|Bye\r\n-- \r\nAda\r\n", []string{"hello.txt"}, []string{uuFile}},
		{"quoted", "> Hello\r\n> " + strings.ReplaceAll(strings.TrimSuffix(uuBlock, "\r\n"), "\r\n", "\r\n> ") + "\r\n> Bye\r\n", "> Hello\r\n> Bye|", []string{"hello.txt"}, []string{uuFile}},
		{"BinHex", "Hello\r\n" + hqxBlock + "Bye\r\n", "Hello\r\nBye|", []string{"attachment-1.hqx"}, []string{hqxBlock}},
		{"OpenPGP", "Hello\r\n" + pgpBlock + "Bye\r\n", "Hello\r\nBye|", []string{"attachment-1.asc"}, []string{pgpBlock}},
		{"yEnc", "Hello\r\n" + yencBlock + "Bye\r\n", "Hello\r\nBye|", []string{"a.bin.yenc"}, []string{yencBlock}},
	}
	for _, test := range tests {
		for _, encoding := range []string{"8bit", "quoted-printable", "base64"} {
			t.Run(test.name+"/"+encoding, func(t *testing.T) {
				r := rewriteMail(t, textMail(t, "text/plain; charset=utf-8", encoding, test.text))
				var files []string
				for _, file := range r.files {
					files = append(files, string(file))
				}
				if !slices.Equal(r.names, test.names) || !slices.Equal(files, test.files) {
					t.Errorf("files %q %q", r.names, files)
				}
				before, after, _ := strings.Cut(test.left, "|")
				checkLeft(t, r.mail, before, after)
				leaf := r.plan.Leaves()[0]
				if leaf.Sealed || leaf.Inside != len(test.files) {
					t.Errorf("preview: %+v", leaf)
				}
			})
		}
	}
}

// TestTextIsMeasuredWithoutItsFiles: a text is not too long because of a file in it.
func TestTextIsMeasuredWithoutItsFiles(t *testing.T) {
	line := "M" + strings.Repeat("1234", 15) + "\r\n"
	text := "Hello\r\nbegin 644 large.bin\r\n" + strings.Repeat(line, 4000) + "`\r\nend\r\nBye\r\n"
	r := rewriteMail(t, textMail(t, "text/plain", "7bit", text))
	if !slices.Equal(r.names, []string{"large.bin"}) || len(r.mail) > 4000 {
		t.Errorf("%q, %d bytes are left", r.names, len(r.mail))
	}
	checkLeft(t, r.mail, "Hello\r\nBye\r\n", "")
	page := `<html><body>Hello<img src="data:image/png;base64,` + base64Of(pngOf(300000)) + `"></body></html>`
	r = rewriteMail(t, textMail(t, "text/html", "base64", page))
	if !slices.Equal(r.names, []string{"data-1.png"}) {
		t.Errorf("%q", r.names)
	}
	msg, err := Scan(bytes.NewReader(r.mail), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	left := decodeAll(t, msg.src, msg.root)
	if !strings.HasPrefix(left, `<html><body>Hello<img src="data:image/png;base64,iVBOR`) || !strings.HasSuffix(left, "</div>\r\n</body></html>") {
		t.Errorf("left is %q", left)
	}
}

// TestFilesWhereNothingCanBeCut seals the text as a whole: in another charset, in broken base64, in an unknown encoding.
func TestFilesWhereNothingCanBeCut(t *testing.T) {
	wide, err := unicode.UTF16(unicode.LittleEndian, unicode.UseBOM).NewEncoder().String("Hello\r\n" + uuBlock)
	if err != nil {
		t.Fatal(err)
	}
	page, err := unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM).NewEncoder().String(`<a href="data:application/pdf;base64,JVBERi0x">`)
	if err != nil {
		t.Fatal(err)
	}
	prose, err := unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM).NewEncoder().String("Hello\r\nbegin with this\r\n")
	if err != nil {
		t.Fatal(err)
	}
	many := strings.Repeat(uuBlock, maxInside+1)
	tests := []struct {
		name   string
		mail   []byte
		sealed bool
	}{
		{"UTF-16", textMail(t, "text/plain; charset=utf-16", "base64", wide), true},
		{"UTF-16 by its mark", textMail(t, "text/plain", "base64", wide), true},
		{"UTF-16 page", textMail(t, "text/html; charset=utf-16be", "base64", page), true},
		{"UTF-16 prose", textMail(t, "text/plain; charset=utf-16be", "base64", prose), false},
		{"broken base64", bytes.ReplaceAll(textMail(t, "text/plain", "base64", "Hello\r\n"+uuBlock), []byte("SGVs"), []byte("SGV*s")), true},
		{"broken base64 without", bytes.ReplaceAll(textMail(t, "text/plain", "base64", "Hello\r\n"), []byte("SGVs"), []byte("SGV*s")), false},
		{"unknown encoding", textMail(t, "text/plain", "x-uuencode", uuBlock), true},
		{"too many", textMail(t, "text/plain", "7bit", many), true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := rewriteMail(t, test.mail)
			if sealed := r.plan.Leaves()[0].Sealed; sealed != test.sealed || len(r.plan.inside) > 0 {
				t.Errorf("sealed: %t, inside: %d", sealed, len(r.plan.inside))
			}
		})
	}
}

// TestFilesInStatefulCharsets: they contain ASCII, even where browsers do not know them.
func TestFilesInStatefulCharsets(t *testing.T) {
	for _, charset := range []string{"iso-2022-jp", "iso-2022-kr", "hz-gb-2312", "utf-7", "big5", "x-unknown"} {
		r := rewriteMail(t, textMail(t, "text/plain; charset="+charset, "7bit", "Hello\r\n"+uuBlock+"Bye\r\n"))
		if len(r.files) != 1 || string(r.files[0]) != uuFile || !bytes.Contains(r.mail, []byte("Hello\r\nBye\r\n")) {
			t.Errorf("%s: %q", charset, r.files)
		}
	}
}

func TestBlockInAPageIsSealedAsItStands(t *testing.T) {
	for _, block := range []string{pgpBlock, uuBlock} {
		page := "<html><body><pre>\r\n" + block + "</pre>Bye</body></html>"
		r := rewriteMail(t, textMail(t, "text/html", "7bit", page))
		if len(r.files) != 1 || string(r.files[0]) != block || bytes.Contains(r.mail, []byte(block)) {
			t.Errorf("%q", r.files)
		}
		if !bytes.Contains(r.mail, []byte("<html><body><pre>\r\n</pre>Bye")) {
			t.Errorf("%s", r.mail)
		}
	}
}

// TestSplicesPutBackMakeTheText is promise 3 for what is cut out of texts.
func TestSplicesPutBackMakeTheText(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 2))
		var text strings.Builder
		html := random.IntN(2) == 0
		for range random.IntN(12) {
			pieces := []string{"Hello = you\r\n", "Gr\xc3\xbc\xc3\x9fe ", "\r\n", uuBlock, pgpBlock}
			if html {
				pieces = []string{"<p>Hello = you</p>\r\n", "Gr\xc3\xbc\xc3\x9fe ", "<img src=\"data:image/png;base64," + base64Of(pngOf(100+40000*random.IntN(2))) + "\">", "<a href='data:a/b,c%41'>x</a>\r\n"}
			}
			text.WriteString(pieces[random.IntN(len(pieces))])
		}
		typ := "text/plain; charset=utf-8"
		if html {
			typ = "text/html; charset=utf-8"
		}
		encoding := []string{"8bit", "quoted-printable", "base64"}[random.IntN(3)]
		r := rewriteMail(t, textMail(t, typ, encoding, text.String()))
		root := r.plan.msg.root
		whole, err := io.ReadAll(decoder(r.plan.msg.src, root))
		if err != nil || string(whole) != text.String() {
			t.Fatalf("seed %d: the mail does not hold the text, %v", seed, err)
		}
		left, err := r.plan.textOf(root)
		if err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(left)
		if err != nil {
			t.Fatal(err)
		}
		back := string(rest)
		for _, s := range r.plan.inside[root].splices {
			if !strings.HasPrefix(back[s.start:], s.text) {
				t.Fatalf("seed %d: no splice at %d", seed, s.start)
			}
			back = back[:s.start] + text.String()[s.start:s.end] + back[int(s.start)+len(s.text):]
		}
		if back != text.String() {
			t.Fatalf("seed %d: the splices put back do not make the text", seed)
		}
		again, err := Scan(bytes.NewReader(r.mail), DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		if got := decodeAll(t, again.src, again.root); len(r.files) > 0 && !holds(got, string(rest)) {
			t.Fatalf("seed %d: more than the notice was put into %q: %q", seed, rest, got)
		}
	}
}

// holds reports whether got is text with one piece put in.
func holds(got, text string) bool {
	front := 0
	for front < len(text) && front < len(got) && text[front] == got[front] {
		front++
	}
	return strings.HasSuffix(got, text[front:]) || strings.Contains(got, text)
}

func TestInOriginal(t *testing.T) {
	splices := []splice{{start: 10, end: 20}, {start: 30, end: 40, text: "xyz"}, {start: 40, end: 41}}
	for at, want := range map[int64]int64{0: 0, 9: 9, 10: 10, 11: 21, 20: 30, 21: 30, 22: 30, 23: 40, 24: 42} {
		if got := inOriginal(splices, at); got != want {
			t.Errorf("%d: %d, want %d", at, got, want)
		}
	}
	text, err := spliced(strings.NewReader(strings.Repeat("0123456789", 5)), splices)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(text); string(got) != "01234567890123456789xyz123456789" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := spliced(strings.NewReader(""), append(splices, splice{start: 35, end: 36})); err == nil {
		t.Error("overlapping splices are taken")
	}
	if text, err = spliced(strings.NewReader("short"), splices); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(text); err == nil {
		t.Error("a text that is too short is taken for whole")
	}
}
