package meta_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"sealpost/gateway"
	"sealpost/storage/meta"
	"sealpost/storage/meta/metatest"
)

// whileLocked runs do while a table is locked, and lets go when so many transactions wait for it as are given.
func whileLocked(t *testing.T, url, table string, waiting int, do func()) {
	t.Helper()
	withPostgres(t, url, func(ctx context.Context, conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, `BEGIN; LOCK TABLE `+table+` IN ACCESS EXCLUSIVE MODE`); err != nil {
			return err
		}
		do()
		eventually(t, "others wait for the table", func() bool { return counted(t, url, `wait_event_type = 'Lock'`) >= waiting })
		_, err := conn.Exec(ctx, `COMMIT`)
		return err
	})
}

// rowsOf returns what a query finds, with each value as it is written.
func rowsOf(t *testing.T, url, query string, args ...any) (all []string) {
	t.Helper()
	withPostgres(t, url, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
			values, err := row.Values()
			return fmt.Sprint(values...), err
		})
		return err
	})
	return all
}

// Mails that are committed together: each fails alone, whatever is wrong with the others, and one that gives up leaves
// nothing.
func TestMailsTogether(t *testing.T) {
	_, url := newPostgres(t)
	s := openPostgres(t, url, metatest.NewKeys())
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	first := newMail(t, s)
	const callers = 80
	want := make([]int, callers)
	mails := make([]gateway.AcceptedMail, callers)
	var group errgroup.Group
	for i := range callers {
		m, ctx := metatest.NewMail(first.Started, first.Copy.Key, metatest.Routes(2)...), t.Context()
		want[i] = 2
		switch i % 8 {
		case 1: // fails in the database
			m.Deliveries[1] = m.Deliveries[0]
			want[i] = 0
		case 2: // fails before it is written
			m.Started = m.Started.Add(-2 * time.Hour)
			want[i] = 0
		case 3:
			ctx, want[i] = gone, 0
		case 4:
			m.Copy.Key.Day, want[i] = "19991231", 0
		}
		mails[i] = m
		group.Go(func() error {
			err := s.CommitMail(ctx, m)
			if (err == nil) != (want[i] > 0) || ctx == gone && !errors.Is(err, context.Canceled) ||
				(i%8 == 2 || i%8 == 4) && gateway.ErrorCode(err) != gateway.CodeUnavailable {
				return fmt.Errorf("caller %d got another's result: %w", i%8, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	for i, m := range mails {
		if n := len(rowsOf(t, url, `SELECT 1 FROM deliveries WHERE mail_id = $1`, m.ID.String())); n != want[i] {
			t.Errorf("caller %d: %d deliveries, want %d", i%8, n, want[i])
		}
	}
}

// What is committed in one transaction with others is what is committed alone, in every column.
func TestTogetherAsAlone(t *testing.T) {
	_, url := newPostgres(t)
	clock := metatest.NewClock()
	s := openPostgres(t, url, metatest.NewKeys(), meta.WithClock(clock.Now))
	key, err := s.QueueKey(t.Context(), clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	one := func() gateway.AcceptedMail {
		m := metatest.NewMail(clock.Now(), key, metatest.Routes(2)...)
		m.Fingerprint = []byte("fingerprint")
		m.Package.Placements[0].CaseRef = "500000000000001"
		m.Envelope.Protocol, m.Envelope.TLS, m.Envelope.TrustedRelay, m.Envelope.Return = "ESMTPS", "TLS1.3", true, "HDRS"
		m.Authentication = gateway.Authentication{SPF: gateway.AuthPass, DKIM: gateway.AuthNone, DMARC: gateway.AuthFail, DMARCPolicy: "reject", ByRelay: true}
		m.Scan, m.Silence = gateway.Scan{Verdict: gateway.ScanInfected, Signature: "Test.Virus"}, "DMARC failed"
		m.Package.Scan = m.Scan
		m.Deliveries[1].Hold = "look at this first"
		return m
	}
	alone := one()
	if err := s.CommitMail(t.Context(), alone); err != nil {
		t.Fatal(err)
	}
	const n = 6
	var mails [n]gateway.AcceptedMail
	var group errgroup.Group
	whileLocked(t, url, "mails", 2, func() { // the first waits, and after it those that came meanwhile
		for i := range mails {
			mails[i] = one()
			group.Go(func() error { return s.CommitMail(t.Context(), mails[i]) })
		}
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	transactions := rowsOf(t, url, `SELECT DISTINCT xmin FROM mails`)
	if len(transactions) >= 1+n {
		t.Errorf("%d mails were committed by %d transactions", n, len(transactions)-1)
	}
	want, err := s.Package(t.Context(), alone.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mails {
		p, err := s.Package(t.Context(), m.ID)
		if err != nil || p.ServerSecret.Reveal() != m.Package.ServerSecret.Reveal() || len(p.Objects) != len(want.Objects) || !slices.Equal(p.Items, want.Items) ||
			!reflect.DeepEqual(p.Placements, want.Placements) || p.Head != m.Package.Head || p.ProofHash != m.Package.ProofHash {
			t.Errorf("the package is %+v, %v", p, err)
		}
		for _, table := range []string{
			`SELECT created, expires, size, eight_bit, utf8, queue_day, copy_object, protocol, tls, trusted_relay, dsn_return, silence, spf, dkim, dmarc,
				dmarc_policy, auth_by_relay, scan, scan_signature, copy IS NULL, mail_from IS NULL, hello IS NULL, client IS NULL FROM mails WHERE id = $1`,
			`SELECT source, state, created, expires, scan, scan_signature FROM packages WHERE id = $1`,
			`SELECT role, position, lookup FROM addresses WHERE owner_id = $1 ORDER BY role, position`,
			`SELECT state, route, lane, forward_to, created, since, attempts, next_attempt, await_case, sent_at, dead_at, owner, fence, notify, told, untold,
				recipient, reason IS NULL FROM deliveries WHERE mail_id = $1 ORDER BY route`,
			`SELECT fingerprint, at, owner, ended, repeats FROM fingerprints WHERE mail_id = $1`,
			`SELECT position, item, size FROM objects WHERE package_id = $1 ORDER BY position`,
		} {
			if got, want := rowsOf(t, url, table, m.ID.String()), rowsOf(t, url, table, alone.ID.String()); len(got) == 0 || !slices.Equal(got, want) {
				t.Errorf("together:\n%v\nalone:\n%v", got, want)
			}
		}
	}
}

// Promise 2 when the answer to a COMMIT of many mails is lost: each of them is there once, and is known to be; and when
// that cannot be found out, none is said to be.
func TestOutcomeOfMany(t *testing.T) {
	p, url := newPostgres(t)
	keys := metatest.NewKeys()
	for name, known := range map[string]bool{"committed": true, "unknown": false} {
		t.Run(name, func(t *testing.T) {
			outcome := 20 * time.Second
			if !known {
				outcome = 100 * time.Millisecond
			}
			s, proxy := behindProxy(t, p, url, keys, meta.WithOutcome(outcome))
			first := newMail(t, s)
			mails := []gateway.AcceptedMail{first}
			for range 3 {
				mails = append(mails, metatest.NewMail(first.Started, first.Copy.Key, metatest.Routes(2)...))
			}
			// For each mail that it stores, a COMMIT takes so long.
			execPostgres(t, url, strings.Replace(fmt.Sprintf(slowCommit, "NULL"), "0.5", "1", 1))
			errs := make(chan error, len(mails))
			commit := func(m gateway.AcceptedMail) { go func() { errs <- s.CommitMail(t.Context(), m) }() }
			commit(first)
			eventually(t, "the first is in COMMIT", func() bool { return counted(t, url, inCommit) == 1 })
			for _, m := range mails[1:] {
				commit(m)
			}
			eventually(t, "the others are in COMMIT", func() bool { return counted(t, url, inCommit) >= 2 })
			proxy.Refuse()
			eventually(t, "the COMMITs are over", func() bool { return !committing(t, url) })
			execPostgres(t, url, quickCommit)
			if known {
				proxy.Heal()
			}
			for range mails {
				if err := <-errs; (err == nil) != known {
					t.Errorf("%v", err)
				}
			}
			proxy.Heal()
			for i, m := range mails {
				if n := stored(t, url, m.ID); n != 2 && (known || i == 0) {
					t.Errorf("%d deliveries are stored, want 2", n)
				}
			}
		})
	}
}

// A mail whose copy is under a key that the database has lost, and another node has made anew, is not taken: nobody could
// read it again.
func TestMailUnderALostKeyIsRefused(t *testing.T) {
	_, url := newPostgres(t)
	keys := metatest.NewKeys()
	one, other := openPostgres(t, url, keys), openPostgres(t, url, keys)
	now := time.Now()
	lost, err := one.QueueKey(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	execPostgres(t, url, `DELETE FROM queue_keys`)
	if _, err := other.QueueKey(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if err := one.CommitMail(t.Context(), metatest.NewMail(now, lost, metatest.Routes(1)...)); gateway.ErrorCode(err) != gateway.CodeUnavailable {
		t.Errorf("%v", err)
	}
	key, err := one.QueueKey(t.Context(), now)
	if err != nil || key.Key == lost.Key {
		t.Fatalf("the lost key is still in use, %v", err)
	}
	if err := one.CommitMail(t.Context(), metatest.NewMail(now, key, metatest.Routes(1)...)); err != nil {
		t.Error(err)
	}
}
