package rewrite

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/encoding/charmap"
)

// page is HTML of so many characters.
func page(characters int) string {
	const head, tail = "<html><body>", "</body></html>"
	return head + strings.Repeat("\u00fc", characters-len(head)-len(tail)) + tail
}

// longPage is the entity of a page.
func longPage(t *testing.T, charset, encoding, text string) string {
	t.Helper()
	if strings.HasPrefix(charset, "iso") || strings.HasPrefix(charset, "windows") {
		var err error
		if text, err = charmap.Windows1252.NewEncoder().String(text); err != nil {
			t.Fatal(err)
		}
	}
	return "Content-Type: text/html; charset=" + charset + "\r\nContent-Transfer-Encoding: " + encoding + "\r\n\r\n" +
		encodeAs(t, text, encoding)
}

// A page that Email-to-Case would cut stays, apart from the notice above its text, and a copy of it is sealed.
func TestLongPageStaysAndACopyIsSealed(t *testing.T) {
	text := page(maxText + 1)
	for _, charset := range []string{"utf-8", "us-ascii", "iso-8859-1", "windows-1252"} {
		for _, encoding := range []string{"8bit", "quoted-printable", "base64"} {
			for _, shape := range []string{"alone", "alternative", "mixed"} {
				t.Run(charset+" "+encoding+" "+shape, func(t *testing.T) {
					entity := longPage(t, charset, encoding, text)
					mail := "Subject: x\r\n" + entity
					if shape != "alone" {
						mail = "Subject: x\r\nContent-Type: multipart/" + shape + "; boundary=B\r\n\r\n--B\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\r\nHello\r\n--B\r\n" +
							entity + "\r\n--B--\r\n"
					}
					checkCopied(t, rewriteMail(t, []byte(mail)), mail, charset)
				})
			}
		}
	}
}

func checkCopied(t *testing.T, r result, mail, charset string) {
	t.Helper()
	before, err := Scan(strings.NewReader(mail), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	after, err := Scan(bytes.NewReader(r.mail), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	was, is := before.root, after.root
	if was.isMultipart() {
		was, is = was.children[1], is.children[1]
	}
	text := decodeAll(t, before.src, was)
	if !slices.Equal(r.names, []string{"message.html"}) || string(r.files[0]) != text {
		t.Fatalf("sealed %q, or other bytes", r.names)
	}
	told := decodeAll(t, after.src, is)
	start, end := strings.Index(told, "\r\n<div role=\"note\""), strings.Index(told, "</div>\r\n")
	if start != len("<html><body>") || end < start {
		t.Fatalf("the notice is not above the text: %.200q", told)
	}
	if notice := told[start:end]; !strings.Contains(notice, cutLead) || !strings.Contains(notice, testLink) || strings.Contains(notice, "taken out") {
		t.Errorf("the notice is %s", notice)
	}
	if told[:start]+told[end+len("</div>\r\n"):] != text {
		t.Error("the page is changed")
	}
	if is.charset != charset || is.encoding != was.encoding {
		t.Errorf("charset %q, encoding %q", is.charset, is.encoding)
	}
	if kept, sealed := r.plan.Parts(); sealed != 1 || kept != len(r.plan.Leaves()) {
		t.Errorf("%d parts stay, %d are sealed", kept, sealed)
	}
	if leaf := r.plan.Leaves()[len(r.plan.Leaves())-1]; leaf.Sealed || !strings.Contains(leaf.Why, "a copy is sealed") {
		t.Errorf("%+v", leaf)
	}
}

// Where the page cannot carry the notice, it gets a part of its own and the page stays byte for byte.
func TestLongPageThatCannotCarryTheNotice(t *testing.T) {
	text := strings.Repeat("<p>text</p>\r\n", 12000)
	for name, entity := range map[string]string{
		"unknown charset": "Content-Type: text/html; charset=x-unknown\r\n\r\n" + text,
		"broken base64":   "Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n" + text,
		"signed": "Content-Type: multipart/signed; protocol=\"application/pgp-signature\"; boundary=S\r\n\r\n--S\r\nContent-Type: text/html\r\n\r\n" + text +
			"--S\r\nContent-Type: application/pgp-signature\r\n\r\n-----BEGIN PGP SIGNATURE-----\r\n\r\nx\r\n-----END PGP SIGNATURE-----\r\n--S--\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := rewriteMail(t, []byte("Subject: x\r\n"+entity))
			if !slices.Equal(r.names, []string{"message.html"}) || !strings.HasPrefix(string(r.files[0]), text[:len(text)-2]) {
				t.Fatalf("sealed %q", r.names)
			}
			if !bytes.Contains(r.mail, []byte(entity)) || !bytes.Contains(r.mail, []byte("["+cutLead+"]")) || !bytes.Contains(r.mail, []byte(testLink)) {
				t.Errorf("the page is changed, or the notice is missing:\n%.600s", r.mail)
			}
		})
	}
}

func TestOnlyAPageThatWouldBeCutIsCopied(t *testing.T) {
	with := func(html string, file bool) string {
		mail := "Subject: x\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\n" + longPage(t, "utf-8", "8bit", html)
		if file {
			mail += "\r\n--B\r\nContent-Type: application/pdf\r\n\r\nfile"
		}
		return mail + "\r\n--B--\r\n"
	}
	tests := []struct {
		name  string
		html  string
		file  bool
		names []string
	}{
		{"at the limit", page(maxText), false, nil},
		{"over it", page(maxText + 1), false, []string{"message.html"}},
		{"with a notice, room for it is left", page(maxText - maxPageNotice), true, []string{"attachment-1.pdf"}},
		{"with a notice, over it", page(maxText - maxPageNotice + 1), true, []string{"message.html", "attachment-2.pdf"}},
		{"two UTF-16 units each", "<p>" + strings.Repeat("\U0001F600", maxText/2) + "</p>", false, []string{"message.html"}},
		{"not UTF-8 at all", "<p>" + strings.Repeat("\x80", maxText) + "</p>", false, []string{"message.html"}},
	}
	for _, test := range tests {
		r := rewriteMail(t, []byte(with(test.html, test.file)))
		if !slices.Equal(r.names, test.names) {
			t.Errorf("%s: sealed %q, want %q", test.name, r.names, test.names)
		}
		if at := bytes.Index(r.mail, []byte(testLink)); len(test.names) == 1 && !test.file && at > 2000 {
			t.Errorf("%s: the notice is not above the text, but at %d", test.name, at)
		}
		if got := string(r.mail); len(test.names) == 2 && (!strings.Contains(got, "1 file was taken out") || !strings.Contains(got, cutLead)) {
			t.Errorf("%s: the notice is\n%.900s", test.name, r.mail)
		}
	}
}

func TestPageNoticeFitsIntoItsRoom(t *testing.T) {
	n := Notice{Link: testLink, ShowNames: true}
	for range 30 {
		n.Files = append(n.Files, File{Name: strings.Repeat("\U0001F600", 200)})
	}
	for _, about := range []kind{aboutFiles, aboutText} {
		if size := len(newNotice(n, about, 1).html()); size > maxPageNotice {
			t.Errorf("a notice may have %d characters", size)
		}
	}
}

// A mail that is sealed whole never has a header that Email-to-Case bounces.
func TestShortMailsHeaderFits(t *testing.T) {
	var mail strings.Builder
	for _, name := range []string{"Received", "To", "Cc", "From", "Subject", "Message-ID", "References", "In-Reply-To", "Thread-Topic"} {
		for _, size := range []int{2900, 3900, 11000, 500, 100} {
			for range 5 {
				fmt.Fprintf(&mail, "%s: %s\r\n", name, strings.Repeat(strings.Repeat("x", 70)+"\r\n ", size/73))
			}
		}
	}
	mail.WriteString("Content-Type: multipart/mixed\r\n\r\ntext\r\n")
	r := rewriteMail(t, []byte(mail.String()))
	head, _, _ := bytes.Cut(r.mail, []byte("\r\n\r\n"))
	if size := len(head) - len(testTrace); size > 32000-2500 || size < 20000 {
		t.Errorf("the header has %d bytes", size)
	}
	var told int64
	err := r.plan.Fields(func(_, _ string, size int64) { told += size })
	if err != nil || told > int64(len(head)) || told < int64(len(head)-len(testTrace)-200) {
		t.Errorf("Fields tells of %d bytes of %d, %v", told, len(head), err)
	}
}
