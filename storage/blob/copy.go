package blob

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
)

// ErrDiffers says that two stores hold different bytes under one name.
var ErrDiffers = errors.New("the two objects differ")

// Reader is the part of a Store that changes nothing.
type Reader interface {
	Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error)
	Stat(ctx context.Context, name string) (Info, error)
	List(ctx context.Context, day string) iter.Seq2[Info, error]
	Days(ctx context.Context) ([]string, error)
}

// NewDirReader returns the store at root for reading alone: unlike NewDir it makes and removes nothing there.
func NewDirReader(root string) Reader { return &Dir{root: root} }

// Copy copies the object of a name from one store into another, reads it back, and compares size and SHA-256; what cannot
// be read back is removed. The bytes read from the source are also written to count. The caller commits the name.
// ErrExist if the name is taken.
func Copy(ctx context.Context, from Reader, to Store, name string, count io.Writer) error {
	body, err := from.Get(ctx, name, 0, -1)
	if err != nil {
		return err
	}
	h := sha256.New()
	size, err := to.Put(ctx, name, io.TeeReader(body, io.MultiWriter(h, count)))
	if err = errors.Join(err, body.Close()); err != nil {
		return err
	}
	stored, err := digest(ctx, to, name)
	if err == nil && stored != (content{size, [sha256.Size]byte(h.Sum(nil))}) {
		err = fmt.Errorf("read back an object: %w", ErrDiffers)
	}
	if err != nil {
		return errors.Join(err, to.Delete(context.WithoutCancel(ctx), name))
	}
	return nil
}

// Compare reads the object of a name from both stores: nil, or ErrDiffers.
func Compare(ctx context.Context, a, b Reader, name string) error {
	first, err := digest(ctx, a, name)
	if err != nil {
		return err
	}
	second, err := digest(ctx, b, name)
	if err == nil && first != second {
		err = fmt.Errorf("compare an object: %w", ErrDiffers)
	}
	return err
}

type content struct {
	size int64
	sum  [sha256.Size]byte
}

func digest(ctx context.Context, store Reader, name string) (content, error) {
	body, err := store.Get(ctx, name, 0, -1)
	if err != nil {
		return content{}, err
	}
	h := sha256.New()
	size, err := io.Copy(h, body)
	return content{size, [sha256.Size]byte(h.Sum(nil))}, errors.Join(err, body.Close())
}
