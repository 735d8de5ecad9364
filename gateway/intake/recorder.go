package intake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"sealpost/storage/blob"
)

// recorder remembers what was put, so that a mail that fails before its commit leaves no objects.
type recorder struct {
	blob.Store
	names []string
}

// Put stores an object and remembers its name.
func (r *recorder) Put(ctx context.Context, name string, body io.Reader) (int64, error) {
	size, err := r.Store.Put(ctx, name, body)
	if err == nil {
		r.names = append(r.names, name)
	}
	return size, err
}

// discard removes what was put. It has a little time of its own, since the reason may be that the
// mail's time is over; what it does not reach is left to the sweep.
func (r *recorder) discard(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	var failed []error
	for _, name := range r.names {
		if err := r.Delete(ctx, name); err != nil {
			failed = append(failed, fmt.Errorf("remove an object of the failed mail: %w", err))
		}
	}
	return errors.Join(failed...)
}
