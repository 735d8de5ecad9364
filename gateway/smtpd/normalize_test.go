package smtpd

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"sealpost/gateway"
)

// feedBody feeds input in pieces of n octets, and returns what went to the spool and what was left over.
func feedBody(t *testing.T, input string, n int, dots, mend bool) (b *body, text, rest string) {
	t.Helper()
	var spool bytes.Buffer
	b = &body{spool: &spool, out: make([]byte, 0, 16), maxSize: 1 << 20, dots: dots, mend: mend, loops: receivedCounter{limit: 50}}
	for len(input) > 0 {
		piece := input[:min(n, len(input))]
		used, done := b.feed([]byte(piece))
		input = input[used:]
		if done {
			break
		}
		if used < len(piece) {
			t.Fatalf("%d of %d octets were taken, and the text goes on", used, len(piece))
		}
	}
	b.err = b.finish()
	return b, spool.String(), input
}

func TestBareNewlinesAreNormalized(t *testing.T) {
	tests := []struct{ name, in, want, rest string }{
		{"sound", "S: x\r\n\r\na\r\n.\r\n", "S: x\r\n\r\na\r\n", ""},
		{"bare LF", "S: x\n\na\nb\r\n.\r\n", "S: x\r\n\r\na\r\nb\r\n", ""},
		{"bare CR", "S: x\r\n\r\na\rb\r\n.\r\n", "S: x\r\n\r\na\r\nb\r\n", ""},
		{"CR CR LF", "S: x\r\r\n\r\r\r\na\r\r\nb\r\n.\r\n", "S: x\r\n\r\na\r\nb\r\n", ""},
		{"LF CR", "S: x\n\ra\r\n.\r\n", "S: x\r\n\r\na\r\n", ""},
		{"a dot between bare LFs ends nothing", "S: x\n\na\n.\nMAIL FROM:<>\r\n.\r\nQUIT", "S: x\r\n\r\na\r\n.\r\nMAIL FROM:<>\r\n", "QUIT"},
		{"a dot behind a bare LF ends nothing", "a\n.\r\nb\r\n.\r\nQUIT", "a\r\n.\r\nb\r\n", "QUIT"},
		{"a dot before a bare LF ends nothing", "a\r\n.\nb\r\n.\r\nQUIT", "a\r\n.\r\nb\r\n", "QUIT"},
		{"a dot before a bare CR ends nothing", "a\r\n.\rb\r\n.\r\nQUIT", "a\r\n.\r\nb\r\n", "QUIT"},
		{"a dot behind a bare CR ends nothing", "a\r.\r\nb\r\n.\r\nQUIT", "a\r\n.\r\nb\r\n", "QUIT"},
		{"a dot behind CR CR LF ends nothing", "a\r\r\n.\r\nb\r\n.\r\nQUIT", "a\r\n.\r\nb\r\n", "QUIT"},
		{"a dot before CR CR LF ends nothing", "a\r\n.\r\r\nb\r\n.\r\nQUIT", "a\r\n.\r\nb\r\n", "QUIT"},
		{"behind a bare line end only two dots are one", "a\n..b\n.c\r\n.d\r\n..\r\n.\r\n", "a\r\n.b\r\n.c\r\nd\r\n.\r\n", ""},
		{"dots behind the first sound line", "S: x\r\n\r\na\r\nb\n.\r\n.\r\nQUIT", "S: x\r\n\r\na\r\nb\r\n.\r\n", "QUIT"},
	}
	for _, test := range tests {
		for n := 1; n <= len(test.in); n++ {
			b, text, rest := feedBody(t, test.in, n, true, true)
			if b.err != nil || text != test.want || rest != test.rest {
				t.Fatalf("%s, in pieces of %d: %q, then %q (%v); want %q, then %q", test.name, n, text, rest, b.err, test.want, test.rest)
			}
			if clean := test.name == "sound"; clean == b.mended {
				t.Errorf("%s: line ends were mended: %v", test.name, b.mended)
			}
		}
	}
}

func TestBareNewlinesInChunks(t *testing.T) {
	for in, want := range map[string]string{"a\nb\r": "a\r\nb\r\n", "a\r\n.\r\n": "a\r\n.\r\n", "a\n.\n": "a\r\n.\r\n", "\n": "\r\n"} {
		for n := 1; n <= len(in); n++ {
			if b, text, _ := feedBody(t, in, n, false, true); b.err != nil || text != want {
				t.Errorf("%q in pieces of %d: %q (%v), want %q", in, n, text, b.err, want)
			}
		}
	}
}

// Unless the admin wants it otherwise such mails are refused, and a NUL always is.
func TestBareNewlinesAreRefused(t *testing.T) {
	for _, in := range []string{"a\nb\r\n.\r\n", "a\rb\r\n.\r\n", "a\r\r\n.\r\n", "a\r\n.\rb\r\n.\r\n", "\r\n" + strings.Repeat("a\r\n", 50) + "a\nb\r\n.\r\n"} {
		for n := 1; n <= len(in); n++ {
			if b, _, _ := feedBody(t, in, n, true, false); gateway.ErrorCode(b.err) != gateway.CodeInvalid {
				t.Errorf("%q in pieces of %d: %v", in, n, b.err)
			}
		}
	}
	if b, _, _ := feedBody(t, "a\x00\n.\r\n", 100, true, true); gateway.ErrorCode(b.err) != gateway.CodeInvalid {
		t.Errorf("NUL: %v", b.err)
	}
}

// A session in which line ends are mended still ends each mail at CRLF "." CRLF and nowhere else.
func TestSessionNormalizes(t *testing.T) {
	ts := startServer(t, func(o *Options) { o.NormalizeNewlines = true })
	c := ts.hello(t)
	c.talk("> MAIL FROM:<fax@old.test>", "< 250 2.1.0 sender ok", "> RCPT TO:<support@example.com>", "< 250 2.1.5 recipient ok",
		"> DATA", data354, `>> Subject: fax\n\npage 1\n.\nMAIL FROM:<b@b.test>\n.\r\n.\r\n`, "< 250 2.0.0 accepted as ID1",
		"> QUIT", "< 221 2.0.0 Bye", "closed")
	if len(ts.mails) != 1 || !strings.HasSuffix(ts.mails[0].text, "page 1\r\n.\r\nMAIL FROM:<b@b.test>\r\n.\r\n") {
		t.Errorf("%+v", ts.mails)
	}
}

// What stands behind a line is not looked at again for each line before it.
func TestLinesAreTakenUpToTheFirstThatIsNotSound(t *testing.T) {
	b := &body{spool: io.Discard, out: make([]byte, 0, 1024), maxSize: 1 << 30, dots: true, mend: true}
	b.loops.over, b.id.over = true, true
	text := []byte(strings.Repeat("\r\n", 8000) + "a\rb\r\n")
	if n := b.lines(text); n != 16000 {
		t.Errorf("%d octets were taken, want 16000", n)
	}
}
