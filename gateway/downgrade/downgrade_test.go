package downgrade

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	message "github.com/emersion/go-message"
	_ "github.com/emersion/go-message/charset"
)

func crlfs(s string) string { return strings.ReplaceAll(strings.TrimPrefix(s, "\n"), "\n", "\r\n") }

func opener(mail string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(mail)), nil }
}

func convert(mail string, eightBit, utf8 bool) (string, error) {
	opened := 0
	write, err := Plan(func() (io.ReadCloser, error) {
		opened++
		return opener(mail)()
	}, eightBit, utf8)
	if err != nil {
		return "", err
	}
	var first, again bytes.Buffer
	if err = write(&first); err == nil && opened != 2 {
		return "", errors.New("the mail is not read twice")
	}
	if second := write(&again); err == nil && (second != nil || again.String() != first.String()) {
		return "", errors.New("the second time is unlike the first")
	}
	return first.String(), err
}

// content is what a reader sees: each entity's fields, decoded, and each leaf's bytes; ok is false for what does not parse.
func content(mail string) (seen []string, ok bool) {
	e, err := message.Read(strings.NewReader(mail))
	if err != nil {
		return nil, false
	}
	return seen, walk(e, &seen, 0)
}

func walk(e *message.Entity, seen *[]string, depth int) bool {
	if depth > 30 {
		return false
	}
	for f := e.Header.Fields(); f.Next(); {
		text, err := f.Text()
		switch strings.ToLower(f.Key()) {
		case "content-transfer-encoding", "mime-version":
			continue
		case "content-type", "content-disposition":
			var params map[string]string
			if text, params, err = e.Header.ContentType(); f.Key() != "Content-Type" {
				text, params, err = e.Header.ContentDisposition()
			}
			for _, k := range slices.Sorted(func(yield func(string) bool) {
				for k := range params {
					if !yield(k) {
						return
					}
				}
			}) {
				text += ";" + k + "=" + params[k]
			}
		}
		if err != nil {
			return false
		}
		*seen = append(*seen, f.Key()+": "+strings.Join(strings.Fields(strings.NewReplacer(`"`, "", " :", ":", " <", "<").Replace(text)), " "))
	}
	if m := e.MultipartReader(); m != nil {
		for {
			p, err := m.NextPart()
			if errors.Is(err, io.EOF) {
				return true
			}
			if err != nil || !walk(p, seen, depth+1) {
				return false
			}
		}
	}
	if kind, _, _ := e.Header.ContentType(); kind == "message/rfc822" {
		inner, err := message.Read(e.Body)
		return err == nil && walk(inner, seen, depth+1)
	}
	body, err := io.ReadAll(e.Body)
	*seen = append(*seen, string(body))
	return err == nil
}

const mixed = `
From: jane@example.org
Subject: x
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="B"
Content-Transfer-Encoding: 8bit

preamble
--B
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

Grüße = trailing 	
--
.
Tschüß

--B
Content-Type: text/plain
X-Odd:   kept   as it is

ASCII stays 
--B  
Content-Type: image/png
Content-Transfer-Encoding: binary

` + "\x89PNG\x00\xff\rx" + `
--B
Content-Type: message/rfc822

Subject: inner

inner é
--B--
epilogue
`

func TestEightBit(t *testing.T) {
	html := "é <b>" + strings.Repeat("long ", 400) + "</b>\r\n"
	for name, tt := range map[string]struct {
		mail string
		has  []string
	}{
		"mixed": {crlfs(mixed), []string{
			"preamble\r\n--B\r\n", "Gr=C3=BC=C3=9Fe =3D trailing ", "\r\n\r\n--B\r\n", "X-Odd:   kept   as it is\r\n\r\nASCII stays \r\n--B  \r\n", "Content-Transfer-Encoding: base64\r\n\r\niVBORwD/DXg=\r\n--B",
			"Subject: inner\r\nContent-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\r\n\r\ninner =C3=A9\r\n--B--\r\nepilogue\r\n", "boundary=\"B\"\r\nContent-Transfer-Encoding: 7bit\r\n",
		}},
		"single":             {"Subject: x\r\nMIME-Version: 1.0\r\n\r\né\r\n", []string{"Content-Transfer-Encoding: quoted-printable\r\n\r\n=C3=A9\r\n"}},
		"no MIME-Version":    {"Subject: x\r\n\r\né\r\n", []string{"MIME-Version: 1.0\r\n"}},
		"no last line end":   {"MIME-Version: 1.0\r\n\r\né", []string{"\r\n\r\n=C3=A9"}},
		"declared 7bit":      {"MIME-Version: 1.0\r\nContent-Transfer-Encoding: 7bit\r\n\r\né\r\n", []string{"Content-Transfer-Encoding: quoted-printable"}},
		"Latin-1":            {"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\r\n\xe9\r\n", []string{"=E9"}},
		"long lines":         {"MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + html, []string{"base64"}},
		"very long line":     {"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + strings.Repeat("é", 100000) + "\r\nend\r\n", []string{"base64"}},
		"boundary in a line": {"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=B123\r\n\r\n--B123\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + strings.Repeat("é", 12) + "xxx--B123\r\n--B123--\r\n", []string{"base64"}},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := convert(tt.mail, true, false)
			if err != nil {
				t.Fatal(err)
			}
			if !isASCII(out) {
				t.Error("not 7-bit")
			}
			for _, want := range tt.has {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%.3000s", want, out)
				}
			}
			before, ok := content(tt.mail)
			after, ok2 := content(out)
			if !ok || !ok2 || !slices.Equal(before, after) {
				t.Errorf("content changed (%v, %v):\n%.2000q\n%.2000q", ok, ok2, before, after)
			}
		})
	}
}

func TestUTF8Fields(t *testing.T) {
	for name, tt := range map[string]struct{ field, want string }{
		"subject":           {"Subject: Grüße aus Köln", "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe_aus_K=C3=B6ln?="},
		"long subject":      {"Subject: " + strings.Repeat("Grüße ", 40) + "Ende", "=\r\n =?utf-8?q?"},
		"folded":            {"Subject: Grüße\r\n aus Köln", "Subject: =?utf-8?q?"},
		"X field":           {"X-Note: é", "X-Note: =?utf-8?q?=C3=A9?="},
		"display name":      {`From: Jörg Müller <j@example.org>`, "From: =?utf-8?b?SsO2cmcgTcO8bGxlcg==?= <j@example.org>"},
		"quoted name":       {`To: "Müller, Jörg" <j@example.org>, b@example.org`, "<j@example.org>, b@example.org"},
		"group":             {"To: Büro: a@example.org, b@example.org;", ": a@example.org, b@example.org;"},
		"domain":            {"To: a@bücher.example, <b@bücher.example>", "To: a@xn--bcher-kva.example, <b@xn--bcher-kva.example>"},
		"file name":         {"Content-Disposition: attachment; filename=\"Grüße.pdf\"", "filename*=utf-8''Gr%C3%BC%C3%9Fe.pdf"},
		"parameter":         {"Content-Type: text/plain; name=\"é.txt\"", "name*=utf-8''%C3%A9.txt"},
		"only its own line": {"X-Plain:  a   b\r\n\tc\r\nSubject: é", "X-Plain:  a   b\r\n\tc\r\nSubject: ="},
	} {
		t.Run(name, func(t *testing.T) {
			mail := tt.field + "\r\n\r\nbody\r\n"
			out, err := convert(mail, false, true)
			if err != nil {
				t.Fatal(err)
			}
			if !isASCII(out) || !strings.Contains(out, tt.want) || !strings.HasSuffix(out, "\r\n\r\nbody\r\n") {
				t.Errorf("%q", out)
			}
			before, ok := content(mail)
			after, ok2 := content(out)
			if name != "domain" && (!ok || !ok2 || !slices.Equal(before, after)) {
				t.Errorf("content changed (%v, %v):\n%q\n%q", ok, ok2, before, after)
			}
		})
	}
}

func TestUTF8LeavesBodiesAlone(t *testing.T) {
	mail := "Subject: x\r\n\r\né\r\n"
	if out, err := convert(mail, false, true); err != nil || out != mail {
		t.Errorf("%q, %v", out, err)
	}
}

func TestNotExact(t *testing.T) {
	part := func(kind, inner string) string {
		return "MIME-Version: 1.0\r\nContent-Type: " + kind + "; boundary=B\r\n\r\n--B\r\n" + inner + "\r\n--B--\r\n"
	}
	for name, mail := range map[string]string{
		"signed": part("multipart/signed", "Content-Type: text/plain\r\n\r\né"), "encrypted": part("multipart/encrypted", "\r\né"), "below signed": part("multipart/signed", "Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\né"),
		"message/global": part("multipart/mixed", "Content-Type: message/global\r\n\r\nSubject: é\r\n\r\nx"), "preamble": strings.Replace(part("multipart/mixed", "\r\nx"), "\r\n\r\n--B", "\r\n\r\né\r\n--B", 1),
		"epilogue": part("multipart/mixed", "\r\nx") + "é\r\n", "encoded already": "Content-Transfer-Encoding: base64\r\n\r\né\r\n", "two encodings": "Content-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: 7bit\r\n\r\né\r\n",
		"local part": "To: jörg@example.org\r\n\r\n", "local part in brackets": "To: <jörg@example.org>\r\n\r\n", "Message-ID": "Message-ID: <é@example.org>\r\n\r\n", "References": "References: <é@example.org>\r\n\r\n",
		"invalid UTF-8": "Subject: \xff\r\n\r\n", "unknown field": "List-Odd: é\r\n\r\n", "with encoded word": "Subject: =?utf-8?q?x?= é\r\n\r\n", "bare LF": "Subject: é\n\nx\n", "quoted local part": "To: \"ö\"@example.org\r\n\r\n",
		"field name": "Xé: a\r\n\r\n", "large header": "X-A: " + strings.Repeat("a", maxHeader) + "\r\nSubject: é\r\n\r\n", "no boundary": "Content-Type: multipart/mixed\r\n\r\né\r\n",
	} {
		if out, err := convert(mail, true, true); !errors.Is(err, ErrNotExact) {
			t.Errorf("%s: %v\n%.500q", name, err, out)
		}
	}
	global := part("multipart/mixed", "Content-Type: message/global\r\n\r\nSubject: é\r\n\r\nx")
	if _, err := convert(global, false, true); !errors.Is(err, ErrNotExact) {
		t.Errorf("message/global without SMTPUTF8: %v", err)
	}
}

func TestSevenBitIsUntouched(t *testing.T) {
	for _, mail := range []string{"", "x", "Subject: x\r\n\r\n", "A: b\n\nbare\n", "MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=B\r\n\r\n--B\r\n\r\nx\r\n--B\r\nContent-Transfer-Encoding: base64\r\n\r\neA==\r\n--B--"} {
		if out, err := convert(mail, true, true); err != nil || out != mail {
			t.Errorf("%q became %q, %v", mail, out, err)
		}
	}
}

func TestPlanReportsErrors(t *testing.T) {
	broken := errors.New("broken")
	if _, err := Plan(func() (io.ReadCloser, error) { return nil, broken }, true, true); !errors.Is(err, broken) {
		t.Errorf("open: %v", err)
	}
	reader, writer := io.Pipe()
	_ = writer.CloseWithError(broken)
	if _, err := Plan(func() (io.ReadCloser, error) { return reader, nil }, true, true); !errors.Is(err, broken) {
		t.Errorf("read: %v", err)
	}
	_ = reader.CloseWithError(broken)
	_, closed := io.Pipe()
	_ = closed.CloseWithError(broken)
	write, err := Plan(opener("Subject: x\r\n\r\né\r\n"), true, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := write(failing{broken}); !errors.Is(err, broken) {
		t.Errorf("write: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestAddress(t *testing.T) {
	for in, want := range map[string]string{"": "", "a@example.org": "a@example.org", "a@bücher.example": "a@xn--bcher-kva.example", "ä@example.org": "-", "a@\xff.example": "-", "é": "-"} {
		got, ok := Address(in)
		if !ok {
			got = "-"
		}
		if got != want {
			t.Errorf("Address(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzPlan(f *testing.F) {
	f.Add(crlfs(mixed))
	f.Add("Subject: Grüße\r\nFrom: \"Jörg\" <j@example.org>\r\n\r\né\r\n")
	f.Add("Content-Type: multipart/digest; boundary=B\r\n\r\n--B\r\n\r\nSubject: é\r\n\r\né\r\n--B--")
	f.Fuzz(func(t *testing.T, mail string) {
		out, err := convert(mail, true, true)
		if errors.Is(err, ErrNotExact) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if !isASCII(out) {
			t.Fatalf("not 7-bit: %q", out)
		}
		if isASCII(mail) || strings.Contains(strings.ToLower(mail), "digest") { // go-message does not know a digest's default
			return
		}
		before, ok := content(mail)
		after, ok2 := content(out)
		if ok && ok2 && strings.Count(mail, "@") == 0 && !slices.Equal(before, after) {
			t.Fatalf("content changed:\n%q\n%q\n%q\n%q", mail, out, before, after)
		}
	})
}
