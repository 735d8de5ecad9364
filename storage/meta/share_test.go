package meta

import (
	"context"
	"errors"
	"slices"
	"testing"
)

var errTest = errors.New("a row that one of them writes")

func threeCalls() []*call[int] {
	calls := make([]*call[int], 3)
	for i := range calls {
		calls[i] = &call[int]{ctx: context.Background(), what: i, done: make(chan struct{})}
	}
	return calls
}

// served runs calls in one group that is shared, and returns how many each try had.
func served(t *testing.T, calls []*call[int], try func([]*call[int]) error) (sizes []int) {
	t.Helper()
	g := newGroup(10, 0, func(some []*call[int]) {
		share(some, func(_ context.Context, some []*call[int]) error {
			sizes = append(sizes, len(some))
			return try(some)
		})
	})
	g.run(calls)
	for _, c := range calls {
		<-c.done
		c.err = g.outcome(c)
	}
	return sizes
}

// Who needs a locked row tries alone.
func TestLockedOneTriesAlone(t *testing.T) {
	calls := threeCalls()
	sizes := served(t, calls, func(some []*call[int]) error {
		switch {
		case len(some) > 1:
			some[1].err = errAlone
		case some[0].what != 1:
			t.Error("another tries alone")
		}
		return nil
	})
	if !slices.Equal(sizes, []int{3, 1}) || calls[0].err != nil || calls[1].err != nil || calls[2].err != nil {
		t.Errorf("served %v, %v", sizes, calls[1].err)
	}
}

// An error that may be one caller's is told to that one alone.
func TestErrorOfOneIsNotTheOthers(t *testing.T) {
	calls := threeCalls()
	served(t, calls, func(some []*call[int]) error {
		for _, c := range some {
			if c.what == 1 {
				return errTest
			}
		}
		return nil
	})
	if calls[0].err != nil || !errors.Is(calls[1].err, errTest) || calls[2].err != nil {
		t.Errorf("%v, %v, %v", calls[0].err, calls[1].err, calls[2].err)
	}
}

// Whose time is over between two tries is left out of the second: nobody waits for what would be stored.
func TestCallerWhoGaveUpIsNotServedLater(t *testing.T) {
	for _, first := range []error{failedTry{errTest}, errTest} {
		calls := threeCalls()
		gone, cancel := context.WithCancel(context.Background())
		calls[1].ctx = gone
		tries := 0
		served(t, calls, func(some []*call[int]) error {
			if tries++; tries == 1 {
				cancel()
				return first
			}
			if slices.ContainsFunc(some, func(c *call[int]) bool { return c.what == 1 }) {
				t.Error("a caller who gave up is served")
			}
			return nil
		})
		if calls[0].err != nil || !errors.Is(calls[1].err, context.Canceled) || calls[2].err != nil {
			t.Errorf("%v, %v, %v", calls[0].err, calls[1].err, calls[2].err)
		}
	}
}

// A panic ends nobody's waiting but with an error.
func TestPanicTellsEachCaller(t *testing.T) {
	calls := threeCalls()
	func() {
		defer func() { _ = recover() }()
		share(calls, func(context.Context, []*call[int]) error { panic("a bug") })
	}()
	for _, c := range calls {
		<-c.done
		if !errors.Is(c.err, errPanicked) {
			t.Errorf("%v", c.err)
		}
	}
}
