package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	bufferSize = 128 << 10
	dirMode    = 0o700
	fileMode   = 0o600

	// tempDir holds files in the making where the file system has no anonymous ones. It is one directory, so
	// that clearing it at start needs no walk over the whole store.
	tempDir = ".tmp"
	// tempAge is when a file in tempDir has surely been left behind: an intake ends after two minutes.
	tempAge = time.Hour
)

// Dir is the Store in a local directory: object YYYYMMDD/ID.REST is the file YYYYMMDD/XX/ID.REST below its
// root, where XX is the first byte of ID in hex. Several processes may share one root.
//
// A file appears under its name only when it is complete: it is written without a name (O_TMPFILE) and linked.
// Put does not sync: Commit syncs the files of a package and their directory together, which on a journaling file
// system is one commit instead of one for each. A machine that crashes before may so leave a name whose bytes are
// not all there, but nothing that refers to it.
type Dir struct {
	root    string
	now     func() time.Time
	buffers sync.Pool

	// anonymous tells whether files can be made without a name.
	anonymous bool

	mu sync.Mutex
	// made holds the directories, relative to root, that exist.
	made map[string]*directory
	// unsynced holds the files, by path, that were put and wait for Commit.
	unsynced map[string]*os.File
}

// directory is one that exists as long as it is in Dir.made.
type directory struct {
	durable atomic.Bool // its entry in the directory above is on the disk
}

var _ Store = (*Dir)(nil)

// NewDir opens the store at root, which it makes if need be, and clears what a crash has left.
func NewDir(root string) (*Dir, error) {
	if err := os.MkdirAll(root, dirMode); err != nil {
		return nil, failure("make the blob directory", err)
	}
	d := &Dir{
		root:      root,
		now:       time.Now,
		buffers:   sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }},
		anonymous: haveAnonymous(root),
		made:      map[string]*directory{},
		unsynced:  map[string]*os.File{},
	}
	if err := syncDir(filepath.Dir(filepath.Clean(root))); err != nil {
		return nil, failure("make the blob directory durable", err)
	}
	if err := d.clearTemp(); err != nil {
		return nil, err
	}
	return d, nil
}

// clearTemp removes the files that a crash has left in tempDir.
func (d *Dir) clearTemp() error {
	entries, err := os.ReadDir(filepath.Join(d.root, tempDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return failure("look for left files", err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && d.now().Sub(info.ModTime()) < tempAge {
			continue
		}
		if err != nil {
			return failure("look at a left file", err)
		}
		if err := removeFile(filepath.Join(d.root, tempDir, entry.Name())); err != nil {
			return failure("remove a left file", err)
		}
	}
	return nil
}

// place returns the directories of a checked name, relative to the root, and its path.
func (d *Dir) place(name string) (day, dir, path string, err error) {
	if err := CheckName(name); err != nil {
		return "", "", "", err
	}
	day, file := name[:8], name[9:]
	dir = filepath.Join(day, file[:2])
	return day, dir, filepath.Join(d.root, dir, file), nil
}

// Get implements Store.
func (d *Dir) Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	_, _, path, err := d.place(name)
	if err != nil {
		return nil, err
	}
	if offset < 0 || length < -1 {
		return nil, fmt.Errorf("read an object: offset %d, length %d: %w", offset, length, fs.ErrInvalid)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, failure("read an object", err)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		_ = f.Close()
		return nil, failure("read an object", err)
	}
	var r io.Reader = f
	if length >= 0 {
		r = io.LimitReader(f, length)
	}
	return struct {
		io.Reader
		io.Closer
	}{cancellable(ctx, r), f}, nil
}

// Stat implements Store.
func (d *Dir) Stat(ctx context.Context, name string) (Info, error) {
	_, _, path, err := d.place(name)
	if err != nil {
		return Info{}, err
	}
	if err := ctx.Err(); err != nil {
		return Info{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return Info{}, failure("look at an object", err)
	}
	return Info{Name: name, Size: info.Size(), Modified: info.ModTime()}, nil
}

// Delete implements Store. It also removes the directories of a past day that have become empty.
func (d *Dir) Delete(ctx context.Context, name string) error {
	day, dir, path, err := d.place(name)
	if err != nil {
		return err
	}
	if f := d.takeUnsynced(path); f != nil {
		_ = f.Close() // what becomes of its bytes no longer matters
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := removeFile(path); err != nil {
		return failure("delete an object", err)
	}
	changed := dir
	if day < d.now().UTC().Format("20060102") {
		if changed, err = d.removeEmpty(day, dir); err != nil {
			return failure("delete an empty directory", err)
		}
	}
	return failure("make a deletion durable", d.syncNearest(changed))
}

// removeEmpty removes dir and then day if they are empty, and returns the directory whose entries have changed.
func (d *Dir) removeEmpty(day, dir string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	changed := dir
	for _, empty := range []string{dir, day} {
		err := syscall.Rmdir(filepath.Join(d.root, empty))
		switch {
		case err == nil, errors.Is(err, syscall.ENOENT):
			delete(d.made, empty)
			changed = filepath.Dir(empty)
		case errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, syscall.EEXIST):
			return changed, nil
		default:
			return changed, err
		}
	}
	return changed, nil
}

// syncNearest syncs dir, or the nearest directory above it that there is.
func (d *Dir) syncNearest(dir string) error {
	for {
		err := syncDir(filepath.Join(d.root, dir))
		if !errors.Is(err, fs.ErrNotExist) || dir == "." {
			return err
		}
		dir = filepath.Dir(dir)
	}
}

// removeFile removes a file that may be absent.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// syncDir makes the entries of a directory durable.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// failure says what was being done, and marks err as ErrFull where it means that. It returns nil for nil.
func failure(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%s: %w: %w", doing, ErrFull, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// cancellable ends r with ctx's error once ctx is done. It also hides r's other methods from io.Copy.
func cancellable(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}
