package blob

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// maxUnsynced bounds the files, and so the descriptors, that are kept open for Commit. A Put beyond that syncs its file
// itself.
const maxUnsynced = 256

// keepUnsynced keeps f open for Commit: only the descriptor that wrote is sure to learn of a failed write.
func (d *Dir) keepUnsynced(path string, f *os.File) error {
	d.mu.Lock()
	room := len(d.unsynced) < maxUnsynced
	if room {
		d.unsynced[path] = f
	}
	d.mu.Unlock()
	if !room {
		return errors.Join(f.Sync(), f.Close())
	}
	startWriteback(f)
	return nil
}

// takeUnsynced hands over the file at path, or nil if Commit need not sync it.
func (d *Dir) takeUnsynced(path string) *os.File {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.unsynced[path]
	delete(d.unsynced, path)
	return f
}

// Commit implements Store. After an error it holds none of the objects open, and those whose bytes may be lost are removed,
// since a further sync would not tell of that again.
func (d *Dir) Commit(ctx context.Context, names ...string) error {
	err := d.commit(ctx, names)
	if err == nil {
		return nil
	}
	for _, name := range names {
		if _, _, path, bad := d.place(name); bad == nil {
			if f := d.takeUnsynced(path); f != nil {
				err = errors.Join(err, f.Close(), removeFile(path))
			}
		}
	}
	return err
}

func (d *Dir) commit(ctx context.Context, names []string) error {
	dirs := map[string]bool{}
	for _, name := range names {
		_, dir, path, err := d.place(name)
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.syncFile(path); err != nil {
			return failure("make an object durable", err)
		}
		dirs[dir] = true
	}
	for dir := range dirs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.syncNames(dir); err != nil {
			return failure("make objects durable", err)
		}
	}
	return nil
}

// syncFile makes the bytes of an object durable. One that this Dir does not hold open was synced by Put, or was put by
// another process, which may have ended before its Commit.
func (d *Dir) syncFile(path string) error {
	f := d.takeUnsynced(path)
	if f == nil {
		var err error
		if f, err = os.Open(path); err != nil {
			return err
		}
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return errors.Join(err, removeFile(path))
	}
	return nil
}

// syncNames makes the entries of dir durable, and those of the directories above that lead to it.
func (d *Dir) syncNames(dir string) error {
	if err := syncDir(filepath.Join(d.root, dir)); err != nil {
		return err
	}
	for ; dir != "."; dir = filepath.Dir(dir) {
		// What is made anew after a removal is another directory, so marking this one cannot hide that.
		made := d.directory(dir)
		if made.durable.Load() && dir[:8] == d.now().UTC().Format("20060102") { // of a past day another process may have removed it
			continue
		}
		if err := syncDir(filepath.Join(d.root, filepath.Dir(dir))); err != nil {
			return fmt.Errorf("make the directory %s durable: %w", dir, err)
		}
		made.durable.Store(true)
	}
	return nil
}

// directory returns the state of a directory; that of one which is not known is new.
func (d *Dir) directory(dir string) *directory {
	d.mu.Lock()
	defer d.mu.Unlock()
	if made := d.made[dir]; made != nil {
		return made
	}
	return &directory{}
}
