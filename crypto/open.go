package crypto

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Getter fetches objects.
type Getter interface {
	// Get returns length bytes of an object from offset on, or all the rest if length is -1. The caller
	// closes what it returns.
	Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error)
}

// WriteItem writes the plaintext of the item with that ordinal to w. It returns nil only if each object,
// each segment and the whole file agree with the manifest in size and digest, and every authentication
// tag held. After an error w may have got a part of the file: write to a temporary file and rename it.
// What is wrong with the data is ErrAltered; errors of from and of w keep their own names.
func (o *Opened) WriteItem(ctx context.Context, from Getter, ordinal int, w io.Writer) error {
	if ordinal < 0 || ordinal >= len(o.manifest.Items) {
		return fmt.Errorf("the package has no item %d", ordinal)
	}
	item := &o.manifest.Items[ordinal]
	buf := make([]byte, bufferSize)
	out := &itemWriter{w: w}
	digests := sha256.New()
	for i := range item.Segments {
		digest, err := o.writeSegment(ctx, from, &item.Segments[i], out, buf)
		if err != nil {
			return fmt.Errorf("item %d, segment %d, object %s: %w", ordinal, i, item.Segments[i].Object, err)
		}
		digests.Write(digest[:])
	}
	if out.size != item.Size || out.crc != item.CRC32 || Digest(digests.Sum(nil)) != item.SHA256 {
		return fmt.Errorf("item %d: %w: the file does not agree with the manifest", ordinal, ErrAltered)
	}
	return nil
}

func (o *Opened) writeSegment(ctx context.Context, from Getter, s *ManifestSegment, w *itemWriter, buf []byte) (digest Digest, err error) {
	object, err := from.Get(ctx, s.Object, 0, -1)
	if err != nil {
		return digest, err
	}
	defer func() {
		if failed := object.Close(); err == nil && failed != nil {
			err = fmt.Errorf("close the object: %w", failed)
		}
	}()
	src := &source{r: io.LimitReader(object, s.StoredSize+1), stop: ctx.Err}
	stored := newSum()
	outer := bufio.NewReaderSize(io.TeeReader(src, stored), bufferSize)
	plain := newSum()
	if err := copySegment(w, plain, outer, o.sessionKey, s.Size, buf); err != nil {
		if w.err != nil {
			return digest, fmt.Errorf("write the file: %w", w.err)
		}
		return digest, src.explain(err)
	}
	digest = plain.digest()
	switch {
	case stored.size != s.StoredSize || stored.digest() != s.StoredSHA256:
		return digest, altered(errors.New("the object is not the one in the manifest"))
	case plain.size != s.Size || digest != s.SHA256:
		return digest, altered(errors.New("the segment is not the one in the manifest"))
	}
	return digest, nil
}

// copySegment decrypts one object, at most one byte beyond size.
func copySegment(w io.Writer, plain *sum, outer *bufio.Reader, key []byte, size int64, buf []byte) error {
	r, err := openPacket(outer, key)
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(io.MultiWriter(plain, w), io.LimitReader(r, size), buf); err != nil {
		return err
	}
	// The end must be seen, since only then the packet is verified.
	return atEnd(r)
}

// itemWriter takes the sums of a whole file on its way out, and remembers why w failed.
type itemWriter struct {
	w    io.Writer
	size int64
	crc  Checksum
	err  error
}

// Write implements io.Writer.
func (o *itemWriter) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	o.size += int64(n)
	o.crc = Checksum(crc32.Update(uint32(o.crc), crc32.IEEETable, p[:n]))
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	o.err = err
	return n, err
}
