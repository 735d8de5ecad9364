package intake

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"sealpost/gateway"
)

type metrics struct {
	mails *prometheus.CounterVec
	items prometheus.Counter
	bytes prometheus.Counter
	whole prometheus.Counter

	repeats, forged, autoresponse, loopSuspected, held, imitated, templates prometheus.Counter
	personal                                                                *prometheus.CounterVec
	seconds                                                                 *prometheus.HistogramVec
}

func newMetrics(registry prometheus.Registerer) metrics {
	m := metrics{
		mails: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealpost_intake_mails_total", Help: "Mails by how their intake ended: accepted, repeated, ended (an automatic answer that goes back to nobody), or the code of the failure.",
		}, []string{"outcome"}),
		items: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealpost_intake_items_total", Help: "Files sealed out of mails."}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealpost_intake_sealed_bytes_total", Help: "Bytes of plaintext sealed out of mails."}),
		whole: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealpost_intake_sealed_whole_total", Help: "Mails sealed whole: not safe to parse, disowned, infected, or too large for Salesforce."}),
		personal: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealpost_intake_personal_total", Help: "Personal data found in texts and subjects, by detector.",
		}, []string{"detector"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sealpost_intake_seconds", Help: "Time from the final dot to the reply, by step.",
			Buckets: []float64{.001, .005, .02, .1, .5, 2, 10, 60},
		}, []string{"step"}),
	}
	factory := promauto.With(registry)
	for _, c := range []struct {
		into       *prometheus.Counter
		name, help string
	}{
		{&m.repeats, "repeats_total", "Mails that came again since our 250 had been lost, and were not delivered again."},
		{&m.forged, "forged_results_total", "Authentication-Results fields in our name that were removed."},
		{&m.autoresponse, "autoresponse_total", "Mails with X-SFDC-AutoResponse, which Salesforce drops silently."},
		{&m.loopSuspected, "loop_suspected_total", "Mails that Salesforce would take for a loop: over 15 alike in a minute."},
		{&m.held, "held_total", "Mails held since Salesforce would bounce them."},
		{&m.imitated, "imitated_total", "Mails whose text looked like a notice of ours."},
		{&m.templates, "template_failures_total", "Mails with which notice.text or notice.html failed, so that they carry our own notice."},
	} {
		*c.into = factory.NewCounter(prometheus.CounterOpts{Name: "sealpost_intake_" + c.name, Help: c.help})
	}
	if registry != nil {
		registry.MustRegister(m.mails, m.items, m.bytes, m.whole, m.personal, m.seconds)
	}
	return m
}

func (m metrics) observe(t *transaction, err error) {
	outcome := "accepted"
	if err != nil {
		outcome = string(gateway.ErrorCode(err))
	}
	if t.repeated {
		outcome = "repeated"
		m.repeats.Inc()
	}
	if t.ended && err == nil {
		outcome = "ended"
	}
	m.mails.WithLabelValues(outcome).Inc()
	if err != nil || t.repeated || t.ended {
		return
	}
	m.forged.Add(float64(t.dropped))
	if t.held() {
		m.held.Inc()
	}
	if t.sealed != nil {
		m.items.Add(float64(len(t.sealed.Items)))
		m.bytes.Add(float64(t.sealedBytes()))
	}
	if t.plan != nil {
		if _, whole := t.plan.Whole(); whole {
			m.whole.Inc()
		}
		if t.plan.Imitates() {
			m.imitated.Inc()
		}
		if t.plan.TemplateFailed() {
			m.templates.Inc()
		}
		for detector, n := range t.plan.Personal() {
			m.personal.WithLabelValues(detector).Add(float64(n))
		}
	}
	for step, took := range map[string]time.Duration{
		"structure": t.timings.structure, "judges": t.timings.judges, "seal": t.timings.seal, "write": t.timings.write, "commit": t.timings.commit,
	} {
		m.seconds.WithLabelValues(step).Observe(took.Seconds())
	}
}

func (t *transaction) sealedBytes() (total int64) {
	if t.sealed == nil {
		return 0
	}
	for _, item := range t.sealed.Items {
		total += item.Size
	}
	return total
}

// log writes the one line of an accepted mail.
func (t *transaction) log(ctx context.Context, size int64, took time.Duration) {
	var kept, sealed int
	verdict, reason, whole, imitated := "returned", "", false, false
	if t.plan != nil {
		imitated = t.plan.Imitates()
		verdict = "kept"
		kept, sealed = t.plan.Parts()
		reason, whole = t.plan.Whole()
	}
	switch {
	case whole:
		verdict = "sealed whole"
	case sealed > 0:
		verdict = "sealed"
	}
	routes := make([]string, len(t.deliveries))
	for i, d := range t.deliveries {
		routes[i] = d.Route.Address
	}
	attrs := []any{
		"mail", t.id.String(), "routes", routes, "verdict", verdict, "size", size,
		"parts_kept", kept, "parts_sealed", sealed, "bytes_sealed", t.sealedBytes(), "took", took,
		"spf", string(t.authentication.SPF), "dkim", string(t.authentication.DKIM), "dmarc", string(t.authentication.DMARC),
		"scan", string(t.virus.Verdict), "held", t.held(), "imitated", imitated,
		slog.Group("steps", "structure", t.timings.structure, "judges", t.timings.judges, "seal", t.timings.seal, "write", t.timings.write, "commit", t.timings.commit),
	}
	if whole {
		attrs = append(attrs, "reason", reason)
	}
	if t.plan != nil && t.plan.TemplateFailed() {
		attrs = append(attrs, "template_failed", true)
	}
	if t.plan != nil && len(t.plan.Personal()) > 0 {
		attrs = append(attrs, "personal", t.plan.Personal())
	}
	t.options.Logger.InfoContext(ctx, "mail accepted", attrs...)
}
