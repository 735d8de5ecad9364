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
	// classify returns CodeStorageFull or CodeUnavailable where err means that, else CodeInternal.
	classify func(err error) gateway.Code
	// missingParent reports whether err says that a row refers to one that is not there.
	missingParent func(err error) bool
}
