package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"sealpost/gateway"
)

// On PostgreSQL a caller has a transaction of its own, but for mails and attempts: see together.go. A connection can be lost at any time; before COMMIT was sent that means that nothing
// happened, and the transaction is tried again. Afterwards the database is asked what became of it.
//
// A server that has synchronous standbys lets COMMIT wait for them, but when the wait is broken off it answers all the
// same, with a warning. That is no answer: it is asked, too, until what it has is confirmed by its standbys.

const (
	// maxTries bounds how often a transaction is tried that met another or lost its connection.
	maxTries = 5
	// tryPause is the mean pause before the second try; it doubles.
	tryPause = 20 * time.Millisecond
	// rollbackLimit bounds the good-bye to a transaction that failed.
	rollbackLimit = 5 * time.Second
)

const (
	qBegin     = `BEGIN`
	qCommit    = `COMMIT`
	qRollback  = `ROLLBACK`
	qClockXact = `SELECT clock_timestamp(), pg_current_xact_id()::text`
	qOutcome   = `SELECT pg_xact_status($1::text::xid8)`
	qEmit      = `SELECT pg_logical_emit_message(true, 'sealpost', '')`
)

// errUnconfirmed says that the answer to COMMIT came with a warning.
var errUnconfirmed = errors.New("the database server did not wait until its standbys had the commit")

// ownTransaction is what a transaction that is not shared knows of itself.
type ownTransaction struct {
	conn *sql.Conn
	xid  string
	// forgetKey has the Store read the queue key anew.
	forgetKey func()
	// proof finds a row if and only if the transaction was committed. After a crash the server may give the number of
	// a transaction that was lost to another one, which commits.
	proof *statement
}

// failedTry is the error of a transaction of which nothing was stored, and that may be tried again.
type failedTry struct{ error }

func (e failedTry) Unwrap() error { return e.error }

// unknownOutcome is the error of a transaction of which all may be stored or nothing.
type unknownOutcome struct{ error }

func (e unknownOutcome) Unwrap() error { return e.error }

// updateAlone is update for a transaction that is not shared.
func (s *Store) updateAlone(ctx context.Context, do func(*transaction) error) error {
	return again(ctx, func() error {
		return s.tryOwn(ctx, nil, func(tx *transaction) ([]statement, error) { return nil, do(tx) })
	})
}

// again tries a transaction until it is known to be committed, or to be of no use to try.
func again(ctx context.Context, try func() error) error {
	for n := 1; ; n++ {
		err := try()
		var failed failedTry
		if !errors.As(err, &failed) || n == maxTries {
			return err
		}
		pause := tryPause << (n - 1)
		if waitFor(ctx, pause/2+rand.N(pause)) != nil { // #nosec G404 -- so that two that met do not meet again
			return err
		}
	}
}

// waitFor waits, and returns ctx's error if that has ended.
func waitFor(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// tryOwn runs do in one transaction. It asks what first queues as it begins, and runs what do returns as it commits: so
// what needs no more takes two round trips.
func (s *Store) tryOwn(ctx context.Context, first func(*pgx.Batch), do func(*transaction) ([]statement, error)) error {
	conn, err := s.write.Conn(ctx)
	if err != nil {
		return s.tried(ctx, err)
	}
	defer func() { _ = conn.Close() }() // it goes back to the pool, which looks at it
	own := &ownTransaction{conn: conn, forgetKey: func() { s.queueKey.Store(nil) }}
	done := false
	defer func() {
		if !done {
			own.rollback(ctx)
		}
	}()
	settled, release := s.settle.carry()
	defer release()
	defer func() {
		if !done {
			s.settle.giveBack(settled)
		}
	}()
	now, err := own.begin(ctx, settlementsAtOnce(settled), first)
	if err != nil {
		return s.tried(ctx, err)
	}
	last, err := do(&transaction{executor: conn, own: own, now: s.dialect.timeOf(now)})
	if err != nil {
		return s.tried(ctx, err)
	}
	err = s.commit(ctx, own, last)
	done = err == nil
	return err
}

// tried marks an error before COMMIT after which another try may do better.
func (s *Store) tried(ctx context.Context, err error) error {
	var known *gateway.Error
	if ctx.Err() == nil && !errors.As(err, &known) && passes(err) {
		return failedTry{err}
	}
	return err
}

// raw hands the connection itself on.
func (own *ownTransaction) raw(do func(*pgx.Conn) error) error {
	return own.conn.Raw(func(driver any) error { return do(driver.(*stdlib.Conn).Conn()) })
}

// begin begins the transaction and returns the database's time. In the same round trip it runs statements, and asks what
// first queues.
func (own *ownTransaction) begin(ctx context.Context, statements []statement, first func(*pgx.Batch)) (now time.Time, err error) {
	batch := &pgx.Batch{}
	batch.Queue(qBegin)
	batch.Queue(qClockXact).QueryRow(func(row pgx.Row) error { return row.Scan(&now, &own.xid) })
	queue(batch, statements)
	if first != nil {
		first(batch)
	}
	err = own.raw(func(c *pgx.Conn) error { return c.SendBatch(ctx, batch).Close() })
	return now, err
}

func queue(batch *pgx.Batch, statements []statement) {
	for _, st := range statements {
		batch.Queue(st.query, st.args...)
	}
}

// run runs statements in one round trip.
func (own *ownTransaction) run(ctx context.Context, statements []statement) error {
	if len(statements) == 0 {
		return nil
	}
	batch := &pgx.Batch{}
	queue(batch, statements)
	return own.raw(func(c *pgx.Conn) error { return c.SendBatch(ctx, batch).Close() })
}

// rollback ends a transaction that failed, or its connection.
func (own *ownTransaction) rollback(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackLimit)
	defer cancel()
	_ = own.raw(func(c *pgx.Conn) error { // without the connection the server rolls back by itself
		if c.IsClosed() || c.PgConn().TxStatus() == 'I' {
			return nil
		}
		if _, err := c.Exec(ctx, qRollback); err != nil {
			return c.Close(ctx)
		}
		return nil
	})
}

// commit runs the last statements and commits. It returns nil if and only if the transaction is known to be committed.
func (s *Store) commit(ctx context.Context, own *ownTransaction, last []statement) error {
	ctx = context.WithoutCancel(ctx) // which would leave open what became of it
	err := own.raw(func(c *pgx.Conn) error { return endCommit(ctx, c, last) })
	var refused *pgconn.PgError
	switch {
	case err == nil, errors.Is(err, pgx.ErrTxCommitRollback):
		return err
	case errors.As(err, &refused) && refused.SeverityUnlocalized == "ERROR":
		return s.tried(ctx, err)
	}
	_ = own.raw(func(c *pgx.Conn) error { return c.Close(ctx) }) // it is of no use any more
	_ = own.conn.Close()                                         // its place in the pool is: to ask by
	return s.outcome(ctx, own, err)
}

// endCommit sends the last statements and COMMIT in one round trip: if one of them fails, the server passes over the rest.
// Only nil means that COMMIT did all that it is to do.
func endCommit(ctx context.Context, c *pgx.Conn, last []statement) error {
	forgetWarnings(c.PgConn())
	batch := &pgx.Batch{}
	queue(batch, last)
	var tag pgconn.CommandTag
	batch.Queue(qCommit).Exec(func(ct pgconn.CommandTag) error { tag = ct; return nil })
	err := c.SendBatch(ctx, batch).Close()
	switch {
	case err != nil:
		return err
	case tag.String() == qRollback:
		return pgx.ErrTxCommitRollback
	case tag.String() != qCommit:
		return errors.New("the answer to COMMIT is another")
	case hasWarned(c.PgConn()):
		return errUnconfirmed
	}
	return nil
}

// warnings is the key of a connection's custom data under which it is noted that its server has warned.
const warnings = "warnings"

// noteWarning is a pgconn.NoticeHandler.
func noteWarning(c *pgconn.PgConn, notice *pgconn.Notice) {
	if notice.SeverityUnlocalized == "WARNING" {
		c.CustomData()[warnings] = true
	}
}

func forgetWarnings(c *pgconn.PgConn) { delete(c.CustomData(), warnings) }

func hasWarned(c *pgconn.PgConn) bool { return c.CustomData()[warnings] != nil }

// outcome finds out what became of a transaction whose COMMIT was not answered.
func (s *Store) outcome(ctx context.Context, own *ownTransaction, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, s.dialect.limits.outcome)
	defer cancel()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		committed, known := s.ask(ctx, own)
		switch {
		case known && committed:
			return nil
		case known:
			return failedTry{gateway.Errorf(gateway.CodeUnavailable, cause, "the connection to the database was lost, and nothing was stored")}
		}
		if waitFor(ctx, pause) != nil {
			return unknownOutcome{gateway.Errorf(gateway.CodeUnavailable, cause,
				"the database did not confirm a commit, and whether anything was stored is not known")}
		}
	}
}

// ask returns what became of a transaction, if that can be known now. All is asked in one round trip, for a connection
// may not live for long: the last of it waits until the standbys have what the first has shown.
func (s *Store) ask(ctx context.Context, own *ownTransaction) (committed, known bool) {
	conn, err := s.write.Conn(ctx)
	if err != nil {
		return false, false
	}
	defer func() { _ = conn.Close() }() // it goes back to the pool, which looks at it
	asking := &ownTransaction{conn: conn}
	defer asking.rollback(ctx) // of what was not confirmed
	_ = asking.raw(func(c *pgx.Conn) error {
		committed, known = askOn(ctx, c.PgConn(), own)
		return nil
	})
	return committed, known
}

func askOn(ctx context.Context, c *pgconn.PgConn, own *ownTransaction) (committed, known bool) {
	forgetWarnings(c)
	questions := []statement{{qOutcome, []any{own.xid}}}
	if own.proof != nil {
		questions = append(questions, statement{`SELECT EXISTS (` + own.proof.query + `)`, own.proof.args})
	}
	answers, err := inOneTrip(ctx, c, append(questions, confirming()...))
	switch {
	case pgCode(err) == "22023":
		return false, true // the server has not come to this number yet: it lost what it knew in a crash
	case len(answers) < len(questions):
		return false, false
	case answers[0] == "aborted", answers[0] == "committed" && own.proof != nil && answers[1] != "t":
		return false, true
	}
	return true, answers[0] == "committed" && err == nil && !hasWarned(c) // else it is still under way
}

// confirming waits for what a commit of now waits for. It must write something, or it waits for nothing.
func confirming() []statement {
	return []statement{{query: qBegin}, {query: qEmit}, {query: qCommit}}
}

// inOneTrip runs statements that need not be prepared, and returns the first value that each returns, as text, up to the
// first that fails.
func inOneTrip(ctx context.Context, c *pgconn.PgConn, statements []statement) (values []string, err error) {
	pipeline := c.StartPipeline(ctx)
	defer func() { err = errors.Join(err, pipeline.Close()) }()
	for _, st := range statements {
		params := make([][]byte, len(st.args))
		for i, arg := range st.args {
			params[i] = fmt.Append(nil, arg)
		}
		pipeline.SendQueryParams(st.query, params, nil, nil, nil)
	}
	if err := pipeline.Sync(); err != nil {
		return nil, err
	}
	for range statements {
		results, err := pipeline.GetResults()
		if err != nil {
			return values, err
		}
		reader, ok := results.(*pgconn.ResultReader)
		if !ok {
			return values, errors.New("the database server answers out of turn")
		}
		value := ""
		for reader.NextRow() {
			value = string(reader.Values()[0])
		}
		if _, err := reader.Close(); err != nil {
			return values, err
		}
		values = append(values, value)
	}
	return values, nil
}
