// Package alert tells the admin what is wrong and how to mend it: as log, as metric and by mail. It is a
// package of its own since what it watches lies in all the others, which it knows as probes only.
//
// An alert is logged when it begins and when it ends. Mail is limited for each kind, and one mail a round
// gathers all kinds that are due; a limit is claimed before the mail is made, so a mail that fails is
// repeated when the limit allows the next one, while log and metric always tell. What a failing probe
// reported before stays as it was: not to know is no all-clear.
package alert

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Kind is what an alert is about.
type Kind string

// The kinds.
const (
	Dead           Kind = "dead"
	Held           Kind = "held"
	QueueAge       Kind = "queue_age"
	Certificate    Kind = "certificate"
	DiskSpace      Kind = "disk"
	ScannerDown    Kind = "scanner"
	Authentication Kind = "authentication"
)

func kinds() []Kind {
	return []Kind{Dead, Held, QueueAge, Certificate, DiskSpace, ScannerDown, Authentication}
}

// Alert is one thing that is wrong.
type Alert struct {
	Kind Kind
	// Key is what of that kind: a route, a certificate's name. It is no secret.
	Key string
	// Text says what is wrong and how to mend it; safe to log and to mail.
	Text string
}

// Probe looks at one thing and returns what is wrong with it. A Watch calls it from one goroutine.
type Probe func(ctx context.Context) ([]Alert, error)

// Options configure a Watch.
type Options struct {
	Probes   []Probe
	Interval time.Duration // between rounds; 0: 1 min
	Repeat   time.Duration // how often one kind is mailed; 0: 6 h
	// Mail sends one mail about alerts; nil: none is sent.
	Mail func(ctx context.Context, alerts []Alert) error
	// Claim tells whether this node may mail about kind, which is granted once in every; nil: a limit in this process.
	Claim   func(ctx context.Context, kind string, every time.Duration) (bool, error)
	Logger  *slog.Logger          // nil: silent
	Metrics prometheus.Registerer // nil: none registered
}

type key struct {
	kind Kind
	key  string
}

// Watch runs the probes.
type Watch struct {
	o       Options
	results [][]Alert // the last known of each probe
	active  map[key]bool
	gauge   *prometheus.GaugeVec
}

// New makes a Watch; Run starts it.
func New(o Options) *Watch {
	if o.Interval <= 0 {
		o.Interval = time.Minute
	}
	if o.Repeat <= 0 {
		o.Repeat = 6 * time.Hour
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Claim == nil {
		o.Claim = limiter(time.Now)
	}
	w := &Watch{o: o, results: make([][]Alert, len(o.Probes)), active: map[key]bool{}}
	w.gauge = promauto.With(o.Metrics).NewGaugeVec(prometheus.GaugeOpts{Name: "sealpost_alerts",
		Help: "Alerts that stand, by kind."}, []string{"kind"})
	for _, kind := range kinds() {
		w.gauge.WithLabelValues(string(kind)).Set(0)
	}
	return w
}

// limiter grants a kind once in every; only one goroutine may use it.
func limiter(now func() time.Time) func(context.Context, string, time.Duration) (bool, error) {
	last := map[string]time.Time{}
	return func(_ context.Context, kind string, every time.Duration) (bool, error) {
		if then, found := last[kind]; found && now().Sub(then) < every {
			return false, nil
		}
		last[kind] = now()
		return true, nil
	}
}

// Run probes at once and then every Interval until ctx ends, and returns nil.
func (w *Watch) Run(ctx context.Context) error {
	tick := time.NewTicker(w.o.Interval)
	defer tick.Stop()
	for {
		w.round(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (w *Watch) round(ctx context.Context) {
	var alerts []Alert
	for i, probe := range w.o.Probes {
		found, err := probe(ctx)
		if ctx.Err() != nil {
			return // a probe that was cut off tells nothing
		}
		if err != nil {
			w.o.Logger.ErrorContext(ctx, "cannot look for alerts", "error", err)
		} else {
			w.results[i] = found
		}
		alerts = append(alerts, w.results[i]...)
	}
	w.tell(ctx, alerts)
	w.mail(ctx, alerts)
}

// tell sets the gauges and logs what begins and what ends.
func (w *Watch) tell(ctx context.Context, alerts []Alert) {
	count := map[Kind]int{}
	stands := map[key]bool{}
	for _, a := range alerts {
		k := key{a.Kind, a.Key}
		count[a.Kind]++
		if !w.active[k] && !stands[k] {
			w.o.Logger.ErrorContext(ctx, "alert", "kind", a.Kind, "key", a.Key, "text", a.Text)
		}
		stands[k] = true
	}
	for k := range w.active {
		if !stands[k] {
			w.o.Logger.InfoContext(ctx, "alert ended", "kind", k.kind, "key", k.key)
		}
	}
	for _, kind := range kinds() {
		w.gauge.WithLabelValues(string(kind)).Set(float64(count[kind]))
	}
	w.active = stands
}

// mail sends one mail about the alerts whose kinds are due.
func (w *Watch) mail(ctx context.Context, alerts []Alert) {
	if w.o.Mail == nil {
		return
	}
	claimed := map[Kind]bool{}
	for _, a := range alerts {
		if _, asked := claimed[a.Kind]; asked {
			continue
		}
		granted, err := w.o.Claim(ctx, string(a.Kind), w.o.Repeat)
		if err != nil {
			w.o.Logger.ErrorContext(ctx, "cannot claim the mail about an alert", "kind", a.Kind, "error", err)
		}
		claimed[a.Kind] = granted && err == nil
	}
	due := slices.DeleteFunc(slices.Clone(alerts), func(a Alert) bool { return !claimed[a.Kind] })
	if len(due) == 0 {
		return
	}
	if err := w.o.Mail(ctx, due); err != nil {
		w.o.Logger.ErrorContext(ctx, "cannot mail the alerts", "count", len(due), "error", err)
	}
}
