package rewrite

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

func benchMail(size int) []byte {
	line := strings.Repeat("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAx", 2)[:76] + "\r\n"
	return []byte("Subject: x\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\n\r\ntext\r\n--B\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
		strings.Repeat(line, size/len(line)) + "--B--\r\n")
}

func BenchmarkScan(b *testing.B) {
	mails := map[string][]byte{
		"5KiB":       benchMail(5 << 10),
		"100MiB":     benchMail(100 << 20),
		"10000parts": []byte("Content-Type: multipart/mixed; boundary=B\r\n\r\n" + strings.Repeat("--B\r\nContent-Type: text/plain\r\n\r\ntext\r\n", 10000) + "--B--\r\n"),
	}
	limits := DefaultLimits()
	limits.Parts = 20000
	for name, mail := range mails {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(mail)))
			b.ReportAllocs()
			for b.Loop() {
				msg, err := Scan(bytes.NewReader(mail), limits)
				if err != nil || msg.Ambiguity != "" {
					b.Fatal(err, msg.Ambiguity)
				}
			}
		})
	}
}

// BenchmarkScanText is all that a mail without files costs here but for its writing.
func BenchmarkScanText(b *testing.B) {
	mail := "From: a@customer.example\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + strings.Repeat("a line of text\r\n", 200)
	b.SetBytes(int64(len(mail)))
	b.ReportAllocs()
	for b.Loop() {
		msg, err := Scan(strings.NewReader(mail), DefaultLimits())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := NewPlan(msg, Rules{Judge: judge}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	mail := benchMail(100 << 20)
	msg, err := Scan(bytes.NewReader(mail), DefaultLimits())
	if err != nil {
		b.Fatal(err)
	}
	p := msg.root.children[1]
	b.SetBytes(p.end - p.body)
	for b.Loop() {
		if _, err := io.Copy(io.Discard, decoder(msg.src, p)); err != nil {
			b.Fatal(err)
		}
	}
}
