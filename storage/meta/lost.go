package meta

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sealpost/gateway"
)

const (
	qLostLeases = `SELECT id, attempts, since, fence, leased_at FROM deliveries
		WHERE state = 'sending' AND lease_until <= $1`
	qReleaseLost = `UPDATE deliveries SET state = $2, next_attempt = $3, dead_at = $4, untold = $5, owner = NULL, leased_at = NULL,
		lease_until = NULL WHERE id = $1`
	qAttemptsSince = `SELECT COUNT(*) FROM attempts WHERE delivery_id = $1 AND ended >= $2`
)

// After a lost lease a delivery is due in lostRetry, which doubles with each attempt up to lostRetryMax.
const (
	lostRetry    = time.Minute
	lostRetryMax = 4 * time.Hour
)

// lostUntold is why a sender is not told of a delivery that is given up for lost leases: there is nobody to tell it.
const lostUntold = "each attempt was broken off before it could be recorded"

// lostLease is a delivery that nobody has in hand any more.
type lostLease struct {
	id              string
	attempts        int
	fence           int64
	since, leasedAt time.Time
}

func scanLostLease(row scanner) (l lostLease, err error) {
	var since, leasedAt int64
	err = row.Scan(&l.id, &l.attempts, &since, &l.fence, &leasedAt)
	l.since, l.leasedAt = fromMicros(since), fromMicros(leasedAt)
	return l, err
}

// endLostLeases ends the attempts whose leases ran out, but of this Store's own only those that it has not in hand any
// more. It says of which deliveries it gave up.
func (s *Store) endLostLeases(ctx context.Context, tx *transaction, all []lostLease) (givenUp []error, err error) {
	now := s.local()
	all = slices.DeleteFunc(all, func(l lostLease) bool { return s.hand.has(now, l.id, l.fence) })
	for _, l := range all {
		state, err := s.endLostLease(ctx, tx, l)
		if err != nil {
			return nil, err
		}
		if state == gateway.Dead {
			givenUp = append(givenUp, fmt.Errorf("delivery %s is %s: %s", l.id, state, lostUntold))
		}
	}
	return givenUp, nil
}

// endLostLease ends one and returns what becomes of its delivery.
func (s *Store) endLostLease(ctx context.Context, tx *transaction, l lostLease) (gateway.DeliveryState, error) {
	event, untold, deadAt := gateway.EventDeferred, "", time.Time{}
	end := l.since.Add(giveUpAfter)
	if !tx.now.Before(end) {
		event, untold, deadAt = gateway.EventGaveUp, lostUntold, tx.now
	}
	state, err := gateway.Sending.Next(event)
	if err != nil {
		return state, err
	}
	var before int
	if err := tx.row(ctx, qAttemptsSince, l.id, micros(l.since)).Scan(&before); err != nil {
		return state, err
	}
	next := tx.now.Add(lostPause(before))
	if next.After(end) {
		next = end
	}
	attempt, err := s.attemptStatement(l.id, gateway.Attempt{
		Number: l.attempts, Started: l.leasedAt, Ended: tx.now, Event: event, Reply: gateway.NewSecret("lease lost"),
	})
	if err != nil {
		return state, err
	}
	return state, tx.run(ctx, []statement{
		{qReleaseLost, []any{l.id, string(state), micros(next), nullMicros(deadAt), untold}}, attempt,
	})
}

// lostPause returns how long a delivery waits after a lost lease that came after so many attempts.
func lostPause(before int) time.Duration {
	pause := lostRetry
	for ; before > 0 && pause < lostRetryMax; before-- {
		pause *= 2
	}
	return min(pause, lostRetryMax)
}
