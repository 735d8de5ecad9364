package rewrite

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"sealpost/gateway"
)

func encodeAs(t testing.TB, text, encoding string) string {
	t.Helper()
	switch encoding {
	case "base64":
		var b bytes.Buffer
		lines := &base64Lines{w: &b}
		_, _ = lines.Write([]byte(base64.StdEncoding.EncodeToString([]byte(text))))
		_ = lines.flush()
		return b.String()
	case "quoted-printable":
		quoted, err := quote(text)
		if err != nil {
			t.Fatal(err)
		}
		return string(quoted)
	}
	return text
}

func decodeAll(t testing.TB, src io.ReaderAt, p *part) string {
	t.Helper()
	text, err := io.ReadAll(decoder(src, p))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestParameters(t *testing.T) {
	tests := []struct{ in, param, want string }{
		{`attachment; filename=a.pdf`, "filename", "a.pdf"},
		{`attachment; filename="a b;c.pdf"`, "filename", "a b;c.pdf"},
		{`attachment; filename="say \"hi\".pdf"`, "filename", `say "hi".pdf`},
		{`attachment; filename="C:\dir\a.pdf"`, "filename", `C:\dir\a.pdf`},
		{`attachment; filename="open.pdf`, "filename", "open.pdf"},
		{`attachment; FILENAME = a.pdf ; size=3`, "filename", "a.pdf"},
		{`attachment; filename=my file (1).pdf`, "filename", "my file (1).pdf"},
		{`attachment (a; comment); filename=a.pdf`, "filename", "a.pdf"},
		{`attachment; filename*=utf-8'en'%E2%82%AC.pdf`, "filename", "€.pdf"},
		{`attachment; filename*=iso-8859-1''%A3.pdf; filename=x.pdf`, "filename", "£.pdf"},
		{`attachment; filename*1=b.pdf; filename*0=a`, "filename", "ab.pdf"},
		{`attachment; filename*0*=utf-8''%E2%82; filename*1*=%AC; filename*2=.pdf`, "filename", "€.pdf"},
		{`text/plain; name="=?utf-8?q?Gr=C3=B6=C3=9Fe?= =?utf-8?q?.pdf?="`, "name", "Größe.pdf"},
		{"text/plain; name=Gr\xf6\xdfe.pdf", "name", "Größe.pdf"},
		{`text/plain; name="=?x-none?q?a?="`, "name", "=?x-none?q?a?="},
	}
	for _, test := range tests {
		got, _, ok := parseValue(test.in).get(test.param)
		if got = decodeName(got); !ok || got != test.want {
			t.Errorf("%s: %q, want %q", test.in, got, test.want)
		}
	}
}

func TestDecodingMatchesCleanInputAndRefusesTheRest(t *testing.T) {
	tests := []struct {
		name, encoding, in, want string
		dirty                    bool
	}{
		{"base64", "base64", "SGVs\r\nbG8=\r\n", "Hello", false},
		{"base64 without padding", "base64", "SGVsbG8", "Hello", false},
		{"base64 with white space", "base64", " SGVs \r\n\t\r\nbG8=  \r\n\r\n", "Hello", false},
		{"base64 with junk", "base64", "SGV*sbG8=", "", true},
		{"base64 behind its end", "base64", "SGVsbG8=\r\nSGVsbG8=", "", true},
		{"base64 cut", "base64", "SGVsb", "", true},
		{"quoted-printable", "quoted-printable", "a=3Db=\r\nc=c3=BC \r\n=  \r\nd=", "a=bcü \r\nd", false},
		{"quoted-printable broken", "quoted-printable", "a=ZZ", "a=ZZ", true},
		{"identity", "8bit", "a=3D\r\n", "a=3D\r\n", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			src := strings.NewReader(test.in)
			p := &part{end: src.Size(), encoding: test.encoding}
			item, err := leafItem(src, p, "x")
			if err != nil {
				t.Fatal(err)
			}
			want := test.want
			if test.dirty {
				want = test.in
			}
			for _, r := range []io.Reader{item.Open(), iotest.OneByteReader(item.Open())} {
				got, err := io.ReadAll(r)
				if err != nil || string(got) != want || item.Size != int64(len(want)) {
					t.Errorf("%q, %v; want %q", got, err, want)
				}
			}
		})
	}
}

func TestLimitsSealWhole(t *testing.T) {
	nested := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=b%d.\r\n\r\n--b%d.\r\n", i, i)
		}
		return b.String() + "\r\ntext\r\n"
	}
	tests := []struct {
		name, mail, why string
		limits          Limits
	}{
		{"header", "Subject: " + strings.Repeat("x", 300) + "\r\nMessage-ID: <1@x>\r\n\r\ntext\r\n", whyHeaderSize, Limits{HeaderBytes: 200, LineLength: 1000, Depth: 9, Parts: 9}},
		{"line", "Message-ID: <1@x>\r\n\r\n" + strings.Repeat("x", 200000) + "\r\n", whyLineLength, Limits{HeaderBytes: 200, LineLength: 100000, Depth: 9, Parts: 9}},
		{"depth", "Message-ID: <1@x>\r\n" + nested(4), whyDepth, Limits{HeaderBytes: 200, LineLength: 1000, Depth: 3, Parts: 9}},
		{"parts", "Message-ID: <1@x>\r\n" + nested(4), whyParts, Limits{HeaderBytes: 200, LineLength: 1000, Depth: 9, Parts: 3}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := rewriteWith(t, []byte(test.mail), test.limits)
			if why, _ := r.plan.Whole(); why != test.why {
				t.Errorf("whole: %q, want %q", why, test.why)
			}
			if len(r.files) != 1 || string(r.files[0]) != test.mail {
				t.Error("the sealed file is not the whole mail")
			}
			if !bytes.Contains(r.mail, []byte("Message-ID: <1@x>\r\n")) || r.plan.msg.MessageID() != "<1@x>" {
				t.Error("the Message-ID is lost")
			}
		})
	}
}

func TestWholeKeepsThreadingFieldsExactly(t *testing.T) {
	header := "Received: by a\r\nIN-REPLY-TO:  <2@x>\r\n (comment)\r\nReferences: <1@x>\r\n\t<2@x>\r\nX-Junk: " + strings.Repeat("j", 40000) +
		"\r\nThread-Index: AdAAAA\r\nSubject: Gr\xfc\xdfe thread::a::\r\nMessage-ID:\r\n <3@x>\r\nFrom: a@x\r\n"
	r := rewriteMail(t, []byte(header+"Content-Type: multipart/mixed\r\n\r\ntext\r\n"))
	want := testTrace + strings.Replace(header, "X-Junk: "+strings.Repeat("j", 40000)+"\r\n", "", 1) + "MIME-Version: 1.0\r\n"
	if !bytes.HasPrefix(r.mail, []byte(want)) {
		t.Errorf("the header is\n%.900s", r.mail)
	}
	if got := r.plan.msg.MessageID(); got != "<3@x>" {
		t.Errorf("Message-ID %q", got)
	}
	if !r.written.HeaderUTF8 || r.written.EightBit {
		t.Errorf("%+v", r.written)
	}
}

func TestRejectAndDefer(t *testing.T) {
	for verdict, want := range map[gateway.Verdict]gateway.Code{gateway.Reject: gateway.CodeRejected, gateway.Defer: gateway.CodeUnavailable} {
		msg, err := Scan(strings.NewReader("Subject: x\r\n\r\ntext\r\n"), DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		_, err = NewPlan(msg, Rules{Judge: func(gateway.Part) (gateway.Verdict, string) { return verdict, "" }})
		if got := gateway.ErrorCode(err); got != want {
			t.Errorf("%s: code %q, want %q", verdict, got, want)
		}
	}
}

// failing is a source that cannot be read behind an offset.
type failing struct {
	*strings.Reader
	from int64
}

var errDisk = errors.New("disk")

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.from {
		return 0, errDisk
	}
	return f.Reader.ReadAt(p, off)
}

func TestReadErrorsAreReported(t *testing.T) {
	mail := "Subject: x\r\n\r\n" + strings.Repeat("text\r\n", 20000)
	if _, err := Scan(failing{strings.NewReader(mail), 100000}, DefaultLimits()); !errors.Is(err, errDisk) {
		t.Errorf("scan: %v", err)
	}
	msg, err := Scan(strings.NewReader(mail), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	plan, err := NewPlan(msg, Rules{Judge: judge})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plan.Write(iotest.TruncateWriter(io.Discard, 10), Output{}); err != nil {
		t.Fatal(err)
	}
	msg.src = failing{strings.NewReader(mail), 100}
	if _, err := plan.Write(io.Discard, Output{}); !errors.Is(err, errDisk) {
		t.Errorf("write: %v", err)
	}
}

func TestNoticeStaysWithinItsLimits(t *testing.T) {
	n := Notice{Link: testLink, ShowNames: true, Expires: time.Date(2027, 11, 24, 0, 0, 0, 0, time.UTC)}
	for i := range 500 {
		n.Files = append(n.Files, File{Name: strings.Repeat("名", 300) + fmt.Sprint(i), Size: 1 << 40})
	}
	made := newNotice(n, aboutFiles, 1)
	if length := len([]rune(made.plain())); length > maxNotice || len(made.names) > maxNames || len(made.names) == 0 {
		t.Errorf("%d characters, %d names", length, len(made.names))
	}
	if want := 500 - len(made.names); made.more != want || len(made.leads) != 2 {
		t.Errorf("%d more, want %d", made.more, want)
	}
	n.ShowNames = false
	if text := newNotice(n, aboutFiles, 0).plain(); strings.Contains(text, "名") || !strings.Contains(text, "500 files") {
		t.Errorf("names are switched off:\n%s", text)
	}
}

func TestSizes(t *testing.T) {
	for size, want := range map[int64]string{0: "0 bytes", 1: "1 byte", 999: "999 bytes", 1000: "1.0 kB", 9960: "10 kB", 999600: "1.0 MB", 12345678: "12 MB", 5e12: "5.0 TB"} {
		if got := english().size(size); got != want {
			t.Errorf("%d: %q, want %q", size, got, want)
		}
	}
	if got := german().size(1234567); got != "1,2 MB" {
		t.Errorf("in German: %q", got)
	}
}

func TestTextCountAcrossChunks(t *testing.T) {
	for text, want := range map[string]textCount{
		"":                      {},
		"Gr\xc3\xbc\xc3\x9fe":   {characters: 5, wide: true},
		"Gr\xfc":                {characters: 4, wide: true, broken: true},
		"\xf0\x9f\x98\x80":      {characters: 2, wide: true},
		"cut \xf0\x9f":          {characters: 6, wide: true, broken: true},
		"-- \r\nA":              {characters: 6, signature: true},
		"Hi\r\n-- \r\nA":        {characters: 10, signature: true},
		"Hi\r\n--\r\nA -- \r\n": {characters: 15},
	} {
		for _, size := range []int{1, 2, 3, 100} {
			c := newTextCount()
			for rest := text; rest != ""; rest = rest[min(size, len(rest)):] {
				_, _ = c.Write([]byte(rest[:min(size, len(rest))]))
			}
			_ = c.Close()
			if c.characters != want.characters || c.wide != want.wide || c.broken != want.broken || c.signature != want.signature {
				t.Errorf("%q in pieces of %d: %+v", text, size, c)
			}
		}
	}
}

// TestBareNewlinesDoNotPassWithAField: to readers that take a CR for a line end, the field would hold a whole mail.
func TestBareNewlinesDoNotPassWithAField(t *testing.T) {
	for _, newline := range []string{"\r", "\n"} {
		field := strings.ReplaceAll("Subject: a|Content-Type: multipart/mixed; boundary=B||--B|Content-Type: application/x; name=a.com||x|--B--", "|", newline)
		r := rewriteMail(t, []byte("From: a@customer.example\r\n"+field+"\r\n\r\ntext\r\n"))
		if _, whole := r.plan.Whole(); !whole || bytes.Contains(r.mail, []byte("boundary")) {
			t.Errorf("%q: whole: %v\n%s", newline, whole, r.mail)
		}
	}
}

// TestHeaderThatEndsTheMail may lack its last line end, which a field of ours must not continue.
func TestHeaderThatEndsTheMail(t *testing.T) {
	r := rewriteMail(t, []byte("Content-Type: application/pdf\r\nSubject: x"))
	if !bytes.Contains(r.mail, []byte("Subject: x\r\n")) {
		t.Errorf("%s", r.mail)
	}
}

// TestHostileParametersEnd: what is read of a value is bounded, and so is the work for it.
func TestHostileParametersEnd(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("(;", 1<<20) + ")", strings.Repeat("(", 2<<20), strings.Repeat("(;", 1<<20), strings.Repeat(`";`, 1<<20+1), strings.Repeat("a=;", 1<<20),
	} {
		if v := parseValue("text/plain; " + text); !v.long {
			t.Errorf("all of %.10q is read", text)
		}
		stripComments(text)
	}
}
