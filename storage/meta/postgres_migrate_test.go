package meta_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pressly/goose/v3"

	"sealpost/gateway"
	"sealpost/storage/meta/metatest"
)

// firstPostgres makes a database of schema 1 in which a delivery waits, and returns its URL and the mail.
func firstPostgres(t *testing.T, keys *metatest.Keys, copied string) (url, mail string) {
	t.Helper()
	p := shared.get(t)
	url = p.URL(p.NewDatabase(t))
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, os.DirFS("migrations/postgres"), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		t.Fatal(err)
	}
	_, err = provider.UpTo(t.Context(), 1)
	w, now := wrapAll{t, keys}, time.Now()
	mail, day := gateway.NewPackageID().String(), now.UTC().Format("20060102")
	for _, insert := range []struct {
		query string
		args  []any
	}{
		{`INSERT INTO queue_keys (day, key) VALUES ($1, $2)`, []any{day, w.wrap("queue_keys", "key", day, strings.Repeat("k", 32))}},
		{`INSERT INTO mails (id, created, expires, size, eight_bit, utf8, queue_day, mail_from, copy) VALUES ($1, $2, $3, 10, 0, 0, $4, $5, $6)`,
			[]any{mail, now.UnixMicro(), now.Add(time.Hour).UnixMicro(), day, w.wrap("mails", "mail_from", mail, "anna@client.example"), w.wrap("mails", "copy", mail, copied)}},
		{`INSERT INTO deliveries (id, mail_id, state, route, lane, forward_to, created, since, next_attempt)
			VALUES ($1, $1, 'pending', $2, $2, 'support@x-0.case.example', $3, $3, $3)`, []any{mail, metatest.Routes(1)[0].Address, now.UnixMicro()}},
	} {
		if err == nil {
			_, err = db.Exec(insert.query, insert.args...)
		}
	}
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return url, mail
}

// TestPostgresMigrationKeepsWhatWaits: what waited in the first schema, its copy among the long values, is delivered after
// its database was opened. Copies of mails that come since are in the mails' rows.
func TestPostgresMigrationKeepsWhatWaits(t *testing.T) {
	keys, copied := metatest.NewKeys(), strings.Repeat("copy ", 1000)
	url, mail := firstPostgres(t, keys, copied)
	long := func() string {
		table := rowsOf(t, url, `SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = 'mails'::regclass`)[0]
		return fmt.Sprint(rowsOf(t, url, `SELECT COUNT(DISTINCT chunk_id) FROM `+table))
	}
	if n := long(); n != "[1]" {
		t.Errorf("%s copies are among the long values, want one", n)
	}
	s := openPostgres(t, url, keys)
	later := newMail(t, s)
	later.Copy.Inline = []byte(copied)
	if err := s.CommitMail(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	if n := long(); n != "[1]" {
		t.Errorf("with another one, %s copies are among the long values, want one", n)
	}
	leased, err := metatest.LeaseAny(t.Context(), s, "node", 10, time.Minute)
	if err != nil || len(leased) != 3 || leased[0].Mail.String() != mail && leased[1].Mail.String() != mail && leased[2].Mail.String() != mail {
		t.Fatalf("%d leased, %v", len(leased), err)
	}
	for _, l := range leased {
		if string(l.Copy.Inline) != copied {
			t.Errorf("the copy of mail %s has %d octets", l.Mail, len(l.Copy.Inline))
		}
		if err := s.FinishAttempt(t.Context(), l.Lease, gateway.AttemptResult{Attempt: gateway.Attempt{Event: gateway.EventAccepted}}); err != nil {
			t.Error(err)
		}
	}
}
