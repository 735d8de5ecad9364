package intake_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"sealpost/gateway"
	"sealpost/gateway/intake"
)

// marked is a mail in which everything that must not be logged says MARKER.
func marked(contentType string) string {
	return "From: MARKER-from <marker-from@customer.example>\r\nTo: MARKER-to@example.com\r\nSubject: MARKER-subject\r\n" +
		"Message-ID: <MARKER-id@customer.example>\r\nContent-Type: " + contentType + "\r\n\r\n" +
		"--b\r\nContent-Type: text/plain\r\n\r\nMARKER-body\r\n" +
		"--b\r\nContent-Type: application/x-MARKER-type; name=MARKER-name.pdf\r\n\r\nMARKER-file\r\n--b--\r\n"
}

func markedEnvelope() gateway.Envelope {
	e := envelope()
	e.MailFrom, e.Hello, e.Recipients[0].Address = "MARKER-return@customer.example", "MARKER-hello", "MARKER+support@example.com"
	e.Recipients[0].Route.ForwardTo = "MARKER-forward@case.salesforce.com"
	return e
}

func TestLogLineOfAMailTellsNothingOfIt(t *testing.T) {
	tests := []struct {
		name, mail, verdict, reason string
		kept, sealed, bytes         float64
	}{
		{"kept", "Subject: MARKER\r\nFrom: marker@customer.example\r\n\r\nMARKER\r\n", "kept", "", 1, 0, 0},
		{"sealed", marked("multipart/mixed; boundary=b"), "sealed", "", 1, 1, float64(len("MARKER-file"))},
		{"whole", marked("multipart/mixed"), "sealed whole", "a multipart without a usable boundary", 0, 1, float64(len(marked("multipart/mixed")))},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			m := f.accept(t, markedEnvelope(), test.mail)
			log := f.log.String()
			if strings.Count(log, "\n") != 1 {
				t.Errorf("not one line: %s", log)
			}
			hidden := []string{"marker", hex.EncodeToString([]byte("MARKER")), base64.StdEncoding.EncodeToString([]byte("MARKER")),
				"customer.example", "salesforce", "192.0.2.7", portalURL, "redacted"}
			if m.Package != nil {
				hidden = append(hidden, m.Package.ServerSecret.Reveal(), m.link(t).Keycode.Reveal())
			}
			for _, secret := range hidden {
				if strings.Contains(strings.ToLower(log), strings.ToLower(secret)) {
					t.Errorf("the log tells %q: %s", secret, log)
				}
			}
			var line map[string]any
			if err := json.Unmarshal([]byte(log), &line); err != nil {
				t.Fatal(err)
			}
			for key, want := range map[string]any{
				"msg": "mail accepted", "mail": m.ID.String(), "verdict": test.verdict, "size": float64(len(test.mail)),
				"parts_kept": test.kept, "parts_sealed": test.sealed, "bytes_sealed": test.bytes,
			} {
				if line[key] != want {
					t.Errorf("%s is %v, want %v", key, line[key], want)
				}
			}
			if routes, _ := line["routes"].([]any); !slices.Equal(routes, []any{"support@example.com"}) {
				t.Errorf("routes %v", line["routes"])
			}
			if reason, _ := line["reason"].(string); reason != test.reason {
				t.Errorf("reason %q, want %q", reason, test.reason)
			}
			if steps, _ := line["steps"].(map[string]any); len(steps) != 5 || steps["structure"] == nil || steps["judges"] == nil || line["took"] == nil {
				t.Errorf("timings: %v, %v", line["took"], line["steps"])
			}
		})
	}
}

// value sums the samples of a metric, those with a label of that value only unless label is empty.
func value(t *testing.T, registry *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			if label != "" && (len(metric.GetLabel()) != 1 || metric.GetLabel()[0].GetValue() != label) {
				continue
			}
			sum += metric.GetCounter().GetValue() + float64(metric.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

func TestMetricsCountMailsByTheirEnd(t *testing.T) {
	f := newFixture(t)
	f.accept(t, envelope(), plainMail)
	f.accept(t, envelope(), mixed("Hello", file{"a", "application/pdf", "12345"}, file{"b", "application/pdf", "678"}))
	whole := marked("multipart/mixed")
	f.accept(t, envelope(), whole)
	for _, err := range []error{errBroken, gateway.Errorf(gateway.CodeStorageFull, nil, "no room"), gateway.Errorf(gateway.CodeStorageFull, nil, "no room")} {
		f.database.fail["CommitMail"] = err
		if _, got := f.intake.Accept(t.Context(), envelope(), f.spooled(t, mixed("Hello", twoFiles()...))); !errors.Is(got, err) {
			t.Fatal(got)
		}
	}
	tests := []struct {
		name, label string
		want        float64
	}{
		{"sealpost_intake_mails_total", "accepted", 3},
		{"sealpost_intake_mails_total", "internal", 1},
		{"sealpost_intake_mails_total", "storage_full", 2},
		{"sealpost_intake_mails_total", "", 6},
		{"sealpost_intake_items_total", "", 3},
		{"sealpost_intake_sealed_bytes_total", "", float64(8 + len(whole))},
		{"sealpost_intake_sealed_whole_total", "", 1},
		{"sealpost_intake_seconds", "structure", 3},
		{"sealpost_intake_seconds", "seal", 3},
		{"sealpost_intake_seconds", "write", 3},
		{"sealpost_intake_seconds", "commit", 3},
	}
	for _, test := range tests {
		if got := value(t, f.registry, test.name, test.label); got != test.want {
			t.Errorf("%s %s: %v, want %v", test.name, test.label, got, test.want)
		}
	}
}

func TestNoRegistryMeansNoMetrics(t *testing.T) {
	f := newFixture(t, func(o *intake.Options) { o.Metrics = nil })
	f.accept(t, envelope(), plainMail)
	families, err := f.registry.Gather()
	if err != nil || len(families) > 0 {
		t.Errorf("%d metrics, %v", len(families), err)
	}
}
