package encoded

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

func BenchmarkFind(b *testing.B) {
	prose := bytes.Repeat([]byte("Dear all, please find below what we have talked about, and begin at once.\r\n"), 100_000)
	wide := bytes.Repeat([]byte("<p>"+strings.Repeat("a long paragraph of a page ", 20)+"</p>\n"), 10_000)
	for name, text := range map[string][]byte{
		"prose": prose, "quoted": bytes.ReplaceAll(prose, []byte("Dear"), []byte("> > Dear")), "html": wide,
		"uuencode": []byte(uu("a", bytesOf(4<<20))), "announcements": bytes.Repeat([]byte("begin 644 x\n"), 100_000),
		"yenc": []byte("=ybegin line=128 size=1 name=a\n" + yenc(bytesOf(4<<20), 128)),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Find(bytes.NewReader(text), 10); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	text := []byte(uu("a", bytesOf(4<<20)))
	blocks, _, err := Find(bytes.NewReader(text), 1)
	if err != nil || len(blocks) != 1 {
		b.Fatal(err)
	}
	b.SetBytes(blocks[0].Size)
	for b.Loop() {
		if _, err := io.Copy(io.Discard, blocks[0].Open(bytes.NewReader(text))); err != nil {
			b.Fatal(err)
		}
	}
}
