package meta_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pressly/goose/v3"

	"sealpost/gateway"
	"sealpost/storage/meta"
	"sealpost/storage/meta/metatest"
)

// execAll runs statements beside the Store, if one has the file open.
func execAll(t *testing.T, path string, do func(db *sql.DB) error) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(do(db), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// wrapAll wraps values for the first schema: by table and column, each for a row.
type wrapAll struct {
	t    *testing.T
	keys *metatest.Keys
}

func (w wrapAll) wrap(table, column, row, value string) []byte {
	w.t.Helper()
	wrapped, err := w.keys.Wrap(table, column, row, []byte(value))
	if err != nil {
		w.t.Fatal(err)
	}
	return wrapped
}

// firstSchema makes a database of schema 1 in which deliveries wait: one pending, one deferred, one that is being sent,
// one held, one dead. It returns their mails.
func firstSchema(t *testing.T, path string, keys *metatest.Keys, now time.Time) map[gateway.DeliveryState]gateway.PackageID {
	t.Helper()
	w := wrapAll{t, keys}
	mails := map[gateway.DeliveryState]gateway.PackageID{}
	execAll(t, path, func(db *sql.DB) error {
		provider, err := goose.NewProvider(goose.DialectSQLite3, db, os.DirFS("migrations/sqlite"), goose.WithLogger(goose.NopLogger()))
		if err != nil {
			return err
		}
		if _, err := provider.UpTo(t.Context(), 1); err != nil {
			return err
		}
		day := now.Format("20060102")
		_, err = db.Exec(`INSERT INTO queue_keys (day, key) VALUES ($1, $2)`, day, w.wrap("queue_keys", "key", day, strings.Repeat("k", 32)))
		for _, state := range []gateway.DeliveryState{gateway.Pending, gateway.Sending, gateway.Held, gateway.Dead} {
			mails[state] = gateway.NewPackageID()
			err = errors.Join(err, insertFirst(db, w, mails[state].String(), day, state, now))
		}
		return err
	})
	return mails
}

func insertFirst(db *sql.DB, w wrapAll, id, day string, state gateway.DeliveryState, now time.Time) error {
	at := now.UnixMicro()
	_, err := db.Exec(`INSERT INTO mails (id, created, expires, message_id_lookup, message_id, size, eight_bit, utf8, queue_day, mail_from, copy)
		VALUES ($1, $2, $3, $4, $5, 10, 0, 0, $6, $7, $8)`, id, at, at+int64(time.Hour/time.Microsecond),
		w.keys.Lookup("mails.message_id", "<"+id+"@client.example>"), w.wrap("mails", "message_id", id, "<"+id+"@client.example>"), day,
		w.wrap("mails", "mail_from", id, "anna@client.example"), w.wrap("mails", "copy", id, "copy of "+id))
	var leased, until, owner any
	if state == gateway.Sending {
		leased, until, owner = at, at, "a node that is gone"
	}
	_, second := db.Exec(`INSERT INTO deliveries (id, mail_id, state, route, forward_to, created, since, next_attempt, last_reply, owner,
		fence, leased_at, lease_until, attempts) VALUES ($1, $1, $2, 'support@example.com', 'support@x-0.case.example', $3, $3, $3, $4, $5, 1, $6, $7, 1)`,
		id, string(state), at, w.wrap("deliveries", "last_reply", id, "450 later"), owner, leased, until)
	_, third := db.Exec(`INSERT INTO attempts (delivery_id, number, started, ended, hop, event, code, tls)
		VALUES ($1, 0, $2, $3, 'mx.hop-marker.example:25', 'deferred', 450, '')`, id, at, at+1)
	return errors.Join(err, second, third)
}

// TestMigrationKeepsWhatWaits: what waited in the first schema is leased and delivered after its database was opened,
// and what an admin must act on is still there for that.
func TestMigrationKeepsWhatWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	keys, clock := metatest.NewKeys(), metatest.NewClock()
	mails := firstSchema(t, path, keys, clock.Now())
	s := open(t, path, keys, clock.Now)
	checkFirstAttempts(t, s, path, mails, clock.Now())
	admin := gateway.Principal{Kind: gateway.PrincipalAdmin, Name: gateway.NewSecret("Ada")}
	for state, event := range map[gateway.DeliveryState]gateway.DeliveryEvent{gateway.Held: gateway.EventRelease, gateway.Dead: gateway.EventRetry} {
		if err := s.ApplyEvent(t.Context(), mails[state].String(), event, admin, gateway.NewSecret("after the update")); err != nil {
			t.Errorf("%s: %v", event, err)
		}
	}
	due, err := s.Due(t.Context())
	if err != nil || len(due) != 1 || due[0] != (gateway.Due{Route: "support@example.com", Lane: "support@example.com", Next: clock.Now()}) {
		t.Errorf("due %v, %v", due, err)
	}
	leased, err := metatest.LeaseAny(t.Context(), s, "node", 10, time.Minute)
	if err != nil || len(leased) != len(mails)-1 {
		t.Fatalf("%d were leased, %v; want all but the one that was being sent", len(leased), err)
	}
	clock.Add(2 * time.Minute) // it was the second attempt
	lost, err := metatest.LeaseAny(t.Context(), s, "node", 10, time.Minute)
	if err != nil || len(lost) != 1 || lost[0].Mail != mails[gateway.Sending] {
		t.Fatalf("%v were leased, %v; want the one that was being sent", lost, err)
	}
	leased = append(leased, lost...)
	for _, l := range leased {
		id := l.Mail.String()
		if string(l.Copy.Inline) != "copy of "+id || l.Copy.MailFrom.Reveal() != "anna@client.example" || l.Route != "support@example.com" ||
			l.ForwardTo != "support@x-0.case.example" || l.Silence == "" || l.LastReply.Reveal() != "450 later" {
			t.Errorf("leased %+v", l)
		}
		result := gateway.AttemptResult{Attempt: gateway.Attempt{Started: clock.Now(), Ended: clock.Now(), Event: gateway.EventAccepted, Code: 250}}
		if err := s.FinishAttempt(t.Context(), l.Lease, result); err != nil {
			t.Error(err)
		}
	}
	counts, err := s.CountDeliveries(t.Context())
	if err != nil || counts[gateway.Sent] != int64(len(mails)) || len(counts) != 1 {
		t.Errorf("deliveries %v, %v; want all sent", counts, err)
	}
	for state, id := range mails {
		found, err := s.FindMails(t.Context(), gateway.NewSecret("<"+id.String()+"@client.example>"), 10)
		if err != nil || len(found) != 1 || found[0] != id {
			t.Errorf("the mail that was %s is found as %v, %v", state, found, err)
		}
	}
}

// checkFirstAttempts expects the attempts of before without their hops, which named correspondents, and that what is dead
// is so since its last attempt.
func checkFirstAttempts(t *testing.T, s *meta.Store, path string, mails map[gateway.DeliveryState]gateway.PackageID, ended time.Time) {
	t.Helper()
	for state, id := range mails {
		if _, attempts, err := s.GetDelivery(t.Context(), id.String()); err != nil || len(attempts) != 1 || attempts[0].Hop != "" || attempts[0].Code != 450 {
			t.Errorf("the attempts of what is %s are %v, %v", state, attempts, err)
		}
	}
	if err := s.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(files(t, path), []byte("hop-marker")) {
		t.Error("the hop of an attempt is in the file in plain")
	}
	execAll(t, path, func(db *sql.DB) error {
		rows, err := db.Query(`SELECT mail_id, state, dead_at FROM deliveries`)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var id, state string
			var dead *int64
			if err := rows.Scan(&id, &state, &dead); err != nil {
				return err
			}
			if isDead := state == string(gateway.Dead); isDead != (dead != nil) || isDead && *dead != ended.UnixMicro()+1 {
				t.Errorf("what is %s is dead since %v", state, dead)
			}
		}
		return rows.Err()
	})
}

// TestLongQueueUsesIndexes: with 100,000 deliveries that wait, and dead ones that are older, what is asked again and again
// reads along indexes, and still gives the right answers.
func TestLongQueueUsesIndexes(t *testing.T) {
	const waiting = 100_000
	path := filepath.Join(t.TempDir(), "meta.db")
	clock := metatest.NewClock()
	keys := metatest.NewKeys()
	s := open(t, path, keys, clock.Now)
	key, err := s.QueueKey(t.Context(), clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CommitMail(t.Context(), metatest.NewMail(clock.Now(), key, metatest.Routes(1)...)); err != nil {
		t.Fatal(err)
	}
	execAll(t, path, func(db *sql.DB) error { return longQueue(db, waiting) })
	execAll(t, path, func(db *sql.DB) error {
		for _, query := range meta.QueueQueries() {
			checkPlan(t, db, query)
		}
		return nil
	})
	due, err := s.Due(t.Context())
	if err != nil || len(due) != 11 {
		t.Errorf("%d lanes, %v; want 11", len(due), err)
	}
	leased, err := s.LeaseDeliveries(t.Context(), "node", "lane7@example.com", 50, time.Minute)
	if err != nil || len(leased) != 50 {
		t.Errorf("%d leased, %v; want 50", len(leased), err)
	}
	facts, err := s.QueueFacts(t.Context())
	if want := clock.Now().Add(-waiting * time.Microsecond); err != nil || !facts.OldestPending.Equal(want) || facts.Counts[gateway.Dead] != waiting/10 {
		t.Errorf("the oldest waits since %v, %v; want %v; %v", facts.OldestPending, err, want, facts.Counts)
	}
}

// longQueue copies the one delivery n times, by ten routes, older and older, and a tenth as many that are dead.
func longQueue(db *sql.DB, n int) error {
	_, err := db.Exec(`WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < $1)
		INSERT INTO deliveries (id, mail_id, state, route, lane, forward_to, created, since, next_attempt)
		SELECT printf('%032x', n), mail_id, 'pending', 'lane' || (n % 10) || '@example.com', 'lane' || (n % 10) || '@example.com',
			printf('%06d@x.case.example', n), created - n, since - n, next_attempt - n FROM numbers CROSS JOIN deliveries WHERE state = 'pending'`, n)
	if err != nil {
		return err
	}
	_, err = db.Exec(`INSERT INTO deliveries (id, mail_id, state, route, lane, forward_to, created, since, next_attempt)
		SELECT 'd' || id, mail_id, 'dead', route, lane, 'd' || forward_to, created, since - 1, next_attempt FROM deliveries
		WHERE route = 'lane0@example.com'`)
	return err
}

// checkPlan refuses a plan that finds deliveries in another way.
func checkPlan(t *testing.T, db *sql.DB, query meta.QueueQuery) {
	t.Helper()
	var args []any
	for strings.Contains(query.Query, fmt.Sprintf("$%d", len(args)+1)) {
		args = append(args, nil)
	}
	rows, err := db.Query(`EXPLAIN QUERY PLAN `+query.Query, args...)
	if err != nil {
		t.Errorf("%s: %v", query.Name, err)
		return
	}
	defer func() { _ = rows.Close() }()
	var plan []string
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Error(err)
		}
		verb, rest, _ := strings.Cut(detail, " ")
		if table, how, _ := strings.Cut(rest, " "); table == "deliveries" || table == "d" {
			_, index, found := strings.Cut(how, "INDEX ")
			if !found || verb != "SEARCH" {
				index = detail
			}
			plan = append(plan, index)
		}
	}
	if rows.Err() != nil || !slices.Equal(plan, query.Plan) {
		t.Errorf("%s, %v: %q, want %q", query.Name, rows.Err(), plan, query.Plan)
	}
}

// TestSettlementsArePrepared: what is asked of every mail is not compiled for each.
func TestSettlementsArePrepared(t *testing.T) {
	for _, query := range meta.Unprepared() {
		t.Errorf("not prepared: %s", query)
	}
}

// TestRefusedCorrespondentsAreFoundAndForgotten: those of a refused mail have rows of their own, which go with it.
func TestRefusedCorrespondentsAreFoundAndForgotten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	keys, clock := metatest.NewKeys(), metatest.NewClock()
	s := open(t, path, keys, clock.Now)
	refusal := gateway.Refusal{
		MessageID: gateway.NewSecret("<1@client.example>"),
		Envelope: gateway.Envelope{MailFrom: "anna@client.example", Recipients: []gateway.Recipient{
			{Address: "support+anna@example.com"}, {Address: "support@example.com"}, {Address: "SUPPORT@example.com"},
		}},
	}
	check := func(when string, want ...int) {
		t.Helper()
		execAll(t, path, func(db *sql.DB) error {
			for i, address := range []string{"Anna@client.example", "support+anna@example.com", "support@example.com"} {
				var n int
				err := db.QueryRow(`SELECT COUNT(*) FROM addresses WHERE lookup = $1`, keys.LookupAddress("addresses.address", address)).Scan(&n)
				if err != nil || n != want[i] {
					t.Errorf("%s, %s has %d rows, %v; want %d", when, address, n, err, want[i])
				}
			}
			return nil
		})
	}
	if err := s.RecordRefusal(t.Context(), refusal); err != nil {
		t.Fatal(err)
	}
	clock.Add(20 * 24 * time.Hour)
	if err := s.RecordRefusal(t.Context(), refusal); err != nil {
		t.Fatal(err)
	}
	check("both remembered", 2, 2, 2)
	for _, want := range []int{1, 0} {
		clock.Add(20 * 24 * time.Hour)
		if _, err := s.ExpireMails(t.Context(), 10); err != nil {
			t.Fatal(err)
		}
		check("20 days later", want, want, want)
	}
}
