package meta_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealpost/gateway"
	"sealpost/storage/meta"
	"sealpost/storage/meta/metatest"
)

func open(t testing.TB, path string, keys meta.Wrapper, now func() time.Time) *meta.Store {
	t.Helper()
	s, err := meta.OpenSQLite(context.Background(), path, keys, meta.WithClock(now))
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

func TestSQLite(t *testing.T) {
	metatest.Run(t, func(t *testing.T) metatest.Open {
		path := filepath.Join(t.TempDir(), "data", "meta.db")
		return func(t *testing.T, keys meta.Wrapper, now func() time.Time) *meta.Store {
			return open(t, path, keys, now)
		}
	})
}

func TestSQLiteFileModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "with space, 100%?#", "meta.db")
	clock := metatest.NewClock()
	s := open(t, path, metatest.NewKeys(), clock.Now)
	if _, err := s.QueueKey(t.Context(), clock.Now()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"": 0o700, "meta.db": 0o600, "meta.db-wal": 0o600, "meta.db-shm": 0o600} {
		info, err := os.Stat(filepath.Join(filepath.Dir(path), name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%q has mode %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
}

func TestSQLiteRefusesNewerSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	keys, clock := metatest.NewKeys(), metatest.NewClock()
	if err := open(t, path, keys, clock.Now).Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := meta.OpenSQLite(t.Context(), path, keys)
	if err == nil {
		_ = s.Close()
	}
	if gateway.ErrorCode(err) != gateway.CodeConflict || !strings.Contains(err.Error(), "9999") {
		t.Errorf("a newer schema: %v", err)
	}
}

func TestSQLiteOpensNoOtherFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("this is no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := meta.OpenSQLite(t.Context(), path, metatest.NewKeys()); err == nil {
		_ = s.Close()
		t.Error("a file that is no database was opened")
	}
}

// files returns the bytes of the database and its log.
func files(t *testing.T, path string) []byte {
	t.Helper()
	var all []byte
	for _, suffix := range []string{"", "-wal", "-shm"} {
		b, err := os.ReadFile(path + suffix)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

// remembering is a keyring that remembers what it has wrapped, and its ciphertext.
type remembering struct {
	*metatest.Keys
	plain  map[string][]byte // by table.column, of the last value
	cipher map[string][]byte
}

func (r *remembering) Wrap(table, column, rowID string, plaintext []byte) ([]byte, error) {
	wrapped, err := r.Keys.Wrap(table, column, rowID, plaintext)
	r.plain[table+"."+column], r.cipher[table+"."+column] = bytes.Clone(plaintext), bytes.Clone(wrapped)
	return wrapped, err
}

// fillMailWorld stores a mail that goes back to a sender, and what else names a correspondent.
func fillMailWorld(t *testing.T, s *meta.Store, clock *metatest.Clock) {
	t.Helper()
	key, err := s.QueueKey(t.Context(), clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	m := metatest.NewMail(clock.Now(), key, gateway.Route{Address: gateway.ReturnRoute, ForwardTo: "return-marker@client.example"})
	m.Envelope.Hello, m.Envelope.EnvelopeID = "hello-marker.client.example", gateway.NewSecret("envelope-marker")
	m.Deliveries[0].DSN.OriginalRecipient = gateway.NewSecret("rfc822;original-marker@client.example")
	m.Deliveries[0].Hold = "hold-marker"
	m.Fingerprint = []byte("fingerprint")
	m.Package.Placements = nil
	refusal := gateway.Refusal{Envelope: gateway.Envelope{
		MailFrom: "refusal-marker@client.example", Recipients: []gateway.Recipient{{Address: "support+plus-marker@example.com"}},
	}, MessageID: gateway.NewSecret("<refusal-marker@client.example>")}
	event := gateway.AuditEvent{
		Client: gateway.NewSecret("192.0.2.99"), Reason: gateway.NewSecret("reason-marker"),
		Principal: gateway.Principal{Kind: gateway.PrincipalAdmin, Name: gateway.NewSecret("name-marker")},
	}
	back := metatest.NewMail(clock.Now(), key, gateway.Route{Address: gateway.ReturnRoute, ForwardTo: "back@hop-marker.example"})
	back.Package = nil
	if err := s.CommitMail(t.Context(), back); err != nil {
		t.Fatal(err)
	}
	leased, err := metatest.LeaseAny(t.Context(), s, "node", 1, time.Minute)
	if err != nil || len(leased) != 1 || leased[0].Mail != back.ID {
		t.Fatalf("leased %v, %v; want the way back", leased, err)
	}
	attempt := gateway.Attempt{Event: gateway.EventRejected, Code: 550, Hop: "mx.hop-marker.example:25", Reply: gateway.NewSecret("550 last-reply-marker")}
	if err := s.FinishAttempt(t.Context(), leased[0].Lease, gateway.AttemptResult{Attempt: attempt}); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{s.CommitMail(t.Context(), m), s.RecordRefusal(t.Context(), refusal), s.Audit(t.Context(), event)} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// fill makes a row in every table.
func fill(t *testing.T, s *meta.Store, clock *metatest.Clock) gateway.AcceptedMail {
	t.Helper()
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	key, err := s.QueueKey(ctx, clock.Now())
	check(err)
	m := metatest.NewMail(clock.Now(), key, metatest.Routes(1)...)
	check(s.CommitMail(ctx, m))
	leased, err := metatest.LeaseAny(ctx, s, "node", 1, time.Minute)
	check(err)
	check(s.FinishAttempt(ctx, leased[0].Lease, gateway.AttemptResult{Attempt: gateway.Attempt{
		Event: gateway.EventRejected, Reply: gateway.NewSecret("550 reply-marker"),
	}, Next: clock.Now(), AwaitCase: true}))
	_, err = s.AddAgent(ctx, "ann.marker@example.com", gateway.NewSecret("$argon2id$hash-marker"), gateway.Principal{})
	check(err)
	token := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	check(s.Sessions().CommitCtx(ctx, token, []byte("session-marker"), clock.Now().Add(time.Hour)))
	check(s.AddLoginFailure(ctx, "login-marker@example.com"))
	check(s.Audit(ctx, gateway.AuditEvent{Client: gateway.NewSecret("192.0.2.99")}))
	return m
}

// Promise 1: nothing of a mail, of its correspondents or of the agents is in the database as it is.
func TestNoPlaintextInSQLite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	keys := &remembering{metatest.NewKeys(), map[string][]byte{}, map[string][]byte{}}
	clock := metatest.NewClock()
	s := open(t, path, keys, clock.Now)
	m := fill(t, s, clock)
	fillMailWorld(t, s, clock)
	for _, stage := range []string{"in the log", "after a checkpoint"} {
		checkNoPlaintext(t, stage, files(t, path), keys, m)
		if err := s.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// checkNoPlaintext looks in what is stored for the values that were wrapped, and for what they and others hold.
func checkNoPlaintext(t *testing.T, stage string, stored []byte, keys *remembering, m gateway.AcceptedMail) {
	t.Helper()
	want := []string{
		"mails.message_id", "mails.client", "mails.mail_from", "mails.copy", "queue_keys.key", "packages.server_secret",
		"addresses.address", "deliveries.last_reply", "attempts.reply", "agents.address", "agents.password_hash",
		"sessions.data", "audit_events.client", "audit_events.name", "audit_events.reason", "mails.hello", "mails.envelope_id",
		"deliveries.recipient", "deliveries.original_recipient", "deliveries.reason", "refusals.mail", "attempts.hop",
	}
	if len(keys.plain) != len(want) {
		t.Errorf("%d columns are wrapped, want %d", len(keys.plain), len(want))
	}
	for _, column := range want {
		if !bytes.Contains(stored, keys.cipher[column]) {
			t.Errorf("%s %s: the wrapped value is not there", stage, column)
		}
		plain := keys.plain[column]
		if column == "addresses.address" {
			continue // the last one was the route's, which is configuration
		}
		forms := [][]byte{plain, []byte(hex.EncodeToString(plain)), []byte(base64.StdEncoding.EncodeToString(plain))}
		for _, form := range forms {
			if len(plain) == 0 || bytes.Contains(stored, form) {
				t.Errorf("%s %s: the value itself is there", stage, column)
			}
		}
	}
	for _, marker := range []string{"marker", "192.0.2.", "client.example", m.Copy.Key.Key.Reveal()} {
		if bytes.Contains(stored, []byte(marker)) {
			t.Errorf("%s %q is there", stage, marker)
		}
	}
}

// What is erased is gone from the file as well, wrapped as it was: the copy, and the key of the day before.
func TestSQLiteErasesForGood(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	keys := &remembering{metatest.NewKeys(), map[string][]byte{}, map[string][]byte{}}
	clock := metatest.NewClock()
	s := open(t, path, keys, clock.Now)
	m := fill(t, s, clock)
	if err := s.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	clock.Add(366 * 24 * time.Hour)
	dead, err := s.ListDeliveries(t.Context(), meta.DeliveryFilter{Mail: m.ID})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ApplyEvent(t.Context(), dead[0].ID, gateway.EventDrop, gateway.Principal{Kind: gateway.PrincipalAdmin, Name: gateway.NewSecret("name-marker")}, gateway.NewSecret("reason-marker")); err != nil {
		t.Fatal(err)
	}
	for _, expire := range []func(context.Context, int) (int, error){s.ExpirePackages, s.ExpireMails} {
		if n, err := expire(t.Context(), 10); err != nil || n != 1 {
			t.Fatalf("%d expired, %v", n, err)
		}
	}
	if err := s.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	stored := files(t, path)
	for _, column := range []string{
		"mails.message_id", "mails.client", "mails.mail_from", "mails.copy", "queue_keys.key", "packages.server_secret",
		"addresses.address", "deliveries.last_reply", "attempts.reply",
	} {
		if bytes.Contains(stored, keys.cipher[column]) {
			t.Errorf("%s: what was erased is still in the file", column)
		}
	}
}

// Promise 2 on a full disk: nothing is committed, the queue stays as it was, and there is room again later.
func TestSQLiteFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m,mode=0700"); err != nil {
		t.Fatalf("mount a small file system (these tests run as root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	clock := metatest.NewClock()
	s := open(t, filepath.Join(dir, "meta.db"), metatest.NewKeys(), clock.Now)
	key, err := s.QueueKey(t.Context(), clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	committed := 0
	for ; err == nil && committed < 1000; committed++ {
		m := metatest.NewMail(clock.Now(), key, metatest.Routes(1)...)
		m.Copy.Inline = make([]byte, 60<<10)
		err = s.CommitMail(t.Context(), m)
	}
	committed-- // the last one failed
	if gateway.ErrorCode(err) != gateway.CodeStorageFull {
		t.Fatalf("after %d mails: %v, want %s", committed, err, gateway.CodeStorageFull)
	}
	counts, err := s.CountDeliveries(t.Context())
	if err != nil || counts[gateway.Pending] != int64(committed) || committed == 0 {
		t.Errorf("the queue holds %v, %v; want %d", counts, err, committed)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := s.CommitMail(t.Context(), metatest.NewMail(clock.Now(), key, metatest.Routes(1)...)); err != nil {
		t.Errorf("there is room again: %v", err)
	}
	leased, err := metatest.LeaseAny(t.Context(), s, "node", 1000, time.Minute)
	if err != nil || len(leased) != committed+1 {
		t.Errorf("%d mails are delivered, %v; want %d", len(leased), err, committed+1)
	}
}

// Another process holds the write lock for too long.
func TestSQLiteBusy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	clock := metatest.NewClock()
	s, err := meta.OpenSQLite(t.Context(), path, metatest.NewKeys(), meta.WithClock(clock.Now), meta.WithBusyTimeout(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	db, err := sql.Open("sqlite", path+"?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.QueueKey(t.Context(), clock.Now()); gateway.ErrorCode(err) != gateway.CodeUnavailable {
		t.Errorf("a locked database: %v, want %s", err, gateway.CodeUnavailable)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.QueueKey(t.Context(), clock.Now()); err != nil {
		t.Errorf("after the lock is gone: %v", err)
	}
}

// One mail from commit to the end of its delivery, with leases for groups of 50.
func BenchmarkMail(b *testing.B) {
	for _, writers := range []int{1, 5, 25} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			clock := metatest.NewClock()
			benchmarkMail(b, open(b, filepath.Join(b.TempDir(), "meta.db"), metatest.NewKeys(), clock.Now), clock, writers)
		})
	}
}

func benchmarkMail(b *testing.B, s *meta.Store, clock *metatest.Clock, writers int) {
	ctx := b.Context()
	b.SetParallelism(writers)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		owner, n := gateway.NewPackageID().String(), 0
		for pb.Next() {
			key, err := s.QueueKey(ctx, clock.Now())
			if err == nil {
				m := metatest.NewMail(clock.Now(), key, metatest.Routes(1)...)
				m.Copy.Inline = make([]byte, 5<<10)
				err = s.CommitMail(ctx, m)
			}
			if n++; err == nil && n%50 == 0 {
				err = deliver(ctx, s, owner)
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
	for range 100 {
		if err := deliver(ctx, s, "last"); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "mails/s")
}

func deliver(ctx context.Context, s *meta.Store, owner string) error {
	leased, err := metatest.LeaseAny(ctx, s, owner, 50, time.Minute)
	if err != nil {
		return err
	}
	for _, l := range leased {
		if err := s.FinishAttempt(ctx, l.Lease, gateway.AttemptResult{Attempt: gateway.Attempt{Event: gateway.EventAccepted, Code: 250}, Next: l.NextAttempt, AwaitCase: false}); err != nil {
			return err
		}
	}
	return nil
}
