package tnef

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// FuzzRead asks of any octets: no panic, no error but ErrDamaged, and every listed file opens to its exact size. They
// are also tried as lists of properties, with a checksum that is right.
func FuzzRead(f *testing.F) {
	f.Add(rich())
	f.Fuzz(func(t *testing.T, raw []byte) {
		checkRead(t, raw)
		checkRead(t, stream(1252, attribute(levelMessage, 0x69003, raw)))
		checkRead(t, stream(1252, begin(), attribute(levelAttachment, 0x69005, raw)))
	})
}

func checkRead(t *testing.T, raw []byte) {
	files, err := Read(bytes.NewReader(raw))
	if err != nil {
		if !errors.Is(err, ErrDamaged) || files != nil {
			t.Fatalf("%d files, error %v", len(files), err)
		}
		return
	}
	for _, file := range files[:min(len(files), 20)] {
		size, err := io.Copy(io.Discard, file.Open(bytes.NewReader(raw)))
		if err != nil || size != file.Size {
			t.Fatalf("a file of %d octets has %d, error %v", file.Size, size, err)
		}
	}
}

// FuzzRTF asks that any octets decompress to what their header says, or are damaged.
func FuzzRTF(f *testing.F) {
	f.Add([]byte(compress(sampleRTF)))
	f.Add([]byte(stored(sampleRTF)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := decompress(string(raw)); err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
	})
}
