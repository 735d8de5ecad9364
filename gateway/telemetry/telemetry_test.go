package telemetry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"sealpost/gateway/telemetry"
)

func TestLogCutsLinksAndTokens(t *testing.T) {
	const token = "q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4k"
	link := "https://files.example.com/p/00112233445566778899aabbccddeeff#" + token
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log, err := telemetry.NewLogger(&out, format, "info")
		if err != nil {
			t.Fatal(err)
		}
		log.Debug("below the level")
		log.Info("opened "+link, "link", link, "error", errors.New("get "+link), "token", token)
		if strings.Contains(out.String(), token) || strings.Count(out.String(), "[redacted]") != 4 {
			t.Errorf("%s: %s", format, out.String())
		}
		if strings.Contains(out.String(), "below") || !strings.Contains(out.String(), "00112233445566778899aabbccddeeff#") {
			t.Errorf("%s: too much or too little was written: %s", format, out.String())
		}
	}
}

func TestUnknownLevelIsRefused(t *testing.T) {
	if _, err := telemetry.NewLogger(io.Discard, "text", "loud"); err == nil {
		t.Error("accepted")
	}
}

func TestReadiness(t *testing.T) {
	down := errors.New("the database is away")
	var answer error
	ready := telemetry.NewReadiness(func(context.Context) error { return answer })
	if ready.Ready(t.Context()) == nil {
		t.Error("ready before the start")
	}
	ready.Set(true)
	if err := ready.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	answer = down
	if err := ready.Ready(t.Context()); !errors.Is(err, down) {
		t.Errorf("got %v", err)
	}
}

func TestMetricsAreServed(t *testing.T) {
	registry := telemetry.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "sealpost_test_total", Help: "A test."})
	registry.MustRegister(counter)
	counter.Inc()
	answer := httptest.NewRecorder()
	telemetry.MetricsHandler(registry).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if body := answer.Body.String(); !strings.Contains(body, "sealpost_test_total 1") || !strings.Contains(body, "process_resident_memory_bytes") {
		t.Errorf("%s", body)
	}
}
