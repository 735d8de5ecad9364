package tnef

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
)

// allocated returns how much memory a function took in all, given back or not.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestMemoryIsBoundedWhateverALengthClaims(t *testing.T) {
	claim := func(id int) []byte { // 4 GiB - 1 of something, and the stream is over
		return join(stream(0, begin()), []byte{levelAttachment}, le32(id), le32(-1), []byte("few octets"))
	}
	inside := func(tag []byte, count int) []byte {
		return attribute(levelMessage, 0x69003, join(le32(1), tag, le32(count), le32(-1), []byte("few octets")))
	}
	cases := map[string][]byte{
		"attachment": claim(0x6800f), "title": claim(0x18010), "properties": claim(0x69005), "body": claim(0x2800c),
		"unknown":  claim(0x1234),
		"RTF":      stream(0, inside(join(le16(typeBinary), le16(idRTFCompressed)), 1)),
		"text":     stream(0, inside(join(le16(typeUnicode), le16(idBody)), 1)),
		"values":   stream(0, inside(join(le16(typeBinary|multiValued), le16(1)), -1)),
		"count":    stream(0, attribute(levelMessage, 0x69003, join(le32(-1), []byte("few octets")))),
		"raw size": stream(0, messageProps(binaryProp(idRTFCompressed, rtfHead(3, -1, kindCompressed, nil)+"abc"))),
	}
	for name, raw := range cases {
		got := allocated(func() {
			if _, err := Read(bytes.NewReader(raw)); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: %v", name, err)
			}
		})
		if got > 256<<10 {
			t.Errorf("%s: %d octets of memory", name, got)
		}
	}
}

// zeros gives n NULs.
func zeros(n int64) io.Reader { return io.LimitReader(zero{}, n) }

type zero struct{}

func (zero) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestALargeFileStreamsThrough(t *testing.T) {
	const size = 64 << 20
	again := func() io.Reader {
		head := join(stream(0, begin(), title("large")), []byte{levelAttachment}, le32(0x6800f), le32(size))
		return io.MultiReader(bytes.NewReader(head), zeros(size), bytes.NewReader([]byte{0, 0}))
	}
	var files []File
	var opened int64
	got := allocated(func() {
		var err error
		if files, err = Read(again()); err != nil || len(files) != 1 || files[0].Size != size {
			t.Fatalf("%v, error %v", files, err)
		}
		if opened, err = io.Copy(io.Discard, files[0].Open(again())); err != nil {
			t.Fatal(err)
		}
	})
	if opened != size {
		t.Errorf("%d octets", opened)
	}
	if got > 1<<20 {
		t.Errorf("%d octets of memory", got)
	}
}

func BenchmarkRead(b *testing.B) {
	raw := stream(0, begin(), title("large"), data(strings.Repeat("0123456789abcdef", 1<<20)))
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(bytes.NewReader(raw)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRTF(b *testing.B) {
	text := strings.Repeat(sampleRTF, 200)
	raw := stream(0, messageProps(binaryProp(idRTFCompressed, compress(text))))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(bytes.NewReader(raw)); err != nil {
			b.Fatal(err)
		}
	}
}
