package blob

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/logging"
)

// S3 is the Store in a bucket: object NAME has the key PREFIX/NAME. Any number of nodes may share it.
//
// S3 is strongly consistent, for new objects and for listings, since December 2020, and a server answers a
// write when it is durable; so Commit has nothing to do. Unlike what Store says in general, requests are
// repeated here, a few times and with growing pauses, as every user of S3 has to.
//
// A name is never overwritten (If-None-Match). Each object carries a random token of the Put that made it,
// so that a Put whose answer was lost can tell its own object from another's. The server verifies a CRC32C of
// each body, and without TLS also a signed SHA-256. A Put that cannot be settled in the end has failed; it may
// leave an object to which nothing refers, and parts of an upload, which AbortUploads ends.
//
// The bucket should keep no versions, or expire noncurrent ones: what is deleted shall be gone. Check says so.
type S3 struct {
	options S3Options
	client  *s3.Client
	presign *s3.PresignClient
	plain   *http.Client // for requests that are not signed
	parts   *buffers
	small   sync.Pool // of *[]byte, smallSize
	metrics *s3Metrics
	log     *slog.Logger
}

var (
	_ Store     = (*S3)(nil)
	_ Uploads   = (*S3)(nil)
	_ Presigner = (*S3)(nil)
)

const (
	// smallSize is that of the buffer in which a Put begins. What fits in waits for no part buffer.
	smallSize = 64 << 10
	// idleConnections bounds the connections that are kept open for the next request.
	idleConnections = 64
	// tokenKey is the metadata key of the token that tells whose an object is.
	tokenKey = "sealpost-put"
)

// OpenS3 makes the store. It sends nothing to the bucket: Check does. Credentials are looked for when they are
// first needed.
func OpenS3(ctx context.Context, options S3Options) (*S3, error) {
	o := options.withDefaults()
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("open the bucket: %w", err)
	}
	loaded, err := config.LoadDefaultConfig(ctx, func(l *config.LoadOptions) error {
		l.Region, l.Logger = o.Region, logging.Nop{}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open the bucket: read the settings of the environment: %w", err)
	}
	if loaded.Region == "" && o.Endpoint != "" {
		loaded.Region = "us-east-1"
	}
	if loaded.Region == "" {
		return nil, errors.New("open the bucket: the region is missing: add ?region=... to the location, or set AWS_REGION")
	}
	transport, err := o.transport(loaded.HTTPClient)
	if err != nil {
		return nil, fmt.Errorf("open the bucket: %w", err)
	}
	s := &S3{
		options: o,
		plain:   &http.Client{Transport: transport, Timeout: o.Stall},
		parts:   newBuffers(o.PartBuffers),
		small:   sync.Pool{New: func() any { b := make([]byte, smallSize); return &b }},
		log:     o.Logger,
	}
	s.metrics = newS3Metrics(o.Registerer, s.parts)
	s.client = s3.NewFromConfig(loaded, s.configure(transport))
	s.presign = s3.NewPresignClient(s.client)
	return s, nil
}

// configure sets what is ours to decide, whatever the environment says.
func (s *S3) configure(transport http.RoundTripper) func(*s3.Options) {
	return func(c *s3.Options) {
		c.UsePathStyle = s.options.PathStyle
		if s.options.Endpoint != "" {
			c.BaseEndpoint = aws.String(s.options.Endpoint)
		}
		c.Retryer = s.retryer()
		c.HTTPClient = &watched{client: &http.Client{Transport: transport, CheckRedirect: noRedirect}, stall: s.options.Stall, metrics: s.metrics}
		c.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		c.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		c.Logger = logging.Nop{}
		c.ClientLogMode = 0
	}
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// transport returns the SDK's transport, which knows the environment's proxy and certificates, with our own limits.
func (o *S3Options) transport(client aws.HTTPClient) (http.RoundTripper, error) {
	base, ok := client.(*awshttp.BuildableClient)
	if !ok {
		base = awshttp.NewBuildableClient()
	}
	t := base.GetTransport()
	t.MaxIdleConns = idleConnections
	t.MaxIdleConnsPerHost = idleConnections
	t.DisableCompression = true
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if o.CA == "" {
		return t, nil
	}
	pem, err := os.ReadFile(o.CA)
	if err != nil {
		return nil, fmt.Errorf("read the CA's certificates: %w", err)
	}
	roots := t.TLSClientConfig.RootCAs
	if roots == nil {
		if roots, err = x509.SystemCertPool(); err != nil {
			roots = x509.NewCertPool()
		}
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("the CA's file holds no certificate in PEM")
	}
	t.TLSClientConfig.RootCAs = roots
	return t, nil
}

// key returns the key of a checked name.
func (s *S3) key(name string) (*string, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	return aws.String(s.under(name)), nil
}

// under puts the prefix before a path.
func (s *S3) under(path string) string {
	if s.options.Prefix == "" {
		return path
	}
	return s.options.Prefix + "/" + path
}

// name returns the name that a key stands for, and whether it is one of ours.
func (s *S3) name(key string) (string, bool) {
	name := key
	if s.options.Prefix != "" {
		rest, ok := strings.CutPrefix(key, s.options.Prefix+"/")
		if !ok {
			return "", false
		}
		name = rest
	}
	return name, CheckName(name) == nil
}

// bucket is here because every input wants a pointer.
func (s *S3) bucket() *string { return aws.String(s.options.Bucket) }

func (s *S3) encryption() (types.ServerSideEncryption, *string) {
	if s.options.KMSKey == "" {
		return types.ServerSideEncryption(s.options.SSE), nil
	}
	return types.ServerSideEncryption(s.options.SSE), aws.String(s.options.KMSKey)
}

// after returns a context for what has to be done after a failure, when ctx may be over.
func (s *S3) after(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), s.options.Cleanup)
}

// Commit implements Store. There is nothing to do.
func (s *S3) Commit(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := CheckName(name); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Stat implements Store.
func (s *S3) Stat(ctx context.Context, name string) (Info, error) {
	head, err := s.head(ctx, name)
	if err != nil {
		return Info{}, s.failure("look at an object", name, err)
	}
	return Info{Name: name, Size: aws.ToInt64(head.ContentLength), Modified: aws.ToTime(head.LastModified)}, nil
}

func (s *S3) head(ctx context.Context, name string) (*s3.HeadObjectOutput, error) {
	key, err := s.key(name)
	if err != nil {
		return nil, err
	}
	return s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: s.bucket(), Key: key})
}

// Delete implements Store.
func (s *S3) Delete(ctx context.Context, name string) error {
	_, err := s.remove(ctx, name)
	return err
}

// remove deletes an object and tells whether the server keeps it as an older version.
func (s *S3) remove(ctx context.Context, name string) (kept bool, err error) {
	key, err := s.key(name)
	if err != nil {
		return false, err
	}
	out, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: s.bucket(), Key: key})
	if err = s.failure("delete an object", name, err); err != nil && !errors.Is(err, ErrNotExist) {
		return false, err
	}
	return err == nil && aws.ToBool(out.DeleteMarker), nil
}

// Presign implements Presigner. The URL ends earlier than ttl if the credentials that it was signed with do.
func (s *S3) Presign(ctx context.Context, name string, ttl time.Duration) (SignedURL, error) {
	key, err := s.key(name)
	if err != nil {
		return SignedURL{}, err
	}
	if ttl < time.Second || ttl > 7*24*time.Hour || ttl%time.Second != 0 {
		return SignedURL{}, errors.New("sign a URL: its life is whole seconds between one second and seven days")
	}
	request, err := s.presign.PresignGetObject(ctx, &s3.GetObjectInput{Bucket: s.bucket(), Key: key}, s3.WithPresignExpires(ttl))
	if err != nil {
		return SignedURL{}, s.failure("sign a URL", name, err)
	}
	return SignedURL{request.URL}, nil
}
