package personal

import (
	"bytes"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func FuzzFind(f *testing.F) {
	fuzz(f, (*Detectors).Find, (*Detectors).CopyMasked)
}

func FuzzFindHTML(f *testing.F) {
	fuzz(f, (*Detectors).FindHTML, (*Detectors).CopyMaskedHTML)
}

// fuzz checks that the ranges are in order and inside the text, that the size of the reads does not matter, and that
// a masked text is as long as the original and the same outside the ranges.
func fuzz(f *testing.F, find func(*Detectors, io.Reader, func(Match) error) error,
	mask func(*Detectors, io.Writer, io.Reader, io.Reader, func(Match) error) error,
) {
	for _, seed := range []string{
		"4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00", "SSN 078051120", "078-05-1120", "An na", "Ann<b>a</b>&#65;&Auml;x",
		"<a href='https://example.com/4111'>4111&nbsp;<b>1111</b>\n1111 1111</a><!-- 1 --><br><td>2", "thread::4111111111111111::",
		"<script>4111</script><style>x</style >&amp;&#x31;&#49&nbsp1", "ref:_00D.500:ref <4111@example> x@example.com", "\xff\xc3 4111",
	} {
		f.Add(seed, uint16(0))
		f.Add(seed, uint16(core-10))
	}
	d := detectors(f, map[string]string{"name": `An+\s*a`, "word": `[x-zÄ]+\b`, "digits": `\d{3,}$`})
	f.Fuzz(func(t *testing.T, text string, pad uint16) {
		text = strings.Repeat(" x", int(pad)/2) + text
		var matches, slow []Match
		var masked bytes.Buffer
		err := mask(d, &masked, strings.NewReader(text), strings.NewReader(text), func(m Match) error {
			matches = append(matches, m)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := find(d, iotest.OneByteReader(strings.NewReader(text)), func(m Match) error {
			slow = append(slow, m)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(matches, slow) {
			t.Fatalf("%v at once, %v by bytes", matches, slow)
		}
		if masked.Len() != len(text) {
			t.Fatalf("masked: %d bytes of %d", masked.Len(), len(text))
		}
		end, result := int64(0), masked.String()
		for _, m := range matches {
			if len(m.Ranges) == 0 {
				t.Fatal("no ranges")
			}
			for _, r := range m.Ranges {
				if r[0] < end || r[1] <= r[0] || r[1] > int64(len(text)) {
					t.Fatalf("%v after %d of %d", r, end, len(text))
				}
				if text[end:r[0]] != result[end:r[0]] {
					t.Fatalf("changed between %d and %d", end, r[0])
				}
				end = r[1]
			}
		}
		if text[end:] != result[end:] {
			t.Fatal("changed after the last match")
		}
	})
}
