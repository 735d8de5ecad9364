package meta

import (
	"context"
	"encoding/hex"
	"strings"

	"sealpost/gateway"
)

// Deliveries are leased by lanes, so that a relay can bound what it holds of one destination before it holds it. A
// route is a lane. The way back to senders leads to many destinations, of which the database must know none: there,
// the keyed hash of a domain makes a lane.

const (
	// qDue steps from lane to lane along the index, however many deliveries wait.
	qDue = `WITH RECURSIVE lanes (lane) AS (
			SELECT MIN(lane) FROM deliveries WHERE state = 'pending'
			UNION ALL SELECT (SELECT MIN(d.lane) FROM deliveries d WHERE d.state = 'pending' AND d.lane > lanes.lane)
				FROM lanes WHERE lanes.lane IS NOT NULL)
		SELECT lane, MIN(due) FROM (
			SELECT lane, (SELECT MIN(next_attempt) FROM deliveries d WHERE d.state = 'pending' AND d.lane = lanes.lane) AS due
				FROM lanes WHERE lane IS NOT NULL
			UNION ALL SELECT lane, MIN(lease_until) FROM deliveries WHERE state = 'sending' GROUP BY lane) AS both_kinds
		GROUP BY lane ORDER BY lane`

	// returnLane begins the lanes of ReturnRoute. No route's address begins so: a space must be quoted in one.
	returnLane = gateway.ReturnRoute + " "
)

// Due returns each lane that has deliveries waiting, and when the first of them is due, or when a lease of one
// runs out. Deliveries back to senders have a lane for each domain.
func (s *Store) Due(ctx context.Context) ([]gateway.Due, error) {
	rows, err := s.query(ctx, qDue)
	due, err := collect(rows, err, func(row scanner) (gateway.Due, error) {
		var d gateway.Due
		var next int64
		err := row.Scan(&d.Lane, &next)
		d.Route, d.Next = routeOf(d.Lane), fromMicros(next)
		return d, err
	})
	return due, s.failure(ctx, "look for due deliveries", err)
}

// laneOf returns the lane of a delivery by a route: the route's address, and for the way back to a sender the keyed
// hash of its domain beside it.
func (s *Store) laneOf(route gateway.Route) string {
	if !route.IsReturn() {
		return route.Address
	}
	domain := route.ForwardTo[strings.LastIndexByte(route.ForwardTo, '@')+1:]
	return returnLane + hex.EncodeToString(s.keys.LookupAddress("deliveries.lane", "@"+domain))
}

func routeOf(lane string) string {
	if strings.HasPrefix(lane, returnLane) {
		return gateway.ReturnRoute
	}
	return lane
}
