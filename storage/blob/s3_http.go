package blob

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// stalledError ends an attempt that made no progress. The SDK takes it for a lost connection, and tries again.
type stalledError struct{}

func (stalledError) Error() string         { return "no progress within the time allowed" }
func (stalledError) Timeout() bool         { return true }
func (stalledError) ConnectionError() bool { return true }

// watched is the SDK's HTTP client. It ends a request in which for the time of stall no byte of either body
// moves, and no answer comes. A consumer who is slow to read an answer is not counted as a stall.
type watched struct {
	client  *http.Client
	stall   time.Duration
	metrics *s3Metrics
}

// Do implements aws.HTTPClient.
func (w *watched) Do(request *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(request.Context())
	dog := watch(w.stall, cancel)
	operation := awsmiddleware.GetOperationName(ctx)
	request = request.WithContext(ctx) // a copy
	request.GetBody = nil              // its bodies would not be watched; it is the SDK that tries again
	if request.Body != nil && request.Body != http.NoBody {
		request.Body = sentBody{request.Body, dog}
	}
	response, err := w.client.Do(request) // #nosec G704 -- the endpoint is the admin's
	dog.rest()
	if err != nil {
		cancel()
		if dog.barked.Load() {
			err = stalledError{}
		}
		w.metrics.attempt(operation, "none")
		return nil, err
	}
	w.metrics.attempt(operation, strconv.Itoa(response.StatusCode/100)+"xx")
	response.Body = &receivedBody{body: response.Body, dog: dog, cancel: cancel}
	return response, nil
}

// watchdog calls cancel when it has heard nothing for a while.
type watchdog struct {
	stall  time.Duration
	barked atomic.Bool

	mu      sync.Mutex
	resting bool
	timer   *time.Timer
}

func watch(stall time.Duration, cancel func()) *watchdog {
	d := &watchdog{stall: stall}
	d.timer = time.AfterFunc(stall, func() {
		d.barked.Store(true)
		cancel()
	})
	return d
}

// progress puts the time off.
func (d *watchdog) progress() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.resting && d.timer.Stop() {
		d.timer.Reset(d.stall)
	}
}

// rest ends the watch until wake.
func (d *watchdog) rest() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.resting = true
	d.timer.Stop()
}

// wake begins the watch again, unless its time ran out before.
func (d *watchdog) wake() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.resting = false
	if !d.barked.Load() {
		d.timer.Reset(d.stall)
	}
}

// sentBody tells the dog when the transport takes bytes of it.
type sentBody struct {
	io.ReadCloser
	dog *watchdog
}

func (b sentBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.dog.progress()
	return n, err
}

// receivedBody is watched while it is being read.
type receivedBody struct {
	body   io.ReadCloser
	dog    *watchdog
	cancel func()
}

func (b *receivedBody) Read(p []byte) (int, error) {
	b.dog.wake()
	n, err := b.body.Read(p)
	b.dog.rest()
	if err != nil && !errors.Is(err, io.EOF) && b.dog.barked.Load() {
		err = stalledError{}
	}
	return n, err
}

func (b *receivedBody) Close() error {
	b.dog.rest()
	err := b.body.Close()
	b.cancel()
	return err
}

// retryer is the SDK's standard one. It has no quota for retries, since attempts are few, and a quota that an
// outage used up would make requests fail after its end.
func (s *S3) retryer() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = s.options.Attempts
		o.RateLimiter = ratelimit.None
		o.Backoff = retry.BackoffDelayerFunc(func(attempt int, err error) (time.Duration, error) {
			s.metrics.retry(err)
			s.log.Debug("a request to S3 is tried again", "attempt", attempt, "reason", describe(err))
			return s.delay(attempt), nil
		})
		o.Retryables = append(o.Retryables, retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
			if errors.Is(err, io.ErrUnexpectedEOF) || code(err) == "ConditionalRequestConflict" {
				return aws.TrueTernary
			}
			return aws.UnknownTernary
		}))
	})
}

// delay returns how long to wait before trying again for the nth time: a random time around half a second,
// doubled each time.
func (s *S3) delay(n int) time.Duration {
	full := min(s.options.MaxBackoff, 500*time.Millisecond<<min(n, 16))
	return full/2 + rand.N(full/2+1)
}

// pause waits until the time is over or ctx is.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type s3Metrics struct {
	attempts *prometheus.CounterVec
	retries  *prometheus.CounterVec
	resumed  prometheus.Counter
	settled  prometheus.Counter
}

func newS3Metrics(registerer prometheus.Registerer, parts *buffers) *s3Metrics {
	factory := promauto.With(registerer)
	factory.NewGaugeFunc(prometheus.GaugeOpts{Name: "sealpost_s3_part_buffers_in_use", Help: "Buffers of 5 MiB that uploads hold."},
		func() float64 { return float64(parts.inUse()) })
	factory.NewGaugeFunc(prometheus.GaugeOpts{Name: "sealpost_s3_part_buffers", Help: "Buffers of 5 MiB that uploads may hold at most."},
		func() float64 { return float64(cap(parts.tokens)) })
	return &s3Metrics{
		attempts: factory.NewCounterVec(prometheus.CounterOpts{Name: "sealpost_s3_attempts_total",
			Help: "HTTP requests to S3 by operation and class of the answer's status; none: no answer."}, []string{"operation", "status"}),
		retries: factory.NewCounterVec(prometheus.CounterOpts{Name: "sealpost_s3_retries_total",
			Help: "Requests to S3 that were tried again, by what went wrong."}, []string{"reason"}),
		resumed: factory.NewCounter(prometheus.CounterOpts{Name: "sealpost_s3_resumed_reads_total",
			Help: "Reads of an object that broke off and were taken up again."}),
		settled: factory.NewCounter(prometheus.CounterOpts{Name: "sealpost_s3_settled_puts_total",
			Help: "Objects that turned out to be stored although the answer said otherwise or was lost."}),
	}
}

func (m *s3Metrics) attempt(operation, status string) {
	m.attempts.WithLabelValues(operation, status).Inc()
}

func (m *s3Metrics) retry(err error) {
	reason := "network"
	switch status := statusOf(err); {
	case errors.As(err, new(stalledError)):
		reason = "stalled"
	case status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests:
		reason = "throttled"
	case status != 0:
		reason = "server"
	}
	m.retries.WithLabelValues(reason).Inc()
}
