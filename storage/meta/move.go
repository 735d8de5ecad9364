package meta

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"sealpost/gateway"
)

// An installation is carried over row by row: the tables and columns are the same in both databases, and what is wrapped
// stays as it is. The Source is only read. What was carried over is compared by a digest over each table.

// carriedTable is a table that a move carries over, with the key that orders its rows, alike in both databases.
type carriedTable struct{ name, key string }

// carried are these tables, parents before children. What says which processes run (nodes, work) stays behind.
func carried() []carriedTable {
	return []carriedTable{
		{"wrapping_keys", "position"}, {"settings", "name"}, {"packages", "id"}, {"items", "package_id, ordinal"}, {"objects", "name"}, {"placements", "package_id, position"},
		{"addresses", "owner_id, role, position"}, {"queue_keys", "day"}, {"mails", "id"}, {"deliveries", "id"},
		{"attempts", "delivery_id, number"}, {"garbage", "name"}, {"agents", "id"}, {"sessions", "token_hash"},
		{"grants", "token_hash"}, {"login_failures", "id"}, {"audit_events", "id"}, {"watch", "id"}, {"unwatched", "since"},
		{"fingerprints", "mail_id"}, {"refusals", "id"}, {"alerts", "kind"},
	}
}

const (
	qLastSeen    = `SELECT COALESCE(MAX(seen), 0) FROM nodes`
	qObjectDays  = `SELECT substr(name, 1, 8) FROM objects UNION SELECT substr(copy_object, 1, 8) FROM mails WHERE copy_object IS NOT NULL`
	qDaysObjects = `SELECT name, size FROM objects WHERE name >= $1 AND name < $2
		UNION ALL SELECT copy_object, -1 FROM mails WHERE copy_object >= $1 AND copy_object < $2`
	qDaysGarbage = `SELECT name FROM garbage WHERE name >= $1 AND name < $2`
)

// Source is the database of an installation that is to be carried over. It is only read; of an SQLite database the file
// stays as it is byte for byte, but SQLite may make or change the -wal and -shm files beside it.
type Source struct{ s *Store }

// OpenSQLiteSource opens the database in the file at path, which must be there and have this program's schema.
func OpenSQLiteSource(ctx context.Context, path string) (*Source, error) {
	source := &Source{&Store{dialect: sqliteDialect()}}
	err := source.s.openReadOnly(path)
	if err == nil {
		err = source.checkSchema(ctx, sqliteMigrations, "migrations/sqlite")
	}
	if err != nil {
		return nil, errors.Join(source.s.failure(ctx, "open the database "+path, err), source.Close())
	}
	return source, nil
}

// openReadOnly opens a file of SQLite for reading alone.
func (s *Store) openReadOnly(path string) (err error) {
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	if _, err = os.Stat(path); err != nil {
		return err
	}
	q := url.Values{"mode": {"ro"}, "_dqs": {"0"}, "_defensive": {"1"}, "_pragma": {
		fmt.Sprintf("busy_timeout(%d)", s.dialect.busy.Milliseconds()), "temp_store(MEMORY)",
	}}
	u := url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}
	s.read, err = sql.Open("sqlite", u.String())
	return err
}

// OpenPostgresSource opens a database of PostgreSQL, which must have this program's schema.
func OpenPostgresSource(ctx context.Context, url string) (*Source, error) {
	d := postgresDialect()
	config, err := postgresConfig(url, d.limits)
	if err != nil {
		return nil, err
	}
	source := &Source{&Store{dialect: d}}
	config.RuntimeParams["statement_timeout"] = "0" // a whole table is one statement
	config.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
	source.s.read = stdlib.OpenDB(*config)
	if err := source.checkSchema(ctx, postgresMigrations, "migrations/postgres"); err != nil {
		return nil, errors.Join(source.s.failure(ctx, "open the database", err), source.Close())
	}
	return source, nil
}

// Close closes the database.
func (s *Source) Close() error { return s.s.Close() }

// checkSchema refuses any schema but the one that this program would make.
func (s *Source) checkSchema(ctx context.Context, migrations embed.FS, dir string) error {
	known, err := newestMigration(migrations, dir)
	if err != nil {
		return err
	}
	version, err := schemaVersion(ctx, s.s.read)
	switch {
	case err != nil:
		return fmt.Errorf("read the version of its schema: %w", err)
	case version > known:
		return newerSchema(version, known)
	case version < known:
		return gateway.Errorf(gateway.CodeConflict, nil, "the database has schema version %d, and this program's is %d: "+
			"bring it up to date first, by `sealpost check --config FILE` with this program", version, known)
	}
	return nil
}

// newestMigration reads the version from the name of the last file.
func newestMigration(migrations embed.FS, dir string) (int64, error) {
	entries, err := migrations.ReadDir(dir) // sorted by name
	if err != nil {
		return 0, fmt.Errorf("read the migrations: %w", err)
	}
	digits, _, _ := strings.Cut(entries[len(entries)-1].Name(), "_")
	return strconv.ParseInt(digits, 10, 64)
}

// Idle returns CodeConflict if a node that runs with the database was seen within the last minute, or if the database is
// itself being carried over into.
func (s *Source) Idle(ctx context.Context) error {
	if err := s.s.CheckMove(ctx); err != nil {
		return err
	}
	return s.s.idle(ctx)
}

func (s *Store) idle(ctx context.Context) error {
	const doing = "look whether a node runs"
	now, err := s.Now(ctx)
	if err != nil {
		return err
	}
	var last int64
	if err := s.row(ctx, qLastSeen).Scan(&last); err != nil {
		return s.failure(ctx, doing, err)
	}
	if ago := now.Sub(fromMicros(last)); ago < aliveFor {
		return s.failure(ctx, doing, gateway.Errorf(gateway.CodeConflict, nil,
			"a node that runs with this database was seen %v ago: stop all of them; after a crash wait a minute", ago.Round(time.Second)))
	}
	return nil
}

// Now returns the time by the database's clock.
func (s *Source) Now(ctx context.Context) (time.Time, error) { return s.s.Now(ctx) }

// ObjectDays returns the days, YYYYMMDD, of the objects that the database refers to.
func (s *Source) ObjectDays(ctx context.Context) ([]string, error) {
	rows, err := s.s.query(ctx, qObjectDays)
	days, err := collect(rows, err, scanString)
	return days, s.s.failure(ctx, "list the days of objects", err)
}

// Objects returns the objects of a day that a package or a waiting mail refers to, by name, with the size in bytes or
// -1 where the database does not know it.
func (s *Source) Objects(ctx context.Context, day string) (map[string]int64, error) {
	sizes := map[string]int64{}
	rows, err := s.s.query(ctx, qDaysObjects, day+"/", day+"0")
	_, err = collect(rows, err, func(row scanner) (struct{}, error) {
		var name string
		var size int64
		err := row.Scan(&name, &size)
		sizes[name] = size
		return struct{}{}, err
	})
	return sizes, s.s.failure(ctx, "list the objects of a day", err)
}

// Garbage returns the names of objects of a day that have lost their row.
func (s *Source) Garbage(ctx context.Context, day string) ([]string, error) {
	rows, err := s.s.query(ctx, qDaysGarbage, day+"/", day+"0")
	names, err := collect(rows, err, scanString)
	return names, s.s.failure(ctx, "list the garbage of a day", err)
}

// Unwatched is Store.Unwatched, with the span that the next gateway would record when it starts.
func (s *Source) Unwatched(ctx context.Context) ([]gateway.Span, error) {
	spans, err := s.s.Unwatched(ctx)
	if err != nil {
		return nil, err
	}
	var last int64
	since := time.UnixMicro(0)
	switch err := s.s.row(ctx, qLastWatch).Scan(&last); {
	case err == nil:
		since = fromMicros(last).Add(watchGap)
	case !errors.Is(err, sql.ErrNoRows):
		return nil, s.s.failure(ctx, "ask when a gateway ran last", err)
	}
	return append(spans, gateway.Span{Since: since, Until: time.Unix(1<<40, 0)}), nil
}

// Contents is what the carried tables of a database hold.
type Contents []TableContents

// TableContents is what a table holds.
type TableContents struct {
	Table  string
	Rows   int64
	SHA256 [sha256.Size]byte // over all rows in the order of their key, and the names of the columns
}

// Rows returns the number of all rows.
func (c Contents) Rows() (n int64) {
	for _, t := range c {
		n += t.Rows
	}
	return n
}

// sum stands for the whole.
func (c Contents) sum() string {
	h := sha256.New()
	for _, t := range c {
		h.Write([]byte(t.Table + "\x00"))
		h.Write(t.SHA256[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Differ returns the tables in which two databases differ.
func (c Contents) Differ(other Contents) []string {
	var tables []string
	for i, t := range c {
		if i >= len(other) || t != other[i] {
			tables = append(tables, t.Table)
		}
	}
	return tables
}

// Contents reads all tables that a move carries over, at one moment. It calls seen, now and then, with the rows read
// of a table so far.
func (s *Source) Contents(ctx context.Context, seen func(table string, rows int64)) (Contents, error) {
	var contents Contents
	err := s.s.snapshot(ctx, func(tx *sql.Tx) error {
		for _, table := range carried() {
			t, err := digest(ctx, tx, table, seen)
			if err != nil {
				return fmt.Errorf("read the table %s: %w", table.name, err)
			}
			contents = append(contents, t)
		}
		return nil
	})
	return contents, s.s.failure(ctx, "compare the database", err)
}

// isServer reports whether the database is PostgreSQL.
func (s *Store) isServer() bool { return s.dialect.forUpdate != "" }

// snapshot reads, in a transaction that sees one moment and may last.
func (s *Store) snapshot(ctx context.Context, read func(*sql.Tx) error) error {
	var options *sql.TxOptions // SQLite's transactions are like that
	if s.isServer() {
		options = &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
	}
	tx, err := s.read.BeginTx(ctx, options)
	if err != nil {
		return err
	}
	if s.isServer() {
		_, err = tx.ExecContext(ctx, `SET LOCAL statement_timeout = 0`)
		if err == nil {
			_, err = tx.ExecContext(ctx, `SET LOCAL idle_in_transaction_session_timeout = 0`)
		}
	}
	if err == nil {
		err = read(tx)
	}
	if err != nil {
		_ = tx.Rollback() // nothing was written
		return err
	}
	return tx.Commit()
}

// columns returns the names of a table's columns, sorted.
func columns(ctx context.Context, tx *sql.Tx, table string) (names []string, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT * FROM "+table+" LIMIT 0") // #nosec G202 -- a name of ours
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	names, err = rows.Columns()
	slices.Sort(names)
	return names, errors.Join(err, rows.Err())
}

// each reads the rows of a table in the order of its key, from the row with this number on. The values of a row stay
// as they are; they are int64, string, []byte or nil.
func each(ctx context.Context, tx *sql.Tx, table carriedTable, columns []string, from int64, do func(row []any) error) (err error) {
	// #nosec G202 -- names of ours
	query := "SELECT " + quoted(columns) + " FROM " + table.name + " ORDER BY " + table.key + " LIMIT $1 OFFSET $2"
	rows, err := tx.QueryContext(ctx, query, int64(1)<<62, from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		row, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range row {
			into[i] = &row[i]
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
		if err := do(row); err != nil {
			return err
		}
	}
	return rows.Err()
}

func quoted(columns []string) string { return `"` + strings.Join(columns, `", "`) + `"` }

// digest reads a table.
func digest(ctx context.Context, tx *sql.Tx, table carriedTable, seen func(string, int64)) (TableContents, error) {
	contents := TableContents{Table: table.name}
	names, err := columns(ctx, tx, table.name)
	if err != nil {
		return contents, err
	}
	h := sha256.New()
	h.Write([]byte(strings.Join(names, "\x00")))
	err = each(ctx, tx, table, names, 0, func(row []any) error {
		if contents.Rows++; contents.Rows%1000 == 0 {
			seen(table.name, contents.Rows)
		}
		for _, value := range row {
			if err := writeValue(h, value); err != nil {
				return err
			}
		}
		return nil
	})
	h.Sum(contents.SHA256[:0])
	return contents, err
}

// writeValue adds a value so that no two rows of different values give the same bytes.
func writeValue(h hash.Hash, value any) error {
	head := [9]byte{}
	switch v := value.(type) {
	case nil:
	case int64:
		head[0] = 'i'
		binary.BigEndian.PutUint64(head[1:], uint64(v))
	case string:
		head[0] = 't'
		binary.BigEndian.PutUint64(head[1:], uint64(len(v)))
	case []byte:
		head[0] = 'b'
		binary.BigEndian.PutUint64(head[1:], uint64(len(v)))
	default:
		return fmt.Errorf("a column has the type %T, which no column of ours has", value)
	}
	h.Write(head[:])
	switch v := value.(type) {
	case string:
		h.Write([]byte(v))
	case []byte:
		h.Write(v)
	}
	return nil
}
