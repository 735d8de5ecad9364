package blob

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// S3Options say where a bucket is and how it is used. Zero values stand for the defaults. Credentials are never
// among them: they come from the SDK's chain (environment, shared files, container, instance).
type S3Options struct {
	Bucket string
	// Prefix is put before each name, with a slash between. It may be empty.
	Prefix string
	// Region defaults to that of the environment or the shared files, and with an Endpoint to us-east-1.
	Region string
	// Endpoint is the server's URL, where it is not AWS.
	Endpoint string
	// PathStyle puts the bucket into the path and not into the host name. ParseS3 sets it with an endpoint.
	PathStyle bool
	// SSE asks the server to encrypt objects at rest: "", "AES256" or "aws:kms", the latter with KMSKey.
	SSE, KMSKey string
	// CA is a PEM file of the certificates to trust beside the system's.
	CA string

	// PartBuffers is the number of buffers of 5 MiB that all uploads share: 32 by default, at least 2.
	PartBuffers int
	// Stall ends an attempt that makes no progress for so long: 30 s by default.
	Stall time.Duration
	// Attempts is how often a request is tried in all: 4 by default.
	Attempts int
	// MaxBackoff bounds the wait between two attempts: 5 s by default.
	MaxBackoff time.Duration
	// Cleanup bounds what is done after a failure, when the caller's context may be over: 10 s by default.
	Cleanup time.Duration

	Registerer prometheus.Registerer // nil: no metrics
	Logger     *slog.Logger          // nil: no log
}

var (
	bucketForm  = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	prefixForm  = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$`)
	secretWords = regexp.MustCompile(`(?i)secret|access|credential|token|password|signature|^key`)
)

// parameters are those of a location, with what each sets.
func parameters() map[string]func(o *S3Options, value string) error {
	return map[string]func(*S3Options, string) error{
		"region":   func(o *S3Options, v string) error { o.Region = v; return nil },
		"endpoint": func(o *S3Options, v string) error { o.Endpoint = strings.TrimSuffix(v, "/"); return checkEndpoint(v) },
		"path_style": func(o *S3Options, v string) (err error) {
			if o.PathStyle, err = strconv.ParseBool(v); err != nil {
				return errors.New("it is true or false")
			}
			return nil
		},
		"sse": func(o *S3Options, v string) error {
			if o.SSE = v; v != "AES256" && v != "aws:kms" {
				return errors.New("it is AES256 or aws:kms")
			}
			return nil
		},
		"kms_key": func(o *S3Options, v string) error { o.KMSKey = v; return nil },
		"ca": func(o *S3Options, v string) error {
			if o.CA = v; !strings.HasPrefix(v, "/") {
				return errors.New("it is an absolute path")
			}
			return nil
		},
	}
}

// ParseS3 reads a location:
//
//	s3://bucket/prefix?region=eu-central-1&endpoint=https://s3.example.com&path_style=true&sse=AES256&ca=/path.pem
//
// sse is AES256 or aws:kms, and kms_key names the key of the latter. A location holds no credentials, and one
// that does is refused. Errors do not repeat its values.
func ParseS3(location string) (S3Options, error) {
	u, err := url.Parse(location)
	if err != nil {
		return S3Options{}, errors.New("the location is not a URL such as s3://bucket/prefix?region=eu-central-1")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return S3Options{}, errors.New("the parameters of the location are malformed")
	}
	switch {
	case u.Scheme != "s3":
		return S3Options{}, errors.New("the location does not begin with s3://")
	case u.User != nil:
		return S3Options{}, errCredentials
	case u.Fragment != "":
		return S3Options{}, errors.New("the location has a # part")
	}
	o := S3Options{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/")}
	if err := o.apply(query); err != nil {
		return S3Options{}, err
	}
	if o.Endpoint != "" && !query.Has("path_style") {
		o.PathStyle = true
	}
	return o, o.check()
}

var errCredentials = errors.New("credentials do not belong into the location: " +
	"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a shared credentials file or a role")

// apply sets what the parameters say.
func (o *S3Options) apply(query url.Values) error {
	known := parameters()
	for name, values := range query {
		set, ok := known[name]
		switch {
		case !ok && secretWords.MatchString(name):
			return errCredentials
		case !ok:
			return fmt.Errorf("the parameter %q is unknown; there are %s", name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		case len(values) != 1 || values[0] == "":
			return fmt.Errorf("the parameter %s needs one value", name)
		}
		if err := set(o, values[0]); err != nil {
			return fmt.Errorf("the parameter %s: %w", name, err)
		}
	}
	return nil
}

// check looks at what belongs together.
func (o *S3Options) check() error {
	switch {
	case !bucketForm.MatchString(o.Bucket):
		return errors.New("the bucket's name is missing or malformed")
	case o.Prefix != "" && !prefixForm.MatchString(o.Prefix):
		return errors.New("the prefix is malformed: letters, digits, '.', '_' and '-' between slashes")
	case o.KMSKey != "" && o.SSE != "aws:kms":
		return errors.New("kms_key needs sse=aws:kms")
	}
	return nil
}

func checkEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return errors.New("it is a URL of the form https://host:port")
	case u.User != nil:
		return errCredentials
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return errors.New("it has no path and no parameters")
	}
	return nil
}

// withDefaults fills in what was left out.
func (o S3Options) withDefaults() S3Options {
	if o.PartBuffers == 0 {
		o.PartBuffers = 32
	}
	o.PartBuffers = max(o.PartBuffers, perUpload)
	if o.Stall <= 0 {
		o.Stall = 30 * time.Second
	}
	if o.Attempts <= 0 {
		o.Attempts = 4
	}
	if o.MaxBackoff <= 0 {
		o.MaxBackoff = 5 * time.Second
	}
	if o.Cleanup <= 0 {
		o.Cleanup = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
