package tnef

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

func decompress(raw string) (string, error) {
	out, err := io.ReadAll(newRTFReader(strings.NewReader(raw), int64(len(raw))))
	return string(out), err
}

// The examples of [MS-OXRTFCP] section 4.
func TestTheExamplesOfTheSpecification(t *testing.T) {
	cases := map[string]string{
		"\x2d\x00\x00\x00\x2b\x00\x00\x00\x4c\x5a\x46\x75\xf1\xc5\xc7\xa7\x03\x00\x0a\x00\x72\x63\x70\x67\x31\x32\x35\x42" +
			"\x32\x0a\xf3\x20\x68\x65\x6c\x09\x00\x20\x62\x77\x05\xb0\x6c\x64\x7d\x0a\x80\x0f\xa0": "{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n",
		"\x1a\x00\x00\x00\x1c\x00\x00\x00\x4c\x5a\x46\x75\xe2\xd4\x4b\x51\x41\x00\x04\x20\x57\x58\x59\x5a\x0d\x6e\x7d\x01" +
			"\x0e\xb0": "{\\rtf1 WXYZWXYZWXYZWXYZWXYZ}",
	}
	for raw, want := range cases {
		got, err := decompress(raw)
		if got != want || err != nil {
			t.Errorf("got %q, error %v, want %q", got, err, want)
		}
	}
}

func TestWhatWasCompressedComesOutAgain(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, 2, 3, 5, 8, 13, 21, 40, 64, 100, 130} {
		text := make([]byte, size*size)
		for i := range text {
			text[i] = `{\rtf1 abc}`[random.IntN(11)]
		}
		raw := compress(string(text))
		if got, err := decompress(raw); got != string(text) || err != nil {
			t.Fatalf("%d octets: error %v", len(text), err)
		}
		if got, err := decompress(stored(string(text))); got != string(text) || err != nil {
			t.Fatalf("%d octets stored: error %v", len(text), err)
		}
		if size < 10 {
			in := newRTFReader(iotest.OneByteReader(strings.NewReader(raw)), int64(len(raw)))
			if err := iotest.TestReader(in, text); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestDamagedRTF(t *testing.T) {
	good := compress(sampleRTF)
	altered := func(at int, to ...byte) string {
		b := []byte(good)
		copy(b[at:], to)
		return string(b)
	}
	beyond := []byte{1, 0xff, 0xf0} // a reference to what was never written
	cases := map[string]string{
		"empty": "", "header cut": good[:15], "cut": good[:len(good)-4], "junk at end": good + "x",
		"size": altered(0, 1), "raw size small": altered(4, 1), "raw size large": altered(4, 0xff, 0xff),
		"kind": altered(8, 'X'), "checksum": altered(12, 0, 0, 0, 0), "content": altered(30, 0xff),
		"reference to nothing": rtfHead(len(beyond), 2, kindCompressed, beyond) + string(beyond),
		"reference cut":        rtfHead(2, 0, kindCompressed, beyond[:2]) + string(beyond[:2]),
		"stored cut":           stored("{\\rtf1}")[:20],
		"stored and more":      rtfHead(3, 2, kindStored, nil) + "abc",
	}
	for name, raw := range cases {
		if got, err := decompress(raw); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %q, error %v", name, got, err)
		}
	}
}

// The end of the octets ends the RTF too, if it is all there.
func TestRTFWithoutItsEndMark(t *testing.T) {
	octets := []byte("\x00{\\rtf1}")
	if got, err := decompress(rtfHead(len(octets), 7, kindCompressed, octets) + string(octets)); got != "{\\rtf1}" || err != nil {
		t.Errorf("got %q, error %v", got, err)
	}
}

func TestRTFReaderPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	good := compress(sampleRTF)
	for n := range len(good) {
		in := io.MultiReader(bytes.NewReader([]byte(good[:n])), iotest.ErrReader(broken))
		if _, err := io.ReadAll(newRTFReader(in, int64(len(good)))); !errors.Is(err, broken) {
			t.Fatalf("broken at %d: %v", n, err)
		}
	}
}
