package meta

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"sealpost/gateway"
)

// On PostgreSQL the callers that commit a mail share transactions, and so do those that finish an attempt: nearly all of
// what a mail costs the server is what each transaction and each statement costs. Such a transaction has no savepoints.
// It asks and locks what all its callers need in the round trip that begins it, and writes for all of them in the one that
// commits it. Who cannot be served is found out in between, and left out; who needs a row that is locked tries alone.
// If what is written fails, nothing is stored, and each caller tries alone: so one does not fail for another. When the outcome of COMMIT is not known, it is
// not known to any of them.

const (
	// maxTogether bounds what one transaction holds: of mails up to 2 MiB of copies.
	maxTogether = 32
	// patience is how long to wait for others' transaction before the next one begins beside it: it may wait for a lock, or
	// for an answer that does not come.
	patience = 50 * time.Millisecond
)

// together runs what calls a group for the method that is doing it.
func (s *Store) together(ctx context.Context, doing string, run func() error) error {
	err := s.confirmAgain(ctx)
	if err == nil {
		err = run()
	}
	return s.failure(ctx, doing, err)
}

// share tries to serve calls by one transaction and tells the callers, with errAlone those that may do better by one of their
// own. try sets the error of a call that cannot be served, errAlone if a row that it needs is locked, and returns one if
// nothing is stored.
func share[T any](calls []*call[T], try func(context.Context, []*call[T]) error) {
	err := errPanicked
	defer func() { tell(calls, err) }()
	if err = tryAgain(calls, try); err == nil || len(calls) == 1 || !mayBeAnothers(err) {
		return
	}
	for _, c := range calls {
		c.err = cmp.Or(c.ctx.Err(), errAlone)
	}
}

// tryAgain leaves out whose time is over before each try.
func tryAgain[T any](calls []*call[T], try func(context.Context, []*call[T]) error) error {
	ctx, stop := whileAny(calls)
	defer stop()
	return again(ctx, func() error {
		waiting := make([]*call[T], 0, len(calls))
		for _, c := range calls {
			if c.err = c.ctx.Err(); c.err == nil {
				waiting = append(waiting, c)
			}
		}
		if len(waiting) == 0 {
			return nil
		}
		return try(ctx, waiting)
	})
}

// mayBeAnothers reports whether an error of a transaction may be due to what one of its callers writes. A server that is
// away, busy or full is so for each of them.
func mayBeAnothers(err error) bool {
	var unknown unknownOutcome
	return !errors.As(err, &unknown) && !errors.Is(err, context.Canceled) && classifyPostgres(err) == gateway.CodeInternal
}

// commitMails commits mails together.
func (s *Store) commitMails(calls []*call[incoming]) {
	share(calls, func(ctx context.Context, calls []*call[incoming]) error {
		keys := queueKeys{s, calls, map[string][]byte{}}
		err := s.tryOwn(ctx, keys.ask, func(tx *transaction) ([]statement, error) {
			var statements []statement
			for _, c := range calls {
				if c.err = c.what.mayCommit(tx.now); c.err == nil {
					c.err = keys.check(c.what.key)
				}
				if c.err != nil {
					continue
				}
				tx.provenBy(qMailIsThere, c.what.id)
				statements = append(statements, at(tx.now, c.what.statements)...)
			}
			return s.dialect.inserts.merge(statements), nil
		})
		if err != nil && s.dialect.missingParent(err) {
			s.queueKey.Store(nil)
			return gateway.Errorf(gateway.CodeUnavailable, err, "the queue key of the mail is gone")
		}
		return err
	})
}

// queueKeys are those of the days of mails, as they stand in the database.
type queueKeys struct {
	s       *Store
	calls   []*call[incoming]
	wrapped map[string][]byte // by day
}

const qQueueKeys = `SELECT day, key FROM queue_keys WHERE day = ANY ($1)`

func (k queueKeys) ask(batch *pgx.Batch) {
	days := make([]string, 0, len(k.calls))
	for _, c := range k.calls {
		if !slices.Contains(days, c.what.key.Day) {
			days = append(days, c.what.key.Day)
		}
	}
	queueRows(batch, func(row pgx.Rows) error {
		var day string
		var wrapped []byte
		err := row.Scan(&day, &wrapped)
		k.wrapped[day] = wrapped
		return err
	}, qQueueKeys, days)
}

// check refuses a key that is not the day's: a server that took over may have lost the row, and another node have made a new
// one. What the mail's copy is under could not be read again.
func (k queueKeys) check(key gateway.QueueKey) error {
	stored, err := k.s.unwrap("queue_keys", "key", key.Day, k.wrapped[key.Day])
	if err == nil && subtle.ConstantTimeCompare([]byte(stored.Reveal()), []byte(key.Key.Reveal())) == 1 {
		return nil
	}
	k.s.queueKey.Store(nil)
	return gateway.Errorf(gateway.CodeUnavailable, err, "the queue key of the mail is gone, or not to be read here")
}

// queueRows queues a query for all rows of which scan is called.
func queueRows(batch *pgx.Batch, scan func(pgx.Rows) error, query string, args ...any) {
	batch.Queue(query, args...).Query(func(rows pgx.Rows) error {
		defer rows.Close()
		for rows.Next() {
			if err := scan(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}
