package intake_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"strings"
	"testing"
)

// author writes random mails and notes what is in them.
type author struct {
	rand   *rand.Rand
	out    strings.Builder
	count  int
	texts  []string // decoded, each must be in one piece in the copy or in an item
	files  []string // decoded, each must be an item
	header []string // fields that must survive
}

func (a *author) write(s ...string) {
	for _, part := range s {
		a.out.WriteString(part)
	}
}

func (a *author) pick(choices ...string) string { return choices[a.rand.IntN(len(choices))] }

func (a *author) mail() string {
	for _, field := range []string{
		"From: Ada <ada@customer.example>\r\n", "Subject: thread::" + a.token() + "::\r\n", "In-Reply-To: <" + a.token() + "@x>\r\n",
		"References: <1@x>\r\n\t<2@x>\r\n", "Message-ID: <" + a.token() + "@customer.example>\r\n",
	} {
		if a.rand.IntN(4) > 0 {
			a.header = append(a.header, field)
			a.write(field)
		}
	}
	a.write("MIME-Version: 1.0\r\n")
	a.part(0)
	return a.out.String()
}

func (a *author) part(depth int) {
	shapes := []func(int){a.text, a.html, a.file, a.forwarded, a.multipart, a.multipart}
	if depth >= 3 {
		shapes = shapes[:3]
	}
	shapes[a.rand.IntN(len(shapes))](depth)
}

// token is unlike any other.
func (a *author) token() string {
	a.count++
	return fmt.Sprintf("token%dz%x", a.count, a.rand.Uint64())
}

func (a *author) multipart(depth int) {
	boundary := "=_" + a.token()
	a.write("Content-Type: multipart/", a.pick("mixed", "related", "alternative", "signed", "x-new"), "; boundary=\"", boundary, "\"\r\n\r\n")
	for range 1 + a.rand.IntN(3) {
		a.write("--", boundary, "\r\n")
		a.part(depth + 1)
		a.write("\r\n")
	}
	a.write("--", boundary, "--\r\n")
}

func (a *author) text(int) {
	text := a.token() + a.pick("", " Grüße\r\n", "\r\n-- \r\nAda\r\n", strings.Repeat(" long", 100)) + " " + a.token()
	a.texts = append(a.texts, text)
	a.write("Content-Type: text/plain; charset=", a.pick("utf-8", "us-ascii", "iso-8859-1"), "\r\n")
	a.body(text)
}

func (a *author) html(int) {
	text := "<html><body>" + a.token() + "<p>&amp; =3D " + a.token()
	a.texts = append(a.texts, text)
	a.write("Content-Type: text/html; charset=utf-8\r\n")
	a.body(text + "</body></html>")
}

func (a *author) file(int) {
	content := a.token() + string([]byte{0, 0xff, '\r', '\n', byte(a.rand.Uint32())}) + strings.Repeat("x", a.rand.IntN(300))
	a.files = append(a.files, content)
	a.write("Content-Type: ", a.pick("application/pdf", "image/png; name=p.png", "text/plain; name=\"a b.txt\"", "nonsense/none; name=a"), "\r\n",
		a.pick("Content-Disposition: attachment\r\n", "Content-Disposition: attachment; filename*=utf-8''%E2%82%AC.bin\r\n"),
		"Content-Transfer-Encoding: base64\r\n\r\n", lines(base64.StdEncoding.EncodeToString([]byte(content))))
}

// forwarded is a message whose own header stays with it, in the mail or in an item.
func (a *author) forwarded(depth int) {
	subject := "Subject: " + a.token() + "\r\n"
	a.texts = append(a.texts, subject)
	a.write("Content-Type: message/rfc822", a.pick("", "; name=forwarded.eml"), "\r\n\r\n", subject, "MIME-Version: 1.0\r\n")
	a.part(depth + 1)
}

// body writes the end of a header, and a text in any transfer encoding.
func (a *author) body(text string) {
	switch encoding := a.pick("7bit", "base64", "quoted-printable"); encoding {
	case "base64":
		a.write("Content-Transfer-Encoding: base64\r\n\r\n", lines(base64.StdEncoding.EncodeToString([]byte(text))))
	case "quoted-printable":
		a.write("Content-Transfer-Encoding: quoted-printable\r\n\r\n")
		w := quotedprintable.NewWriter(&a.out)
		_, _ = io.WriteString(w, text) // a strings.Builder never fails
		_ = w.Close()
	default:
		a.write("\r\n", text)
	}
}

// leaves returns the decoded leaves of an entity, by the standard library.
func leaves(t testing.TB, header textproto.MIMEHeader, body io.Reader) []string {
	t.Helper()
	mediaType, params, _ := mime.ParseMediaType(header.Get("Content-Type"))
	if strings.HasPrefix(mediaType, "multipart/") {
		var found []string
		for parts := multipart.NewReader(body, params["boundary"]); ; {
			part, err := parts.NextRawPart()
			if err == io.EOF {
				return found
			}
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, leaves(t, part.Header, part)...)
		}
	}
	switch header.Get("Content-Transfer-Encoding") {
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	}
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	if mediaType == "message/rfc822" {
		return append(opened(t, string(text)), string(text))
	}
	return []string{string(text)}
}

// opened returns the decoded leaves of a mail.
func opened(t testing.TB, text string) []string {
	t.Helper()
	message, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return leaves(t, textproto.MIMEHeader(message.Header), message.Body)
}

func holds(pieces []string, text string) bool {
	for _, piece := range pieces {
		if strings.Contains(piece, text) {
			return true
		}
	}
	return false
}

// TestWhatCameInIsInTheCopyOrInAnItem is promise 4, from the spool to what an agent and the next hop read.
func TestWhatCameInIsInTheCopyOrInAnItem(t *testing.T) {
	f := newFixture(t)
	withItems, kept := 0, 0
	for seed := range uint64(300) {
		a := &author{rand: rand.New(rand.NewPCG(seed, 2))}
		sent := a.mail()
		m := f.accept(t, envelope(), sent)
		var items []string
		if m.Package != nil {
			withItems++
			for _, item := range f.open(t, m) {
				items = append(items, item.content)
				if strings.HasSuffix(item.name, ".eml") { // sealed as it stood
					items = append(items, opened(t, item.content)...)
				}
			}
		} else {
			kept++
		}
		in := opened(t, m.copy)
		for _, text := range a.texts {
			if !holds(in, text) && !holds(items, text) {
				t.Errorf("seed %d: a text is neither in the copy nor in an item: %q", seed, text)
			}
		}
		for _, content := range a.files {
			if !holds(items, content) {
				t.Errorf("seed %d: a file is in no item: %.40q", seed, content)
			}
			if token, _, _ := strings.Cut(content, "\x00"); holds(in, token) {
				t.Errorf("seed %d: a file is in the copy: %.40q", seed, content)
			}
		}
		for _, field := range a.header {
			if !strings.Contains(m.copy, "\r\n"+field) {
				t.Errorf("seed %d: a field is lost or changed: %q", seed, field)
			}
		}
		if t.Failed() {
			t.Fatalf("the mail was\n%s\nthe copy is\n%s", sent, m.copy)
		}
	}
	if withItems < 50 || kept < 10 {
		t.Errorf("the mails are too much alike: %d with items, %d without", withItems, kept)
	}
}
