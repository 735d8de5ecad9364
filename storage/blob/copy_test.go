package blob_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"sealpost/storage/blob"
	"sealpost/storage/storagetest"
)

const copied = "20260314/00112233445566778899aabbccddeeff.s.0000000000000001"

// alteringReader gives other bytes than the Store has.
type alteringReader struct{ blob.Store }

func (a alteringReader) Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	body, err := a.Store.Get(ctx, name, offset, length)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader([]byte{0}), body), body}, nil
}

// TestCopy copies between a directory, which stays as it is, and a bucket, and back.
func TestCopy(t *testing.T) {
	server := storagetest.StartS3(t)
	bucket := openS3(t, options(t, server, server.Endpoint))
	root := filepath.Join(t.TempDir(), "blobs")
	content := bytes.Repeat([]byte("sealed "), 1<<20)
	first := openDir(t, root)
	if _, err := first.Put(t.Context(), copied, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	from := blob.NewDirReader(root)
	var count countingWriter
	if err := blob.Copy(t.Context(), from, bucket, copied, &count); err != nil || int(count) != len(content) {
		t.Fatalf("%d bytes, %v", count, err)
	}
	if err := blob.Copy(t.Context(), from, bucket, copied, io.Discard); !errors.Is(err, blob.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
	back := openDir(t, filepath.Join(t.TempDir(), "blobs"))
	if err := blob.Copy(t.Context(), bucket, back, copied, io.Discard); err != nil {
		t.Error(err)
	}
	for _, store := range []blob.Reader{bucket, back} {
		if err := blob.Compare(t.Context(), from, store, copied); err != nil {
			t.Error(err)
		}
	}
	if err := blob.Compare(t.Context(), from, alteringReader{back}, copied); !errors.Is(err, blob.ErrDiffers) {
		t.Errorf("other bytes: %v", err)
	}
	other := openDir(t, filepath.Join(t.TempDir(), "blobs"))
	if err := blob.Copy(t.Context(), from, alteringReader{other}, copied, io.Discard); !errors.Is(err, blob.ErrDiffers) {
		t.Errorf("what is read back differs: %v", err)
	}
	if _, err := other.Stat(t.Context(), copied); !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("what differs stays: %v", err)
	}
	missing := blob.NewDirReader(filepath.Join(t.TempDir(), "none"))
	if err := blob.Copy(t.Context(), missing, back, copied, io.Discard); !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("an object that is not there: %v", err)
	}
}

type countingWriter int

func (c *countingWriter) Write(data []byte) (int, error) {
	*c += countingWriter(len(data))
	return len(data), nil
}

// TestDirReader neither makes nor removes anything.
func TestDirReader(t *testing.T) {
	root := filepath.Join(t.TempDir(), "blobs")
	days, err := blob.NewDirReader(root).Days(t.Context())
	if err != nil || len(days) != 0 {
		t.Errorf("%v, %v", days, err)
	}
	if _, err := os.Stat(root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
}
