package meta

import "time"

// WithBusyTimeout changes how long to wait for another process that writes.
func WithBusyTimeout(d time.Duration) Option { return func(v *dialect) { v.busy = d } }
