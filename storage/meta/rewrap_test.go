package meta_test

import (
	"bytes"
	"database/sql"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sealpost/gateway"
	"sealpost/storage/meta"
	"sealpost/storage/meta/metatest"
)

var (
	tableLine  = regexp.MustCompile(`^CREATE TABLE (\w+) \(`)
	columnLine = regexp.MustCompile(`^\s+(\w+) .*-- wrapped`)
	addedLine  = regexp.MustCompile(`^ALTER TABLE (\w+) ADD COLUMN (\w+) .*-- wrapped`)
)

// schemaWrapped returns the columns that the migrations call wrapped, as table.column.
func schemaWrapped(t *testing.T, dialect string) []string {
	t.Helper()
	text, err := meta.Migrations(dialect)
	if err != nil {
		t.Fatal(err)
	}
	var columns []string
	table := ""
	for line := range strings.Lines(text) {
		if m := tableLine.FindStringSubmatch(line); m != nil {
			table = m[1]
		} else if m := columnLine.FindStringSubmatch(line); m != nil {
			columns = append(columns, table+"."+m[1])
		} else if m := addedLine.FindStringSubmatch(line); m != nil {
			columns = append(columns, m[1]+"."+m[2])
		} else if strings.Contains(line, "-- wrapped") {
			t.Errorf("%s: a wrapped column in a line of another form: %s", dialect, line)
		}
	}
	slices.Sort(columns)
	return columns
}

// Whoever adds a wrapped column must have it wrapped anew: the schema's and ours are the same, in both databases.
func TestEveryWrappedColumnIsRewrapped(t *testing.T) {
	_, ours := meta.WrappedColumns()
	slices.Sort(ours)
	for _, dialect := range []string{"sqlite", "postgres"} {
		if schema := schemaWrapped(t, dialect); !slices.Equal(schema, ours) {
			t.Errorf("%s calls wrapped\n%v\nand these are wrapped anew:\n%v", dialect, schema, ours)
		}
	}
}

func TestRewrapGoesByPrimaryKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	open(t, path, metatest.NewKeys(), metatest.NewClock().Now)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // it is only read
	keys, _ := meta.WrappedColumns()
	for table, want := range keys {
		var got string
		err := db.QueryRow(`SELECT group_concat(name) FROM (SELECT name FROM pragma_table_info($1) WHERE pk > 0 ORDER BY pk)`, table).Scan(&got)
		if err != nil || got != want {
			t.Errorf("%s has the key %s, %v; not %s", table, got, err, want)
		}
	}
}

// A value in every wrapped column is wrapped by the new key, and can be without the old one.
func TestRewrapOfEveryColumn(t *testing.T) {
	_, url := newPostgres(t)
	for name, opened := range map[string]func(meta.Wrapper, func() time.Time) *meta.Store{
		"SQLite": func(keys meta.Wrapper, now func() time.Time) *meta.Store {
			return open(t, filepath.Join(t.TempDir(), "meta.db"), keys, now)
		},
		"PostgreSQL": func(keys meta.Wrapper, now func() time.Time) *meta.Store {
			return openPostgres(t, url, keys, meta.WithClock(now))
		},
	} {
		t.Run(name, func(t *testing.T) {
			keys := &remembering{metatest.NewKeys(), map[string][]byte{}, map[string][]byte{}}
			clock := metatest.NewClock()
			s := opened(keys, clock.Now)
			fill(t, s, clock)
			fillMailWorld(t, s, clock)
			rewrapAll(t, s, keys, clock)
		})
	}
}

func rewrapAll(t *testing.T, s *meta.Store, keys *remembering, clock *metatest.Clock) {
	ctx := t.Context()
	old, err := s.CurrentKey(ctx)
	if err == nil {
		err = keys.AddKey()
	}
	if err == nil {
		err = s.UseKey(ctx, keys.ActiveKey(), gateway.Principal{Kind: gateway.PrincipalAdmin})
	}
	if err != nil {
		t.Fatal(err)
	}
	clear(keys.cipher)
	if _, err := s.Rewrap(ctx, gateway.Principal{Kind: gateway.PrincipalAdmin}, nil); err != nil {
		t.Fatal(err)
	}
	_, columns := meta.WrappedColumns()
	for _, column := range columns {
		if !bytes.HasPrefix(keys.cipher[column], []byte(keys.ActiveKey())) {
			t.Errorf("no value of %s was wrapped anew", column)
		}
	}
	clock.Add(3 * time.Hour)
	if err := s.MayPrune(ctx, nil); err != nil {
		t.Error(err)
	}
	keys.Forget(old.ID)
	agents, err := s.ListAgents(ctx)
	if err != nil || len(agents) != 1 || agents[0].Address != "ann.marker@example.com" {
		t.Errorf("agents %v, %v", len(agents), err)
	}
	if _, err := s.ListAudit(ctx, nil, 100); err != nil {
		t.Error(err)
	}
}

// A node whose keyring lacks the key in use does not open the database.
func TestOldKeyringIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	keys, clock := metatest.NewKeys(), metatest.NewClock()
	stale := keys.Node()
	stale.Source = nil
	s := open(t, path, keys, clock.Now)
	_, err := s.CurrentKey(t.Context())
	if err == nil {
		err = keys.AddKey()
	}
	if err == nil {
		err = s.UseKey(t.Context(), keys.ActiveKey(), gateway.Principal{Kind: gateway.PrincipalAdmin})
	}
	if err != nil {
		t.Fatal(err)
	}
	refused, err := meta.OpenSQLite(t.Context(), path, stale, meta.WithClock(clock.Now))
	if err == nil {
		_ = refused.Close()
	}
	if gateway.ErrorCode(err) != gateway.CodeConflict || !strings.Contains(err.Error(), "newest keyring") {
		t.Errorf("with the keyring of before: %v", err)
	}
}

// Promise 2: a process that could not ask which key wraps for an hour writes nothing by a key that may have been
// removed; it asks again by itself.
func TestKeyInUseIsConfirmed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	keys, clock, local := metatest.NewKeys(), metatest.NewClock(), metatest.NewClock()
	theirs := keys.Node()
	other, err := meta.OpenSQLite(t.Context(), path, theirs, meta.WithClock(clock.Now), meta.WithLocalClock(local.Now))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := other.Close(); err != nil {
			t.Error(err)
		}
	})
	s := open(t, path, keys, clock.Now)
	if _, err := s.CurrentKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := keys.AddKey(); err != nil {
		t.Fatal(err)
	}
	if err := s.UseKey(t.Context(), keys.ActiveKey(), gateway.Principal{}); err != nil {
		t.Fatal(err)
	}
	queueKey, err := other.QueueKey(t.Context(), clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	commit := func() error {
		return other.CommitMail(t.Context(), metatest.NewMail(clock.Now(), queueKey, metatest.Routes(1)...))
	}
	if err := commit(); err != nil || theirs.WrappingKey() == keys.ActiveKey() {
		t.Errorf("at once: %v", err)
	}
	local.Add(61 * time.Minute)
	if err := commit(); gateway.ErrorCode(err) != gateway.CodeUnavailable {
		t.Errorf("after an hour: %v", err)
	}
	if err := theirs.Refresh(); err != nil {
		t.Fatal(err)
	}
	if _, err := other.ExpireMails(t.Context(), 1); err != nil { // any transaction asks
		t.Fatal(err)
	}
	if err := commit(); err != nil || theirs.WrappingKey() != keys.ActiveKey() {
		t.Errorf("it has asked: %v, it wraps by %s", err, theirs.WrappingKey())
	}
}
