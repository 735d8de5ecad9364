package metatest

import (
	"slices"
	"testing"
	"time"

	"sealpost/gateway"
)

// keepWatch: a new database knows nothing of what was before it, and nothing of the time in which nobody ran.
func keepWatch(t *testing.T, w *world) {
	began := w.clock.Now()
	must(t, w.KeepWatch(t.Context()))
	for range 20 {
		w.clock.Add(time.Minute)
		must(t, w.KeepWatch(t.Context()))
	}
	last := w.clock.Now()
	w.clock.Add(3 * 24 * time.Hour)
	must(t, w.KeepWatch(t.Context()))
	spans, err := w.Unwatched(t.Context())
	must(t, err)
	want := []gateway.Span{{Since: time.UnixMicro(0), Until: began}, {Since: last.Add(10 * time.Minute), Until: w.clock.Now()}}
	if !slices.EqualFunc(spans, want, func(a, b gateway.Span) bool { return a.Since.Equal(b.Since) && a.Until.Equal(b.Until) }) {
		t.Errorf("unwatched %v, want %v", spans, want)
	}
}
