// Package blob stores immutable objects: the sealed heads, segments and waiting mails of Sealpost.
//
// It knows nothing of what is inside. An object is written once under a name that carries a random nonce,
// never changed, and deleted when nothing refers to it any more. There are two stores, a local directory (Dir)
// and a bucket of an S3-compatible server (S3); both pass the suite in blobtest.
//
// Decisions: names are checked strictly, so that no name can leave the store; a name is never overwritten;
// durability has two steps, so that a package of many objects costs one sync of its directory.
//
// On S3 the multipart upload is our own loop over service/s3. The SDK's transfermanager (v0.5.5) makes a pool of
// part buffers for each upload, so that memory grows with the number of uploads; it aborts with the caller's
// context, which is done when an upload is cancelled; it cannot tell an upload whose answer was lost from one
// that failed; and it writes to the standard logger.
package blob

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"regexp"
	"time"
)

// What a Store may answer. Anything else is a failure of the store and may be tried again.
var (
	// ErrNotExist says that there is no object of that name; it is fs.ErrNotExist.
	ErrNotExist = fs.ErrNotExist
	// ErrExist says that the name is taken; it is fs.ErrExist.
	ErrExist = fs.ErrExist
	// ErrFull says that there is no room, on the disk or in a quota.
	ErrFull = errors.New("no room left in the blob store")
	// ErrName says that a name or a day is malformed.
	ErrName = errors.New("malformed object name")
)

// Store holds immutable objects by name. A name is YYYYMMDD/ID.KIND.REST, where YYYYMMDD is the UTC day of
// creation, ID has 32 lower-case hex digits and KIND and the dotted REST are lower-case letters and digits.
//
// Methods may be called concurrently. A Store retries nothing by itself: the caller may repeat any call but
// Put, whose body has been read by then and which needs a new name and a body from the start, and Commit.
type Store interface {
	// Put stores body under name, and never overwrites: ErrExist. When it returns nil everyone can read the object. A
	// Put that failed or was cancelled leaves nothing under name. It returns the size in bytes. The body remains the
	// caller's; a body whose Read blocks is not interrupted. What was put is to be committed or deleted by this Store.
	Put(ctx context.Context, name string, body io.Reader) (int64, error)

	// Commit makes objects that were Put durable, bytes and name. Nothing may rely on them before. After an error they
	// must not be used: the caller deletes them.
	Commit(ctx context.Context, names ...string) error

	// Get reads length bytes from offset on; a length of -1 means to the end. What lies past the end is left
	// out, without an error. The caller closes the reader. ErrNotExist if there is no such object.
	Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error)

	// Stat describes an object. ErrNotExist if there is no such object.
	Stat(ctx context.Context, name string) (Info, error)

	// List yields the objects of one day, YYYYMMDD, in no particular order. What is put or deleted meanwhile
	// may be missing or not. It ends at the first error. A day without objects is no error.
	List(ctx context.Context, day string) iter.Seq2[Info, error]

	// Days returns the days that may have objects, ascending.
	Days(ctx context.Context) ([]string, error)

	// Delete removes an object. Its absence is no error, and when Delete returns nil the absence is durable.
	Delete(ctx context.Context, name string) error
}

// Uploads is a Store in which an upload that broke off takes room although no object can be seen.
type Uploads interface {
	// AbortUploads ends the unfinished uploads that began before the time, and returns how many it ended.
	AbortUploads(ctx context.Context, before time.Time) (int, error)
}

// Presigner is a Store that others can read from without credentials, by a URL that ends after a while.
type Presigner interface {
	// Presign makes a URL by which whoever knows it may GET the object, whole or in ranges, for the ttl, which
	// is whole seconds between one second and seven days. It does not ask whether there is such an object.
	Presign(ctx context.Context, name string, ttl time.Duration) (SignedURL, error)
}

// SignedURL is a URL that carries its own right to read: a bearer token. It prints as "[signed URL]".
type SignedURL struct{ url string }

// Reveal returns the URL, for the one who shall read the object and for nobody else.
func (u SignedURL) Reveal() string { return u.url }

// String hides the URL.
func (SignedURL) String() string { return "[signed URL]" }

// GoString hides the URL.
func (u SignedURL) GoString() string { return u.String() }

// MarshalText hides the URL, in JSON and in logs too.
func (u SignedURL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// Info describes an object.
type Info struct {
	Name     string
	Size     int64 // in bytes
	Modified time.Time
}

var (
	nameForm = regexp.MustCompile(`^[0-9]{8}/[0-9a-f]{32}\.[a-z]{1,8}(\.[0-9a-z]{1,32}){1,3}$`)
	dayForm  = regexp.MustCompile(`^[0-9]{8}$`)
)

// CheckName reports whether name is well formed: nil or ErrName.
func CheckName(name string) error {
	if !nameForm.MatchString(name) {
		return ErrName
	}
	return checkDay(name[:8])
}

func checkDay(day string) error {
	if !dayForm.MatchString(day) {
		return ErrName
	}
	if _, err := time.Parse("20060102", day); err != nil {
		return ErrName
	}
	return nil
}
