package encoded

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// The lines are those that a plain splitter finds, wherever they lie in the buffer.
func TestLinesAreCutAtEachKindOfEnd(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	sizes := []int{0, 1, 70, headSize - 1, headSize, headSize + 1, bufferSize - 2, bufferSize - 1, bufferSize, bufferSize + 1, 2 * bufferSize}
	ends := []string{"\n", "\r\n", "\r"}
	for range 300 {
		var text []byte
		for range 1 + r.IntN(6) {
			size := max(0, sizes[r.IntN(len(sizes))]-r.IntN(3))
			text = append(text, bytes.Repeat([]byte{'a'}, size)...)
			text = append(text, ends[r.IntN(len(ends))]...)
		}
		text = append(text, bytes.Repeat([]byte{'a'}, r.IntN(3))...)
		lines := newLineReader(bytes.NewReader(text))
		for at := 0; at < len(text); {
			size := bytes.IndexAny(text[at:], "\r\n")
			end := at + size
			switch {
			case size < 0:
				size, end = len(text)-at, len(text)
			case bytes.HasPrefix(text[end:], []byte("\r\n")):
				end += 2
			default:
				end++
			}
			l := lines.next(isBase64)
			if l == nil {
				t.Fatalf("no line at %d of %d", at, len(text))
			}
			if l.start != int64(at) || l.end != int64(end) || l.size != int64(size) || len(l.text) != min(size, headSize) || l.long() && !l.clean {
				t.Fatalf("line %d-%d of %d, want %d-%d of %d", l.start, l.end, l.size, at, end, size)
			}
			at = end
		}
		if lines.next(nil) != nil || !lines.ended {
			t.Fatal("a line behind the last")
		}
	}
}

func TestRestOfALongLineIsLookedAt(t *testing.T) {
	for _, size := range []int{headSize + 10, 3 * bufferSize} {
		text := bytes.Repeat([]byte{'a'}, size)
		text[size-5], text[size-1] = '#', ':'
		l := newLineReader(bytes.NewReader(text)).next(isBase64)
		if l.clean || l.last != ':' {
			t.Errorf("%d bytes: clean %v, last %q", size, l.clean, l.last)
		}
	}
}
