package spool_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sealpost/gateway"
	"sealpost/gateway/spool"
)

func open(t *testing.T, dir string) *spool.Mail {
	t.Helper()
	s, err := spool.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	mail := s.New()
	t.Cleanup(func() {
		if err := mail.Close(); err != nil {
			t.Error(err)
		}
	})
	return mail
}

func content(size int) []byte {
	data := make([]byte, size)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(data)
	return data
}

func TestReadsBackWhatWasWritten(t *testing.T) {
	sizes := []int{0, 1, spool.MemoryLimit - 1, spool.MemoryLimit, spool.MemoryLimit + 1, 3*spool.MemoryLimit + 17}
	for _, size := range sizes {
		mail, want := open(t, t.TempDir()), content(size)
		for rest := want; len(rest) > 0; {
			n := min(len(rest), 1+rand.IntN(200_000))
			if _, err := mail.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if mail.Size() != int64(size) {
			t.Errorf("size %d, want %d", mail.Size(), size)
		}
		for range 2 { // it can be read again
			got, err := io.ReadAll(io.NewSectionReader(mail, 0, mail.Size()))
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("size %d: read back something else (%v)", size, err)
			}
		}
		for range 50 {
			checkRange(t, mail, want, rand.IntN(size+20), rand.IntN(1000))
		}
	}
}

func checkRange(t *testing.T, mail *spool.Mail, want []byte, offset, length int) {
	t.Helper()
	got := make([]byte, length)
	n, err := mail.ReadAt(got, int64(offset))
	expected := want[min(offset, len(want)):min(offset+length, len(want))]
	if !bytes.Equal(got[:n], expected) {
		t.Errorf("range %d+%d of %d bytes differs", offset, length, len(want))
	}
	if short := len(expected) < length; short != errors.Is(err, io.EOF) && length > 0 {
		t.Errorf("range %d+%d of %d bytes: error %v", offset, length, len(want), err)
	}
}

// TestNoPlaintextInSpool reads the anonymous file through /proc while it is open.
func TestNoPlaintextInSpool(t *testing.T) {
	dir := t.TempDir()
	mail := open(t, dir)
	marker := []byte("passport-number-MARKER-4711")
	if _, err := mail.Write(bytes.Repeat(marker, 2*spool.MemoryLimit/len(marker))); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("the spool directory shows %d names (%v), want none", len(entries), err)
	}
	files := spoolFiles(t, dir)
	if len(files) != 1 {
		t.Fatalf("found %d open spool files, want 1", len(files))
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(data) < spool.MemoryLimit || bytes.Contains(data, marker) {
		t.Errorf("the spool file (%d bytes) is not there or holds plaintext", len(data))
	}
	if err := mail.Close(); err != nil {
		t.Fatal(err)
	}
	if left := spoolFiles(t, dir); len(left) != 0 {
		t.Errorf("%d files are open after Close", len(left))
	}
	if _, err := mail.ReadAt(make([]byte, 1), 0); err == nil {
		t.Error("a closed mail can still be read")
	}
}

// spoolFiles finds the descriptors of this process that lead into dir.
func spoolFiles(t *testing.T, dir string) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, dir+"/") {
			found = append(found, link)
		}
	}
	return found
}

func TestFullDiskIsStorageFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1500k"); err != nil {
		t.Fatalf("mount a small tmpfs (the tests run as root): %v", err)
	}
	mail := open(t, dir)
	t.Cleanup(func() {
		_ = mail.Close()
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	_, err := mail.Write(content(3 * spool.MemoryLimit))
	if gateway.ErrorCode(err) != gateway.CodeStorageFull {
		t.Errorf("got %v, want a storage_full error", err)
	}
}
