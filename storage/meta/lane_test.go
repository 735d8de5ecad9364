package meta_test

import (
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sealpost/gateway"
	"sealpost/storage/meta"
	"sealpost/storage/meta/metatest"
)

// waitingReturn is a delivery back to a sender.
type waitingReturn struct {
	lane string
	due  time.Duration // after the mail's
}

func returnLane(n int) string {
	return fmt.Sprintf("%s %x", gateway.ReturnRoute, sha256.Sum256(fmt.Append(nil, n)))
}

// addReturns copies the one delivery that there is.
func addReturns(db *sql.DB, all []waitingReturn) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	for i, r := range all {
		_, one := tx.Exec(`INSERT INTO deliveries (id, mail_id, state, route, lane, forward_to, created, since, next_attempt)
			SELECT $1, mail_id, state, $2, $3, $1, created, since, next_attempt + $4 FROM deliveries
			WHERE state = 'pending' AND lane = $5`,
			fmt.Sprintf("%032x", i), gateway.ReturnRoute, r.lane, r.due.Microseconds(), metatest.Routes(1)[0].Address)
		err = errors.Join(err, one)
	}
	return errors.Join(err, tx.Commit())
}

// oneWaits returns a new database of each kind in which one delivery waits that is due now, and how to change it.
func oneWaits(t *testing.T, do func(t *testing.T, s *meta.Store, now time.Time, change func(func(*sql.DB) error))) {
	t.Helper()
	run := func(name string, open func(t *testing.T, clock *metatest.Clock) (*meta.Store, func(func(*sql.DB) error))) {
		t.Run(name, func(t *testing.T) {
			clock := metatest.NewClock()
			s, change := open(t, clock)
			key, err := s.QueueKey(t.Context(), clock.Now())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.CommitMail(t.Context(), metatest.NewMail(clock.Now(), key, metatest.Routes(1)...)); err != nil {
				t.Fatal(err)
			}
			do(t, s, clock.Now(), change)
		})
	}
	run("SQLite", func(t *testing.T, clock *metatest.Clock) (*meta.Store, func(func(*sql.DB) error)) {
		path := filepath.Join(t.TempDir(), "meta.db")
		return open(t, path, metatest.NewKeys(), clock.Now), func(do func(*sql.DB) error) { execAll(t, path, do) }
	})
	run("PostgreSQL", func(t *testing.T, clock *metatest.Clock) (*meta.Store, func(func(*sql.DB) error)) {
		_, url := newPostgres(t)
		return openPostgres(t, url, metatest.NewKeys(), meta.WithClock(clock.Now)), func(do func(*sql.DB) error) {
			db, err := sql.Open("pgx", url)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(do(db), db.Close()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestDueIsBounded: of many domains that mail goes back to Due returns those that are due first, and of each how soon.
// The routes it returns all.
func TestDueIsBounded(t *testing.T) {
	oneWaits(t, func(t *testing.T, s *meta.Store, now time.Time, change func(func(*sql.DB) error)) {
		var all []waitingReturn
		for n := range 3000 {
			all = append(all, waitingReturn{returnLane(n), time.Duration(n+1) * time.Second}, waitingReturn{returnLane(n), time.Hour})
		}
		change(func(db *sql.DB) error { return addReturns(db, all) })
		due, err := s.Due(t.Context())
		if err != nil || len(due) != 201 {
			t.Fatalf("%d lanes, %v; want the route and 200 lanes", len(due), err)
		}
		for n := range 200 {
			want := gateway.Due{Route: gateway.ReturnRoute, Lane: returnLane(n), Next: now.Add(time.Duration(n+1) * time.Second)}
			if !slices.Contains(due, want) {
				t.Errorf("lane %d is missing", n)
			}
		}
		if route := metatest.Routes(1)[0].Address; !slices.Contains(due, gateway.Due{Route: route, Lane: route, Next: now}) {
			t.Error("the route is missing")
		}
	})
}

// TestDueIsFair: a domain to which very much goes back hides no other, be they few or many.
func TestDueIsFair(t *testing.T) {
	oneWaits(t, func(t *testing.T, s *meta.Store, now time.Time, change func(func(*sql.DB) error)) {
		busy, want := returnLane(-1), gateway.Due{Route: gateway.ReturnRoute, Lane: returnLane(-2), Next: now.Add(time.Second)}
		all := []waitingReturn{{want.Lane, time.Second}}
		for n := range 1500 {
			all = append(all, waitingReturn{busy, 0})
			if n < 150 {
				all = append(all, waitingReturn{returnLane(n), time.Hour})
			}
		}
		change(func(db *sql.DB) error { return addReturns(db, all) })
		if due, err := s.Due(t.Context()); err != nil || len(due) != 153 || !slices.Contains(due, want) {
			t.Errorf("%d lanes, %v; want all 153", len(due), err)
		}
		change(func(db *sql.DB) error {
			_, err := db.Exec(`DELETE FROM deliveries WHERE route = $1`, gateway.ReturnRoute)
			for n := 150; n < 1500; n++ {
				all = append(all, waitingReturn{returnLane(n), time.Hour})
			}
			return errors.Join(err, addReturns(db, all))
		})
		found := false
		for range 300 { // it is found in one of three
			due, err := s.Due(t.Context())
			if err != nil || !slices.ContainsFunc(due, func(d gateway.Due) bool { return d.Lane == busy && d.Next.Equal(now) }) {
				t.Fatalf("what is due first is missing, %v", err)
			}
			found = found || slices.Contains(due, want)
		}
		if !found {
			t.Error("what is due next has not been returned")
		}
	})
}
