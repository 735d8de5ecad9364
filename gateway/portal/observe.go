package portal

import (
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealpost/gateway"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	logins   *prometheus.CounterVec
	opens    *prometheus.CounterVec
	bytes    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealpost_portal_requests_total", Help: "Requests to the portal by route and status.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sealpost_portal_request_seconds", Help: "Time to answer a request, the body included.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}, []string{"route"}),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealpost_portal_logins_total", Help: "Log-ins by outcome.",
		}, []string{"outcome"}),
		opens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealpost_portal_opens_total", Help: "Packages opened, by outcome.",
		}, []string{"outcome"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealpost_portal_ciphertext_bytes_total", Help: "Bytes of sealed objects handed out.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.logins, m.opens, m.bytes} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register the portal's metrics: %w", err)
		}
	}
	return m, nil
}

// observe logs and counts each request. What it names is the route's pattern and a well-formed package
// ID, never the path itself: a mangled link may have carried its keycode into it.
func (p *portal) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		sw := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(sw, r)
		took := time.Since(began)
		route := routeOf(r)
		p.metrics.requests.WithLabelValues(route, strconv.Itoa(sw.status)).Inc()
		p.metrics.seconds.WithLabelValues(route).Observe(took.Seconds())
		attrs := []slog.Attr{
			slog.String("method", methodOf(r)), routeAttr(r), slog.Int("status", sw.status), slog.Duration("took", took),
		}
		if id, err := gateway.ParsePackageID(r.PathValue("id")); err == nil {
			attrs = append(attrs, slog.String("package", id.String()))
		}
		p.log.LogAttrs(r.Context(), slog.LevelInfo, "portal request", attrs...)
	})
}

// routeOf is the pattern that matched; a request that was refused before has none.
func routeOf(r *http.Request) string {
	if r.Pattern == "" {
		return "none"
	}
	return r.Pattern
}

func routeAttr(r *http.Request) slog.Attr { return slog.String("route", routeOf(r)) }

// methodOf keeps invented methods, which are free text, out of the log.
func methodOf(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return r.Method
	}
	return "other"
}

func errorAttr(err error) slog.Attr { return slog.String("error", err.Error()) }

func levelOf(code gateway.Code) slog.Level {
	if code == gateway.CodeInternal {
		return slog.LevelError
	}
	return slog.LevelWarn
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// healthz answers as long as the process does.
func (p *portal) healthz(w http.ResponseWriter, _ *http.Request) {
	writeText(w, http.StatusOK, "ok")
}

// readyz answers 200 when the node takes mail, else 503 with the code of what is missing.
func (p *portal) readyz(w http.ResponseWriter, r *http.Request) {
	if err := p.opts.Ready(r.Context()); err != nil {
		p.log.LogAttrs(r.Context(), slog.LevelWarn, "not ready", errorAttr(err))
		writeText(w, http.StatusServiceUnavailable, string(gateway.ErrorCode(err)))
		return
	}
	writeText(w, http.StatusOK, "ready")
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n"))
}
