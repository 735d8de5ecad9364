package relay

import (
	"context"
	"errors"
	"time"

	"sealpost/gateway"
)

const (
	// firstTrouble is how long after an error the queue is asked again; it doubles up to maxTrouble.
	firstTrouble = time.Second
	maxTrouble   = 5 * time.Second
)

// dispatcher leases deliveries and starts them, until its context ends.
type dispatcher struct {
	*Relay
	start    func(gateway.LeasedDelivery, lane)
	finished chan struct{} // one for each started delivery that is done
	busy     int
	troubles int // rounds with an error, since one without
	first    int // the lane that comes first; it moves on, so that none is always last
}

// lane returns what the deliveries of a lane are counted by before they are leased. Where those back to senders go
// is not known then; but all of a lane go to one domain, for which the lane's name stands.
func (r *Relay) lane(due gateway.Due) lane {
	l := lane{returning: due.Route == gateway.ReturnRoute}
	route, ok := r.route(due.Route)
	if !ok || route.NextHop.Host == "" && route.ForwardTo == "" {
		l.domain = due.Lane
	} else {
		l.destination = destinationOf(route.NextHop, route.ForwardTo)
	}
	return l
}

// route finds the current route of an address, or of ReturnRoute.
func (r *Relay) route(address string) (gateway.Route, bool) {
	if address == gateway.ReturnRoute {
		return gateway.Route{Address: address, NextHop: r.opts.ReturnHop}, true
	}
	return r.opts.Route(address)
}

func (d *dispatcher) run(ctx context.Context) {
	wake := d.opts.Wake
	for ctx.Err() == nil {
		pause, blocked := d.round(ctx)
		d.busy -= wait(ctx, &wake, pause, d.finished, blocked)
	}
}

// round leases what is due and fits. It returns how long nothing more will be due, and whether something due
// waits for running attempts to end.
func (d *dispatcher) round(ctx context.Context) (pause time.Duration, blocked bool) {
	pause = d.opts.Look
	due, err := d.queue.Due(ctx)
	var now time.Time
	if err == nil {
		now, err = d.queue.Now(ctx)
	}
	if err != nil {
		if ctx.Err() == nil {
			d.log.Error("the queue cannot be read", "error", err)
		}
		return d.again(pause), false
	}
	d.first++
	var failures []error
	for i := range due {
		next := due[(i+d.first)%len(due)]
		if wait := next.Next.Sub(now); wait > 0 {
			pause = min(pause, max(wait, minPause))
			continue
		}
		full, err := d.lease(ctx, next)
		if err != nil { // the other lanes may do better
			failures = append(failures, err)
		}
		switch {
		case full: // even beside an error, which tells of others then
			blocked = true
		case err == nil:
			pause = min(pause, minPause)
		}
	}
	if len(failures) == 0 {
		d.troubles = 0
		return pause, blocked
	}
	if ctx.Err() == nil {
		d.log.Error("deliveries cannot be leased", "lanes", len(failures), "error", errors.Join(failures...))
	}
	return d.again(pause), blocked
}

// again returns when to look again after an error: sooner than in pause, since what is due waits.
func (d *dispatcher) again(pause time.Duration) time.Duration {
	d.troubles++
	return min(pause, firstTrouble<<min(d.troubles-1, 3), maxTrouble)
}

// lease starts due deliveries of a lane, and reports whether it got as many as it had slots for.
func (d *dispatcher) lease(ctx context.Context, due gateway.Due) (full bool, err error) {
	lane := d.lane(due)
	n := d.slots.reserve(lane, d.opts.Workers-d.busy)
	if n == 0 {
		return true, nil
	}
	leased, err := d.queue.LeaseDeliveries(ctx, d.opts.Owner, due.Lane, n, d.opts.LeaseTTL)
	for _, delivery := range leased {
		d.start(delivery, lane)
	}
	d.busy += len(leased)
	d.slots.release(lane, n-len(leased))
	return len(leased) == n, err
}

// wait returns when ctx has ended, or when it is time to look again: after a wake-up or the pause, and if
// something waits for a slot, when an attempt has ended. It returns how many have.
func wait(ctx context.Context, wake *<-chan struct{}, pause time.Duration, finished <-chan struct{}, blocked bool) int {
	freed := 0
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return freed
		case <-timer.C:
			return freed + drain(finished)
		case _, open := <-*wake:
			if open {
				return freed + drain(finished)
			}
			*wake = nil
		case <-finished:
			freed++
			if blocked {
				return freed + drain(finished)
			}
		}
	}
}

func drain(finished <-chan struct{}) int {
	for n := 0; ; n++ {
		select {
		case <-finished:
		default:
			return n
		}
	}
}
