package meta_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"sealpost/gateway"
	"sealpost/storage/meta"
	"sealpost/storage/meta/metatest"
)

func unseen(string, int64) {}

// sqliteAt makes a database and returns its file and the database itself.
func sqliteAt(t *testing.T, keys meta.Wrapper) (string, *meta.Store) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "meta.db")
	return path, open(t, path, keys, time.Now)
}

func rawSQLite(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)&_pragma=foreign_keys(1)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func sqliteSource(t *testing.T, path string) *meta.Source {
	t.Helper()
	return source(t)(meta.OpenSQLiteSource(t.Context(), path))
}

func source(t *testing.T) func(*meta.Source, error) *meta.Source {
	return func(s *meta.Source, err error) *meta.Source {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	}
}

// column is one of a table's, as either database describes it.
type column struct {
	kind     string // int, text or bytes
	nullable bool
}

var kinds = map[string]string{"INTEGER": "int", "bigint": "int", "TEXT": "text", "text": "text", "BLOB": "bytes", "bytea": "bytes"}

// schemaOf reads all tables and their columns by query, which gives table, column, type and whether it may be null.
func schemaOf(t *testing.T, db *sql.DB, query string) map[string]map[string]column {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	schema := map[string]map[string]column{}
	for rows.Next() {
		var table, name, kind string
		var nullable bool
		if err := rows.Scan(&table, &name, &kind, &nullable); err != nil {
			t.Fatal(err)
		}
		if schema[table] == nil {
			schema[table] = map[string]column{}
		}
		schema[table][name] = column{kinds[kind], nullable}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return schema
}

func sqliteSchema(t *testing.T, path string) map[string]map[string]column {
	t.Helper()
	return schemaOf(t, rawSQLite(t, path), `SELECT m.name, c.name, c.type, c."notnull" = 0 AND c.pk = 0
		FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'`)
}

// TestSchemasAreAlike: a move carries over every table and column by name, so both databases must have the same.
func TestSchemasAreAlike(t *testing.T) {
	path, _ := sqliteAt(t, metatest.NewKeys())
	_, url := newPostgres(t)
	openPostgres(t, url, metatest.NewKeys())
	small := sqliteSchema(t, path)
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	large := schemaOf(t, db, `SELECT table_name, column_name, data_type, is_nullable = 'YES' FROM information_schema.columns
		WHERE table_schema = 'public'`)
	left := append(meta.CarriedTables(), "nodes", "work", "goose_db_version")
	for table, columns := range small {
		if !slices.Contains(left, table) {
			t.Errorf("a move forgets the table %s", table)
		}
		if table == "goose_db_version" {
			continue
		}
		for name, is := range columns {
			if other := large[table][name]; other != is || is.kind == "" {
				t.Errorf("%s.%s: %+v in SQLite, %+v in PostgreSQL", table, name, is, other)
			}
		}
		if len(columns) != len(large[table]) {
			t.Errorf("%s has %d columns in SQLite, %d in PostgreSQL", table, len(columns), len(large[table]))
		}
	}
	if len(small) != len(large) {
		t.Errorf("%d tables in SQLite, %d in PostgreSQL", len(small), len(large))
	}
}

// fillTables writes n rows into each table. Row i has the same value in all columns of a type, so what refers to another
// table refers to its row i; every third row has NULL where it may.
func fillTables(t *testing.T, path string, n int) {
	t.Helper()
	schema := sqliteSchema(t, path)
	tx, err := rawSQLite(t, path).Begin()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range meta.CarriedTables() {
		rows := n
		if table == "watch" {
			rows = 1
		}
		names, marks := []string{}, []string{}
		for name := range schema[table] {
			names, marks = append(names, `"`+name+`"`), append(marks, "?")
		}
		statement, err := tx.Prepare("INSERT INTO " + table + " (" + strings.Join(names, ", ") + ") VALUES (" + strings.Join(marks, ", ") + ")")
		if err != nil {
			t.Fatal(err)
		}
		defer statement.Close()
		for i := 1; i <= rows; i++ {
			var values []any
			for _, name := range names {
				values = append(values, valueOf(schema[table][strings.Trim(name, `"`)], i))
			}
			if _, err := statement.Exec(values...); err != nil {
				t.Fatalf("%s: %v", table, err)
			}
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

func valueOf(is column, i int) any {
	switch {
	case is.nullable && i%3 == 0:
		return nil
	case is.kind == "int":
		return int64(i)
	case is.kind == "text": // in an order of bytes that no language has
		return fmt.Sprintf("%c%05d", []rune("aZ é~_")[i%6], i)
	}
	return binary.BigEndian.AppendUint32([]byte{byte(i * 77), 0, 0xff}, uint32(i))
}

// moveAll carries over and is stopped, at points, before it comes to its end.
func moveAll(t *testing.T, from *meta.Source, to *meta.Store, stops ...string) {
	t.Helper()
	before, err := from.Contents(t.Context(), unseen)
	if err != nil {
		t.Fatal(err)
	}
	for _, stop := range append(stops, "") {
		if _, restarted, err := to.BeginMove(t.Context(), before); err != nil || restarted {
			t.Fatalf("begin: restarted %v, %v", restarted, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		err := to.MoveTables(ctx, from, func(table string, rows int64) {
			if fmt.Sprint(table, " ", rows) == stop {
				cancel()
			}
		})
		cancel()
		if stopped := errors.Is(err, context.Canceled); stopped != (stop != "") || !stopped && err != nil {
			t.Fatalf("stop at %q: %v", stop, err)
		}
		if err := to.CheckMove(t.Context()); gateway.ErrorCode(err) != gateway.CodeConflict {
			t.Errorf("the half database may be used: %v", err)
		}
	}
	after, err := to.Contents(t.Context())
	if err != nil || len(before.Differ(after)) > 0 {
		t.Fatalf("they differ in %v, %v", before.Differ(after), err)
	}
	if err := to.FinishMove(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	if err := to.CheckMove(t.Context()); err != nil {
		t.Errorf("what was carried over cannot be used: %v", err)
	}
}

// TestMoveTables carries every table from SQLite to PostgreSQL, on to another SQLite, and on to another PostgreSQL, with
// stops, and finds all rows in each.
func TestMoveTables(t *testing.T) {
	const rows = 1100
	keys := metatest.NewKeys()
	path, first := sqliteAt(t, keys)
	fillTables(t, path, rows)
	server, url := newPostgres(t)
	large := openPostgres(t, url, keys)
	stops := []string{"packages 500", "packages 1000", "packages 1100", "mails 500", "deliveries 500", "watch 1", "alerts 1100"}
	moveAll(t, sqliteSource(t, path), large, stops...)
	contents, err := first.Contents(t.Context())
	if err != nil || contents.Rows() != rows*int64(len(contents)-1)+1 {
		t.Fatalf("%d rows, %v", contents.Rows(), err)
	}
	again, second := sqliteAt(t, keys)
	moveAll(t, source(t)(meta.OpenPostgresSource(t.Context(), url)), second, stops...)
	other := server.URL(server.NewDatabase(t))
	moveAll(t, sqliteSource(t, again), openPostgres(t, other, keys))
	// Each finish adds the time of its move to unwatched.
	last, err := source(t)(meta.OpenPostgresSource(t.Context(), other)).Contents(t.Context(), unseen)
	if differ := contents.Differ(last); err != nil || len(differ) != 1 || differ[0] != "unwatched" {
		t.Errorf("after three moves they differ in %v, %v", differ, err)
	}
}

// TestMoveRefuses: what would lose or mix rows is not begun, or not finished.
func TestMoveRefuses(t *testing.T) {
	keys := metatest.NewKeys()
	path, _ := sqliteAt(t, keys)
	fillTables(t, path, 10)
	from := sqliteSource(t, path)
	before, err := from.Contents(t.Context(), unseen)
	if err != nil {
		t.Fatal(err)
	}
	conflict := func(what string, err error) {
		t.Helper()
		if gateway.ErrorCode(err) != gateway.CodeConflict {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := from.Idle(t.Context()); err != nil {
		t.Errorf("the source is idle: %v", err)
	}
	if _, err := rawSQLite(t, path).Exec(`INSERT INTO nodes (id, seen) VALUES ('a node', ?)`, time.Now().UnixMicro()); err != nil {
		t.Fatal(err)
	}
	conflict("a source that a node serves", from.Idle(t.Context()))

	full, used := sqliteAt(t, keys)
	fillTables(t, full, 1)
	_, _, err = used.BeginMove(t.Context(), before)
	conflict("a target that is not empty", err)

	_, served := sqliteAt(t, keys)
	if err := served.Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, _, err = served.BeginMove(t.Context(), before)
	conflict("a target that a node serves", err)

	half, to := sqliteAt(t, keys)
	if _, _, err := to.BeginMove(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	if err := to.MoveTables(t.Context(), from, unseen); err != nil {
		t.Fatal(err)
	}
	conflict("a source that is half", sqliteSource(t, half).Idle(t.Context()))
	if _, err := rawSQLite(t, path).Exec(`UPDATE packages SET expires = expires + 1`); err != nil {
		t.Fatal(err)
	}
	after, err := from.Contents(t.Context(), unseen)
	if differ := before.Differ(after); err != nil || len(differ) != 1 || differ[0] != "packages" {
		t.Fatalf("the change is not seen: %v, %v", differ, err)
	}
	conflict("the end of another move", to.FinishMove(t.Context(), after))
	if _, restarted, err := to.BeginMove(t.Context(), after); err != nil || !restarted {
		t.Errorf("a source that has changed: restarted %v, %v", restarted, err)
	}
	moveAll(t, from, to)
	if finished, _, err := to.BeginMove(t.Context(), before); err != nil || time.Since(finished) > time.Hour {
		t.Errorf("a move that was finished: %v, %v", finished, err)
	}
	conflict("a second end", to.FinishMove(t.Context(), after))

	if _, err := rawSQLite(t, path).Exec(`DELETE FROM goose_db_version WHERE version_id > 1`); err != nil {
		t.Fatal(err)
	}
	_, err = meta.OpenSQLiteSource(t.Context(), path)
	conflict("an older schema", err)
	if _, err := meta.OpenSQLiteSource(t.Context(), filepath.Join(t.TempDir(), "none.db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// TestMoveRestartsOnPostgres: rows of an earlier try are removed when the source has changed since.
func TestMoveRestartsOnPostgres(t *testing.T) {
	keys := metatest.NewKeys()
	path, _ := sqliteAt(t, keys)
	fillTables(t, path, 10)
	from := sqliteSource(t, path)
	_, url := newPostgres(t)
	to := openPostgres(t, url, keys)
	before, err := from.Contents(t.Context(), unseen)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := to.BeginMove(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	if err := to.MoveTables(t.Context(), from, unseen); err != nil {
		t.Fatal(err)
	}
	if _, err := rawSQLite(t, path).Exec(`DELETE FROM mails`); err != nil { // and what depends on them
		t.Fatal(err)
	}
	after, err := from.Contents(t.Context(), unseen)
	if err != nil {
		t.Fatal(err)
	}
	if _, restarted, err := to.BeginMove(t.Context(), after); err != nil || !restarted {
		t.Fatalf("restarted %v, %v", restarted, err)
	}
	moveAll(t, from, to)
}

func hashOf(t *testing.T, path string) [sha256.Size]byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(data)
}

// crashed copies a database with its log, as kill -9 leaves them.
func crashed(t *testing.T, path string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"meta.db", "meta.db-wal"} {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(path), name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "meta.db")
}

// TestMoveLeavesTheSource: database and log of a source stay byte for byte, with a log that a crash left too; SQLite makes
// the -shm file beside them, and an empty log where there was none.
func TestMoveLeavesTheSource(t *testing.T) {
	keys := metatest.NewKeys()
	path, s := sqliteAt(t, keys)
	fillTables(t, path, 50)
	left := crashed(t, path)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{"closed in order": path, "crashed": left} {
		t.Run(name, func(t *testing.T) {
			before := hashOf(t, file)
			log, _ := os.ReadFile(file + "-wal")
			from, err := meta.OpenSQLiteSource(t.Context(), file)
			if err != nil {
				t.Fatal(err)
			}
			_, to := sqliteAt(t, keys)
			moveAll(t, from, to)
			if err := from.Close(); err != nil {
				t.Fatal(err)
			}
			after, _ := os.ReadFile(file + "-wal")
			if hashOf(t, file) != before || string(after) != string(log) {
				t.Error("the source was changed")
			}
			entries, err := os.ReadDir(filepath.Dir(file))
			if err != nil {
				t.Fatal(err)
			}
			for _, entry := range entries {
				if !slices.Contains([]string{"meta.db", "meta.db-wal", "meta.db-shm"}, entry.Name()) {
					t.Errorf("there is a %s now", entry.Name())
				}
			}
		})
	}
}

// TestBackup copies a database that is in use; the copy forgets when a gateway ran last.
func TestBackup(t *testing.T) {
	keys := metatest.NewKeys()
	path, s := sqliteAt(t, keys)
	fillTables(t, path, 50)
	from := sqliteSource(t, path)
	before, err := from.Contents(t.Context(), unseen)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "copy's.db")
	if err := from.BackupTo(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	if _, err := s.QueueKey(t.Context(), time.Now()); err != nil { // the copy is of before
		t.Fatal(err)
	}
	info, err := os.Stat(out)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	after, err := sqliteSource(t, out).Contents(t.Context(), unseen)
	if err != nil || strings.Join(before.Differ(after), " ") != "watch" {
		t.Errorf("the copy differs in %v, %v", before.Differ(after), err)
	}
	if err := from.BackupTo(t.Context(), out); !errors.Is(err, os.ErrExist) {
		t.Errorf("a file that is there: %v", err)
	}
	if entries, err := os.ReadDir(filepath.Dir(out)); err != nil || len(entries) != 1 {
		t.Errorf("beside the copy: %v, %v", entries, err)
	}
}

var _ = stdlib.GetDefaultDriver // registers pgx
