package meta

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"sealpost/gateway"
)

//go:embed migrations/sqlite/*.sql
var sqliteMigrations embed.FS

// sqliteReaders is the size of the readers' pool. There is one writer, as SQLite has it.
const sqliteReaders = 4

// OpenSQLite opens the database in the file at path, makes or migrates it, and refuses one whose schema is
// newer than this program. The file has mode 0600, its directory 0700 if it is made here. Several processes
// may have it open.
func OpenSQLite(ctx context.Context, path string, keys Wrapper, options ...Option) (*Store, error) {
	s := &Store{keys: keys, dialect: sqliteDialect(), wake: make(chan struct{}, 1), process: newID()}
	s.group = newGroup(maxGroup, 0, s.runJobs)
	for _, option := range options {
		option(&s.dialect)
	}
	if err := s.openSQLite(ctx, path); err != nil {
		return nil, errors.Join(s.failure(ctx, "open the database "+path, err), s.Close())
	}
	return s, nil
}

func (s *Store) openSQLite(ctx context.Context, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if err := makeFile(path); err != nil {
		return err
	}
	if s.write, err = sql.Open("sqlite", sqliteDSN(path, s.dialect.busy, "_txlock", "immediate")); err != nil {
		return err
	}
	s.write.SetMaxOpenConns(1)
	if err := migrate(ctx, s.write); err != nil {
		return err
	}
	if s.read, err = sql.Open("sqlite", sqliteDSN(path, s.dialect.busy, "_pragma", "query_only(1)")); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(sqliteReaders)
	s.read.SetMaxIdleConns(sqliteReaders)
	if s.writeStmts, err = prepare(ctx, s.write, writeQueries(s.dialect)); err != nil {
		return err
	}
	if s.readStmts, err = prepare(ctx, s.read, readQueries()); err != nil {
		return err
	}
	return s.confirmKey(ctx)
}

// makeFile makes the file, durably, before SQLite does, which would give it another mode. The log and the
// shared memory beside it get the mode of the file.
func makeFile(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// sqliteDSN returns the name that gives every connection of a pool the same settings.
func sqliteDSN(path string, busy time.Duration, key, value string) string {
	q := url.Values{"_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busy.Milliseconds()),
		"journal_mode(WAL)",
		"synchronous(FULL)", // a commit is on the disk when it returns
		"foreign_keys(1)",
		"secure_delete(1)", // what is erased is overwritten
		"temp_store(MEMORY)",
	}, "_dqs": {"0"}, "_defensive": {"1"}}
	q.Add(key, value)
	u := url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}
	return u.String()
}

func sqliteDialect() dialect {
	return dialect{
		busy:          10 * time.Second,
		look:          5 * time.Second,
		checkpoint:    "PRAGMA wal_checkpoint(TRUNCATE)",
		now:           func(context.Context, *sql.DB) (time.Time, error) { return time.Now(), nil },
		classify:      classifySQLite,
		missingParent: func(err error) bool { return sqliteCode(err) == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY },
	}
}

// sqliteCode returns SQLite's extended result code, or 0.
func sqliteCode(err error) int {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code()
}

func classifySQLite(err error) gateway.Code {
	code := sqliteCode(err)
	switch code {
	case sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP:
		return gateway.CodeStorageFull // no room to make the shared memory beside the file longer
	}
	switch code & 0xff {
	case sqlite3.SQLITE_FULL:
		return gateway.CodeStorageFull
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY:
		return gateway.CodeUnavailable
	}
	return gateway.CodeInternal
}

// migrate brings the schema up to date.
func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(sqliteMigrations, "migrations/sqlite")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, files,
		goose.WithLogger(goose.NopLogger()), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	current, target, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read the version of the schema: %w", err)
	}
	switch {
	case current > target:
		return newerSchema(current, target)
	case current == target:
		return nil
	}
	if _, err := provider.Up(ctx); err != nil {
		// Another process may have come first.
		if current, _, again := provider.GetVersions(ctx); again == nil && current == target {
			return nil
		}
		return fmt.Errorf("migrate the schema: %w", err)
	}
	return nil
}

func newerSchema(current, known int64) error {
	return gateway.Errorf(gateway.CodeConflict, nil,
		"the database has schema version %d, and this program knows none above %d: run a newer sealpost", current, known)
}

func prepare(ctx context.Context, db *sql.DB, queries []string) (map[string]*sql.Stmt, error) {
	stmts := make(map[string]*sql.Stmt, len(queries))
	for _, query := range queries {
		stmt, err := db.PrepareContext(ctx, query) //nolint:sqlclosecheck // Store.Close closes it
		if err != nil {
			return stmts, fmt.Errorf("prepare a statement: %w", err)
		}
		stmts[query] = stmt
	}
	return stmts, nil
}
