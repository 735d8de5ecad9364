package smtpd

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	connections *prometheus.CounterVec // result
	sessions    prometheus.Gauge
	accepted    *prometheus.CounterVec // tls
	octets      prometheus.Counter
	refused     *prometheus.CounterVec // code
	replies     *prometheus.CounterVec // reply
	tlsFailures prometheus.Counter
	normalized  prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sealpost_smtp_" + name, Help: help}, labels)
	}
	m := &metrics{
		connections: counter("connections_total", "SMTP connections by result: taken, denied, busy, proxy, shutdown.", "result"),
		sessions: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sealpost_smtp_sessions", Help: "SMTP connections that are open now."}),
		accepted: counter("mails_accepted_total", "Mails that were answered with 250, by use of TLS: yes, no.", "tls"),
		octets: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealpost_smtp_accepted_bytes_total", Help: "Octets of the mails that were answered with 250."}),
		refused: counter("refused_total", "Mails, recipients and connections that were refused, by error code.", "code"),
		replies: counter("error_replies_total", "Replies of the classes 4xx and 5xx, by reply code.", "reply"),
		tlsFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealpost_smtp_tls_failures_total", Help: "STARTTLS commands and connections with implicit TLS that did not lead to TLS."}),
		normalized: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealpost_smtp_normalized_total", Help: "Accepted mails in which a bare CR or LF was made a line end."}),
	}
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.connections, m.sessions, m.accepted, m.octets, m.refused, m.replies, m.tlsFailures, m.normalized,
	} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register the SMTP metrics: %w", err)
		}
	}
	return m, nil
}
