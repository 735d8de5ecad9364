package relay

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"sealpost/gateway"
)

// metrics count what became of attempts. No label holds an address.
type metrics struct {
	attempts   *prometheus.CounterVec
	deliveries *prometheus.CounterVec
	bytes      prometheus.Counter
	lost       prometheus.Counter
	// connections are counted as new or reused.
	connections *prometheus.CounterVec
	notices     *prometheus.CounterVec
}

func newMetrics(registry prometheus.Registerer) *metrics {
	factory := promauto.With(registry)
	return &metrics{
		attempts: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "sealpost_relay_attempts_total",
			Help: "Attempts to deliver a mail, by what came of them.",
		}, []string{"event"}),
		deliveries: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "sealpost_relay_deliveries_total",
			Help: "Deliveries that the relay has ended, by their state.",
		}, []string{"state"}),
		bytes: factory.NewCounter(prometheus.CounterOpts{
			Name: "sealpost_relay_bytes_total",
			Help: "Bytes of mails that were handed to next hops, failed attempts included.",
		}),
		connections: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "sealpost_relay_connections_total",
			Help: "Connections to next hops that carried a mail, new or reused.",
		}, []string{"connection"}),
		notices: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "sealpost_relay_notices_total",
			Help: "Notices to senders that were queued, by their kind.",
		}, []string{"notice"}),
		lost: factory.NewCounter(prometheus.CounterOpts{
			Name: "sealpost_relay_leases_lost_total",
			Help: "Attempts that were broken off, or not recorded, because their lease was lost.",
		}),
	}
}

func (m *metrics) recorded(out outcome) {
	m.attempts.WithLabelValues(string(out.event)).Inc()
	m.bytes.Add(float64(out.bytes))
	if out.notice != nil {
		m.notices.WithLabelValues(string(out.notice.Kind)).Inc()
	}
	if state, err := gateway.Sending.Next(out.event); err == nil && state != gateway.Pending {
		m.deliveries.WithLabelValues(string(state)).Inc()
	}
}
