package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sealpost/gateway"
)

// A move needs no keys, so that its Store may be opened without.
//
// A database that an installation is carried over into has a table of its own for that, moved, with one row. It says
// how far the move has come, and changes in the transactions that carry rows over: what a crash leaves is never half a
// batch. An installation that was never moved has no such table.

const (
	qMakeMoved = `CREATE TABLE IF NOT EXISTS moved (
		id       INTEGER PRIMARY KEY CHECK (id = 1),
		source   TEXT NOT NULL,   -- stands for all that the source holds
		began    BIGINT NOT NULL, -- when the first try did
		place    TEXT NOT NULL,   -- the table that is being carried over
		done     BIGINT NOT NULL, -- rows of it
		finished BIGINT)`
	qIsMovedSQLite   = `SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'moved')`
	qIsMovedPostgres = `SELECT to_regclass('moved') IS NOT NULL`
	qReadMoved       = `SELECT source, began, place, done, COALESCE(finished, 0) FROM moved WHERE id = 1`
	qBeginMove       = `INSERT INTO moved (id, source, began, place, done) VALUES (1, $1, $2, $3, 0)`
	qRestartMove     = `UPDATE moved SET source = $1, place = $2, done = 0 WHERE id = 1 AND finished IS NULL`
	qAdvanceMove     = `UPDATE moved SET place = $1, done = $2 WHERE id = 1 AND place = $3 AND done = $4 AND finished IS NULL`
	qIsAt            = `SELECT 1 FROM moved WHERE id = 1 AND place = $1 AND done = $2`
	qIsFrom          = `SELECT 1 FROM moved WHERE id = 1 AND source = $1`
	qFinishMove      = `UPDATE moved SET finished = $1 WHERE id = 1 AND finished IS NULL AND source = $2`
	qIsFinished      = `SELECT 1 FROM moved WHERE id = 1 AND finished = $1`

	// moveBatch bounds the rows of one transaction, moveValues and moveBytes what is in them.
	moveBatch  = 500
	moveValues = 30_000
	moveBytes  = 4 << 20
	// moveSkew is by how much the clocks of database and blob store may differ.
	moveSkew = 10 * time.Minute
)

// moveState is the row of moved.
type moveState struct {
	source          string
	began, finished int64 // 0: not finished
	place           string
	done            int64
}

// readMove returns nil if nothing was ever carried over into this database.
func (s *Store) readMove(ctx context.Context) (*moveState, error) {
	query := qIsMovedSQLite
	if s.isServer() {
		query = qIsMovedPostgres
	}
	var is bool
	if err := s.row(ctx, query).Scan(&is); err != nil || !is {
		return nil, err
	}
	var m moveState
	err := s.row(ctx, qReadMoved).Scan(&m.source, &m.began, &m.place, &m.done, &m.finished)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return &m, err
}

// CheckMove returns CodeConflict while an installation is carried over into this database: nothing may use it then.
func (s *Store) CheckMove(ctx context.Context) error {
	m, err := s.readMove(ctx)
	if err == nil && m != nil && m.finished == 0 {
		err = gateway.Errorf(gateway.CodeConflict, nil, "an installation is being carried over into this database, and that is not finished: "+
			"run `sealpost move --from CONFIG --to CONFIG` again, or begin with an empty database and blob store")
	}
	return s.failure(ctx, "look whether the database was moved", err)
}

// BeginMove prepares the database for what a Source holds. It returns when the move was finished, if it was: then
// there is nothing to do. It refuses, with CodeConflict, a database that holds anything else, or that is in use.
// restarted tells that the Source has changed since an earlier try, whose rows were removed.
func (s *Store) BeginMove(ctx context.Context, source Contents) (finished time.Time, restarted bool, err error) {
	const doing = "begin to carry over"
	m, err := s.readMove(ctx)
	switch {
	case err != nil:
		return finished, false, s.failure(ctx, doing, err)
	case m != nil && m.finished != 0:
		return fromMicros(m.finished), false, nil
	}
	if err := s.idle(ctx); err != nil {
		return finished, false, err
	}
	switch {
	case m == nil:
		err = s.update(ctx, doing, func(tx *transaction) error { return tx.beginMove(ctx, source.sum()) })
	case m.source != source.sum():
		restarted = true
		err = s.update(ctx, doing, func(tx *transaction) error { return tx.restartMove(ctx, source.sum()) })
	}
	return finished, restarted, err
}

func (tx *transaction) beginMove(ctx context.Context, source string) error {
	for _, table := range carried() {
		var some bool
		if err := tx.row(ctx, "SELECT EXISTS (SELECT 1 FROM "+table.name+")").Scan(&some); err != nil { // #nosec G202 -- a name of ours
			return err
		}
		if some {
			return gateway.Errorf(gateway.CodeConflict, nil, "the database that shall be carried over into is not empty: "+
				"there are rows in its table %s; name an empty one", table.name)
		}
	}
	if _, err := tx.exec(ctx, qMakeMoved); err != nil {
		return err
	}
	tx.provenBy(qIsFrom, source)
	_, err := tx.exec(ctx, qBeginMove, source, micros(tx.now), carried()[0].name)
	return err
}

// restartMove removes what an earlier try has carried over.
func (tx *transaction) restartMove(ctx context.Context, source string) error {
	var names []string
	for _, table := range carried() {
		names = append([]string{table.name}, names...) // children first
	}
	if tx.own != nil {
		if _, err := tx.exec(ctx, "TRUNCATE "+strings.Join(names, ", ")); err != nil {
			return err
		}
		names = nil
	}
	for _, name := range names {
		if _, err := tx.exec(ctx, "DELETE FROM "+name); err != nil { // #nosec G202 -- a name of ours
			return err
		}
	}
	tx.provenBy(qIsFrom, source)
	return one(tx.exec(ctx, qRestartMove, source, carried()[0].name))
}

// one refuses, unless a statement has changed one row.
func one(n int64, err error) error {
	if err == nil && n != 1 {
		return gateway.Errorf(gateway.CodeConflict, nil, "another process carries over into this database")
	}
	return err
}

// MoveTables carries over all rows of a Source, from where an earlier try ended, after BeginMove. It calls seen with
// the rows of a table that have been carried over so far.
func (s *Store) MoveTables(ctx context.Context, from *Source, seen func(table string, rows int64)) error {
	const doing = "carry over the tables"
	m, err := s.readMove(ctx)
	if err == nil && m == nil {
		err = errors.New("the move was not begun")
	}
	if err != nil {
		return s.failure(ctx, doing, err)
	}
	err = from.s.snapshot(ctx, func(tx *sql.Tx) error {
		behind := true
		for _, table := range carried() {
			if behind = behind && table.name != m.place; behind {
				continue
			}
			if err := s.moveTable(ctx, tx, table, m, seen); err != nil {
				return fmt.Errorf("carry over the table %s: %w", table.name, err)
			}
		}
		return nil
	})
	return s.failure(ctx, doing, err)
}

// moveTable carries over the rows of one table, in batches, and moves m on.
func (s *Store) moveTable(ctx context.Context, tx *sql.Tx, table carriedTable, m *moveState, seen func(string, int64)) error {
	names, err := s.sameColumns(ctx, tx, table.name)
	if err != nil {
		return err
	}
	from := int64(0)
	if m.place == table.name {
		from = m.done
	}
	batch, size := [][]any(nil), 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		if err := s.moveRows(ctx, table.name, names, batch, m); err != nil {
			return err
		}
		batch, size = nil, 0
		seen(table.name, m.done)
		return nil
	}
	err = each(ctx, tx, table, names, from, func(row []any) error {
		batch = append(batch, row)
		for _, value := range row {
			if data, ok := value.([]byte); ok {
				size += len(data)
			}
		}
		if len(batch) < min(moveBatch, moveValues/len(names)) && size < moveBytes {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// sameColumns returns the columns of a table, which both databases must have.
func (s *Store) sameColumns(ctx context.Context, tx *sql.Tx, table string) ([]string, error) {
	names, err := columns(ctx, tx, table)
	if err != nil {
		return nil, err
	}
	return names, s.snapshot(ctx, func(here *sql.Tx) error {
		own, err := columns(ctx, here, table)
		if err == nil && quoted(own) != quoted(names) {
			err = gateway.Errorf(gateway.CodeConflict, nil, "the two databases have different columns")
		}
		return err
	})
}

// moveRows inserts rows and moves m on, in one transaction.
func (s *Store) moveRows(ctx context.Context, table string, names []string, rows [][]any, m *moveState) error {
	query, args := insertion(table, names, rows)
	done := int64(len(rows))
	if m.place == table {
		done += m.done
	}
	err := s.update(ctx, "store rows", func(tx *transaction) error {
		tx.provenBy(qIsAt, table, done)
		if err := one(tx.exec(ctx, qAdvanceMove, table, done, m.place, m.done)); err != nil {
			return err
		}
		_, err := tx.exec(ctx, query, args...)
		return err
	})
	if err == nil {
		m.place, m.done = table, done
	}
	return err
}

// insertion makes one statement of many rows.
func insertion(table string, names []string, rows [][]any) (query string, args []any) {
	var b strings.Builder
	b.WriteString("INSERT INTO " + table + " (" + quoted(names) + ") VALUES ")
	for i, row := range rows {
		if i > 0 {
			b.WriteString(", ")
		}
		for j, value := range row {
			separator := ", $"
			if j == 0 {
				separator = "($"
			}
			args = append(args, value)
			b.WriteString(separator + strconv.Itoa(len(args)))
		}
		b.WriteString(")")
	}
	return b.String(), args
}

// FinishMove says that all is carried over, and that this database may be used. source is what it was compared with.
// Objects that no row refers to came to the new store while no gateway watched: they stay.
func (s *Store) FinishMove(ctx context.Context, source Contents) error {
	m, err := s.readMove(ctx)
	if err == nil && m == nil {
		err = errors.New("the move was not begun")
	}
	if err != nil {
		return s.failure(ctx, "finish to carry over", err)
	}
	if err := s.idle(ctx); err != nil {
		return err
	}
	return s.update(ctx, "finish to carry over", func(tx *transaction) error {
		since, until := fromMicros(m.began).Add(-moveSkew), tx.now.Add(moveSkew)
		if _, err := tx.exec(ctx, qAddSpan, micros(since), micros(until)); err != nil {
			return err
		}
		tx.provenBy(qIsFinished, micros(tx.now))
		return one(tx.exec(ctx, qFinishMove, micros(tx.now), source.sum()))
	})
}
