package relay

import "time"

// Schedule says when a deferred delivery is attempted again.
type Schedule struct {
	// Delays are the times from one attempt's end to the next; the last one repeats.
	Delays []time.Duration
	// Jitter spreads each delay by up to this share of it, either way: 0.1 is ±10 %.
	Jitter float64
	// GiveUp is how long after its beginning a delivery is given up.
	GiveUp time.Duration
}

// DefaultSchedule retries quickly at first, then every four hours, for five days.
func DefaultSchedule() Schedule {
	return Schedule{
		Delays: []time.Duration{
			time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute,
			time.Hour, 2 * time.Hour, 4 * time.Hour,
		},
		Jitter: 0.1,
		GiveUp: 5 * 24 * time.Hour,
	}
}

// since returns how many attempts there can have been since a delivery's beginning, elapsed ago: one more than the
// delays that fit, each as short as its jitter makes it. An event by hand begins a delivery anew, while its attempts
// are counted on; so the time that has passed says where in the schedule it stands.
func (s Schedule) since(elapsed time.Duration) int {
	n, planned := 1, 0.0
	for _, delay := range s.Delays {
		planned += float64(delay) * (1 - s.Jitter)
		if float64(elapsed) < planned*0.99 { // less for what is lost in rounding
			break
		}
		n++
	}
	return n
}

// Next returns when a delivery begun at since is due again after its attempts-th attempt (from 1, those before since
// included) was deferred at now. random is in [0,1). The last attempt falls on the moment of giving up; after that Next
// returns false.
func (s Schedule) Next(since, now time.Time, attempts int, random float64) (time.Time, bool) {
	end := since.Add(s.GiveUp)
	if !now.Before(end) {
		return time.Time{}, false
	}
	next := end
	if n := len(s.Delays); n > 0 {
		delay := s.Delays[min(max(min(attempts, s.since(now.Sub(since))), 1), n)-1]
		spread := 1 + s.Jitter*(2*random-1)
		next = now.Add(time.Duration(float64(delay) * spread))
	}
	if next.After(end) {
		next = end
	}
	return next, true
}
