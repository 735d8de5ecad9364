package meta

import (
	"context"
	"database/sql"
	"time"

	"sealpost/gateway"
)

// dialect holds what differs between the databases. The statements themselves are the same for all.
type dialect struct {
	// forUpdate ends a SELECT whose row is going to be changed; skipLocked one that leaves out the rows that
	// another node has in hand. SQLite has one writer at a time, and needs neither.
	forUpdate, skipLocked string
	// busy is how long to wait for another process that writes.
	busy time.Duration
	// checkpoint removes what was erased from the database's log; empty where there is nothing to do.
	checkpoint string
	now        func(context.Context, *sql.DB) (time.Time, error)
	clock      func() time.Time // replaces the database's, in tests
	// look is how often somebody must look for what other processes have made due.
	look  time.Duration
	local func() time.Time // this host's clock; nil: time.Now. Another one is for tests
	// classify returns CodeStorageFull or CodeUnavailable where err means that, else CodeInternal.
	classify func(err error) gateway.Code
	// missingParent reports whether err says that a row refers to one that is not there.
	missingParent func(err error) bool
	limits        serverLimits
	inserts       inserts // on PostgreSQL
}

// timeOf returns the time of a transaction that began at now by the database's clock.
func (d dialect) timeOf(now time.Time) time.Time {
	if d.clock != nil {
		now = d.clock()
	}
	return now.UTC().Truncate(time.Microsecond)
}
