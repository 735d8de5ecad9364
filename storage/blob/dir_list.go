package blob

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
)

// List implements Store. It holds the names of one XX directory at a time.
func (d *Dir) List(ctx context.Context, day string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := checkDay(day); err != nil {
			yield(Info{}, err)
			return
		}
		dirs, err := readDir(filepath.Join(d.root, day))
		if err != nil {
			yield(Info{}, failure("list a day", err))
			return
		}
		for _, dir := range dirs {
			if !d.listDir(ctx, day, dir.Name(), yield) {
				return
			}
		}
	}
}

// listDir yields the objects in one directory and reports whether to go on.
func (d *Dir) listDir(ctx context.Context, day, dir string, yield func(Info, error) bool) bool {
	if err := ctx.Err(); err != nil {
		yield(Info{}, err)
		return false
	}
	entries, err := readDir(filepath.Join(d.root, day, dir))
	if err != nil {
		yield(Info{}, failure("list objects", err))
		return false
	}
	for _, entry := range entries {
		name := day + "/" + entry.Name()
		if CheckName(name) != nil || entry.Name()[:2] != dir {
			continue // not an object of ours
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			yield(Info{}, failure("list objects", err))
			return false
		}
		if !yield(Info{Name: name, Size: info.Size(), Modified: info.ModTime()}, nil) {
			return false
		}
	}
	return true
}

// Days implements Store.
func (d *Dir) Days(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	entries, err := readDir(d.root)
	if err != nil {
		return nil, failure("list the days", err)
	}
	var days []string
	for _, entry := range entries { // sorted by name
		if entry.IsDir() && checkDay(entry.Name()) == nil {
			days = append(days, entry.Name())
		}
	}
	return days, nil
}

// readDir reads a directory that may be absent.
func readDir(path string) ([]os.DirEntry, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}
