package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// maxMade bounds the cache of directories; there are at most 257 for a day.
const maxMade = 2048

// Put implements Store.
func (d *Dir) Put(ctx context.Context, name string, body io.Reader) (int64, error) {
	day, dir, path, err := d.place(name)
	if err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	temp, err := d.create(day, dir)
	if err != nil {
		return 0, failure("begin an object", err)
	}
	size, err := d.fill(ctx, temp.file, body)
	if err == nil {
		err = d.link(temp, day, dir, path)
	}
	if err != nil {
		return 0, failure("store an object", errors.Join(err, temp.file.Close(), temp.removeName()))
	}
	if err := errors.Join(temp.removeName(), d.keepUnsynced(path, temp.file)); err != nil {
		return 0, failure("store an object", errors.Join(err, d.Delete(context.WithoutCancel(ctx), name)))
	}
	return size, nil
}

// fill copies body into f.
func (d *Dir) fill(ctx context.Context, f *os.File, body io.Reader) (int64, error) {
	buffer := d.buffers.Get().(*[]byte)
	defer d.buffers.Put(buffer)
	// Only Write of the file is shown to io.Copy, for its ReadFrom would not use our buffer.
	size, err := io.CopyBuffer(struct{ io.Writer }{f}, cancellable(ctx, body), *buffer)
	if err != nil {
		return 0, err
	}
	return size, ctx.Err()
}

// temp is a file in the making. Its name is empty if it is an anonymous one.
type temp struct {
	file *os.File
	name string
}

// create opens a new file that has no place in the store yet.
func (d *Dir) create(day, dir string) (*temp, error) {
	if d.anonymous {
		var file *os.File
		err := d.within(day, dir, func() error {
			var err error
			file, err = openAnonymous(filepath.Join(d.root, dir))
			return err
		})
		if err != nil {
			return nil, err
		}
		return &temp{file: file}, nil
	}
	if err := os.MkdirAll(filepath.Join(d.root, tempDir), dirMode); err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(filepath.Join(d.root, tempDir), "put-") // mode 0600
	if err != nil {
		return nil, err
	}
	return &temp{file: file, name: file.Name()}, nil
}

// link gives the complete file its name. Neither way replaces what has the name already.
func (d *Dir) link(t *temp, day, dir, path string) error {
	return d.within(day, dir, func() error {
		if t.name != "" {
			return os.Link(t.name, path)
		}
		return linkAnonymous(t.file, path)
	})
}

// removeName removes the temporary name.
func (t *temp) removeName() error {
	if t.name == "" {
		return nil
	}
	return removeFile(t.name)
}

// within calls do, which needs dir, and makes dir if it is missing: at first use, or because another process
// has removed it after the day was over.
func (d *Dir) within(day, dir string, do func() error) error {
	const attempts = 3
	var err error
	for range attempts {
		if err = d.ensure(day, dir); err != nil {
			return err
		}
		if err = do(); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		d.forget(day, dir)
	}
	return fmt.Errorf("the directory %s vanishes again and again: %w", dir, err)
}

func (d *Dir) forget(day, dir string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.made, dir)
	delete(d.made, day)
}

// ensure makes day and dir. Commit makes their names durable, since a sync here would hold up everyone.
func (d *Dir) ensure(day, dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.made) > maxMade {
		clear(d.made)
	}
	for _, needed := range []string{day, dir} {
		if d.made[needed] != nil {
			continue
		}
		if err := os.Mkdir(filepath.Join(d.root, needed), dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		d.made[needed] = &directory{}
	}
	return nil
}
