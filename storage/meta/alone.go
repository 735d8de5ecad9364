package meta

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"sealpost/gateway"
)

// A database of several nodes syncs the commits of many connections at once by itself, so there each caller has a
// transaction of its own. A connection can be lost at any time; before COMMIT was sent that means that nothing
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
	// qConfirm waits for what a commit of now waits for. It must write something, or it waits for nothing.
	qConfirm = `BEGIN; SELECT pg_logical_emit_message(true, 'sealpost', ''); COMMIT`
)

// errUnconfirmed says that the answer to COMMIT came with a warning.
var errUnconfirmed = errors.New("the database server did not wait until its standbys had the commit")

// ownTransaction is what a transaction that is not shared knows of itself.
type ownTransaction struct {
	conn *sql.Conn
	xid  string
	// proof finds a row if and only if the transaction was committed. After a crash the server may give the number of
	// a transaction that was lost to another one, which commits.
	proof *statement
}

// failedTry is the error of a transaction of which nothing was stored, and that may be tried again.
type failedTry struct{ error }

func (e failedTry) Unwrap() error { return e.error }

// updateAlone is update for a transaction that is not shared.
func (s *Store) updateAlone(ctx context.Context, do func(*transaction) error) error {
	for try := 1; ; try++ {
		err := s.tryAlone(ctx, do)
		var failed failedTry
		if !errors.As(err, &failed) || try == maxTries {
			return err
		}
		pause := tryPause << (try - 1)
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

// tryAlone runs do in one transaction.
func (s *Store) tryAlone(ctx context.Context, do func(*transaction) error) error {
	conn, err := s.write.Conn(ctx)
	if err != nil {
		return s.tried(ctx, err)
	}
	defer func() { _ = conn.Close() }() // it goes back to the pool, which looks at it
	own := &ownTransaction{conn: conn}
	committing := false
	defer func() {
		if !committing {
			own.rollback(ctx)
		}
	}()
	now, err := own.begin(ctx)
	if err != nil {
		return s.tried(ctx, err)
	}
	tx := &transaction{executor: conn, own: own, now: s.dialect.timeOf(now)}
	settled, release := s.settle.carry()
	defer release()
	if err = tx.applySettlements(ctx, settled); err == nil {
		err = do(tx)
	}
	if err != nil {
		s.settle.giveBack(settled)
		return s.tried(ctx, err)
	}
	committing = true
	if err := s.commit(ctx, own); err != nil {
		s.settle.giveBack(settled)
		return err
	}
	return nil
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

// begin begins the transaction and returns the database's time, in one round trip.
func (own *ownTransaction) begin(ctx context.Context) (now time.Time, err error) {
	batch := &pgx.Batch{}
	batch.Queue(qBegin)
	batch.Queue(qClockXact).QueryRow(func(row pgx.Row) error { return row.Scan(&now, &own.xid) })
	err = own.raw(func(c *pgx.Conn) error { return c.SendBatch(ctx, batch).Close() })
	return now, err
}

// run runs statements in one round trip.
func (own *ownTransaction) run(ctx context.Context, statements []statement) error {
	if len(statements) == 0 {
		return nil
	}
	batch := &pgx.Batch{}
	for _, st := range statements {
		batch.Queue(st.query, st.args...)
	}
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

// commit returns nil if and only if the transaction is known to be committed.
func (s *Store) commit(ctx context.Context, own *ownTransaction) error {
	ctx = context.WithoutCancel(ctx) // which would leave open what became of it
	err := own.raw(func(c *pgx.Conn) error { return endCommit(ctx, c) })
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

// endCommit sends COMMIT. Only nil means that it did all that it is to do.
func endCommit(ctx context.Context, c *pgx.Conn) error {
	forgetWarnings(c.PgConn())
	tag, err := c.Exec(ctx, qCommit)
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
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		committed, known := s.ask(ctx, own)
		switch {
		case known && committed:
			return nil
		case known:
			return failedTry{gateway.Errorf(gateway.CodeUnavailable, cause, "the connection to the database was lost, and nothing was stored")}
		}
		if waitFor(ctx, pause) != nil {
			return gateway.Errorf(gateway.CodeUnavailable, cause,
				"the database did not confirm a commit, and whether anything was stored is not known")
		}
	}
}

// ask returns what became of a transaction, if that can be known now.
func (s *Store) ask(ctx context.Context, own *ownTransaction) (committed, known bool) {
	var status sql.NullString
	err := s.write.QueryRowContext(ctx, qOutcome, own.xid).Scan(&status)
	switch {
	case pgCode(err) == "22023":
		return false, true // the server has not come to this number yet: it lost what it knew in a crash
	case err != nil:
		return false, false
	case status.String == "aborted":
		return false, true
	case status.String != "committed":
		return false, false // it is still under way
	}
	there := true
	if own.proof != nil {
		err = s.write.QueryRowContext(ctx, `SELECT EXISTS (`+own.proof.query+`)`, own.proof.args...).Scan(&there)
	}
	if err != nil || !there {
		return false, err == nil
	}
	return true, s.confirms(ctx) == nil
}

// confirms returns nil when the server and the standbys that it waits for have all that it shows to others.
func (s *Store) confirms(ctx context.Context) error {
	conn, err := s.write.Conn(ctx)
	if err != nil {
		return err
	}
	err = (&ownTransaction{conn: conn}).raw(func(c *pgx.Conn) error {
		forgetWarnings(c.PgConn())
		if _, err := c.PgConn().Exec(ctx, qConfirm).ReadAll(); err != nil {
			return err
		}
		if hasWarned(c.PgConn()) {
			return errUnconfirmed
		}
		return nil
	})
	return errors.Join(err, conn.Close())
}
