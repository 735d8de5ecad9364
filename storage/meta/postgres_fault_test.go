package meta_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"sealpost/gateway"
	"sealpost/storage/meta"
	"sealpost/storage/meta/metatest"
	"sealpost/storage/storagetest"
)

// slowCommit makes a COMMIT that stores a mail take a while, and end as the statement says.
const slowCommit = `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.5); %s; RETURN NULL; END $$;
	CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON mails DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()`

const quickCommit = `DROP TRIGGER slow ON mails; DROP FUNCTION slow()`

// behindProxy returns a Store that reaches its database through a proxy.
func behindProxy(t *testing.T, p *storagetest.Postgres, url string, keys meta.Wrapper, options ...meta.Option) (*meta.Store, *storagetest.Proxy) {
	t.Helper()
	proxy := storagetest.StartProxy(t, p.Addr)
	return openPostgres(t, strings.Replace(url, p.Addr, proxy.Addr, 1), keys, options...), proxy
}

// newMail makes a mail that may be committed now.
func newMail(t testing.TB, s *meta.Store) gateway.AcceptedMail {
	t.Helper()
	now, err := s.Now(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.QueueKey(context.Background(), now)
	if err != nil {
		t.Fatal(err)
	}
	return metatest.NewMail(now, key, metatest.Routes(2)...)
}

// stored returns how many deliveries of a mail are in the database.
func stored(t testing.TB, url string, id gateway.PackageID) (n int) {
	t.Helper()
	withPostgres(t, url, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT COUNT(*) FROM deliveries WHERE mail_id = $1`, id.String()).Scan(&n)
	})
	return n
}

// eventually waits until something is so.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("not within 20 s: %s", what)
}

// committing reports whether a COMMIT is under way.
func committing(t testing.TB, url string) (is bool) {
	t.Helper()
	withPostgres(t, url, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM pg_stat_activity
			WHERE datname = current_database() AND query = 'COMMIT' AND state = 'active')`).Scan(&is)
	})
	return is
}

// Promise 2 with a connection that is lost in COMMIT: nil if and only if the mail is there, and it is there once.
func TestCommitOutcome(t *testing.T) {
	p, url := newPostgres(t)
	keys := metatest.NewKeys()
	for name, test := range map[string]struct {
		then       string // what becomes of the COMMIT
		cutOnly    bool   // so that the server hears that nobody waits any more
		outcome    time.Duration
		wantSaying string // none: it is committed
	}{
		"committed":           {then: "NULL", outcome: 10 * time.Second},
		"cancelled":           {then: "NULL", outcome: 10 * time.Second, cutOnly: true}, // and committed by another try
		"refused":             {then: "RAISE EXCEPTION 'no'", outcome: 10 * time.Second, wantSaying: "no"},
		"unknown for so long": {then: "NULL", outcome: 100 * time.Millisecond, wantSaying: "not known"},
	} {
		t.Run(name, func(t *testing.T) {
			s, proxy := behindProxy(t, p, url, keys, meta.WithOutcome(test.outcome))
			mail := newMail(t, s)
			execPostgres(t, url, fmt.Sprintf(slowCommit, test.then))
			done := make(chan error, 1)
			go func() { done <- s.CommitMail(t.Context(), mail) }()
			eventually(t, "the mail is being committed", func() bool { return committing(t, url) })
			if test.cutOnly {
				proxy.Cut()
			} else {
				proxy.Refuse()
				eventually(t, "the COMMIT is over", func() bool { return !committing(t, url) })
			}
			if test.wantSaying != "not known" {
				proxy.Heal()
			}
			err := <-done
			proxy.Heal()
			if (err != nil) != (test.wantSaying != "") || err != nil && !strings.Contains(err.Error(), test.wantSaying) {
				t.Errorf("%v, want %q", err, test.wantSaying)
			}
			if n := stored(t, url, mail.ID); n != 2 && (err == nil || test.wantSaying == "not known") || n != 0 && test.then != "NULL" {
				t.Errorf("%d deliveries are stored, and %v", n, err)
			}
			execPostgres(t, url, quickCommit)
		})
	}
}

// Wherever the connection is cut, in either direction, a mail is committed once or not at all, and CommitMail knows.
func TestCutAnywhere(t *testing.T) {
	p, url := newPostgres(t)
	s, proxy := behindProxy(t, p, url, metatest.NewKeys())
	const step = 149
	for direction := range 2 {
		for n, passed := int64(0), false; !passed; n += step {
			mail := newMail(t, s)
			cut := [2]int64{-1, -1}
			cut[direction] = n
			before := proxy.Connections()
			proxy.CutAfter(cut[0], cut[1])
			err := s.CommitMail(t.Context(), mail)
			passed = proxy.Connections() == before && err == nil
			proxy.Heal()
			if got := stored(t, url, mail.ID); (got == 2) != (err == nil) || got != 0 && got != 2 {
				t.Errorf("cut after %v: %d deliveries are stored, and %v", cut, got, err)
			}
			if err != nil && gateway.ErrorCode(err) != gateway.CodeUnavailable {
				t.Errorf("cut after %v: %v, want %s", cut, err, gateway.CodeUnavailable)
			}
		}
	}
}

// Whatever octet of the server's answers is altered, a mail that is said to be stored is, and none is stored in part.
func TestAlteredAnywhere(t *testing.T) {
	p, url := newPostgres(t)
	s, proxy := behindProxy(t, p, url, metatest.NewKeys(), meta.WithSilence(200*time.Millisecond), meta.WithOutcome(5*time.Second))
	first := newMail(t, s)
	for n := int64(0); n < 3000; n += 67 {
		mail := metatest.NewMail(first.Started, first.Copy.Key, metatest.Routes(2)...)
		proxy.Corrupt(n)
		err := s.CommitMail(t.Context(), mail)
		proxy.Heal()
		if got := stored(t, url, mail.ID); err == nil && got != 2 || got != 0 && got != 2 {
			t.Errorf("octet %d altered: %d deliveries are stored, and %v", n, got, err)
		}
	}
	if err := s.CommitMail(t.Context(), newMail(t, s)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// A server that is away, slow or silent: CodeUnavailable within bounds, and all is well as soon as it is back.
func TestPostgresFaults(t *testing.T) {
	p, url := newServer(t)
	s, proxy := behindProxy(t, p, url, metatest.NewKeys(), meta.WithSilence(500*time.Millisecond), meta.WithOutcome(time.Second), meta.WithConnect(time.Second))
	for _, fault := range []struct {
		name       string
		begin, end func()
		works      bool
	}{
		{"refusing", proxy.Refuse, proxy.Heal, false},
		{"silent", proxy.Stall, proxy.Heal, false},
		{"slow", func() { proxy.Delay(20 * time.Millisecond) }, proxy.Heal, true},
		{"stopped", p.Stop, func() { p.Start(t) }, false},
		{"crashed", p.Kill, func() { p.Start(t) }, false},
	} {
		t.Run(fault.name, func(t *testing.T) {
			mails := [5]gateway.AcceptedMail{}
			for i := range mails {
				mails[i] = newMail(t, s)
			}
			fault.begin()
			var group errgroup.Group
			for _, mail := range mails {
				group.Go(func() error {
					if err := s.CommitMail(t.Context(), mail); fault.works != (err == nil) || !fault.works && gateway.ErrorCode(err) != gateway.CodeUnavailable {
						return fmt.Errorf("a mail is committed: %w", err)
					}
					return nil
				})
			}
			err := group.Wait()
			_, reading := s.CountDeliveries(t.Context())
			fault.end()
			if err != nil || fault.works != (reading == nil) || !fault.works && gateway.ErrorCode(reading) != gateway.CodeUnavailable {
				t.Errorf("%v; to read: %v", err, reading)
			}
			eventually(t, "mails are taken again", func() bool {
				for _, mail := range mails[1:] {
					if n := stored(t, url, mail.ID); n == 2 {
						continue
					}
					if err := s.CommitMail(t.Context(), mail); err != nil {
						return false
					}
				}
				return true
			})
			for _, mail := range mails[1:] {
				if n := stored(t, url, mail.ID); n != 2 {
					t.Errorf("%d deliveries are stored, want 2", n)
				}
			}
		})
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, "no connection is left", func() bool { return proxy.Live() == 0 })
	eventually(t, "nothing of the Store runs", func() bool {
		stacks := make([]byte, 1<<20)
		return !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "storage/meta.(*server)")
	})
}

// Connections that end in the middle of many transactions: what was said to be stored is, once, and all of it is
// delivered once.
func TestCutUnderLoad(t *testing.T) {
	p, url := newPostgres(t)
	s, proxy := behindProxy(t, p, url, metatest.NewKeys())
	key := newMail(t, s).Copy.Key
	stop := make(chan struct{})
	var cutting, group errgroup.Group
	cutting.Go(func() error {
		for {
			select {
			case <-stop:
				return nil
			case <-time.After(30 * time.Millisecond):
				proxy.Cut()
			}
		}
	})
	accepted := make(chan gateway.PackageID, 1000)
	for range 8 {
		group.Go(func() error {
			for range 40 {
				now, err := s.Now(t.Context())
				if err != nil {
					continue // it would be a 4xx
				}
				mail := metatest.NewMail(now, key, metatest.Routes(2)...)
				if s.CommitMail(t.Context(), mail) == nil {
					accepted <- mail.ID
				}
			}
			return nil
		})
	}
	_ = group.Wait()
	close(stop)
	_ = cutting.Wait()
	close(accepted)
	want := map[gateway.PackageID]int{}
	for id := range accepted {
		want[id] = 2
	}
	if len(want) == 0 {
		t.Fatal("nothing was accepted")
	}
	known := len(want)
	for {
		leased, err := metatest.LeaseAny(t.Context(), s, "node", 100, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range leased {
			want[l.Mail]-- // one that was not accepted for certain may be there, whole
			if err := s.FinishAttempt(t.Context(), l.Lease, gateway.AttemptResult{Attempt: gateway.Attempt{Event: gateway.EventAccepted}}); err != nil {
				t.Fatal(err)
			}
		}
		if len(leased) == 0 {
			break
		}
	}
	for id, left := range want {
		if left != 0 && left != -2 {
			t.Errorf("mail %s: %d deliveries too few", id, left)
		}
	}
	if len(want) != known {
		t.Errorf("%d mails were stored that CommitMail did not report", len(want)-known)
	}
}

// A transaction that met another is tried again; a full disk is told as such, and nothing is stored.
func TestPostgresTriesAgain(t *testing.T) {
	_, url := newPostgres(t)
	s := openPostgres(t, url, metatest.NewKeys())
	execPostgres(t, url, `CREATE SEQUENCE tries; CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF nextval('tries') <= 6 THEN RAISE EXCEPTION 'no' USING ERRCODE =
				(ARRAY['40001', '40P01', '53100', '57014', '53200', '25006'])[currval('tries')]; END IF; RETURN NEW; END $$;
		CREATE TRIGGER refuse BEFORE INSERT ON mails FOR EACH ROW EXECUTE FUNCTION refuse()`)
	mail := newMail(t, s)
	for _, want := range []gateway.Code{gateway.CodeStorageFull, gateway.CodeUnavailable, gateway.CodeUnavailable, gateway.CodeUnavailable, ""} {
		err := s.CommitMail(t.Context(), mail)
		if gateway.ErrorCode(err) != want {
			t.Errorf("%v, want %q", err, want)
		}
		if n := stored(t, url, mail.ID); (n == 2) != (want == "") || n != 0 && n != 2 {
			t.Errorf("%d deliveries are stored, after %v", n, err)
		}
	}
}

// A crash takes a transaction away, and its number goes to another one that commits: the mail's own row tells.
func TestCrashInCommit(t *testing.T) {
	p, url := newServer(t)
	execPostgres(t, url, `CREATE FUNCTION public.pg_xact_status(xid8) RETURNS text LANGUAGE sql AS $$ SELECT 'committed' $$`)
	s := openPostgres(t, url+"&search_path=public,pg_catalog", metatest.NewKeys())
	mail := newMail(t, s)
	execPostgres(t, url, fmt.Sprintf(slowCommit, "NULL"))
	done := make(chan error, 1)
	go func() { done <- s.CommitMail(t.Context(), mail) }()
	eventually(t, "the mail is being committed", func() bool { return committing(t, url) })
	p.Kill()
	p.Start(t)
	err, n := <-done, stored(t, url, mail.ID)
	if (err == nil) != (n == 2) || n != 0 && n != 2 {
		t.Errorf("%d deliveries are stored, and %v", n, err)
	}
}

// Nor does a crash leave two with one lease: what is handed out is leased, by its own row.
func TestCrashInLease(t *testing.T) {
	p, url := newServer(t)
	execPostgres(t, url, `CREATE FUNCTION public.pg_xact_status(xid8) RETURNS text LANGUAGE sql AS $$ SELECT 'committed' $$`)
	s := openPostgres(t, url+"&search_path=public,pg_catalog", metatest.NewKeys())
	mail := newMail(t, s)
	if err := s.CommitMail(t.Context(), mail); err != nil {
		t.Fatal(err)
	}
	execPostgres(t, url, strings.Replace(fmt.Sprintf(slowCommit, "NULL"), "INSERT ON mails", "UPDATE ON deliveries", 1))
	var leased []gateway.LeasedDelivery
	done := make(chan error, 1)
	go func() {
		var err error
		leased, err = s.LeaseDeliveries(t.Context(), "node", metatest.Routes(1)[0].Address, 1, time.Minute)
		done <- err
	}()
	eventually(t, "the lease is being committed", func() bool { return committing(t, url) })
	p.Kill()
	p.Start(t)
	if err := <-done; err != nil && gateway.ErrorCode(err) != gateway.CodeUnavailable {
		t.Error(err)
	}
	var sending int
	withPostgres(t, url, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT COUNT(*) FROM deliveries WHERE state = 'sending'`).Scan(&sending)
	})
	if sending != len(leased) {
		t.Errorf("%d are handed out, and %d are leased", len(leased), sending)
	}
}

// Of two deliveries of a mail that end at once on two nodes, one erases the copy.
func TestCopyIsErasedWhenBothEnd(t *testing.T) {
	_, url := newPostgres(t)
	keys := metatest.NewKeys()
	nodes := []*meta.Store{openPostgres(t, url, keys), openPostgres(t, url, keys)}
	for range 30 {
		mail := newMail(t, nodes[0])
		if err := nodes[0].CommitMail(t.Context(), mail); err != nil {
			t.Fatal(err)
		}
		leased, err := metatest.LeaseAny(t.Context(), nodes[0], "node", 2, time.Minute)
		if err != nil || len(leased) != 2 {
			t.Fatalf("%d leased, %v", len(leased), err)
		}
		var group errgroup.Group
		for i, l := range leased {
			group.Go(func() error {
				return nodes[i].FinishAttempt(t.Context(), l.Lease, gateway.AttemptResult{Attempt: gateway.Attempt{Event: gateway.EventAccepted}})
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		if m, err := nodes[1].Mail(t.Context(), mail.ID); err != nil || m.HasCopy {
			t.Fatalf("the copy is still there: %t, %v", m.HasCopy, err)
		}
	}
}
