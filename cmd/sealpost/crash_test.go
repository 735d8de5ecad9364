package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealpost/gateway"
	"sealpost/gateway/config"
	"sealpost/gateway/intake"
	"sealpost/gateway/relay"
	"sealpost/sfclient/sftest"
	"sealpost/storage/blob"
)

// crashVariable names the point at which sealpost-crash kills itself.
const crashVariable = "SEALPOST_CRASH_AT"

// crashMain is `sealpost serve` whose stores kill the process, as kill -9 would, at one point.
func crashMain() {
	cfg, err := config.Load(os.Args[len(os.Args)-1])
	if err != nil {
		slog.Error(err.Error())
		os.Exit(exitFailed)
	}
	at := os.Getenv(crashVariable)
	err = serveWith(context.Background(), cfg, slog.Default(), nil, func(s *stores) {
		s.blobs = &crashingBlobs{Store: s.blobs, at: at}
		s.intake = &crashingIntake{Store: s.intake, at: at}
		s.queue = &crashingQueue{Queue: s.queue, at: at}
	})
	slog.Error("ended", "error", err)
	os.Exit(exitFailed)
}

func crash(at, here string) {
	if at == here {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

type crashingBlobs struct {
	blob.Store
	at   string
	puts int
}

func (c *crashingBlobs) Put(ctx context.Context, name string, body io.Reader) (int64, error) {
	c.puts++
	crash(c.at, fmt.Sprintf("before object %d", c.puts))
	if c.at == fmt.Sprintf("within object %d", c.puts) {
		body = io.MultiReader(io.LimitReader(body, 1000), crashingReader(c.at))
	}
	size, err := c.Store.Put(ctx, name, body)
	crash(c.at, fmt.Sprintf("after object %d", c.puts))
	return size, err
}

func (c *crashingBlobs) Commit(ctx context.Context, names ...string) error {
	crash(c.at, "before the objects are durable")
	err := c.Store.Commit(ctx, names...)
	crash(c.at, "after the objects are durable")
	return err
}

func (c *crashingBlobs) Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	crash(c.at, "before the copy is read")
	return c.Store.Get(ctx, name, offset, length)
}

type crashingReader string

func (c crashingReader) Read([]byte) (int, error) {
	crash(string(c), string(c))
	return 0, io.EOF
}

type crashingIntake struct {
	intake.Store
	at string
}

func (c *crashingIntake) CommitMail(ctx context.Context, mail gateway.AcceptedMail) error {
	crash(c.at, "before the transaction")
	err := c.Store.CommitMail(ctx, mail)
	crash(c.at, "after the transaction")
	return err
}

type crashingQueue struct {
	relay.Queue
	at string
}

func (c *crashingQueue) LeaseDeliveries(ctx context.Context, owner, route string, limit int, ttl time.Duration) ([]gateway.LeasedDelivery, error) {
	leased, err := c.Queue.LeaseDeliveries(ctx, owner, route, limit, ttl)
	if len(leased) > 0 {
		crash(c.at, "after the lease")
	}
	return leased, err
}

func (c *crashingQueue) FinishAttempt(ctx context.Context, lease gateway.Lease, result gateway.AttemptResult) error {
	crash(c.at, "before the attempt is recorded")
	err := c.Queue.FinishAttempt(ctx, lease, result)
	crash(c.at, "after the attempt is recorded")
	return err
}

// TestPromise250MeansSafe kills the gateway at each point of a mail's way, starts it again, and expects
// that every mail that was answered 250 arrives and opens; one that was not is sent again, as its sender
// would. Two copies may arrive only where the kill fell between a commit and the word of it: SMTP's own window.
func TestPromise250MeansSafe(t *testing.T) {
	points := []crashPoint{
		{"before object 1", 1, false}, {"within object 1", 1, false}, {"after object 1", 1, false}, {"before object 2", 1, false},
		{"after object 2", 1, false}, {"within object 3", 1, false}, {"after object 3", 1, false},
		{"before the objects are durable", 1, false}, {"after the objects are durable", 1, false},
		{"before the transaction", 1, false}, {"after the transaction", 1, true},
		{"after the lease", 1, true}, {"before the copy is read", 1, true},
		{"before the attempt is recorded", 2, true}, {"after the attempt is recorded", 1, true},
	}
	for _, point := range points {
		t.Run(point.at, func(t *testing.T) {
			t.Parallel()
			crashAt(t, point)
		})
	}
}

// crashPoint is where the process kills itself.
type crashPoint struct {
	at        string
	copies    int  // at most, of one transaction
	committed bool // when it happens; the 250 may be on its way or not
}

func crashAt(t *testing.T, point crashPoint) {
	org := startOrg(t, sftest.Options{})
	n := install(t, filepath.Join(t.TempDir(), "sealpost"), org.Addr())
	content := bytes.Repeat([]byte("0123456789abcdef"), 10_000)
	// A long text makes the waiting copy an object of its own: the third, after segment and head.
	mail := mailWith("crash", strings.Repeat("A long letter.\r\n", 6_000), content)

	n.start(t, "sealpost-crash", crashVariable+"="+point.at)
	first := n.send("jane@customer.example", bytes.NewReader(mail))
	select {
	case <-n.exited:
	case <-time.After(waitLimit):
		t.Fatalf("it did not crash:\n%s", n.logs.String())
	}
	ageLeases(t, n)
	n.start(t, "sealpost")
	most := point.copies
	if first != nil {
		if point.committed {
			most++
		}
		if err := n.send("jane@customer.example", bytes.NewReader(mail)); err != nil {
			t.Fatalf("the second try: %v", err)
		}
	}
	waitMails(t, org, 1)
	if !eventually(func() bool { return waiting(t, n) == 0 }) {
		t.Fatalf("deliveries still wait:\n%s", n.logs.String())
	}
	mails := org.Mails()
	if len(mails) > most {
		t.Errorf("%d copies arrived, want at most %d", len(mails), most)
	}
	checkOpens(t, n, mails, content)
	checkSweep(t, n, mails, content)
}

func checkOpens(t *testing.T, n *node, mails []sftest.Mail, content []byte) {
	t.Helper()
	for _, mail := range mails {
		if files := n.open(t, theLink(t, mail)); !bytes.Equal(files["file.bin"], content) {
			t.Errorf("the link opens to %d files, and not to what was sent", len(files))
		}
	}
}

// checkSweep makes all objects two days old and expects that the sweep of the next start leaves just
// those of the packages: head and segment.
func checkSweep(t *testing.T, n *node, mails []sftest.Mail, content []byte) {
	t.Helper()
	n.stop(t)
	old := time.Now().Add(-48 * time.Hour)
	for _, path := range objects(t, n) {
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	change(t, n, "DELETE FROM unwatched") // or objects as old as that would count as another database's
	change(t, n, "DELETE FROM work")      // or the sweep would still be the killed process's
	n.start(t, "sealpost")
	packages := map[string]bool{}
	for _, mail := range mails {
		packages[theLink(t, mail)] = true
	}
	want := 2 * len(packages)
	if !eventually(func() bool { return len(objects(t, n)) == want }) {
		t.Errorf("%d objects are left, want %d", len(objects(t, n)), want)
	}
	checkOpens(t, n, mails, content)
}

func objects(t *testing.T, n *node) []string {
	t.Helper()
	var paths []string
	err := filepath.Walk(filepath.Join(n.dir, "data", "blobs"), func(path string, info os.FileInfo, err error) error {
		if os.IsNotExist(err) { // the sweep is at work
			return nil
		}
		if err == nil && !info.IsDir() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// ageLeases ends the leases of the killed process, so that the test need wait neither for them to run out nor for the
// minute that a delivery waits then.
func ageLeases(t *testing.T, n *node) {
	t.Helper()
	change(t, n, "UPDATE deliveries SET lease_until = 1 WHERE state = 'sending'")
	cfg, err := config.Load(n.config())
	if err != nil {
		t.Fatal(err)
	}
	opened, err := openStores(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = opened.meta.LeaseDeliveries(t.Context(), "test", "no lane", 1, time.Minute)
	if err := errors.Join(err, opened.Close()); err != nil {
		t.Fatal(err)
	}
	change(t, n, "UPDATE deliveries SET next_attempt = 1 WHERE state = 'pending'")
}

// change changes the database of a node that does not run.
func change(t *testing.T, n *node, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(n.dir, "data", "sealpost.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		t.Fatal(err)
	}
}

// waiting counts the deliveries that are not at an end.
func waiting(t *testing.T, n *node) int {
	t.Helper()
	return lines(n.must(t, "queue", "list", "--state", "pending", "--config", n.config())) +
		lines(n.must(t, "queue", "list", "--state", "sending", "--config", n.config())) - 2
}

func writeBase64(w io.Writer, content []byte) {
	encoded := base64.StdEncoding.EncodeToString(content)
	for len(encoded) > 76 {
		fmt.Fprintf(w, "%s\r\n", encoded[:76])
		encoded = encoded[76:]
	}
	fmt.Fprint(w, encoded)
}
