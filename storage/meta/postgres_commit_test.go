package meta_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sealpost/gateway"
	"sealpost/storage/meta"
	"sealpost/storage/meta/metatest"
)

// counted returns how many connections to the database are as the condition says.
func counted(t testing.TB, url, condition string) (n int) {
	t.Helper()
	withPostgres(t, url, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND `+condition).Scan(&n)
	})
	return n
}

const inCommit = `query = 'COMMIT' AND state = 'active'`

// TestOutcomeHasConnections: when the answers to all COMMITs of a full pool are lost, and as many mails wait for a
// connection, each is asked for as soon as the server is there, and none fails.
func TestOutcomeHasConnections(t *testing.T) {
	const pool = 3
	p, url := newPostgres(t)
	s, proxy := behindProxy(t, p, url, metatest.NewKeys(), meta.WithMaxConnections(pool), meta.WithOutcome(3*time.Second))
	mails := make([]gateway.AcceptedMail, 2*pool)
	for i := range mails {
		mails[i] = newMail(t, s)
	}
	errs := make(chan error, len(mails))
	commit := func(some []gateway.AcceptedMail) {
		for _, mail := range some {
			go func() { errs <- s.CommitMail(t.Context(), mail) }()
		}
	}
	execPostgres(t, url, strings.Replace(fmt.Sprintf(slowCommit, "NULL"), "0.5", "2", 1))
	for n := range pool { // each by its own, as nobody waits with it
		commit(mails[n : n+1])
		eventually(t, "the connections are in COMMIT", func() bool { return counted(t, url, inCommit) == n+1 })
	}
	proxy.Refuse()
	eventually(t, "the COMMITs are over", func() bool { return !committing(t, url) })
	execPostgres(t, url, quickCommit)
	proxy.Heal()
	commit(mails[pool:])
	for range mails {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for _, mail := range mails {
		if n := stored(t, url, mail.ID); n != 2 {
			t.Errorf("%d deliveries are stored, want 2", n)
		}
	}
}

// standby has the server wait for a standby at each commit, which there is not, or for none.
func standby(t testing.TB, url string, wait bool) {
	t.Helper()
	name := ""
	if wait {
		name = "absent"
	}
	execPostgres(t, url, fmt.Sprintf(`ALTER SYSTEM SET synchronous_standby_names = '%s'`, name))
	execPostgres(t, url, `SELECT pg_reload_conf()`)
	eventually(t, "the server knows what to wait for", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return false
		}
		defer conn.Close(context.Background()) //nolint:errcheck // it wrote nothing that counts
		_, err = conn.Exec(ctx, `SELECT pg_logical_emit_message(true, 'test', '')`)
		return (err != nil) == wait
	})
}

// Promise 2 with a synchronous standby that is away: the server breaks off the wait of a COMMIT whose client is gone, and
// shows the mail to everybody, but no mail is said to be stored that the standby has not.
func TestCommitWaitsForStandby(t *testing.T) {
	p, url := newServer(t)
	keys := metatest.NewKeys()
	waiting := `wait_event = 'SyncRep' AND query = 'COMMIT'`
	for name, test := range map[string]struct{ cut, back bool }{
		"its connection is lost":            {cut: true},
		"the standby comes back":            {back: true},
		"and after its connection was lost": {cut: true, back: true},
	} {
		t.Run(name, func(t *testing.T) {
			outcome := time.Second
			if test.back {
				outcome = 20 * time.Second
			}
			s, proxy := behindProxy(t, p, url, keys, meta.WithOutcome(outcome))
			mail := newMail(t, s)
			standby(t, url, true)
			done := make(chan error, 1)
			go func() { done <- s.CommitMail(t.Context(), mail) }()
			eventually(t, "the COMMIT waits", func() bool { return counted(t, url, waiting) == 1 })
			if test.cut {
				proxy.Cut()
			}
			var err error
			if test.back {
				standby(t, url, false)
				if err = <-done; err != nil {
					t.Error(err)
				}
			} else {
				if err = <-done; gateway.ErrorCode(err) != gateway.CodeUnavailable || !strings.Contains(err.Error(), "not known") {
					t.Errorf("%v, want that it is not known", err)
				}
				standby(t, url, false)
			}
			if n := stored(t, url, mail.ID); n != 2 {
				t.Errorf("%d deliveries are stored, and %v", n, err)
			}
		})
	}
}

// TestUnheardIsKnownToAllNodes: a client whose 250 was lost and that tries another node next is told that this is a
// repeat, though the first node has nothing else to write.
func TestUnheardIsKnownToAllNodes(t *testing.T) {
	_, url := newPostgres(t)
	keys := metatest.NewKeys()
	first, second := openPostgres(t, url, keys), openPostgres(t, url, keys)
	if err := first.Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	mail := newMail(t, first)
	mail.Fingerprint = []byte("fingerprint of this mail 0123456")
	if err := first.CommitMail(t.Context(), mail); err != nil {
		t.Fatal(err)
	}
	repeated := func() bool {
		id, is, err := second.Repeated(t.Context(), mail.Fingerprint)
		if err != nil || is && id != mail.ID {
			t.Fatalf("a repeat of %s, %v", id, err)
		}
		return is
	}
	if repeated() {
		t.Error("its session lives, and another mail is a repeat")
	}
	first.SettleMail(mail.ID, false)
	eventually(t, "the other node knows", repeated)
}

// TestRetryKeepsDeadReturns: a mail is not erased of which an admin retries one delivery at that moment, be the others
// dead for long.
func TestRetryKeepsDeadReturns(t *testing.T) {
	_, url := newPostgres(t)
	clock := metatest.NewClock()
	s := openPostgres(t, url, metatest.NewKeys(), meta.WithClock(clock.Now))
	key, err := s.QueueKey(t.Context(), clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	back := func(to string) gateway.Route {
		return gateway.Route{Address: gateway.ReturnRoute, ForwardTo: to, ExpireAfter: time.Hour}
	}
	mail := metatest.NewMail(clock.Now(), key, back("a@refusing.example"), back("b@refusing.example"))
	if err := s.CommitMail(t.Context(), mail); err != nil {
		t.Fatal(err)
	}
	leased, err := metatest.LeaseAny(t.Context(), s, "node", 10, time.Minute)
	if err != nil || len(leased) != 2 {
		t.Fatalf("%d leased, %v", len(leased), err)
	}
	for _, l := range leased {
		if err := s.FinishAttempt(t.Context(), l.Lease, gateway.AttemptResult{Attempt: gateway.Attempt{Event: gateway.EventRejected}}); err != nil {
			t.Fatal(err)
		}
	}
	clock.Add(6 * 24 * time.Hour)
	admin := gateway.Principal{Kind: gateway.PrincipalAdmin, Name: gateway.NewSecret("Ada")}
	retried, expired := make(chan error, 1), make(chan error, 1)
	withPostgres(t, url, func(ctx context.Context, conn *pgx.Conn) error { // which holds the retry up at its end
		if _, err := conn.Exec(ctx, `BEGIN; LOCK TABLE audit_events IN EXCLUSIVE MODE`); err != nil {
			return err
		}
		go func() {
			retried <- s.ApplyEvent(t.Context(), leased[1].ID, gateway.EventRetry, admin, gateway.NewSecret("they take it now"))
		}()
		eventually(t, "the retry waits", func() bool { return counted(t, url, `wait_event_type = 'Lock'`) == 1 })
		go func() {
			n, err := s.ExpireMails(t.Context(), 10)
			if err == nil && n != 0 {
				err = fmt.Errorf("%d mails expired", n)
			}
			expired <- err
		}()
		eventually(t, "the other waits for it", func() bool { return counted(t, url, `wait_event_type = 'Lock'`) == 2 })
		_, err := conn.Exec(ctx, `COMMIT`)
		return err
	})
	if err := <-retried; err != nil {
		t.Errorf("to retry: %v", err)
	}
	if err := <-expired; err != nil {
		t.Errorf("to expire: %v", err)
	}
	again, err := metatest.LeaseAny(t.Context(), s, "node", 10, time.Minute)
	if err != nil || len(again) != 1 || again[0].ID != leased[1].ID {
		t.Errorf("%d are delivered again, %v; want the one that was retried", len(again), err)
	}
}
