package blob

import (
	"context"
	"sync"
)

const (
	// partSize is that of a part and of its buffer: the least that S3 takes for any part but the last.
	partSize = 5 << 20
	// perUpload is how many buffers one upload may hold.
	perUpload = 2
	// keptFree is how many buffers stay allocated when none is in use.
	keptFree = 4
)

// buffers is a bounded pool of part buffers. They are made as they are needed.
type buffers struct {
	tokens chan struct{} // one for each buffer in use

	mu   sync.Mutex
	free [][]byte
}

func newBuffers(n int) *buffers { return &buffers{tokens: make(chan struct{}, n)} }

// get returns a buffer of partSize bytes, which the caller gives back by put. It waits for one until ctx is done.
func (b *buffers) get(ctx context.Context) ([]byte, error) {
	select {
	case b.tokens <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if last := len(b.free) - 1; last >= 0 {
		buffer := b.free[last]
		b.free = b.free[:last]
		return buffer, nil
	}
	return make([]byte, partSize), nil
}

// put gives a buffer back. The last one in use lets go of those that only a burst needed.
func (b *buffers) put(buffer []byte) {
	b.mu.Lock()
	b.free = append(b.free, buffer)
	<-b.tokens
	if len(b.tokens) == 0 && len(b.free) > keptFree {
		clear(b.free[keptFree:])
		b.free = b.free[:keptFree]
	}
	b.mu.Unlock()
}

// inUse returns how many are in use.
func (b *buffers) inUse() int { return len(b.tokens) }
