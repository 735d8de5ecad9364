// Package telemetry sets up what an operator looks at: the log, the metrics, the health of the process.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// NewLogger returns a logger that writes to w. format is text or json; level is debug, info, warn or
// error. Secrets print redacted by themselves; a Secure Link or a key-sized token that reached a message
// or an error by a foreign library's hand is cut here.
func NewLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("set the log level: %w", err)
	}
	secrets := regexp.MustCompile(`(/p/[0-9a-f]{32}#)[^\s"]*|\b[A-Za-z0-9_-]{43}\b`)
	options := &slog.HandlerOptions{Level: least, ReplaceAttr: func(_ []string, attr slog.Attr) slog.Attr {
		switch attr.Value.Kind() {
		case slog.KindString:
			attr.Value = slog.StringValue(secrets.ReplaceAllString(attr.Value.String(), "$1[redacted]"))
		case slog.KindAny:
			if err, ok := attr.Value.Any().(error); ok {
				attr.Value = slog.StringValue(secrets.ReplaceAllString(err.Error(), "$1[redacted]"))
			}
		}
		return attr
	}}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return slog.New(slog.NewTextHandler(w, options)), nil
}

// NewRegistry returns a registry that already has the metrics of the process and of the Go runtime.
func NewRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// MetricsHandler serves what registry holds, at /metrics.
func MetricsHandler(registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}

// Readiness says whether the gateway takes mail: it has started, it is not stopping, and what it needs
// answers.
type Readiness struct {
	ready atomic.Bool
	check func(context.Context) error
}

// NewReadiness returns a Readiness that is not ready yet. check asks what the gateway needs to run.
func NewReadiness(check func(context.Context) error) *Readiness {
	return &Readiness{check: check}
}

// Set says whether the gateway takes mail by its own account.
func (r *Readiness) Set(ready bool) { r.ready.Store(ready) }

// Ready returns nil when mail is taken.
func (r *Readiness) Ready(ctx context.Context) error {
	if !r.ready.Load() {
		return errors.New("the gateway is starting or stopping")
	}
	return r.check(ctx)
}
