package relay

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestScheduleEndsAtFiveDays(t *testing.T) {
	s := DefaultSchedule()
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for range 500 {
		now := created
		attempts, last := 1, time.Duration(0)
		for {
			next, again := s.Next(created, now, attempts, rand.Float64())
			if !again {
				break
			}
			delay, planned := next.Sub(now), s.Delays[min(attempts, len(s.Delays))-1]
			final := next.Equal(created.Add(s.GiveUp))
			low, high := planned*9/10-time.Second, planned*11/10+time.Second
			if delay <= 0 || delay > high || delay < low && !final {
				t.Fatalf("attempt %d: delay %v, planned %v", attempts, delay, planned)
			}
			if delay < last*8/10 && !final {
				t.Fatalf("attempt %d: delay %v after %v", attempts, delay, last)
			}
			now, last = next, delay
			attempts++
		}
		if took := now.Sub(created); took != 5*24*time.Hour {
			t.Fatalf("given up after %v", took)
		}
		if attempts < 30 || attempts > 45 {
			t.Fatalf("%d attempts", attempts)
		}
	}
}

func TestScheduleAfterTheEnd(t *testing.T) {
	s := DefaultSchedule()
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if _, again := s.Next(created, created.Add(6*24*time.Hour), 3, 0.5); again {
		t.Error("a delivery of six days ago is tried again")
	}
	if next, again := (Schedule{GiveUp: time.Hour}).Next(created, created, 1, 0.5); !again || next.Sub(created) != time.Hour {
		t.Errorf("without delays the last attempt is at %v", next)
	}
}
