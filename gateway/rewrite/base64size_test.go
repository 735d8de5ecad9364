package rewrite

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/zeebo/blake3"
)

// base64Mail is a mail with one file, whose body is as given.
func base64Mail(body string) string {
	return "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: base64\r\n" +
		"Content-Disposition: attachment; filename=x\r\n\r\n" + body + "\r\n--b--\r\n"
}

// What the scan says of a base64 body is what decoding gives; and it knows the size of every body that mailers write.
func TestBase64SizeIsWhatDecodingGives(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	file := func(size int) string {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		return base64.StdEncoding.EncodeToString(data)
	}
	fold := func(text string, width int, end string) string {
		var b strings.Builder
		for ; len(text) > width; text = text[width:] {
			b.WriteString(text[:width] + end)
		}
		return b.String() + text
	}
	type test struct {
		body     string
		measured bool
	}
	tests := []test{
		{"", true}, {"QQ==", true}, {"QQ", true}, {"QUI=", true}, {"QUJD", true}, {"QUJD\r\n\r\n", true}, {" QUJD\t\r\n  \r\nQQ==  ", true},
		{"QQ==\r\n=", true}, {"Q", false}, {"QQ==\r\nQQ==", false}, {"QU JD", false}, {"QUJD-", false}, {"QUJ*", false}, {"Q=UJ", false},
		{fold(file(300_000), 100_000, "\r\n"), false}, // the lines are over the buffer
	}
	for range 200 {
		size, width := random.IntN(200_000), 1+random.IntN(100)
		tests = append(tests, test{fold(file(size), width, []string{"\r\n", " \r\n", "\r\n\r\n"}[random.IntN(3)]), true})
	}
	for i, test := range tests {
		msg, err := Scan(strings.NewReader(base64Mail(test.body)), DefaultLimits())
		if err != nil || msg.Ambiguity != "" || len(msg.root.children) != 1 {
			t.Fatalf("%d: %v, %q", i, err, msg.Ambiguity)
		}
		leaf := msg.root.children[0]
		if leaf.measured != test.measured {
			t.Errorf("%d: measured %v, want %v", i, leaf.measured, test.measured)
		}
		n, err := io.Copy(io.Discard, decoder(msg.src, leaf))
		if leaf.measured && (err != nil || n != leaf.decoded) {
			t.Errorf("%d: measured %d bytes, decoding gives %d (%v)", i, leaf.decoded, n, err)
		}
	}
}

func FuzzBase64Size(f *testing.F) {
	for _, seed := range []string{"QQ==", "QUJD\r\nQQ", "QQ==\r\n=", " Q U", "QUJD\t", strings.Repeat("QUJD\r\n", 20_000)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		if strings.Contains(body, "--b") {
			return
		}
		msg, err := Scan(strings.NewReader(base64Mail(body)), DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		if msg.Ambiguity != "" || len(msg.root.children) != 1 || !msg.root.children[0].measured {
			return
		}
		leaf := msg.root.children[0]
		if n, err := io.Copy(io.Discard, decoder(msg.src, leaf)); err != nil || n != leaf.decoded {
			t.Errorf("measured %d bytes, decoding gives %d (%v)", leaf.decoded, n, err)
		}
	})
}

// The sum is that of the body alone, wherever the scan ended.
func TestBodySumIsThatOfTheBody(t *testing.T) {
	long := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 3000)
	for name, mail := range map[string]string{
		"nothing": "", "no body": "Subject: x\r\n", "short": "Subject: x\r\n\r\nbody\r\n", "no blank line": "Subject: x\r\nbody without field\r\nmore",
		"long": "Subject: x\r\n\r\n" + long, "long first line": "Subject: x\r\n\r\n" + strings.Repeat("y", 200_000) + "\r\nz",
		"no blank line and a long one": "Subject: x\r\n" + strings.Repeat("y", 200_000) + "\r\nz", "long header": "X: " + strings.Repeat("y", 100_000) + "\r\n\r\n" + long,
		"parts": base64Mail(long), "header over the limit": strings.Repeat("Subject: x\r\n", 20_000) + "\r\nbody", "folded": " x\r\n\r\nbody" + long,
		"ambiguous": "Content-Type: multipart/mixed\r\n\r\n" + long, "bare LF": "Subject: x\r\n\r\nbody\n" + long,
	} {
		msg, err := Scan(strings.NewReader(mail), DefaultLimits())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want := blake3.Sum256([]byte(mail[msg.root.body:])); msg.BodySum() != want {
			t.Errorf("%s: another sum (the body begins at %d of %d)", name, msg.root.body, len(mail))
		}
	}
}

// Lines are passed over quickly only where nothing is to be seen in them: a scan with another buffer sees the same.
func TestBoundariesAreSeenAtEveryPlaceOfTheBuffer(t *testing.T) {
	for shift := range 200 {
		for _, inner := range []string{"text\r\n", "", "--\r\n", "-\r\n", "--b\t\r\nContent-Type: text/html\r\n\r\n"} {
			pad := strings.Repeat(strings.Repeat("p", 62)+"\r\n", bufferSize/64-2) + strings.Repeat("q", shift) + "\r\n"
			mail := "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" + pad + inner + "--b\r\n\r\nsecond\r\n--b--\r\n"
			msg, err := Scan(strings.NewReader(mail), DefaultLimits())
			if err != nil || msg.Ambiguity != "" {
				t.Fatalf("%d: %v, %q", shift, err, msg.Ambiguity)
			}
			want := 2 + bytes.Count([]byte(inner), []byte("text/html"))
			if n := len(msg.root.children); n != want {
				t.Fatalf("%d, %q: %d parts, want %d", shift, inner, n, want)
			}
			first := msg.root.children[0]
			if text := mail[first.body:first.end]; !strings.HasPrefix(text, "ppp") || want == 2 && fmt.Sprint(text, "\r\n") != pad+inner {
				t.Fatalf("%d, %q: the first part ends at another place", shift, inner)
			}
		}
	}
}
