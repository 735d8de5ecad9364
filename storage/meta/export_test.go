package meta

import (
	"slices"
	"time"
)

// WithBusyTimeout changes how long to wait for another process that writes.
func WithBusyTimeout(d time.Duration) Option { return func(v *dialect) { v.busy = d } }

// WithLocalClock replaces this host's clock.
func WithLocalClock(now func() time.Time) Option { return func(v *dialect) { v.local = now } }

// QueueQuery is one that is asked again and again while the queue is long. Plan is how SQLite must find its deliveries,
// each way once.
type QueueQuery struct {
	Name, Query string
	Plan        []string
}

// QueueQueries returns them all.
func QueueQueries() []QueueQuery {
	return []QueueQuery{
		{"Due", qDue, []string{
			"deliveries_lane_due (state=?)", "deliveries_lane_due (state=? AND lane>?)", // routes
			"deliveries_lane_due (state=? AND lane>? AND lane<?)", "deliveries_lane_due (state=? AND lane>? AND lane<?)",
			"deliveries_lane_due (state=? AND lane>? AND lane<?)", "deliveries_lane_due (state=? AND lane>? AND lane<?)",
			"deliveries_returning (state=?)", // its first entries
			"deliveries_lane_due (state=? AND lane=?)", "deliveries_leased (state=?)",
		}},
		{"LeaseDeliveries", qLease, []string{
			"sqlite_autoindex_deliveries_1 (id=?)", "deliveries_lane_due (state=? AND lane=? AND next_attempt<?)",
		}},
		{"lost leases", qLostLeases, []string{"deliveries_leased (state=? AND lease_until<?)"}},
		{"OldestPending", qOldestPending, []string{"deliveries_waiting (state=?)"}}, // its first entry
		{"dead returns", qDeadReturns, []string{"deliveries_dead (state=? AND route=? AND dead_at<?)"}},
		{"QueueFacts", qCountDeadReturns, []string{"deliveries_dead (state=? AND route=?)"}},
		{"EndReplayWindows", qWindowsOver, []string{"deliveries_sent (state=? AND sent_at<?)"}},
		{"the copy of a mail", qStatesOfMail, []string{"sqlite_autoindex_deliveries_2 (mail_id=?)"}},
	}
}

// Unprepared returns what is asked for each mail and is not prepared.
func Unprepared() []string {
	return slices.DeleteFunc([]string{qHeard, qHeardRepeat, qUnheard, qRepeated, qCountRepeat, qFingerprinted}, func(query string) bool {
		return slices.Contains(writeQueries(sqliteDialect()), query) || slices.Contains(readQueries(), query)
	})
}

// WithSilence changes after which time PostgreSQL's answer is not waited for any more.
func WithSilence(d time.Duration) Option { return func(v *dialect) { v.limits.silence = d } }

// WithOutcome changes for how long it is asked what became of a COMMIT.
func WithOutcome(d time.Duration) Option { return func(v *dialect) { v.limits.outcome = d } }

// WithConnect changes how long to wait for a connection.
func WithConnect(d time.Duration) Option { return func(v *dialect) { v.limits.connect = d } }

// PostgresQueries are what QueueQueries are on PostgreSQL, by name.
func PostgresQueries() map[string]string {
	d := postgresDialect()
	return map[string]string{
		"Due": qDue, "LeaseDeliveries": qLeaseWithCopies, "lost leases": qLostLeases + d.skipLocked, "OldestPending": qOldestPending,
		"EndReplayWindows": qWindowsOver + d.skipLocked, "the copy of a mail": qStatesOfMail, "dead returns": qDeadReturns + d.skipLocked,
		"QueueFacts": qCountDeadReturns, "expired mails": qExpiredMails + d.skipLocked, "unused queue keys": qEraseFreeKeys,
		"referenced objects": qReferenced, "leases of many": qAllLeased, "copies of many": qLockCopies, "states of many": qStatesOfMails,
		"to end many leases": qEndLeases, "to erase many copies": qEraseCopies, "garbage of many": qAllCopiesToGarbage,
	}
}
