package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"regexp"

	smithy "github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// s3Error says what was being done, of which day the object is, and why it failed. The SDK's own text would
// name keys and URLs.
type s3Error struct {
	doing string
	day   string // empty if there is no object
	kind  error  // ErrNotExist, ErrExist, ErrFull or nil
	cause error
}

func (e *s3Error) Error() string {
	text := e.doing
	if e.day != "" {
		text += " of " + e.day
	}
	if e.kind != nil {
		text += ": " + e.kind.Error()
	}
	return text + ": " + describe(e.cause)
}

func (e *s3Error) Unwrap() []error {
	if e.kind == nil {
		return []error{e.cause}
	}
	return []error{e.kind, e.cause}
}

// failure says what was being done with the object, or with a day if name is but one, and gives err its kind.
// It returns nil for nil.
func (s *S3) failure(doing, name string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrName) || errors.As(err, new(*s3Error)) {
		return err
	}
	day := ""
	if len(name) >= 8 {
		day = name[:8]
	}
	return &s3Error{doing: doing, day: day, kind: kind(err), cause: err}
}

// kind returns the error of Store's that the server's answer means, or nil.
func kind(err error) error {
	switch status, code := statusOf(err), code(err); {
	case errors.Is(err, ErrExist) || errors.Is(err, ErrNotExist) || errors.Is(err, ErrFull):
		return nil // it says so itself
	case status == http.StatusInsufficientStorage, code == "QuotaExceeded", code == "XMinioStorageFull":
		return ErrFull
	case status == http.StatusNotFound && (code == "NoSuchKey" || code == "NotFound"):
		return ErrNotExist
	}
	return nil
}

// code returns the error code of the server's answer, or "".
func code(err error) string {
	var answer smithy.APIError
	if errors.As(err, &answer) {
		return answer.ErrorCode()
	}
	return ""
}

// statusOf returns the HTTP status of the server's answer, or 0.
func statusOf(err error) int {
	var answer *smithyhttp.ResponseError
	if errors.As(err, &answer) && answer.Response != nil {
		return answer.HTTPStatusCode()
	}
	return 0
}

var codeForm = regexp.MustCompile(`^[A-Za-z0-9.]{1,64}$`)

// describe gives the reason of a failure without keys, URLs and what the server quotes.
func describe(err error) string {
	var own *s3Error
	var lost *url.Error
	var operation *smithy.OperationError
	code := code(err)
	switch {
	case errors.As(err, &own):
		return own.Error()
	case errors.Is(err, context.Canceled):
		return context.Canceled.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded.Error()
	case errors.As(err, new(stalledError)):
		return stalledError{}.Error()
	case codeForm.MatchString(code):
		return fmt.Sprintf("the server answered %d %s", statusOf(err), code)
	case code != "":
		return fmt.Sprintf("the server answered %d", statusOf(err))
	case errors.As(err, &lost):
		return lost.Err.Error()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF.Error()
	case errors.As(err, &operation):
		return operation.Err.Error()
	}
	return err.Error()
}

// invalid says that a range makes no sense.
func invalid(offset, length int64) error {
	return fmt.Errorf("read an object: offset %d, length %d: %w", offset, length, fs.ErrInvalid)
}
