package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"sealpost/gateway"
	"sealpost/storage/blob"
)

// direct hands out signed URLs of a bucket. It implements portal.Direct.
type direct struct {
	bucket blob.Presigner
	origin string
}

// newDirect finds out where the bucket's URLs lead, by signing one that names no object.
func newDirect(ctx context.Context, blobs blob.Store) (*direct, error) {
	bucket, ok := blobs.(blob.Presigner)
	if !ok {
		return nil, errors.New("portal.direct_downloads: the blob store gives no URLs")
	}
	const nothing = "20000101/00000000000000000000000000000000.h.1.0000000000000000"
	signed, err := bucket.Presign(ctx, nothing, time.Second)
	if err != nil {
		return nil, fmt.Errorf("portal.direct_downloads: %w", err)
	}
	where, err := url.Parse(signed.Reveal())
	if err != nil {
		return nil, errors.New("portal.direct_downloads: the blob store gives no usable URLs")
	}
	return &direct{bucket, where.Scheme + "://" + where.Host}, nil
}

// URL implements portal.Direct.
func (d *direct) URL(ctx context.Context, object string, valid time.Duration) (gateway.Secret, error) {
	signed, err := d.bucket.Presign(ctx, object, max(valid.Truncate(time.Second), time.Second))
	if err != nil {
		return gateway.Secret{}, fmt.Errorf("sign a URL: %w", err)
	}
	return gateway.NewSecret(signed.Reveal()), nil
}

// Origin implements portal.Direct.
func (d *direct) Origin() string { return d.origin }
