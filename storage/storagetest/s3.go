package storagetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// gatewayVersion is that of versitygw, an S3 server over a directory.
const gatewayVersion = "v1.8.0"

// S3 is a real S3 server of a test's own.
type S3 struct {
	Endpoint             string // its URL, plain HTTP on loopback
	Bucket               string // one that is empty at first
	AccessKey, SecretKey string
	// Dir is where it keeps the objects; a bucket is a directory below.
	Dir string

	program string
	mu      sync.Mutex
	cmd     *exec.Cmd
	exited  chan struct{}
	said    *bytes.Buffer
}

// StartS3 runs a server with an empty bucket until the test ends. It is built once for this user.
func StartS3(t testing.TB) *S3 {
	t.Helper()
	return StartS3In(t, t.TempDir())
}

// StartS3In is StartS3 with the objects in a directory of the test's choice, on a small disk for example.
func StartS3In(t testing.TB, dir string) *S3 {
	t.Helper()
	s := &S3{Endpoint: "http://" + freeAddress(t), AccessKey: "test", SecretKey: "testsecret", Dir: dir, program: gatewayProgram(t)}
	s.Start(t)
	t.Cleanup(s.Kill)
	s.Bucket = s.NewBucket(t)
	return s
}

// NewBucket makes an empty bucket and returns its name.
func (s *S3) NewBucket(t testing.TB) string {
	t.Helper()
	name := "test-" + strings.ToLower(rand.Text()[:12])
	if _, err := s.Client().CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(name)}); err != nil {
		t.Fatalf("make a bucket: %v", err)
	}
	return name
}

// Client returns a client of the server, for what a test wants to see for itself.
func (s *S3) Client() *s3.Client {
	return s3.New(s3.Options{BaseEndpoint: aws.String(s.Endpoint), Region: "us-east-1", UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(s.AccessKey, s.SecretKey, "")})
}

// Setenv sets the credentials in the environment, where the SDK looks for them, until the test ends; and
// shared files do not count.
func (s *S3) Setenv(t testing.TB) {
	t.Helper()
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": s.AccessKey, "AWS_SECRET_ACCESS_KEY": s.SecretKey, "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	} {
		t.Setenv(name, value)
	}
}

// Location returns the location of the bucket for an endpoint, which is that of the server or of a proxy
// before it.
func (s *S3) Location(endpoint string) string {
	return fmt.Sprintf("s3://%s/objects?endpoint=%s", s.Bucket, endpoint)
}

// Start runs the server again, with the same address and objects. It returns when it answers.
func (s *S3) Start(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	cmd := exec.CommandContext(context.Background(), s.program, "--port", strings.TrimPrefix(s.Endpoint, "http://"), "--keep-alive", "--quiet", "--health", "/health", "posix", s.Dir) // #nosec G204 -- a program of the test's own
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s.AccessKey, "ROOT_SECRET_KEY="+s.SecretKey)
	said, exited := new(bytes.Buffer), make(chan struct{})
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatalf("start the S3 server: %v", err)
	}
	go func() {
		defer close(exited)
		_ = cmd.Wait() // it is stopped by a signal
	}()
	s.cmd, s.exited, s.said = cmd, exited, said
	for !answers(t.Context(), s.Endpoint+"/health") {
		select {
		case <-exited:
			t.Fatalf("the S3 server ended:\n%s", said)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// answers tells whether a GET is answered.
func answers(ctx context.Context, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request) // #nosec G704 -- on loopback
	if err != nil {
		return false
	}
	return response.Body.Close() == nil && response.StatusCode == http.StatusOK
}

// Stop ends the server in good order, and returns when it has ended.
func (s *S3) Stop() { s.signal(syscall.SIGTERM) }

// Kill ends the server at once, as a crash does.
func (s *S3) Kill() { s.signal(syscall.SIGKILL) }

func (s *S3) signal(signal syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(signal) // it may have ended
	<-s.exited
	s.cmd = nil
}

// gatewayProgram returns versitygw's path, having built it if need be. Several test programs may build it at
// once: each builds to a directory of its own and renames.
func gatewayProgram(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = t.TempDir()
	}
	dir := filepath.Join(cache, "sealpost-test", "versitygw-"+gatewayVersion)
	path := filepath.Join(dir, "versitygw")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	temp, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(temp) }()
	cmd := exec.CommandContext(t.Context(), "go", "install", "github.com/versity/versitygw/cmd/versitygw@"+gatewayVersion)
	cmd.Dir = temp // outside the module
	cmd.Env = append(os.Environ(), "GOBIN="+temp)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the S3 server versitygw: %v\n%s", err, out)
	}
	if err := os.Rename(filepath.Join(temp, "versitygw"), path); err != nil {
		t.Fatal(err)
	}
	return path
}
