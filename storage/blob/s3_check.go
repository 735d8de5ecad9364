package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// ErrVersions says that the bucket keeps what is deleted as an older version. Everything works, but what was
// erased stays in the bucket unless a lifecycle rule expires noncurrent versions.
var ErrVersions = errors.New("the bucket keeps deleted objects as noncurrent versions")

// Check tries all that the store needs on a small object of today, and says which right is missing. It
// leaves nothing behind, save after a failure an object that the sweep removes. ErrVersions is its last finding.
func (s *S3) Check(ctx context.Context) error {
	name := checkName()
	steps := []struct {
		right string
		do    func(context.Context, string) error
	}{
		{"s3:ListBucket", s.checkList},
		{"s3:ListBucketMultipartUploads", s.checkUploads},
		{"s3:PutObject and s3:AbortMultipartUpload", s.checkAbort},
		{"s3:PutObject", s.checkPut},
		{"s3:GetObject", s.checkGet},
		{"s3:DeleteObject", s.checkDelete},
	}
	for _, step := range steps {
		err := step.do(ctx, name)
		if statusOf(err) == http.StatusForbidden && !errors.Is(err, ErrFull) {
			return fmt.Errorf("the credentials lack the right %s on the bucket or on what is under the prefix: %w", step.right, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkName makes the name of an object to which nothing will ever refer.
func checkName() string {
	return time.Now().UTC().Format("20060102/") + newToken() + ".s." + newToken()[:16]
}

func (s *S3) checkList(ctx context.Context, name string) error {
	for _, err := range s.List(ctx, name[:8]) {
		return err
	}
	return nil
}

func (s *S3) checkUploads(ctx context.Context, _ string) error {
	_, err := s.client.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: s.bucket(), Prefix: aws.String(s.under("")), MaxUploads: aws.Int32(1)})
	return s.failure("list unfinished uploads", "", err)
}

func (s *S3) checkAbort(ctx context.Context, name string) error {
	u, err := s.begin(ctx, name, newToken())
	if err != nil {
		return s.failure("begin an upload", name, err)
	}
	_, err = s.abort(ctx, u.key, u.id)
	return s.failure("abort an upload", name, err)
}

const checkBody = "a check of the store"

func (s *S3) checkPut(ctx context.Context, name string) error {
	if _, err := s.Put(ctx, name, strings.NewReader(checkBody)); err != nil {
		return err
	}
	_, err := s.Put(ctx, name, strings.NewReader("another"))
	switch {
	case errors.Is(err, ErrExist):
		return nil
	case err == nil:
		return errors.New("the server overwrites objects: it does not know If-None-Match on PutObject")
	}
	return err
}

func (s *S3) checkGet(ctx context.Context, name string) error {
	body, err := s.Get(ctx, name, 2, int64(len(checkBody)))
	if err != nil {
		return err
	}
	got, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil {
		return fmt.Errorf("read an object back: %w", err)
	}
	if !bytes.Equal(got, []byte(checkBody[2:])) {
		return errors.New("the object came back altered")
	}
	return nil
}

func (s *S3) checkDelete(ctx context.Context, name string) error {
	kept, err := s.remove(ctx, name)
	if err == nil && kept {
		err = ErrVersions
	}
	return err
}

// CheckCORS asks the server, as a browser does, whether pages of the origin may GET objects in ranges. The
// origin is that of the portal, such as https://files.example.com. The error says which rule the bucket needs.
func (s *S3) CheckCORS(ctx context.Context, origin string) error {
	signed, err := s.Presign(ctx, checkName(), time.Minute)
	if err != nil {
		return err
	}
	target, err := url.Parse(signed.Reveal())
	if err != nil {
		return errors.New("ask for the CORS rules: the signed URL is malformed")
	}
	target.RawQuery = "" // a preflight needs no signature
	request, err := http.NewRequestWithContext(ctx, http.MethodOptions, target.String(), nil)
	if err != nil {
		return errors.New("ask for the CORS rules: the URL is malformed")
	}
	request.Header.Set("Origin", origin)
	request.Header.Set("Access-Control-Request-Method", http.MethodGet)
	request.Header.Set("Access-Control-Request-Headers", "range")
	answer, err := s.plain.Do(request) // #nosec G704 -- the endpoint is the admin's
	if err != nil {
		return s.failure("ask for the CORS rules", "", err)
	}
	if err := answer.Body.Close(); err != nil {
		return s.failure("ask for the CORS rules", "", err)
	}
	if missing := missingCORS(answer, origin); missing != "" {
		return fmt.Errorf("the bucket's CORS rules do not let browsers read objects (%s): it needs a rule with "+
			`AllowedOrigins ["%s"], AllowedMethods ["GET"], AllowedHeaders ["range"] and ExposeHeaders ["Content-Range"]`, missing, origin)
	}
	return nil
}

// missingCORS says what the answer to a preflight does not allow, or nothing.
func missingCORS(answer *http.Response, origin string) string {
	allowed := answer.Header.Get("Access-Control-Allow-Origin")
	switch {
	case answer.StatusCode/100 != 2:
		return fmt.Sprintf("the server answered %d", answer.StatusCode)
	case allowed != origin && allowed != "*":
		return "the origin is not allowed"
	case !listHas(answer.Header.Values("Access-Control-Allow-Methods"), "GET"):
		return "GET is not allowed"
	case !listHas(answer.Header.Values("Access-Control-Allow-Headers"), "range"):
		return "the header Range is not allowed"
	}
	return ""
}

// listHas tells whether comma-separated lists have a word, or a star.
func listHas(lists []string, word string) bool {
	return slices.ContainsFunc(strings.Split(strings.Join(lists, ","), ","), func(one string) bool {
		one = strings.TrimSpace(one)
		return one == "*" || strings.EqualFold(one, word)
	})
}
