// Package meta keeps what Sealpost knows of packages, mails and their deliveries, agents and sessions, in an
// SQL database: SQLite for one node, PostgreSQL for any number of them. They differ by a dialect and a set of
// migrations; the statements are the same. Both pass the suite in metatest.
//
// Decisions:
//   - No plaintext. Whatever came from a mail or names a correspondent or an agent is wrapped by the keyring,
//     bound to its table, column and row; what must be found again has a keyed hash beside it. Routes'
//     addresses, object names, sizes, states and times are plain.
//   - One clock, the database's: see Store.Now. Times are UTC, in microseconds.
//   - What one method writes is one transaction or none. On SQLite it is shared with others that wait at the same time. On
//     PostgreSQL mails that are committed share theirs, and attempts that are finished; all else has one of its own, in as
//     few round trips as can be. What a state machine must decide it decides inside.
//   - On PostgreSQL deliveries' rows are locked before their mails', each in the order of their IDs, and a transaction
//     that met another, or that lost its connection before COMMIT, is tried again. One that lost it in COMMIT asks what
//     became of it.
//   - A mail's copy is kept exactly as long as one of its deliveries needs it (gateway's KeepsCopy). It is
//     erased in the transaction that ends the last of them, and the queue key of a day goes with the last copy
//     of that day, but no sooner than an hour after midnight, while a mail of that day may still commit.
//   - An object that loses its row becomes garbage in the same transaction; a sweep deletes it and forgets it.
//   - A mail's row, its deliveries and correspondents' addresses are deleted when the mail has expired and its
//     copy is gone. A package's row remains after its erasure, without anything secret. What goes back to a sender
//     and is dead waits for no admin: who makes us send it need not take it. It is erased after five days.
//   - A lease that ran out is an attempt that failed: the delivery waits longer each time, and is given up after
//     five days. It is not taken from this very process while that may still have it in hand.
//   - Which key of the keyring wraps is written in the database (wrapping_keys), so that all nodes change it at once and
//     none before all have it. See keys.go and rewrap.go.
//   - Whether another process lives is told by its beats (Beat), and work that one does for all is claimed (ClaimWork).
package meta

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"sealpost/gateway"
)

// Wrapper encrypts what the database holds, and hashes what must be found again. crypto.Keyring is one.
type Wrapper interface {
	// Wrap encrypts a value of one column of one row; Unwrap opens it there and nowhere else.
	Wrap(table, column, rowID string, plaintext []byte) ([]byte, error)
	Unwrap(table, column, rowID string, wrapped []byte) ([]byte, error)
	// Lookup returns the keyed hash of a value; LookupAddress that of a mail address in canonical form.
	Lookup(column, value string) []byte
	LookupAddress(column, address string) []byte
}

// Store is the database. Its methods may be called concurrently. Failures carry gateway.CodeStorageFull when
// there is no room, gateway.CodeUnavailable when the database was busy or away, gateway.CodeNotFound and
// gateway.CodeConflict where a method says so.
type Store struct {
	write, read *sql.DB
	// writeStmts and readStmts hold the prepared statements by their text; read-only once open.
	writeStmts, readStmts map[string]*sql.Stmt
	keys                  Wrapper
	dialect               dialect
	wake                  chan struct{}
	group                 *group[job]           // of all that write, on SQLite
	mails                 *group[incoming]      // of those that commit a mail, on PostgreSQL
	attempts              *group[*endedAttempt] // of those that finish an attempt, on PostgreSQL
	server                *server               // what runs beside a database of several nodes, or nil
	settle                settlements
	queueKey              atomic.Pointer[knownQueueKey] // on PostgreSQL
	confirmed             atomic.Pointer[time.Time]     // when the database was last asked which key to wrap by
	process               string                        // names this Store among all that have the database open
	present               atomic.Bool                   // others know of this process by nodes or work
	hand                  hand
}

// Option changes how a Store is opened.
type Option func(*dialect)

// WithClock replaces the database's clock. It is for tests.
func WithClock(now func() time.Time) Option {
	return func(d *dialect) {
		d.now = func(context.Context, *sql.DB) (time.Time, error) { return now(), nil }
		d.clock = now
	}
}

// Close closes the database. It waits for what is running.
func (s *Store) Close() error {
	errs := []error{s.leave(context.Background())}
	if s.server != nil {
		s.server.close()
	}
	for _, stmts := range []map[string]*sql.Stmt{s.readStmts, s.writeStmts} {
		for _, stmt := range stmts {
			errs = append(errs, stmt.Close())
		}
	}
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close the database: %w", err)
	}
	return nil
}

// Now returns the time by the database's clock, which all nodes share: UTC, in microseconds. With SQLite it is
// the clock of this host.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	now, err := s.dialect.now(ctx, s.read)
	if err != nil {
		return time.Time{}, s.failure(ctx, "ask the database's clock", err)
	}
	return now.UTC().Truncate(time.Microsecond), nil
}

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	return s.failure(ctx, "reach the database", s.read.PingContext(ctx))
}

// Wake returns the channel that is signalled when a method of this Store has made a delivery due. It is one
// channel for one receiver; signals that nobody has received yet become one. On PostgreSQL it is also signalled
// when another process has, or may have.
func (s *Store) Wake() <-chan struct{} { return s.wake }

// LookInterval returns how often to look for deliveries without being woken: for what other processes make due where
// nothing signals it, or for a signal that was lost.
func (s *Store) LookInterval() time.Duration { return s.dialect.look }

// signal wakes who waits for deliveries, here and on other nodes.
func (s *Store) signal() {
	s.wakeHere()
	if s.server != nil {
		s.server.tell()
	}
}

func (s *Store) wakeHere() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// querier reads: from the readers' pool, or inside of a transaction.
type querier interface {
	query(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	row(ctx context.Context, query string, args ...any) *sql.Row
}

func (s *Store) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if stmt, ok := s.readStmts[query]; ok {
		return stmt.QueryContext(ctx, args...)
	}
	return s.read.QueryContext(ctx, query, args...)
}

func (s *Store) row(ctx context.Context, query string, args ...any) *sql.Row {
	if stmt, ok := s.readStmts[query]; ok {
		return stmt.QueryRowContext(ctx, args...)
	}
	return s.read.QueryRowContext(ctx, query, args...)
}

// executor runs statements: *sql.Tx or *sql.Conn.
type executor interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// transaction is one that writes; now is the database's time inside of it.
type transaction struct {
	executor
	now time.Time
	// shared and stmts, its prepared statements, are there if callers share it.
	shared *sql.Tx
	stmts  map[string]*sql.Stmt
	own    *ownTransaction // else
}

// context returns the one for a statement. A shared transaction is not cut short: see update.
func (tx *transaction) context(ctx context.Context) context.Context {
	if tx.shared != nil {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// prepared returns the statement of a query, if it was prepared. The transaction closes it.
func (tx *transaction) prepared(ctx context.Context, query string) (*sql.Stmt, bool) {
	stmt, ok := tx.stmts[query]
	if !ok {
		return nil, false
	}
	return tx.shared.StmtContext(ctx, stmt), true
}

// provenBy names a row that is there if and only if this transaction was committed.
func (tx *transaction) provenBy(query string, args ...any) {
	if tx.own != nil {
		tx.own.proof = &statement{query, args}
	}
}

// lock keeps all others from a row, and from adding rows that refer to it, until the transaction ends. query selects
// the row by its id.
func (tx *transaction) lock(ctx context.Context, query, id string) error {
	if tx.own == nil {
		return nil // there is one writer at a time
	}
	_, err := tx.exec(ctx, query+forUpdate, id)
	return err
}

func (tx *transaction) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	ctx = tx.context(ctx)
	if stmt, ok := tx.prepared(ctx, query); ok { //nolint:sqlclosecheck // the transaction closes it
		return stmt.QueryContext(ctx, args...)
	}
	return tx.QueryContext(ctx, query, args...)
}

func (tx *transaction) row(ctx context.Context, query string, args ...any) *sql.Row {
	ctx = tx.context(ctx)
	if stmt, ok := tx.prepared(ctx, query); ok { //nolint:sqlclosecheck // the transaction closes it
		return stmt.QueryRowContext(ctx, args...)
	}
	return tx.QueryRowContext(ctx, query, args...)
}

// exec runs a statement and returns the number of rows that it changed.
func (tx *transaction) exec(ctx context.Context, query string, args ...any) (int64, error) {
	ctx = tx.context(ctx)
	var result sql.Result
	var err error
	if stmt, ok := tx.prepared(ctx, query); ok { //nolint:sqlclosecheck // the transaction closes it
		result, err = stmt.ExecContext(ctx, args...)
	} else {
		result, err = tx.ExecContext(ctx, query, args...)
	}
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// failure says what was being done, and gives err the code that it means. It returns nil for nil.
func (s *Store) failure(ctx context.Context, doing string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s: %w", doing, err)
	var known *gateway.Error
	switch {
	case errors.As(err, &known):
		return err
	case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
		return fmt.Errorf("%w: %w", err, ctx.Err())
	}
	switch code := s.dialect.classify(err); code {
	case gateway.CodeStorageFull:
		return gateway.Errorf(code, err, "the database has no room left")
	case gateway.CodeUnavailable:
		return gateway.Errorf(code, err, "the database is not available")
	}
	return err
}

// collect scans all rows, and closes them.
func collect[T any](rows *sql.Rows, err error, scan func(scanner) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	var all []T
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		all = append(all, one)
	}
	return all, errors.Join(rows.Err(), rows.Close())
}

// scanner is one row: *sql.Row or *sql.Rows.
type scanner interface{ Scan(into ...any) error }

func scanString(row scanner) (string, error) {
	var s string
	return s, row.Scan(&s)
}

// newID returns a random ID of 32 hex digits.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

func micros(t time.Time) int64 { return t.UnixMicro() }

func fromMicros(us int64) time.Time { return time.UnixMicro(us).UTC() }

// nullMicros is micros, but nil (NULL) for the zero time.
func nullMicros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func notFound(what string) error {
	return gateway.Errorf(gateway.CodeNotFound, nil, "there is no such %s", what)
}

// orNotFound turns sql.ErrNoRows into CodeNotFound.
func orNotFound(err error, what string) error {
	if errors.Is(err, sql.ErrNoRows) {
		return notFound(what)
	}
	return err
}
