package alert

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/mail"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealpost/gateway"
)

func TestRoundTellsBeginAndEndOnce(t *testing.T) {
	var log bytes.Buffer
	standing := []Alert{{Dead, "r", "mend"}}
	mails := 0
	registry := prometheus.NewRegistry()
	w := New(Options{
		Probes: []Probe{
			func(context.Context) ([]Alert, error) { return nil, errors.New("broken probe") },
			func(context.Context) ([]Alert, error) { return standing, nil },
		},
		Mail:    func(_ context.Context, a []Alert) error { mails += len(a); return nil },
		Logger:  slog.New(slog.NewTextHandler(&log, nil)),
		Metrics: registry,
	})
	w.round(t.Context())
	w.round(t.Context())
	if n := strings.Count(log.String(), "msg=alert "); n != 1 || mails != 1 {
		t.Errorf("begun %d times, %d mails:\n%s", n, mails, &log)
	}
	if !strings.Contains(log.String(), "broken probe") {
		t.Error("a failing probe is silent")
	}
	if got := gauge(t, registry, Dead); got != 1 {
		t.Errorf("gauge %v", got)
	}
	standing = nil
	w.round(t.Context())
	w.round(t.Context())
	if n := strings.Count(log.String(), "alert ended"); n != 1 || gauge(t, registry, Dead) != 0 {
		t.Errorf("ended %d times", n)
	}
}

func gauge(t *testing.T, registry *prometheus.Registry, kind Kind) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range families[0].GetMetric() {
		if m.GetLabel()[0].GetValue() == string(kind) {
			return m.GetGauge().GetValue()
		}
	}
	return -1
}

func TestFailingProbeIsNoAllClear(t *testing.T) {
	fail := false
	w := New(Options{Probes: []Probe{func(context.Context) ([]Alert, error) {
		if fail {
			return nil, errors.New("away")
		}
		return []Alert{{Kind: Held}}, nil
	}}})
	w.round(t.Context())
	fail = true
	w.round(t.Context())
	if !w.active[key{Held, ""}] {
		t.Error("an alert ended since its probe failed")
	}
}

func TestOneMailGathersClaimedKinds(t *testing.T) {
	var got [][]Alert
	w := New(Options{
		Probes: []Probe{func(context.Context) ([]Alert, error) {
			return []Alert{{Kind: Dead}, {Kind: Held}, {Kind: DiskSpace, Key: "a"}, {Kind: DiskSpace, Key: "b"}}, nil
		}},
		Claim: func(_ context.Context, kind string, _ time.Duration) (bool, error) { return kind != string(Held), nil },
		Mail:  func(_ context.Context, a []Alert) error { got = append(got, a); return nil },
	})
	w.round(t.Context())
	if len(got) != 1 || len(got[0]) != 3 {
		t.Errorf("got %v", got)
	}
}

func TestLimiter(t *testing.T) {
	now := time.Unix(1000, 0)
	claim := limiter(func() time.Time { return now })
	for i, want := range []bool{true, false, true} {
		got, err := claim(t.Context(), "dead", time.Hour)
		if err != nil || got != want {
			t.Errorf("claim %d: %v, %v", i, got, err)
		}
		now = now.Add(31 * time.Minute)
	}
}

func TestProbes(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	facts := func(f QueueFacts) func(context.Context) (QueueFacts, error) {
		return func(context.Context) (QueueFacts, error) { return f, nil }
	}
	certs := func(left time.Duration) Probe {
		return Certificates(func() []CertificateInfo { return []CertificateInfo{{"mx.example.com", now.Add(left)}} }, func() time.Time { return now })
	}
	counts := func(m, e int64) Probe { return TempErrors(func() (int64, int64) { return m, e }) }
	for _, tc := range []struct {
		name  string
		probe Probe
		want  int
	}{
		{"disk full", Disk("/", 1<<62), 1}, {"disk free", Disk("/", 0), 0},
		{"certificate near", certs(20 * 24 * time.Hour), 1}, {"certificate expired", certs(-time.Hour), 1}, {"certificate far", certs(22 * 24 * time.Hour), 0},
		{"queue empty", Queue(facts(QueueFacts{Now: now}), 0), 0},
		{"queue young", Queue(facts(QueueFacts{Oldest: now.Add(-time.Hour), Now: now}), 0), 0},
		{"queue all", Queue(facts(QueueFacts{1, 1, now.Add(-61 * time.Minute), now}), 0), 3},
		{"scanner up", Scanner(func(context.Context) error { return nil }), 0},
		{"scanner down", Scanner(func(context.Context) error { return errors.New("x") }), 1},
		{"few mails", counts(9, 9), 0}, {"half", counts(10, 5), 0}, {"over half", counts(10, 6), 1},
	} {
		got, err := tc.probe(t.Context())
		if err != nil || len(got) != tc.want {
			t.Errorf("%s: %v, %v", tc.name, got, err)
		}
	}
	if _, err := Disk("/does/not/exist", 1)(t.Context()); err == nil {
		t.Error("a missing path has space")
	}
}

func TestTempErrorsOfLittleMail(t *testing.T) {
	var mails, errs int64
	probe := TempErrors(func() (int64, int64) { return mails, errs })
	for i, round := range []struct {
		mails, errs int64
		want        int
	}{{0, 0, 0}, {4, 4, 0}, {5, 5, 0}, {1, 1, 1}, {0, 0, 1}, {9, 0, 1}, {1, 0, 0}, {9, 9, 0}} {
		mails, errs = mails+round.mails, errs+round.errs
		if got, err := probe(t.Context()); err != nil || len(got) != round.want {
			t.Errorf("round %d: %v, %v", i, got, err)
		}
	}
}

func TestComposeTakesNoInjection(t *testing.T) {
	var b bytes.Buffer
	evil := "x\r\nBcc: evil@example.net\r\n\r\nbody"
	err := Compose(&b, evil, evil, evil, gateway.NewPackageID(), time.Now(), []Alert{{Dead, evil, evil + strings.Repeat("é", 3000)}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := mail.ReadMessage(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if m.Header.Get("Bcc") != "" || len(m.Header) != 9 || m.Header.Get("Auto-Submitted") != "auto-generated" {
		t.Errorf("header %v", m.Header)
	}
	for line := range strings.SplitSeq(b.String(), "\r\n") {
		if len(line) > 998 || strings.ContainsAny(line, "\r\n") {
			t.Errorf("line %.80q", line)
		}
	}
}
