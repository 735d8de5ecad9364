package blob_test

import (
	"strconv"
	"testing"
	"time"

	"sealpost/storage/blob"
	"sealpost/storage/blob/blobtest"
	"sealpost/storage/storagetest"
)

// options returns those for the bucket by way of endpoint, which is the server's or that of a proxy. Times are
// short, so that faults show soon.
func options(t testing.TB, server *storagetest.S3, endpoint string) blob.S3Options {
	t.Helper()
	server.Setenv(t)
	o, err := blob.ParseS3(server.Location(endpoint))
	if err != nil {
		t.Fatal(err)
	}
	o.MaxBackoff = 50 * time.Millisecond
	o.Attempts = 8
	return o
}

func openS3(t testing.TB, o blob.S3Options) *blob.S3 {
	t.Helper()
	s, err := blob.OpenS3(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestS3(t *testing.T) {
	server := storagetest.StartS3(t)
	o := options(t, server, server.Endpoint)
	n := 0
	blobtest.Run(t, func(t *testing.T) blob.Store {
		n++
		o.Prefix = "stores/" + strconv.Itoa(n)
		return openS3(t, o)
	})
}

// The same store as the only one in its bucket.
func TestS3WithoutPrefix(t *testing.T) {
	server := storagetest.StartS3(t)
	o := options(t, server, server.Endpoint)
	o.Prefix = ""
	blobtest.Run(t, func(t *testing.T) blob.Store {
		o.Bucket = server.NewBucket(t)
		return openS3(t, o)
	})
	if err := openS3(t, o).Check(t.Context()); err != nil {
		t.Error(err)
	}
}
