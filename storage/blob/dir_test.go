package blob_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealpost/storage/blob"
	"sealpost/storage/blob/blobtest"
)

func openDir(t *testing.T, root string) *blob.Dir {
	t.Helper()
	d, err := blob.NewDir(root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDir(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Store {
		return openDir(t, filepath.Join(t.TempDir(), "blobs"))
	})
}

// The same store on a file system that has no files without names.
func TestDirNamedTemporaries(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Store {
		d := openDir(t, filepath.Join(t.TempDir(), "blobs"))
		blob.UseNamedTemporaries(d)
		return d
	})
}

// files returns the files and directories below root, with their modes.
func files(t *testing.T, root string) map[string]fs.FileMode {
	t.Helper()
	found := map[string]fs.FileMode{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		found[rel] = info.Mode()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestDirLayoutAndModes(t *testing.T) {
	root := filepath.Join(t.TempDir(), "blobs")
	d := openDir(t, root)
	const name = "20260314/00112233445566778899aabbccddeeff.h.1.0123456789abcdef"
	if _, err := d.Put(t.Context(), name, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	want := map[string]fs.FileMode{
		".":           fs.ModeDir | 0o700,
		"20260314":    fs.ModeDir | 0o700,
		"20260314/00": fs.ModeDir | 0o700,
		"20260314/00/00112233445566778899aabbccddeeff.h.1.0123456789abcdef": 0o600,
	}
	got := files(t, root)
	for path, mode := range want {
		if got[path] != mode {
			t.Errorf("%s has mode %v, want %v", path, got[path], mode)
		}
	}
	if len(got) != len(want) {
		t.Errorf("the store holds %v, want only %v", got, want)
	}
}

// A crash may leave a file in the making, but never under an object's name.
func TestDirClearsWhatACrashLeft(t *testing.T) {
	root := t.TempDir()
	temp := filepath.Join(root, ".tmp")
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	left, running := filepath.Join(temp, "put-1"), filepath.Join(temp, "put-2")
	for _, path := range []string{left, running} {
		if err := os.WriteFile(path, []byte("half an object"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(left, old, old); err != nil {
		t.Fatal(err)
	}
	d := openDir(t, root)
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a crash left is still there: %v", err)
	}
	if _, err := os.Stat(running); err != nil {
		t.Errorf("another process's file is gone: %v", err)
	}
	if days, err := d.Days(t.Context()); err != nil || len(days) != 0 {
		t.Errorf("Days: %v, %v; want none", days, err)
	}
}

func TestDirRemovesEmptyDirectoriesOfPastDays(t *testing.T) {
	root := t.TempDir()
	d := openDir(t, root)
	today := time.Now().UTC().Format("20060102")
	past, kept := blobtest.Name("20200101"), blobtest.Name(today)
	for _, name := range []string{past, kept} {
		if _, err := d.Put(t.Context(), name, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		if err := d.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	got := files(t, root)
	if _, ok := got["20200101"]; ok {
		t.Errorf("the past day is still there: %v", got)
	}
	if _, ok := got[today]; !ok && time.Now().UTC().Format("20060102") == today {
		t.Errorf("today's directory is gone: %v", got)
	}
}

// Two processes share the root: one removes the directory that the other remembers.
func TestDirSurvivesRemovalByAnotherProcess(t *testing.T) {
	root := t.TempDir()
	first, second := openDir(t, root), openDir(t, root)
	name := blobtest.Name("20200101")
	for range 3 {
		if _, err := first.Put(t.Context(), name, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		if err := first.Commit(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if err := second.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDirIgnoresStrangers(t *testing.T) {
	root := t.TempDir()
	d := openDir(t, root)
	name := blobtest.Name("20260314")
	if _, err := d.Put(t.Context(), name, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "20260314", name[9:11])
	for _, path := range []string{filepath.Join(dir, "README"), filepath.Join(root, "lost+found"), filepath.Join(dir, "."+name[9:])} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for info, err := range d.List(t.Context(), "20260314") {
		if err != nil || info.Name != name {
			t.Errorf("List: %+v, %v", info, err)
		}
		n++
	}
	if days, err := d.Days(t.Context()); err != nil || len(days) != 1 || n != 1 {
		t.Errorf("Days: %v, %v, %d objects", days, err, n)
	}
}

// smallDisk mounts a file system of the size, which needs root.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size+",mode=0700"); err != nil {
		t.Fatalf("mount a small file system (these tests run as root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestDirFullDisk(t *testing.T) {
	for _, named := range []bool{false, true} {
		root := filepath.Join(smallDisk(t, "1m"), "blobs")
		d := openDir(t, root)
		if named {
			blob.UseNamedTemporaries(d)
		}
		small, large := blobtest.Name("20260314"), blobtest.Name("20260314")
		if _, err := d.Put(t.Context(), small, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		_, err := d.Put(t.Context(), large, bytes.NewReader(blobtest.Body(2<<20)))
		if !errors.Is(err, blob.ErrFull) {
			t.Errorf("Put on a full disk: %v, want ErrFull", err)
		}
		if _, err := d.Stat(t.Context(), large); !errors.Is(err, blob.ErrNotExist) {
			t.Errorf("Stat: %v, want ErrNotExist", err)
		}
		for path, mode := range files(t, root) {
			if mode.IsRegular() && filepath.Base(path) != small[9:] {
				t.Errorf("a file was left: %s", path)
			}
		}
		second := blobtest.Name("20260314")
		if _, err := d.Put(t.Context(), second, bytes.NewReader(blobtest.Body(100<<10))); err != nil {
			t.Errorf("the room was not given back: %v", err)
		}
		if err := d.Commit(t.Context(), small, second); err != nil {
			t.Error(err)
		}
	}
}

// openBelow returns how many of this process's descriptors lead below root.
func openBelow(t *testing.T, root string) (n int) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, root+"/") {
			n++
		}
	}
	return n
}

// Between Put and Commit a file is held open, so that what fails in writing it is not missed; but not any number of them.
func TestDirHoldsFilesUntilTheyAreSynced(t *testing.T) {
	root := filepath.Join(t.TempDir(), "blobs")
	d := openDir(t, root)
	var names []string
	for range blob.MaxUnsynced + 10 {
		name := blobtest.Name("20260314")
		if _, err := d.Put(t.Context(), name, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if n := openBelow(t, root); n != blob.MaxUnsynced {
		t.Errorf("%d files are open after Put, want %d", n, blob.MaxUnsynced)
	}
	if err := d.Delete(t.Context(), names[0]); err != nil {
		t.Error(err)
	}
	if err := d.Commit(t.Context(), names[0]); !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("Commit of a deleted object: %v, want ErrNotExist", err)
	}
	if err := d.Commit(t.Context(), names[1:]...); err != nil {
		t.Error(err)
	}
	if n := openBelow(t, root); n != 0 {
		t.Errorf("%d files are open after Commit, want none", n)
	}
	if err := openDir(t, root).Commit(t.Context(), names[1]); err != nil {
		t.Errorf("Commit by another process: %v", err)
	}
}

func BenchmarkDirPut(b *testing.B) {
	d, err := blob.NewDir(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	body := blobtest.Body(100 << 10)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		name := blobtest.Name("20260314")
		if _, err := d.Put(b.Context(), name, bytes.NewReader(body)); err != nil {
			b.Fatal(err)
		}
		if err := d.Commit(b.Context(), name); err != nil {
			b.Fatal(err)
		}
	}
}
