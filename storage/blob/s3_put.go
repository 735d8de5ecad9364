package blob

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// settleTries is how often Put looks for an object that the server may still be making.
const settleTries = 4

// Put implements Store. A body of up to one part is one request, a longer one a multipart upload that holds two
// part buffers at most; it waits for one if all are in use. A body that is slow to read keeps its buffers.
func (s *S3) Put(ctx context.Context, name string, body io.Reader) (int64, error) {
	if err := CheckName(name); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	size, err := s.put(ctx, name, cancellable(ctx, body))
	if err != nil {
		return 0, s.failure("store an object", name, err)
	}
	return size, nil
}

func (s *S3) put(ctx context.Context, name string, body io.Reader) (int64, error) {
	small := s.small.Get().(*[]byte)
	defer s.small.Put(small)
	n, err := fill(body, *small)
	if err != nil {
		return 0, err
	}
	if n < len(*small) {
		return int64(n), s.single(ctx, name, (*small)[:n])
	}
	first, err := s.parts.get(ctx)
	if err != nil {
		return 0, err
	}
	copy(first, *small)
	m, err := fill(body, first[n:])
	n += m
	var next [1]byte
	more := 0
	if err == nil && n == partSize {
		more, err = fill(body, next[:])
	}
	switch {
	case err != nil:
		s.parts.put(first)
		return 0, err
	case more == 0:
		defer s.parts.put(first)
		return int64(n), s.single(ctx, name, first[:n])
	}
	return s.multipart(ctx, name, first, io.MultiReader(bytes.NewReader(next[:]), body))
}

// fill reads until the buffer is full or the reader at its end. Unlike io.ReadFull it keeps the end apart from
// an io.ErrUnexpectedEOF of the reader, which is a failure.
func fill(r io.Reader, buffer []byte) (int, error) {
	const maxIdle = 100
	n := 0
	for idle := 0; n < len(buffer); {
		m, err := r.Read(buffer[n:])
		n += m
		switch {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, err
		case m > 0:
			idle = 0
		default:
			if idle++; idle == maxIdle {
				return n, io.ErrNoProgress
			}
		}
	}
	return n, nil
}

// single stores the object by one request.
func (s *S3) single(ctx context.Context, name string, data []byte) error {
	token := newToken()
	encryption, key := s.encryption()
	_, err := s.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket:               s.bucket(),
		Key:                  aws.String(s.under(name)),
		Body:                 bytes.NewReader(data),
		ContentLength:        aws.Int64(int64(len(data))),
		IfNoneMatch:          aws.String("*"),
		ChecksumAlgorithm:    types.ChecksumAlgorithmCrc32c,
		Metadata:             map[string]string{tokenKey: token},
		ServerSideEncryption: encryption,
		SSEKMSKeyId:          key,
	})
	return s.settle(ctx, name, token, err)
}

// newToken returns what tells the object of this Put from any other.
func newToken() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// settle finds out what became of an object whose making ended with err. The request may have been carried out
// though its answer was lost, and then a second attempt is refused because the object is there. If the object
// is ours, all is well, or if ctx is done it is removed; if it is another's, that is ErrExist.
func (s *S3) settle(ctx context.Context, name, token string, err error) error {
	if err == nil {
		return nil
	}
	after, cancel := s.after(ctx)
	defer cancel()
	for try := 1; ; try++ {
		head, headErr := s.head(after, name)
		switch {
		case headErr == nil && head.Metadata[tokenKey] != token:
			return &s3Error{doing: "store an object", day: name[:8], kind: ErrExist, cause: err}
		case headErr == nil && ctx.Err() != nil:
			return errors.Join(s.failure("store an object", name, err), s.Delete(after, name))
		case headErr == nil:
			s.metrics.settled.Inc()
			return nil
		case !errors.Is(kind(headErr), ErrNotExist):
			return err // what became of it stays unknown
		case !inTheAir(err) || ctx.Err() != nil || try == settleTries:
			return err
		}
		if pause(ctx, s.delay(try-1)) != nil {
			return err
		}
	}
}

// inTheAir tells whether the server may still be at work on a request that failed with err.
func inTheAir(err error) bool {
	status := statusOf(err)
	return status == 0 || status < http.StatusBadRequest || code(err) == "NoSuchUpload"
}

// withCleanup is the failure of an upload and of what had to be done after it.
func withCleanup(err, cleanup error) error {
	if cleanup == nil {
		return err
	}
	return fmt.Errorf("%w; %w", err, cleanup)
}
