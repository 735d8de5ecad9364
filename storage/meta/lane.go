package meta

import (
	"cmp"
	"context"
	"encoding/hex"
	"slices"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"sealpost/gateway"
)

// Deliveries are leased by lanes, so that a relay can bound what it holds of one destination before it holds it. A
// route is a lane. The way back to senders leads to many destinations, of which the database must know none: there,
// the keyed hash of an organisational domain makes a lane. A name below it costs nothing to make, so it has none of its
// own. Domains can be had by the thousand all the same, so what Due costs does not grow with their number.

const (
	// returnLane begins the lanes of ReturnRoute, and returnLanesEnd comes after all of them. No route's address begins
	// with the one, for a space must be quoted, or is the other.
	returnLane     = gateway.ReturnRoute + " "
	returnLanesEnd = gateway.ReturnRoute + "!"

	// maxReturnLanes is how many lanes of ReturnRoute Due returns.
	maxReturnLanes = 200

	pendingLane   = `SELECT MIN(d.lane) FROM deliveries d WHERE d.state = 'pending'`
	pendingBelow  = `SELECT MAX(d.lane) FROM deliveries d WHERE d.state = 'pending'`
	isReturnLane  = `routes.lane >= '` + returnLane + `' AND routes.lane < '` + returnLanesEnd + `'`
	afterReturns  = `CASE WHEN ` + isReturnLane + ` THEN '` + returnLanesEnd + `' ELSE routes.lane END`
	leasedLanes   = `SELECT lane, MIN(lease_until) FROM deliveries WHERE state = 'sending' GROUP BY lane`
	firstOfLane   = `(SELECT MIN(next_attempt) FROM deliveries d WHERE d.state = 'pending' AND d.lane = lanes.lane)`
	earlyReturns  = `SELECT lane FROM deliveries WHERE state = 'pending' AND route = '` + gateway.ReturnRoute + `' ORDER BY next_attempt LIMIT 1000`
	returnsAbove  = ` AND d.lane < '` + returnLanesEnd + `'`
	returnsBelow  = ` AND d.lane >= '` + returnLane + `'`
	returnsOfSide = `250`

	// qDue steps from lane to lane along an index, however many deliveries wait in each. Of ReturnRoute it finds the
	// lanes of the deliveries that are due first. They may all be of one lane, so it finds the lanes on both sides of $1
	// besides: all if there are few, and others each time if $1 is another.
	qDue = `WITH RECURSIVE routes (lane) AS (
			` + pendingLane + `
			UNION ALL SELECT (` + pendingLane + ` AND d.lane > ` + afterReturns + `) FROM routes WHERE lane IS NOT NULL),
		above (lane, n) AS (
			SELECT (` + pendingLane + ` AND d.lane >= $1` + returnsAbove + `), 1
			UNION ALL SELECT (` + pendingLane + ` AND d.lane > above.lane` + returnsAbove + `), n + 1
				FROM above WHERE lane IS NOT NULL AND n < ` + returnsOfSide + `),
		below (lane, n) AS (
			SELECT (` + pendingBelow + ` AND d.lane < $1` + returnsBelow + `), 1
			UNION ALL SELECT (` + pendingBelow + ` AND d.lane < below.lane` + returnsBelow + `), n + 1
				FROM below WHERE lane IS NOT NULL AND n < ` + returnsOfSide + `)
		SELECT lane, MIN(due) FROM (
			SELECT lane, ` + firstOfLane + ` AS due FROM (
				SELECT lane FROM routes WHERE NOT (` + isReturnLane + `)
				UNION SELECT lane FROM above UNION SELECT lane FROM below UNION SELECT lane FROM (` + earlyReturns + `) AS early
			) AS lanes WHERE lane IS NOT NULL
			UNION ALL ` + leasedLanes + `) AS both_kinds
		GROUP BY lane ORDER BY lane`
)

// Due returns each lane that has deliveries waiting, and when the first of them is due, or when a lease of one
// runs out. Deliveries back to senders have a lane for each organisational domain; of these it returns 200, those due
// first. If very many wait, the 200 may not be quite those, but the one that is due before all others is among them,
// and each has its turn.
func (s *Store) Due(ctx context.Context) ([]gateway.Due, error) {
	rows, err := s.query(ctx, qDue, returnLane+newID())
	due, err := collect(rows, err, func(row scanner) (gateway.Due, error) {
		var d gateway.Due
		var next int64
		err := row.Scan(&d.Lane, &next)
		d.Route, d.Next = routeOf(d.Lane), fromMicros(next)
		return d, err
	})
	return firstReturns(due), s.failure(ctx, "look for due deliveries", err)
}

// firstReturns removes all lanes of ReturnRoute but the maxReturnLanes that are due first.
func firstReturns(due []gateway.Due) []gateway.Due {
	returns := slices.DeleteFunc(slices.Clone(due), func(d gateway.Due) bool { return d.Route != gateway.ReturnRoute })
	if len(returns) <= maxReturnLanes {
		return due
	}
	slices.SortFunc(returns, func(a, b gateway.Due) int { return cmp.Or(a.Next.Compare(b.Next), cmp.Compare(a.Lane, b.Lane)) })
	left := map[string]bool{}
	for _, d := range returns[maxReturnLanes:] {
		left[d.Lane] = true
	}
	return slices.DeleteFunc(due, func(d gateway.Due) bool { return left[d.Lane] })
}

// laneOf returns the lane of a delivery by a route: the route's address, and for the way back to a sender the keyed
// hash of its organisational domain beside it.
func (s *Store) laneOf(route gateway.Route) string {
	if !route.IsReturn() {
		return route.Address
	}
	domain := organisation(route.ForwardTo[strings.LastIndexByte(route.ForwardTo, '@')+1:])
	return returnLane + hex.EncodeToString(s.keys.LookupAddress("deliveries.lane", "@"+domain))
}

// organisation returns the organisational domain of a domain (RFC 7489 section 3.2) in A-labels. A public suffix and an
// address literal have none, and stand for themselves.
func organisation(domain string) string {
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	if ascii, err := idna.Lookup.ToASCII(domain); err == nil {
		domain = ascii
	}
	if strings.HasPrefix(domain, "[") {
		return domain
	}
	if organisational, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		return organisational
	}
	return domain
}

func routeOf(lane string) string {
	if strings.HasPrefix(lane, returnLane) {
		return gateway.ReturnRoute
	}
	return lane
}
