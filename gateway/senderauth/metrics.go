package senderauth

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"sealpost/gateway"
)

type metrics struct {
	results     *prometheus.CounterVec // method, result
	tempErrors  prometheus.Counter
	mails, temp atomic.Int64
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	factory := promauto.With(registerer)
	return &metrics{
		results: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "sealpost_auth_results_total", Help: "Results of sender authentication, by method and result."},
			[]string{"method", "result"}),
		tempErrors: factory.NewCounter(prometheus.CounterOpts{
			Name: "sealpost_auth_temperrors_total", Help: "Mails whose sender could not be judged for now, since DNS failed."}),
	}
}

func (m *metrics) count(a gateway.Authentication) {
	m.mails.Add(1)
	temporary := false
	for method, result := range map[string]gateway.AuthResult{"spf": a.SPF, "dkim": a.DKIM, "dmarc": a.DMARC} {
		if result != "" {
			m.results.WithLabelValues(method, string(result)).Inc()
		}
		temporary = temporary || result == gateway.AuthTempError
	}
	if temporary {
		m.temp.Add(1)
		m.tempErrors.Inc()
	}
}
