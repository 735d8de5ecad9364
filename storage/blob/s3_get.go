package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Get implements Store. A body that breaks off, ends early or stalls is taken up again where it ended, a few
// times; if that fails too the reader ends with io.ErrUnexpectedEOF or the reason. Bytes are not verified: an
// object is sealed, and whoever opens it sees what was altered.
func (s *S3) Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if offset < 0 || length < -1 {
		return nil, invalid(offset, length)
	}
	if length == 0 { // a range cannot be empty
		if _, err := s.Stat(ctx, name); err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	if length > math.MaxInt64-offset {
		length = -1
	}
	r := &objectReader{offset: offset, left: length}
	r.open = func() error { return s.failure("read an object", name, s.open(ctx, name, r)) }
	r.resume = func(cause error) error {
		r.resumed++
		if err := ctx.Err(); err != nil {
			return err
		}
		if r.resumed >= s.options.Attempts {
			return s.failure("read an object", name, cause)
		}
		s.metrics.resumed.Inc()
		if err := pause(ctx, s.delay(r.resumed-1)); err != nil {
			return err
		}
		return r.open()
	}
	if err := r.open(); err != nil {
		return nil, err
	}
	return r, nil
}

var errShort = errors.New("the object has another size than before")

// objectReader reads the rest of a range: left bytes from offset on, or -1 while their number is unknown.
type objectReader struct {
	open    func() error // sets body and left
	resume  func(cause error) error
	offset  int64
	left    int64
	etag    *string // of the object, once it is known
	body    io.ReadCloser
	resumed int
	failed  error
}

// open asks for what is left. A later call must find the same object.
func (s *S3) open(ctx context.Context, name string, r *objectReader) error {
	span := fmt.Sprintf("bytes=%d-", r.offset)
	if r.left > 0 {
		span += strconv.FormatInt(r.offset+r.left-1, 10)
	}
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: s.bucket(), Key: aws.String(s.under(name)), Range: aws.String(span), IfMatch: r.etag})
	if statusOf(err) == http.StatusRequestedRangeNotSatisfiable && r.etag == nil {
		r.body, r.left = io.NopCloser(bytes.NewReader(nil)), 0 // the object ends before offset
		return nil
	}
	if err != nil {
		return err
	}
	have, err := extent(out, r.offset)
	if err == nil && r.etag != nil && have != r.left {
		err = errShort
	}
	if err == nil && r.left > 0 {
		have = min(have, r.left)
	}
	if err != nil {
		return errors.Join(err, out.Body.Close())
	}
	r.body, r.left, r.etag = out.Body, have, out.ETag
	return nil
}

// extent returns how many bytes the server announces from offset on.
func extent(out *s3.GetObjectOutput, offset int64) (int64, error) {
	span := aws.ToString(out.ContentRange)
	if span == "" && offset == 0 { // the whole object
		return aws.ToInt64(out.ContentLength), nil
	}
	var from, to int64
	if _, err := fmt.Sscanf(span, "bytes %d-%d/", &from, &to); err != nil || from != offset || to < from || !strings.Contains(span, "/") {
		return 0, errors.New("the server sent another range than it was asked for")
	}
	return to - from + 1, nil
}

// Read implements io.Reader.
func (r *objectReader) Read(p []byte) (int, error) {
	for r.failed == nil {
		if r.left == 0 {
			return 0, io.EOF
		}
		n, err := r.body.Read(p[:min(int64(len(p)), r.left)])
		r.offset += int64(n)
		r.left -= int64(n)
		if n > 0 || err == nil {
			return n, nil // an error that came with bytes comes again
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		_ = r.body.Close() // it is broken
		r.failed = r.resume(err)
	}
	return 0, r.failed
}

// Close implements io.Closer.
func (r *objectReader) Close() error {
	if r.failed == nil {
		r.failed = errors.New("read an object: the reader is closed")
	}
	return r.body.Close()
}
