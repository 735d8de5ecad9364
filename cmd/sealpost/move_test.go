package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/alecthomas/kong"

	"sealpost/sfclient/sftest"
)

// moveCrashMain is `sealpost move` that kills itself before the step that crashVariable names: a step and its number.
func moveCrashMain() {
	var cli struct {
		Move moveCommand `cmd:""`
	}
	kong.Parse(&cli)
	steps := map[string]int{}
	err := cli.Move.run(context.Background(), streams{os.Stdin, os.Stdout, os.Stderr}, func(step string) {
		steps[step]++
		crash(os.Getenv(crashVariable), fmt.Sprint(step, " ", steps[step]))
	})
	_, _ = fmt.Fprintln(os.Stderr, "it came to its end:", err)
	os.Exit(exitFailed)
}

// twin installs a node with the configuration of another one, its addresses included, but with a data directory of its
// own and a copy of the keyring. edit changes the text further.
func (n *node) twin(t *testing.T, edit ...string) *node {
	t.Helper()
	twin := &node{dir: filepath.Join(t.TempDir(), "twin"), smtp: n.smtp, portal: n.portal}
	if err := os.MkdirAll(twin.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(n.config())
	if err != nil {
		t.Fatal(err)
	}
	edit = append(edit, "data: "+n.dir, "data: "+twin.dir, "keyring: "+n.dir, "keyring: "+twin.dir)
	changed := strings.NewReplacer(edit...).Replace(string(text))
	if err := os.WriteFile(twin.config(), []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	copyFile(t, filepath.Join(n.dir, "keyring"), filepath.Join(twin.dir, "keyring"))
	return twin
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// setHop changes where all mail of a node goes.
func (n *node) setHop(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(n.config())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.config(), bytes.ReplaceAll(text, []byte("smtp://"+from), []byte("smtp://"+to)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// embedded opens the database of a node that does not run.
func (n *node) embedded(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(n.dir, "data", databaseName)+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// textOf returns the one value that a query gives.
func textOf(t *testing.T, db *sql.DB, query string) (value string) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query).Scan(&value); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return value
}

// hashTree returns what is below a directory: names and contents.
func hashTree(t *testing.T, root string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(path, "-shm") || strings.HasSuffix(path, "-wal") {
			return err
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(h, "%s %x\n", path, sha256.Sum256(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func contentOf(name string) []byte { return bytes.Repeat([]byte(name+"\n"), 20_000) }

// sendNamed sends a mail with a file; its text is so long that the waiting copy is an object.
func (n *node) sendNamed(t *testing.T, name string) {
	t.Helper()
	mail := mailWith(name, strings.Repeat("A long letter.\r\n", 6_000), contentOf(name))
	if err := n.send("jane@customer.example", bytes.NewReader(mail)); err != nil {
		t.Fatal(err)
	}
}

// inAllStates makes an embedded installation with a mail that was sent, one that is dead, one that waits and one that is
// held, and returns it, stopped, and the link of the first.
func inAllStates(t *testing.T) (n *node, link string) {
	t.Helper()
	takes, refuses := startOrg(t, sftest.Options{}), startOrg(t, sftest.Options{RefuseRcpt: 550})
	n = install(t, filepath.Join(t.TempDir(), "gw"), takes.Addr())
	n.start(t, "sealpost")
	n.sendNamed(t, "sent")
	link = theLink(t, waitMails(t, takes, 1)[0])
	n.stop(t)
	n.setHop(t, takes.Addr(), refuses.Addr())
	n.start(t, "sealpost")
	n.sendNamed(t, "dead")
	db := n.embedded(t)
	if !eventually(func() bool { return count(t, db, "SELECT COUNT(*) FROM deliveries WHERE state = 'dead'") == 1 }) {
		t.Fatal("the refused mail is not dead")
	}
	n.stop(t)
	nobody := freeAddress(t)
	n.setHop(t, refuses.Addr(), nobody)
	n.start(t, "sealpost")
	n.sendNamed(t, "held")
	if !eventually(func() bool { return count(t, db, "SELECT COUNT(*) FROM deliveries WHERE state = 'pending'") == 1 }) {
		t.Fatal("the mail does not wait")
	}
	n.must(t, "queue", "hold", textOf(t, db, "SELECT mail_id FROM deliveries WHERE state = 'pending'"), "--config", n.config())
	n.sendNamed(t, "waiting")
	if !eventually(func() bool {
		return count(t, db, "SELECT COUNT(*) FROM deliveries WHERE state = 'pending' AND attempts = 1") == 1
	}) {
		t.Fatal("no attempt was made")
	}
	n.stop(t)
	change(t, n, "UPDATE deliveries SET next_attempt = 1 WHERE state = 'pending'")
	n.setHop(t, nobody, "hop.invalid:25")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return n, link
}

// checkMoved serves what was carried over, and finds that links open and that each mail that was not sent arrives once.
func checkMoved(t *testing.T, n *node, db *sql.DB, org *sftest.Org, link string) {
	t.Helper()
	n.start(t, "sealpost")
	if files := n.open(t, link); !bytes.Equal(files["file.bin"], contentOf("sent")) {
		t.Error("the link of the sent mail does not open")
	}
	if mails := waitMails(t, org, 1); !bytes.Contains(mails[0].Raw, []byte("Subject: waiting")) {
		t.Errorf("another mail than the waiting one arrived:\n%.300s", mails[0].Raw)
	}
	n.must(t, "queue", "release", textOf(t, db, "SELECT mail_id FROM deliveries WHERE state = 'held'"), "--config", n.config())
	waitMails(t, org, 2)
	n.must(t, "queue", "retry", textOf(t, db, "SELECT mail_id FROM deliveries WHERE state = 'dead'"), "--config", n.config())
	waitMails(t, org, 3)
	if !eventually(func() bool { return count(t, db, "SELECT COUNT(*) FROM deliveries WHERE state <> 'sent'") == 0 }) {
		t.Error("deliveries are left")
	}
	mails := org.Mails()
	if len(mails) != 3 {
		t.Errorf("%d mails arrived, want 3", len(mails))
	}
	for i, name := range []string{"waiting", "held", "dead"} {
		if files := n.open(t, theLink(t, mails[i])); !bytes.Equal(files["file.bin"], contentOf(name)) {
			t.Errorf("the link of the %s mail does not open", name)
		}
		trace := n.must(t, "trace", fmt.Sprintf("<%x@customer.example>", name), "--config", n.config())
		if !strings.Contains(trace, "answered 250") {
			t.Errorf("the trace of the %s mail says:\n%s", name, trace)
		}
	}
	if out := n.must(t, "agent", "list", "--config", n.config()); !strings.Contains(out, testAgent) {
		t.Errorf("the agents are:\n%s", out)
	}
	n.stop(t)
}

// TestMove carries an embedded installation over to PostgreSQL and S3, killed at every kind of step and gone on with, and
// back again. Nothing is lost or doubled, and the source stays as it is.
func TestMove(t *testing.T) {
	small, link := inAllStates(t)
	c, org := startCluster(t), startOrg(t, sftest.Options{})
	large := small.twin(t, "smtp://hop.invalid:25", "smtp://"+org.Addr())
	large.appendConfig(t, "database: \""+c.database.URL(c.name)+"\"\nblobs: \""+c.bucket.Location(c.bucket.Endpoint)+"\"")
	move := []string{"move", "--from", small.config(), "--to", large.config()}
	before, audits := hashTree(t, small.dir), count(t, small.embedded(t), "SELECT COUNT(*) FROM audit_events")
	if audits == 0 {
		t.Error("there is nothing in the audit")
	}
	for i, point := range []string{
		"begin 1", "before an object 1", "before an object 4", "before the objects are durable 1", "after a batch of packages 1",
		"after a batch of mails 1", "after a batch of audit_events 1", "compare 1", "finish 1", "finished 1",
	} {
		cmd := exec.Command("sealpost-move-crash", move...)
		cmd.Env = append(os.Environ(), crashVariable+"="+point)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("%s: %v\n%s", point, err, out)
		}
		if i == 0 || point == "finished 1" {
			continue
		}
		if out, err := large.command(t.Context(), "serve", "--config", large.config()); err == nil || !strings.Contains(out, "sealpost move") {
			t.Errorf("%s: the half database is served: %v\n%s", point, err, out)
		}
	}
	if out := large.must(t, move...); !strings.Contains(out, "already") {
		t.Errorf("a move that had come to its end says:\n%s", out)
	}
	if hashTree(t, small.dir) != before {
		t.Error("the source was changed")
	}
	db := c.open(t)
	if n := count(t, db, "SELECT COUNT(*) FROM audit_events"); n != audits {
		t.Errorf("%d audit events, want %d", n, audits)
	}
	checkMoved(t, large, db, org, link)

	back := large.twin(t, "database: \"postgres", "#", "blobs: \"s3", "#")
	out := back.must(t, "move", "--from", large.config(), "--to", back.config(), "--verify")
	if !strings.Contains(out, "Done") {
		t.Errorf("the way back says:\n%s", out)
	}
	back.start(t, "sealpost")
	if files := back.open(t, link); !bytes.Equal(files["file.bin"], contentOf("sent")) {
		t.Error("the link of the sent mail does not open at last")
	}
	back.stop(t)
}

// TestMoveRefusals: what would mix two installations, or lose something, is refused with the way to mend it.
func TestMoveRefusals(t *testing.T) {
	org := startOrg(t, sftest.Options{})
	n := install(t, filepath.Join(t.TempDir(), "gw"), org.Addr())
	n.start(t, "sealpost")
	n.sendNamed(t, "sent")
	waitMails(t, org, 1)
	refused := func(status int, saying string, args ...string) {
		t.Helper()
		out, err := n.command(t.Context(), append([]string{"move"}, args...)...)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != status || !strings.Contains(out, saying) {
			t.Errorf("%v, want exit status %d and %q:\n%s", err, status, saying, out)
		}
	}
	target := n.twin(t)
	both := []string{"--from", n.config(), "--to", target.config()}
	refused(exitFailed, "stop all of them", both...)
	n.stop(t)
	refused(exitUsage, "the same database", "--from", n.config(), "--to", n.config())
	other := install(t, filepath.Join(t.TempDir(), "other"), org.Addr())
	refused(exitFailed, "copy the first to the second", "--from", n.config(), "--to", other.config())
	copyFile(t, filepath.Join(n.dir, "keyring"), filepath.Join(other.dir, "keyring"))
	refused(exitFailed, "not empty", "--from", n.config(), "--to", other.config())

	lost := objects(t, n)[0]
	if err := os.Rename(lost, lost+".aside"); err != nil {
		t.Fatal(err)
	}
	refused(exitFailed, "--lost-objects", both...)
	if err := os.Rename(lost+".aside", lost); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	command := moveCommand{From: n.config(), To: target.config()}
	err := command.run(ctx, streams{os.Stdin, io.Discard, io.Discard}, func(step string) {
		if step == "after a batch of packages" {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "the same command goes on") {
		t.Errorf("after Ctrl-C it says: %v", err)
	}
	change(t, n, "UPDATE packages SET expires = expires + 1")
	if out := n.must(t, append([]string{"move"}, both...)...); !strings.Contains(out, "has changed since") || !strings.Contains(out, "Done") {
		t.Errorf("after a change of the source it says:\n%s", out)
	}
}

// TestMoveCarriesWhatTheSweepSpares: objects that no row refers to go along if they may be another database's, and a
// sweep of the target spares them too; garbage and what a crash left stay behind.
func TestMoveCarriesWhatTheSweepSpares(t *testing.T) {
	org := startOrg(t, sftest.Options{})
	n := install(t, filepath.Join(t.TempDir(), "gw"), org.Addr())
	n.start(t, "sealpost")
	n.sendNamed(t, "sent")
	waitMails(t, org, 1)
	n.stop(t)
	dir := filepath.Dir(objects(t, n)[0])
	spared := filepath.Join(dir, filepath.Base(dir)+"000000000000000000000000000000.s.0000000000000001")
	let := filepath.Join(dir, filepath.Base(dir)+"000000000000000000000000000000.s.0000000000000002")
	for _, path := range []string{spared, let} {
		if err := os.WriteFile(path, []byte("sealed"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	day := filepath.Base(filepath.Dir(dir))
	change(t, n, "INSERT INTO garbage (name, since) VALUES ('"+day+"/"+filepath.Base(let)+"', 1)")
	target := n.twin(t)
	n.must(t, "move", "--from", n.config(), "--to", target.config())
	found := strings.Join(objects(t, target), "\n")
	if !strings.Contains(found, filepath.Base(spared)) || strings.Contains(found, filepath.Base(let)) {
		t.Errorf("carried over were:\n%s", found)
	}
	db := target.embedded(t)
	if n := count(t, db, "SELECT COUNT(*) FROM unwatched, moved WHERE since < began AND until > finished"); n == 0 {
		t.Error("a sweep of the target would remove what was spared")
	}
}
