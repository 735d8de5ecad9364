package blob

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"
)

const (
	// maxParts is S3's own limit.
	maxParts = 10_000
	// abortTries bounds how often an upload is aborted until nothing of it is left.
	abortTries = 4
)

// upload is a multipart upload.
type upload struct {
	s    *S3
	name string
	key  *string
	id   *string
	lost atomic.Bool // the answer to a part did not come
}

// begin starts an upload whose object will carry the token.
func (s *S3) begin(ctx context.Context, name, token string) (*upload, error) {
	u := &upload{s: s, name: name, key: aws.String(s.under(name))}
	encryption, kmsKey := s.encryption()
	created, err := s.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket:               s.bucket(),
		Key:                  u.key,
		ChecksumAlgorithm:    types.ChecksumAlgorithmCrc32c,
		Metadata:             map[string]string{tokenKey: token},
		ServerSideEncryption: encryption,
		SSEKMSKeyId:          kmsKey,
	})
	if err != nil {
		return nil, err
	}
	u.id = created.UploadId
	return u, nil
}

// multipart stores the object by parts. It owns first, a full part buffer.
func (s *S3) multipart(ctx context.Context, name string, first []byte, rest io.Reader) (int64, error) {
	token := newToken()
	u, err := s.begin(ctx, name, token)
	if err != nil {
		s.parts.put(first)
		return 0, err
	}
	size, parts, err := u.send(ctx, first, rest)
	if err == nil {
		err = s.settle(ctx, name, token, u.complete(ctx, parts))
	}
	if err != nil {
		return 0, u.abort(ctx, err)
	}
	return size, nil
}

// send stores the parts, two at a time at most, and returns the size of all. It never waits for a buffer while
// it holds one that is not on its way, so uploads cannot block each other.
func (u *upload) send(ctx context.Context, first []byte, rest io.Reader) (int64, []*types.CompletedPart, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, sending := errgroup.WithContext(ctx)
	turns := make(chan struct{}, perUpload)
	turns <- struct{}{}
	var parts []*types.CompletedPart
	var size int64
	var err error
	for buffer, n := first, partSize; n > 0; {
		done := &types.CompletedPart{PartNumber: aws.Int32(int32(len(parts) + 1))}
		parts = append(parts, done)
		size += int64(n)
		group.Go(u.part(sending, done, buffer, n, turns))
		if len(parts) == maxParts {
			err = fmt.Errorf("the object has more than %d parts", maxParts)
			break
		}
		if buffer, n, err = u.next(sending, rest, turns); err != nil {
			break
		}
	}
	if err != nil && sending.Err() == nil {
		cancel() // it was not a part that failed
		_ = group.Wait()
		return 0, nil, err
	}
	if failed := group.Wait(); failed != nil {
		return 0, nil, failed
	}
	return size, parts, err
}

// next fills the next buffer. At the end it returns no bytes and no buffer.
func (u *upload) next(ctx context.Context, rest io.Reader, turns chan struct{}) ([]byte, int, error) {
	select {
	case turns <- struct{}{}:
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	buffer, err := u.s.parts.get(ctx)
	if err != nil {
		return nil, 0, err
	}
	n, err := fill(rest, buffer)
	if err != nil || n == 0 {
		u.s.parts.put(buffer)
		return nil, 0, err
	}
	return buffer, n, nil
}

// part returns what stores one part and gives back its buffer and its turn. The SDK lets go of the body before
// it returns, even if the transport still holds it.
func (u *upload) part(ctx context.Context, done *types.CompletedPart, buffer []byte, n int, turns chan struct{}) func() error {
	return func() error {
		defer func() {
			u.s.parts.put(buffer)
			<-turns
		}()
		out, err := u.s.client.UploadPart(ctx, &s3.UploadPartInput{
			Bucket:            u.s.bucket(),
			Key:               u.key,
			UploadId:          u.id,
			PartNumber:        done.PartNumber,
			Body:              bytes.NewReader(buffer[:n]),
			ContentLength:     aws.Int64(int64(n)),
			ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c,
		})
		if err != nil {
			u.lost.Store(true)
			return err
		}
		done.ETag, done.ChecksumCRC32C = out.ETag, out.ChecksumCRC32C
		return nil
	}
}

func (u *upload) complete(ctx context.Context, parts []*types.CompletedPart) error {
	list := make([]types.CompletedPart, len(parts))
	for i, part := range parts {
		list[i] = *part
	}
	_, err := u.s.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket:          u.s.bucket(),
		Key:             u.key,
		UploadId:        u.id,
		IfNoneMatch:     aws.String("*"),
		MultipartUpload: &types.CompletedMultipartUpload{Parts: list},
	})
	return err
}

// abort ends the upload that failed with err, which it returns, and forgets its parts. A part that the server
// was still storing may come after that, so it looks again until nothing is there.
func (u *upload) abort(ctx context.Context, err error) error {
	ctx, cancel := u.s.after(ctx)
	defer cancel()
	err = u.s.failure("store an object", u.name, err)
	for try := range abortTries {
		gone, abortErr := u.s.abort(ctx, u.key, u.id)
		if abortErr != nil {
			return withCleanup(err, u.s.failure("abort the upload", u.name, abortErr))
		}
		if !u.lost.Load() || gone && try > 0 || pause(ctx, u.s.delay(0)) != nil {
			break
		}
	}
	return err
}

// abort ends an upload, and tells whether it had ended already.
func (s *S3) abort(ctx context.Context, key, id *string) (gone bool, err error) {
	_, err = s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: s.bucket(), Key: key, UploadId: id})
	if code(err) == "NoSuchUpload" {
		return true, nil
	}
	return false, err
}

// AbortUploads implements Uploads, for the uploads of objects under the prefix.
func (s *S3) AbortUploads(ctx context.Context, before time.Time) (int, error) {
	pages := s3.NewListMultipartUploadsPaginator(s.client, &s3.ListMultipartUploadsInput{Bucket: s.bucket(), Prefix: aws.String(s.under(""))})
	n := 0
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return n, s.failure("list unfinished uploads", "", err)
		}
		for _, found := range page.Uploads {
			name, ours := s.name(aws.ToString(found.Key))
			if !ours || found.Initiated == nil || !found.Initiated.Before(before) {
				continue
			}
			if _, err := s.abort(ctx, found.Key, found.UploadId); err != nil {
				return n, s.failure("abort an upload", name, err)
			}
			n++
		}
	}
	return n, nil
}
