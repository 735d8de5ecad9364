package meta_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"sealpost/gateway"
	"sealpost/storage/meta"
	"sealpost/storage/meta/metatest"
)

// Nodes that start at once on an empty database make its schema once.
func TestNodesStartAtOnce(t *testing.T) {
	p := shared.get(t)
	url := p.URL(p.NewDatabase(t))
	keys := metatest.NewKeys()
	var group errgroup.Group
	for range 8 {
		group.Go(func() error {
			s, err := meta.OpenPostgres(t.Context(), url, keys)
			if err != nil {
				return err
			}
			return s.Close()
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	s := openPostgres(t, url, keys)
	if err := s.CommitMail(t.Context(), newMail(t, s)); err != nil {
		t.Error(err)
	}
}

// What cannot keep our promises is not opened, and no password is told.
func TestPostgresRefuses(t *testing.T) {
	p, url := newPostgres(t)
	openPostgres(t, url, metatest.NewKeys())
	secret := "pass-marker"
	withPassword := strings.Replace(url, "postgres@", "postgres:"+secret+"@", 1)
	for name, test := range map[string]struct {
		url, statement string
		code           gateway.Code
		saying         string
	}{
		"commits that are not on the disk": {url: url + "&synchronous_commit=off", code: gateway.CodeUnavailable, saying: "synchronous_commit"},
		"no room to write":                 {url: url + "&default_transaction_read_only=on", code: gateway.CodeUnavailable, saying: "only reads"},
		"a URL that is none":               {url: "postgres://user:" + secret + "@host:port:1/%%/", code: gateway.CodeInvalid, saying: "URL"},
		"a parameter that is none":         {url: withPassword + "&sslmode=maybe", code: gateway.CodeInvalid, saying: "URL"},
		"a server that is away":            {url: strings.Replace(withPassword, p.Addr, "127.0.0.1:1", 1), code: gateway.CodeUnavailable, saying: "not available"},
		"a database that is not there":     {url: withPassword + "&dbname=missing", code: gateway.CodeInternal, saying: "missing"},
		"a schema that is newer than we":   {url: withPassword, code: gateway.CodeConflict, saying: "9999", statement: `INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)`},
	} {
		t.Run(name, func(t *testing.T) {
			if test.statement != "" {
				execPostgres(t, url, test.statement)
				defer execPostgres(t, url, `DELETE FROM goose_db_version WHERE version_id = 9999`)
			}
			s, err := meta.OpenPostgres(t.Context(), test.url, metatest.NewKeys())
			if err == nil {
				_ = s.Close()
			}
			if gateway.ErrorCode(err) != test.code || !strings.Contains(fmt.Sprint(err), test.saying) {
				t.Errorf("%v, want %q, %q", err, test.code, test.saying)
			}
			if strings.Contains(fmt.Sprint(err), secret) {
				t.Errorf("the password is told: %v", err)
			}
		})
	}
	t.Run("PGPASSWORD", func(t *testing.T) {
		t.Setenv("PGPASSWORD", secret)
		if _, err := meta.OpenPostgres(t.Context(), strings.Replace(url, p.Addr, "127.0.0.1:1", 1), metatest.NewKeys()); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%v", err)
		}
	})
}

// skewed puts a clock that is two days ahead in the place of the server's.
const skewed = `CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
	$$ SELECT pg_catalog.clock_timestamp() + interval '2 days' $$`

// The database's clock counts: with one that is two days ahead, no time of this host's is in a row or in a decision.
func TestNodesClocksDoNotCount(t *testing.T) {
	_, url := newPostgres(t)
	execPostgres(t, url, skewed)
	s := openPostgres(t, url+"&search_path=public,pg_catalog", metatest.NewKeys())
	ctx := t.Context()
	now, err := s.Now(ctx)
	if ahead := time.Until(now); err != nil || ahead < 47*time.Hour || ahead > 49*time.Hour {
		t.Fatalf("the database's clock is %v ahead, %v", ahead, err)
	}
	clock := metatest.NewClock()
	clock.Add(now.Sub(clock.Now()))
	m := fill(t, s, clock)
	fillMailWorld(t, s, clock)
	late := newMail(t, s)
	late.Started = time.Now() // as this host has it: two days ago
	if err := s.CommitMail(ctx, late); gateway.ErrorCode(err) != gateway.CodeUnavailable {
		t.Errorf("a mail that began two days ago by the database's clock: %v", err)
	}
	for range 2 {
		if err := s.KeepWatch(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if claimed, err := s.ClaimAlert(ctx, "kind", time.Hour); err != nil || !claimed {
		t.Errorf("claimed %t, %v", claimed, err)
	}
	if claimed, err := s.ClaimWork(ctx, "kind", time.Hour); err != nil || !claimed {
		t.Errorf("claimed %t, %v", claimed, err)
	}
	if err := s.Beat(ctx); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.GetDelivery(ctx, m.ID.String()); gateway.ErrorCode(err) != gateway.CodeNotFound {
		t.Error(err)
	}
	columns := timesOf(t, url, time.Now().Add(24*time.Hour))
	for _, want := range []string{
		"mails.created", "deliveries.next_attempt", "deliveries.since", "fingerprints.at", "refusals.at", "alerts.told", "agents.created",
		"login_failures.at", "audit_events.at", "watch.last", "nodes.seen", "work.until", "packages.created",
	} {
		if !columns[want] {
			t.Errorf("%s holds no time", want)
		}
	}
}

// given are times that callers hand in.
var given = map[string]bool{"attempts.started": true, "attempts.ended": true}

// timesOf returns the columns that hold times, and refuses those that hold one before a limit.
func timesOf(t *testing.T, url string, limit time.Time) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	withPostgres(t, url, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT table_name, column_name FROM information_schema.columns
			WHERE table_schema = 'public' AND data_type = 'bigint'`)
		if err != nil {
			return err
		}
		columns, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c [2]string, err error) { return c, row.Scan(&c[0], &c[1]) })
		if err != nil {
			return err
		}
		for _, c := range columns {
			var times, before int // what is no time is small
			err := conn.QueryRow(ctx, fmt.Sprintf(`SELECT COUNT(*), COUNT(*) FILTER (WHERE %[1]s < $1) FROM %[2]s WHERE %[1]s > 1000000000000`,
				pgx.Identifier{c[1]}.Sanitize(), pgx.Identifier{c[0]}.Sanitize()), limit.UnixMicro()).Scan(&times, &before)
			if err != nil {
				return err
			}
			name := c[0] + "." + c[1]
			found[name] = times > 0
			if before > 0 && !given[name] {
				t.Errorf("%s holds a time of this host's", name)
			}
		}
		return nil
	})
	return found
}

// Promise 1 on PostgreSQL: nothing of a mail, of its correspondents or of the agents is in its files as it is.
func TestNoPlaintextInPostgres(t *testing.T) {
	p, url := newServer(t)
	keys := &remembering{metatest.NewKeys(), map[string][]byte{}, map[string][]byte{}}
	clock := metatest.NewClock()
	s := openPostgres(t, url, keys, meta.WithClock(clock.Now))
	m := fill(t, s, clock)
	fillMailWorld(t, s, clock)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var dir string
	withPostgres(t, url, func(ctx context.Context, conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, `CHECKPOINT`); err != nil {
			return err
		}
		return conn.QueryRow(ctx, `SHOW data_directory`).Scan(&dir)
	})
	p.Stop()
	checkNoPlaintext(t, "in the server's files", tree(t, dir), keys, m)
}

// tree returns the bytes of all files of a directory, those of the log of what is written too.
func tree(t *testing.T, dir string) []byte {
	t.Helper()
	var all []byte
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path) // #nosec G122 -- a directory of the test's own
		all = append(all, b...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Promise 2 on a full disk: nothing is committed, the queue stays as it was, and there is room again later.
func TestPostgresFullDisk(t *testing.T) {
	_, url := newServer(t)
	openPostgres(t, url, metatest.NewKeys())
	var data string
	withPostgres(t, url, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SHOW data_directory`).Scan(&data)
	})
	owner, err := os.Stat(data)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(filepath.Dir(data), "small")
	who := owner.Sys().(*syscall.Stat_t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=4m,mode=0700,uid=%d,gid=%d", who.Uid, who.Gid)); err != nil {
		t.Fatalf("mount a small file system (these tests run as root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	execPostgres(t, url, `CREATE TABLESPACE small LOCATION '`+dir+`'`)
	execPostgres(t, url, `ALTER TABLE mails SET TABLESPACE small`)
	s := openPostgres(t, url, metatest.NewKeys())
	committed := 0
	m := newMail(t, s)
	for err = nil; err == nil && committed < 1000; committed++ {
		m = metatest.NewMail(m.Started, m.Copy.Key, metatest.Routes(1)...)
		m.Copy.Inline = make([]byte, 60<<10)
		err = s.CommitMail(t.Context(), m)
	}
	committed-- // the last one failed
	if gateway.ErrorCode(err) != gateway.CodeStorageFull || stored(t, url, m.ID) != 0 {
		t.Fatalf("after %d mails: %v, want %s", committed, err, gateway.CodeStorageFull)
	}
	if counts, err := s.CountDeliveries(t.Context()); err != nil || counts[gateway.Pending] != int64(committed) || committed == 0 {
		t.Errorf("the queue holds %v, %v; want %d", counts, err, committed)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=32m"); err != nil {
		t.Fatal(err)
	}
	if err := s.CommitMail(t.Context(), m); err != nil {
		t.Errorf("there is room again: %v", err)
	}
}
