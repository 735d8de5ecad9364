package rewrite

import (
	"bytes"
	"image/png"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// pageMail is a multipart/related of a page and a picture with some fields.
func pageMail(page, fields, body string) []byte {
	return []byte("Message-ID: <1@x>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/related; boundary=B\r\n\r\n--B\r\nContent-Type: text/html; charset=us-ascii\r\n\r\n" +
		page + "\r\n--B\r\n" + fields + "\r\n\r\n" + body + "\r\n--B--\r\n")
}

func TestPicturesOfAPage(t *testing.T) {
	const (
		shows = `<html><body><img src="cid:Logo+1@x"></body></html>`
		named = "Content-Type: image/png; name=logo.png\r\nContent-ID: <Logo+1@x>\r\nContent-Transfer-Encoding: base64"
	)
	limit := DefaultInlineImage
	tests := []struct {
		name, page, fields, file string
		small, sealed, replaced  bool
	}{
		{"small", shows, named, pngOf(100), true, false, false},
		{"as large as may be", shows, named, pngOf(limit), true, false, false},
		{"larger", shows, named, pngOf(limit + 1), false, true, true},
		{"a small attachment", shows, named + "\r\nContent-Disposition: attachment; filename=a.png", pngOf(100), true, false, false},
		{"an attachment", shows, named + "\r\nContent-Disposition: attachment;\r\n filename=a.png", pngOf(limit + 1), false, true, true},
		{"percent-encoded", strings.Replace(shows, "Logo+1@x", "Logo%2B1%40x", 1), named, pngOf(100), true, false, false},
		{"without quotes", `<img src=cid:Logo+1@x width=1>`, named, pngOf(100), true, false, false},
		{"in a style", `<p style="background:url(CID:Logo+1@x)">`, named, pngOf(100), true, false, false},
		{"another case", strings.Replace(shows, "Logo", "logo", 1), named, pngOf(100), false, true, false},
		{"not shown", "<html></html>", named, pngOf(100), false, true, false},
		{"by its location", `<img src="https://x.example/a.png?b&amp;c">`, "Content-Type: image/png\r\nContent-Location: https://x.example/a.png?b&c\r\nContent-Transfer-Encoding: base64", pngOf(100), true, false, false},
		{"an SVG", shows, strings.Replace(named, "image/png", "image/svg+xml", 1), "<svg xmlns='http://www.w3.org/2000/svg'/>", false, true, true},
		{"a description", shows, named + "\r\nContent-Description: passport.png\r\nContent-MD5: x", pngOf(limit + 1), false, true, true},
		{"called a program", shows, strings.Replace(named, "logo.png", "logo.exe", 1), pngOf(100), false, true, true},
		{"also an archive", shows, named, pngOf(100) + "PK\x05\x06" + strings.Repeat("\x00", 18), false, true, true},
		{"no picture", shows, named, "%PDF-1.7 says it is a PNG", false, true, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			body := strings.TrimSuffix(encodeAs(t, test.file, "base64"), "\r\n")
			mail := pageMail(test.page, test.fields, body)
			r := rewriteMail(t, mail)
			if (len(r.files) > 0) != test.sealed || test.sealed && string(r.files[0]) != test.file {
				t.Fatalf("%d files", len(r.files))
			}
			if test.small && !bytes.Equal(r.mail, []byte(testTrace+string(mail))) {
				t.Error("the mail is changed")
			}
			if leaf := r.plan.Leaves()[1]; leaf.Sealed != test.sealed || strings.Contains(leaf.Why, "page shows") != (test.small || test.replaced) {
				t.Errorf("preview: %+v", leaf)
			}
			if bytes.Contains(r.mail, []byte("image/png")) != (test.small || test.replaced) {
				t.Errorf("the mail is\n%s", r.mail)
			}
			if test.replaced {
				checkPlaceholder(t, r.mail)
			}
		})
	}
}

// checkPlaceholder looks for a small picture under the old Content-ID, and for no name.
func checkPlaceholder(t *testing.T, mail []byte) {
	t.Helper()
	msg, err := Scan(bytes.NewReader(mail), DefaultLimits())
	if err != nil || len(msg.root.children) != 2 {
		t.Fatalf("%v:\n%s", err, mail)
	}
	q := msg.root.children[1]
	if header := string(mail[q.start:q.body]); !strings.Contains(header, "Content-ID: <Logo+1@x>\r\n") || q.name != "" || q.typ != "image/png" || q.disposition != "inline" || strings.Count(header, ":") != 4 {
		t.Errorf("the header is\n%s", header)
	}
	picture := decodeAll(t, msg.src, q)
	if _, err := png.Decode(strings.NewReader(picture)); err != nil || len(picture) > 4096 {
		t.Errorf("%d bytes, %v", len(picture), err)
	}
}

func TestWithoutALimitAllPicturesAreSealed(t *testing.T) {
	mail := pageMail(`<img src="cid:a"><img src="data:image/png;base64,`+base64Of(pngOf(60))+`">`,
		"Content-Type: image/png\r\nContent-ID: <a>\r\nContent-Transfer-Encoding: base64", base64Of(pngOf(60)))
	msg, err := Scan(bytes.NewReader(mail), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	plan, err := NewPlan(msg, Rules{Judge: judge})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, item := range plan.Items() {
		names = append(names, item.Name)
	}
	if !slices.Equal(names, []string{"data-1.png", "attachment-2.png"}) {
		t.Errorf("%q", names)
	}
}

func TestPictureInASignedMailStaysOrGoesWithItsSignature(t *testing.T) {
	for _, size := range []int{100, DefaultInlineImage + 1} {
		mail := "Message-ID: <1@x>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=S\r\n\r\n--S\r\n" +
			strings.TrimPrefix(string(pageMail(`<img src="cid:a">`, "Content-Type: image/png\r\nContent-ID: <a>\r\nContent-Transfer-Encoding: base64", base64Of(pngOf(size)))), "Message-ID: <1@x>\r\nMIME-Version: 1.0\r\n") +
			"\r\n--S\r\nContent-Type: application/pgp-signature\r\n\r\n-----BEGIN PGP SIGNATURE-----\r\n\r\nAAAA\r\n-----END PGP SIGNATURE-----\r\n--S--\r\n"
		r := rewriteMail(t, []byte(mail))
		if kept := bytes.HasSuffix(r.mail, []byte(mail)); kept != (size == 100) {
			t.Errorf("%d bytes: unchanged: %t, sealed %q", size, kept, r.names)
		}
	}
}

// TestPicturesWithOneName cost no more for each time that the page names them. (It would not end in an hour.)
func TestPicturesWithOneName(t *testing.T) {
	const picture = "Content-Type: image/png\r\nContent-ID: <a>\r\nContent-Transfer-Encoding: base64\r\n\r\n"
	parts := []string{"Content-Type: text/html\r\n\r\n" + strings.Repeat("cid:a cid:a cid:a cid:a\r\n", 1<<18)}
	for range 9000 {
		parts = append(parts, picture)
	}
	limits := DefaultLimits()
	limits.Parts = 10000
	msg, err := Scan(strings.NewReader(mixedMail(parts...)), limits)
	if err != nil {
		t.Fatal(err)
	}
	if plan, err := NewPlan(msg, Rules{Judge: judge, InlineImage: 100}); err != nil || len(plan.Items()) != 9001 {
		t.Errorf("%d items, %v", len(plan.Items()), err)
	}
}

// TestHoldsArchive finds the end of an archive wherever it lies in what is read at once.
func TestHoldsArchive(t *testing.T) {
	for at := range 100 {
		before := strings.Repeat("x", 8<<10-50+at)
		for _, r := range []io.Reader{strings.NewReader(before + "PK\x05\x06x"), iotest.OneByteReader(strings.NewReader(before + "PK\x05\x06"))} {
			if found, err := holdsArchive(r); !found || err != nil {
				t.Fatalf("at %d: %v, %v", at, found, err)
			}
		}
		if found, err := holdsArchive(strings.NewReader(before + "PK\x05")); found || err != nil {
			t.Fatalf("at %d: %v, %v", at, found, err)
		}
	}
}
