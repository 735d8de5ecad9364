package rewrite

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime/quotedprintable"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
	"golang.org/x/text/encoding/unicode"
)

// inCharset is a mail with one file, whose text is in a charset and transfer encoding.
func inCharset(t *testing.T, typ, charset, transfer string, text []byte) string {
	t.Helper()
	var body bytes.Buffer
	switch transfer {
	case "base64":
		body.WriteString(base64.StdEncoding.EncodeToString(text))
	case "quoted-printable":
		q := quotedprintable.NewWriter(&body)
		q.Binary = strings.HasPrefix(charset, "utf-16")
		if _, err := q.Write(text); err != nil {
			t.Fatal(err)
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	default:
		body.Write(text)
	}
	return "Subject: x\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\nContent-Type: " + typ + "; charset=" + charset +
		"\r\nContent-Transfer-Encoding: " + transfer + "\r\n\r\n" + body.String() +
		"\r\n--B\r\nContent-Type: application/pdf; name=\"=?utf-8?q?=C3=BCber_=E6=9D=B1=2Epdf?=\"\r\n\r\n%PDF\r\n--B--\r\n"
}

// The notice is written in the charset of the text, which reads the same around it.
func TestNoticeIsWrittenInTheCharsetOfTheText(t *testing.T) {
	jp, zh, ko := "\u6771\u4eac\u306e\u30d1\u30b9\u30dd\u30fc\u30c8", "\u6771\u4eac", "\uc548\ub155"
	for _, test := range []struct {
		charset, text string
		coding        encoding.Encoding
		transfers     string
	}{
		{"iso-8859-1", "Gr\u00fc\u00dfe", charmap.ISO8859_1, "8bit quoted-printable base64"},
		{"iso-8859-15", "5 \u20ac", charmap.ISO8859_15, "8bit quoted-printable base64"},
		{"windows-1252", "\u201eGr\u00fc\u00dfe\u201c", charmap.Windows1252, "8bit quoted-printable base64"},
		{"windows-1251", "\u041f\u0440\u0438\u0432\u0435\u0442", charmap.Windows1251, "8bit quoted-printable base64"},
		{"koi8-r", "\u041f\u0440\u0438\u0432\u0435\u0442", charmap.KOI8R, "8bit quoted-printable base64"},
		{"shift_jis", jp, japanese.ShiftJIS, "8bit quoted-printable base64"},
		{"euc-jp", jp, japanese.EUCJP, "8bit quoted-printable base64"},
		{"iso-2022-jp", jp, japanese.ISO2022JP, "7bit quoted-printable base64"},
		{"gb18030", zh, simplifiedchinese.GB18030, "8bit quoted-printable base64"},
		{"gbk", zh, simplifiedchinese.GBK, "8bit quoted-printable base64"},
		{"big5", zh, traditionalchinese.Big5, "8bit quoted-printable base64"},
		{"euc-kr", ko, korean.EUCKR, "8bit quoted-printable base64"},
		{"utf-16be", jp, unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM), "quoted-printable base64"},
		{"utf-16le", jp, unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM), "quoted-printable base64"},
		{"utf-16", jp, unicode.UTF16(unicode.LittleEndian, unicode.UseBOM), "quoted-printable base64"},
	} {
		for transfer := range strings.FieldsSeq(test.transfers) {
			for _, text := range []string{test.text + "\r\nbye\r\n", "hi\r\n" + test.text, test.text + "\r\n-- \r\nme\r\n"} {
				for _, typ := range []string{"text/plain", "text/html"} {
					if typ == "text/html" {
						text = "<html><body>" + text + "</body></html>\r\n"
					}
					checkCharset(t, test.charset, transfer, typ, text, test.coding)
				}
			}
		}
	}
}

func checkCharset(t *testing.T, charset, transfer, typ, text string, coding encoding.Encoding) {
	t.Helper()
	raw, err := coding.NewEncoder().Bytes([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", charset, err)
	}
	mail := inCharset(t, typ, charset, transfer, raw)
	r := rewriteMail(t, []byte(mail))
	after := scanMail(t, string(r.mail))
	if len(after.root.children) != 1 {
		t.Errorf("%s, %s, %s: the notice has a part of its own:\n%s", charset, transfer, typ, r.mail)
		return
	}
	leaf := after.root.children[0]
	if leaf.charset != charset || leaf.encoding != transfer {
		t.Errorf("%s, %s, %s: became %s, %s", charset, transfer, typ, leaf.charset, leaf.encoding)
	}
	bytesNow, err := io.ReadAll(decoder(after.src, leaf))
	if err != nil {
		t.Fatal(err)
	}
	now, err := coding.NewDecoder().String(string(bytesNow))
	if err != nil {
		t.Fatalf("%s: %v", charset, err)
	}
	if !strings.Contains(now, testLink) || !strings.Contains(now, "1 file was taken out") || strings.Contains(now, "\ufffd") {
		t.Errorf("%s, %s, %s: the notice is missing: %q", charset, transfer, typ, now)
	}
	// What is not the notice is the text, byte for byte.
	start, end := commonEnds(bytesNow, raw)
	if start+end < len(raw) {
		t.Errorf("%s, %s, %s: the text around the notice has changed: %q", charset, transfer, typ, now)
	}
}

func scanMail(t *testing.T, mail string) *Message {
	t.Helper()
	msg, err := Scan(strings.NewReader(mail), DefaultLimits())
	if err != nil || msg.Ambiguity != "" {
		t.Fatalf("%v, %q", err, msg.Ambiguity)
	}
	return msg
}

// commonEnds returns how much of b stands at the beginning and at the end of a.
func commonEnds(a, b []byte) (start, end int) {
	for start < len(b) && start < len(a) && a[start] == b[start] {
		start++
	}
	for end < len(b) && end < len(a) && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	return start, end
}

func TestNoticeSpeaksGerman(t *testing.T) {
	n := Notice{Link: testLink, ShowNames: true, Language: "de", Expires: time.Date(2027, 3, 24, 0, 0, 0, 0, time.UTC)}
	n.Files = []File{{"a.pdf", 1234567}, {"b.pdf", 1}}
	made := newNotice(n, aboutFiles, 0)
	for _, want := range []string{"2 Dateien wurden aus dieser E-Mail genommen", "a.pdf (1,2 MB)", "b.pdf (1 Byte)", "Verf\u00fcgbar bis 24. M\u00e4rz 2027.", testLink} {
		if !strings.Contains(made.plain(), want) {
			t.Errorf("%q is missing in %s", want, made.plain())
		}
	}
	if page := made.html(); !strings.Contains(page, `lang="de"`) || isWide([]byte(page)) {
		t.Errorf("page: %s", page)
	}
}

// Every sentence of every language has a mark by which an imitation of it is known.
func TestEveryLeadHasAMark(t *testing.T) {
	for _, words := range []phrases{english(), german()} {
		for about := aboutFiles; about <= aboutTooLarge; about++ {
			for files := 1; files <= 2; files++ {
				m := newImitations("")
				m.text([]byte(words.lead(files, about)))
				m.look()
				if !m.found {
					t.Errorf("no mark for %q", words.lead(files, about))
				}
			}
		}
	}
}

func TestImitationsAreToldFromQuotations(t *testing.T) {
	own := newNotice(Notice{Link: testLink, Files: []File{{"a.pdf", 1}}}, aboutFiles, 0)
	link := "https://files.example.com/p/" + strings.Repeat("ab", 16) + "#x"
	quoted := "> " + strings.ReplaceAll(own.plain(), "\r\n", "\r\n> ")
	for _, test := range []struct {
		name, typ, text string
		want            bool
	}{
		{"nothing", "text/plain", "Hello, my file is attached.", false},
		{"our notice", "text/plain", "Hi\r\n" + own.plain(), true},
		{"in another case, on other lines", "text/plain", strings.ReplaceAll(strings.ToUpper(own.leads[0]), " ", "\r\n"), true},
		{"in German", "text/plain", "1 Datei wurde aus dieser E-Mail genommen und an einen sicheren Ort gelegt.", true},
		{"a link", "text/plain", "see " + link, true},
		{"a link to elsewhere", "text/plain", "see https://files.example.com/p/about", false},
		{"quoted", "text/plain", "Thanks!\r\n" + quoted, false},
		{"below a rule", "text/plain", "Thanks!\r\n-----Original Message-----\r\n" + own.plain(), false},
		{"below a sender and a date", "text/plain", "Thanks!\r\n\r\nFrom: Support <support@example.com>\r\nSent: Tuesday, 24 November 2026 09:00\r\nTo: Ada\r\n\r\n" + own.plain(), false},
		{"below a rule in another language", "text/plain", "Gracias\r\n-----Mensaje original-----\r\n" + own.plain(), false},
		{"far behind", "text/plain", strings.Repeat("word ", 5000) + own.plain(), true},
		{"our page", "text/html", "<p>Hi</p>" + own.html(), true},
		{"quoted page", "text/html", "<p>Thanks</p><blockquote>" + own.html() + "</blockquote>", false},
		{"behind a quoted page", "text/html", "<blockquote>x</blockquote>" + own.html(), true},
		{"Gmail's quotation", "text/html", "<p>Thanks</p><div class=gmail_quote>" + own.html() + "</div>", false},
		{"Outlook's quotation", "text/html", "<div><p>Thanks</p><div style='border-top:solid'><p><b>Von:</b> Support<br><b>Gesendet:</b> Dienstag, 24. November<br><b>An:</b> Ada</p></div>" + own.html() + "</div>", false},
		{"a rule in a page", "text/html", "<p>Thanks</p><p>-----Original Message-----</p>" + own.html(), false},
		{"lines and spaces of a page", "text/html", "1 file was taken out<br>of&nbsp;this mail and moved to a secure\u00a0place", true},
		{"a hidden target", "text/html", "<a href='" + strings.ToUpper(link) + "'>click</a>", true},
		{"inline tags", "text/html", "1 file was <b>taken</b> out of this mail and <i>moved</i> to a secure place", true},
		{"a comment", "text/html", "<!--" + own.html() + "-->", false},
	} {
		mail := "Subject: x\r\nContent-Type: " + test.typ + "\r\n\r\n" + test.text + "\r\n"
		r := way{rules: Rules{PortalURL: "https://files.example.com"}}.rewrite(t, []byte(mail), DefaultLimits())
		if r.plan.Imitates() != test.want {
			t.Errorf("%s: %v, want %v", test.name, r.plan.Imitates(), test.want)
		}
		with := "Content-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\n" + strings.TrimPrefix(mail, "Subject: x\r\n") +
			"--B\r\nContent-Type: application/pdf\r\n\r\n%PDF\r\n--B--\r\n"
		r = way{rules: Rules{PortalURL: "https://files.example.com"}}.rewrite(t, []byte(with), DefaultLimits())
		if got := strings.Contains(string(r.mail), "it is not from us"); got != test.want {
			t.Errorf("%s: the notice tells of it: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestNoticeStandsWhereTheAdminWants(t *testing.T) {
	mail := "Content-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\n\r\nHello\r\n-- \r\nMe\r\n--B\r\nContent-Type: application/pdf\r\n\r\n%PDF\r\n--B--\r\n"
	for place, above := range map[Place]bool{"": true, PlaceAuto: true, PlaceTop: true, PlaceBottom: false} {
		msg := scanMail(t, mail)
		plan, err := NewPlan(msg, Rules{Judge: judge})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if _, err := plan.Write(&out, Output{Notice: Notice{Link: testLink, Place: place}}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Index(out.String(), testLink) < strings.Index(out.String(), "Hello"); got != above {
			t.Errorf("%q: above %v, want %v:\n%s", place, got, above, out.String())
		}
	}
}

// Where half a character stands in the text, the notice would be read with the other half: it gets a part of its own.
func TestBrokenTextDoesNotSwallowTheNotice(t *testing.T) {
	for charset, text := range map[string]string{
		"utf-16":    "\xff\xfeh\x00i\x00!",
		"utf-16be":  "\x00h\x00i\x00",
		"shift_jis": "hi \x93",
		"big5":      "hi \xa4",
		"gb18030":   "hi \x81\x30\x81",
	} {
		r := rewriteMail(t, []byte(inCharset(t, "text/plain", charset, "base64", []byte(text))))
		if msg := scanMail(t, string(r.mail)); len(msg.root.children) != 2 || !bytes.Contains(r.mail, []byte(testLink[:40])) {
			t.Errorf("%s: the notice is in the text:\n%s", charset, r.mail)
		}
	}
}

// The notice stands where a browser shows it, whatever the page is.
func TestNoticeIsShownInEveryPage(t *testing.T) {
	for name, test := range map[string]struct{ page, before, after string }{
		"no body":           {"<p>Hi</p>\r\n", "<p>Hi</p>", ""},
		"two bodies":        {"<body><p>One</p></body><body><p>Two</p></body>", "Two", "</body>"},
		"behind the page":   {"<html><body><p>Hi</p></body></html>\r\nmore", "Hi", "</body>"},
		"open comment":      {"<html><body><p>Hi</p><!-- never closed", "<body>", "<p>Hi"},
		"open style":        {"<html><body><p>Hi</p><style>p {", "<body>", "<p>Hi"},
		"plaintext":         {"<html><body><p>Hi</p><plaintext>x", "<body>", "<p>Hi"},
		"open textarea":     {"<html><body><p>Hi</p><textarea>x", "<body>", "<p>Hi"},
		"open select":       {"<html><body><p>Hi</p><select><option>x</body></html>", "<body>", "<p>Hi"},
		"hidden wrapper":    {"<html><body><div style='display:none'>x</body></html>", "<body>", "<div style"},
		"hidden and closed": {"<html><body><div style='display:none'>x</div><p>Hi</p></body></html>", "Hi", "</body>"},
	} {
		mail := "Content-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\nContent-Type: text/html\r\n\r\n" + test.page +
			"\r\n--B\r\nContent-Type: application/pdf\r\n\r\n%PDF\r\n--B--\r\n"
		r := string(rewriteMail(t, []byte(mail)).mail)
		at := strings.Index(r, `<div role="note"`)
		if at < 0 || !strings.Contains(r[:at], test.before) || test.after != "" && !strings.Contains(r[at:], test.after) {
			t.Errorf("%s:\n%s", name, r)
		}
	}
	for name, page := range map[string]string{"frames": "<html><frameset><frame src=x></frameset></html>", "hidden body": "<html><body hidden>x</body></html>"} {
		mail := "Content-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\nContent-Type: text/html\r\n\r\n" + page +
			"\r\n--B\r\nContent-Type: application/pdf\r\n\r\n%PDF\r\n--B--\r\n"
		if msg := scanMail(t, string(rewriteMail(t, []byte(mail)).mail)); len(msg.root.children) != 2 {
			t.Errorf("%s: the notice is in the page", name)
		}
	}
}

// TestNamesThatACharsetLacksAreNoLongerThanOthers: each such character is written as several, and a text over the limit bounces.
func TestNamesThatACharsetLacksAreNoLongerThanOthers(t *testing.T) {
	parts := []string{"Content-Type: text/plain; charset=iso-8859-1\r\n\r\n" + strings.Repeat("Gr\xfc\xdfe und Worte.\r\n", (maxText-maxNotice-100)/18)}
	for range 17 {
		parts = append(parts, "Content-Type: application/pdf; name=\""+strings.Repeat("\u6771", 75)+".pdf\"\r\n\r\n%PDF")
	}
	r := rewriteMail(t, []byte(mixedMail(parts...)))
	after := scanMail(t, string(r.mail))
	if text := decodeAll(t, after.src, after.root.children[0]); len(text) > maxText || len(r.files) != 17 {
		t.Errorf("%d characters, %d files", len(text), len(r.files))
	}
	if !strings.Contains(strings.ReplaceAll(string(r.mail), "=\r\n", ""), testLink) {
		t.Error("there is no link")
	}
}

// TestFilesFarBehindInALongTextAreNotReadForEver: the text leaves as it is.
func TestFilesFarBehindInALongTextAreNotReadForEver(t *testing.T) {
	page := strings.Repeat("<p>a line</p>\r\n", 1<<19) + strings.Repeat("<a href='data:a/b;base64,YQ=='>x</a>\r\n", 99)
	r := rewriteMail(t, []byte("Content-Type: text/html\r\n\r\n"+page))
	if len(r.files) != 1 || len(r.files[0]) != len(page) {
		t.Errorf("%d files", len(r.files))
	}
}
