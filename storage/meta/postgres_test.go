package meta_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sealpost/storage/meta"
	"sealpost/storage/meta/metatest"
	"sealpost/storage/storagetest"
)

// emptied deletes all rows of a database's tables, which is quicker by far than to make another one.
const emptied = `SET session_replication_role = replica;
	DO $$ DECLARE name text; BEGIN
		FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'goose_db_version' LOOP
			EXECUTE format('DELETE FROM %I', name);
		END LOOP;
	END $$`

func withPostgres(t testing.TB, url string, do func(context.Context, *pgx.Conn) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx) //nolint:errcheck // what was done on it counts
	if err := do(ctx, conn); err != nil {
		t.Fatal(err)
	}
}

// execPostgres runs statements beside the Store.
func execPostgres(t testing.TB, url, statements string) {
	t.Helper()
	withPostgres(t, url, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, statements)
		return err
	})
}

func openPostgres(t testing.TB, url string, keys meta.Wrapper, options ...meta.Option) *meta.Store {
	t.Helper()
	s, err := meta.OpenPostgres(context.Background(), url, keys, options...)
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

// shared is the server of all tests that leave it as it is: each has a database of its own.
var shared = &sharedServer{}

func TestMain(m *testing.M) {
	code := m.Run()
	shared.end()
	os.Exit(code)
}

// sharedServer is what a server belongs to that outlives the test that needs it first.
type sharedServer struct {
	testing.TB
	first    sync.Once
	server   *storagetest.Postgres
	cleanups []func()
}

// template is a database of the shared server with our schema.
const template = "migrated"

// Helper implements testing.TB, as far as storagetest needs it.
func (s *sharedServer) Helper() {}

func (s *sharedServer) Context() context.Context { return context.Background() }

func (s *sharedServer) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

func (s *sharedServer) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func (s *sharedServer) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (s *sharedServer) end() {
	for _, f := range slices.Backward(s.cleanups) {
		f()
	}
}

func (s *sharedServer) get(t testing.TB) *storagetest.Postgres {
	t.Helper()
	s.first.Do(func() {
		p := storagetest.StartPostgres(s)
		execPostgres(t, p.URL("postgres"), `CREATE DATABASE `+template)
		store, err := meta.OpenPostgres(context.Background(), p.URL(template), metatest.NewKeys())
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		s.server = p
	})
	if s.server == nil {
		t.Fatal("PostgreSQL could not be started for the first test that needs it")
	}
	return s.server
}

// newPostgres returns the URL of a new database with our schema, on the server that the tests share.
func newPostgres(t testing.TB) (*storagetest.Postgres, string) {
	t.Helper()
	p := shared.get(t)
	name := "test_" + strings.ToLower(rand.Text()[:12])
	execPostgres(t, p.URL("postgres"), `CREATE DATABASE `+name+` TEMPLATE `+template)
	t.Cleanup(func() { execPostgres(t, p.URL("postgres"), `DROP DATABASE `+name+` WITH (FORCE)`) })
	return p, p.URL(name)
}

// newServer returns the URL of a new database on a new server, for a test that restarts, fills or configures it.
func newServer(t testing.TB) (*storagetest.Postgres, string) {
	t.Helper()
	p := storagetest.StartPostgres(t)
	return p, p.URL(p.NewDatabase(t))
}

func TestPostgres(t *testing.T) {
	_, url := newPostgres(t)
	if err := openPostgres(t, url, metatest.NewKeys()).Close(); err != nil { // migrated
		t.Fatal(err)
	}
	metatest.Run(t, func(t *testing.T) metatest.Open {
		execPostgres(t, url, emptied)
		connections := 1 // the first node must do with that: nothing needs a second one while it has one
		return func(t *testing.T, keys meta.Wrapper, now func() time.Time) *meta.Store {
			s := openPostgres(t, url, keys, meta.WithClock(now), meta.WithMaxConnections(connections))
			connections = 20
			return s
		}
	})
}
