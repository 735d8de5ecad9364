package main

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"sealpost/sfclient/sftest"
)

const pageSize = 4096 // what a tmpfs gives out at a time

// smallDisk is a file system of a test's own, which it fills and empties.
type smallDisk struct {
	dir    string
	filler string
}

func mountSmallDisk(t *testing.T, megabytes int) *smallDisk {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", megabytes)); err != nil {
		t.Fatalf("mount a small file system, which takes root: %v", err)
	}
	t.Cleanup(func() { // after the node that works on it was killed
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount the small file system: %v", err)
		}
	})
	return &smallDisk{dir: dir, filler: filepath.Join(dir, "filler")}
}

// fill leaves just so many pages free.
func (d *smallDisk) fill(t *testing.T, pages int) {
	t.Helper()
	f, err := os.OpenFile(d.filler, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, pageSize); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(max(info.Size()/pageSize-int64(pages), 0) * pageSize); err != nil {
		t.Fatal(err)
	}
}

func (d *smallDisk) empty(t *testing.T) {
	t.Helper()
	if err := os.Remove(d.filler); err != nil {
		t.Fatal(err)
	}
}

// wantFull expects the reply of a full disk.
func wantFull(t *testing.T, what string, err error) {
	t.Helper()
	var reply *smtp.SMTPError
	if !errors.As(err, &reply) || reply.Code != 452 || reply.EnhancedCode != (smtp.EnhancedCode{4, 3, 1}) {
		t.Errorf("%s: %v, want 452 4.3.1", what, err)
	}
}

// wantAlive expects that the gateway runs, says that it is ready, and lists least to most waiting mails.
func wantAlive(t *testing.T, n *node, least, most int) {
	t.Helper()
	if n.gone() {
		t.Fatalf("the gateway has ended:\n%s", n.logs.String())
	}
	if !n.ready() {
		t.Error("/readyz does not answer 200")
	}
	if got := waiting(t, n); got < least || got > most {
		t.Errorf("%d mails wait, want %d to %d:\n%s", got, least, most, n.must(t, "queue", "list", "--config", n.config()))
	}
}

// waitingMails sends mails which all wait after their first attempt: one of them with its copy in the
// database, one with its copy in an object. It returns the attachment of each.
func waitingMails(t *testing.T, n *node) (count int, content []byte) {
	t.Helper()
	content = randomBytes(20_000)
	for i, text := range []string{"A short letter.", strings.Repeat("A long letter.\r\n", 6_000)} {
		mail := mailWith(fmt.Sprintf("waits %d", i), text, content)
		if err := n.send("jane@customer.example", bytes.NewReader(mail)); err != nil {
			t.Fatal(err)
		}
		count++
	}
	if !eventually(func() bool { return strings.Count(n.logs.String(), "delivery attempted") == count }) {
		t.Fatalf("no attempt was made:\n%s", n.logs.String())
	}
	wantAlive(t, n, count, count)
	return count, content
}

// makeDue sets the time of the next attempt of all mails that wait.
func makeDue(t *testing.T, n *node, at time.Time) {
	t.Helper()
	if _, err := openFile(t, n).Exec("UPDATE deliveries SET next_attempt = ? WHERE state = 'pending'", at.UnixMicro()); err != nil {
		t.Fatal(err)
	}
}

func openFile(t *testing.T, n *node) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(n.dir, "data", "sealpost.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// wantWhole expects that every package has all of its objects, and that each is part of a mail that arrived.
func wantWhole(t *testing.T, n *node, mails int) {
	t.Helper()
	db := openFile(t, n)
	var packages int
	if err := db.QueryRow("SELECT COUNT(*) FROM packages").Scan(&packages); err != nil {
		t.Fatal(err)
	}
	if packages != mails {
		t.Errorf("there are %d packages for %d mails", packages, mails)
	}
	rows, err := db.Query("SELECT name, size FROM objects")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	objects := 0
	for ; rows.Next(); objects++ {
		var name string
		var size int64
		if err := rows.Scan(&name, &size); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(n.dir, "data", "blobs", name[:8], name[9:11], name[9:]))
		if err != nil || info.Size() != size {
			t.Errorf("a package refers to an object of %d bytes: %v", size, err)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if objects != 2*packages {
		t.Errorf("%d packages have %d objects, want a head and a segment each", packages, objects)
	}
}

// TestFullDiskBeforeTheObjects fills the disk while mails wait: no mail can be spooled or sealed, the
// waiting ones become due and cannot be leased. With room again all arrives and opens.
func TestFullDiskBeforeTheObjects(t *testing.T) {
	disk := mountSmallDisk(t, 24)
	org := startOrg(t, sftest.Options{FailFirst: 2})
	n := install(t, filepath.Join(disk.dir, "sealpost"), org.Addr())
	n.start(t, "sealpost")
	count, content := waitingMails(t, n)
	before := len(objects(t, n))

	makeDue(t, n, time.Now().Add(4*time.Second)) // when the disk will be full
	disk.fill(t, 0)
	small, large := mailWith("small", "Hello.", content), mailWith("large", "Hello.", randomBytes(3<<20))
	wantFull(t, "a mail that fits into memory", n.send("jane@customer.example", bytes.NewReader(small)))
	wantFull(t, "a mail that must be spooled", n.send("jane@customer.example", bytes.NewReader(large)))
	disk.fill(t, (len(large)+(1<<20))/pageSize)
	wantFull(t, "a mail that can be spooled, but not sealed", n.send("jane@customer.example", bytes.NewReader(large)))
	disk.fill(t, 0)
	if !eventually(func() bool { return strings.Contains(n.logs.String(), "deliveries cannot be leased") || n.gone() }) {
		t.Errorf("the relay did not meet the full disk:\n%s", n.logs.String())
	}
	wantAlive(t, n, count, count)
	if after := len(objects(t, n)); after != before {
		t.Errorf("%d objects are left of mails that were refused", after-before)
	}

	disk.empty(t)
	if err := n.send("jane@customer.example", bytes.NewReader(small)); err != nil {
		t.Errorf("there is room again: %v", err)
	}
	wantDelivered(t, n, org, count+1, content)
}

// wantDelivered expects that just so many mails arrive, and that nothing waits or is left over.
func wantDelivered(t *testing.T, n *node, org *sftest.Org, count int, content []byte) {
	t.Helper()
	waitMails(t, org, count)
	if !eventually(func() bool { return waiting(t, n) == 0 }) {
		t.Fatalf("deliveries still wait:\n%s", n.logs.String())
	}
	mails := org.Mails()
	if len(mails) != count {
		t.Errorf("%d mails arrived, want %d", len(mails), count)
	}
	wantWhole(t, n, count)
	checkOpens(t, n, mails, content)
	checkSweep(t, n, mails, content)
}

// TestFullDiskAtTheCommit gives the disk one page more for each try, until a mail is accepted. On the way
// lie the tries whose objects are durable and whose transaction finds no room.
func TestFullDiskAtTheCommit(t *testing.T) {
	disk := mountSmallDisk(t, 12)
	org := startOrg(t, sftest.Options{FailFirst: 2})
	n := install(t, filepath.Join(disk.dir, "sealpost"), org.Addr())
	n.start(t, "sealpost")
	count, content := waitingMails(t, n)

	mail := mailWith("at the commit", "Hello.", content)
	err := errors.New("none was sent")
	for pages := 0; pages < 300; pages++ {
		disk.fill(t, pages)
		if err = n.send("jane@customer.example", bytes.NewReader(mail)); err == nil {
			break
		}
		wantFull(t, fmt.Sprintf("with %d pages", pages), err)
	}
	disk.fill(t, 0)
	wantAlive(t, n, count, count+1) // the accepted one may have been delivered
	if err != nil || !strings.Contains(n.logs.String(), "commit a mail: database or disk is full") {
		t.Fatalf("no try failed at the commit, or none went through, the last with %v:\n%s", err, n.logs.String())
	}

	disk.empty(t)
	makeDue(t, n, time.Now())
	wantDelivered(t, n, org, count+1, content)
}
