package main

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"sealpost/sfclient/sftest"
)

func mustRun(t *testing.T, program string, args ...string) {
	t.Helper()
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// checkRestored serves what was restored. It opens the link of a mail from before the backup; the files of one from
// between the backup of the database and that of the objects are opened with the recovery key alone, and the sweep,
// which looks at the start, spares them.
func checkRestored(t *testing.T, db *sql.DB, first, restored *node, before, between string) {
	t.Helper()
	restored.start(t, "sealpost")
	if files := restored.open(t, before); !bytes.Equal(files["file.bin"], contentOf("before")) {
		t.Error("the link from before the backup does not open")
	}
	if out, err := restored.command(t.Context(), "open", between, "--out", t.TempDir(), "--agent", testAgent); err == nil {
		t.Errorf("a link that the database cannot know opens:\n%s", out)
	}
	if !eventually(func() bool { return count(t, db, "SELECT COUNT(*) FROM watch") == 1 }) {
		t.Error("the restored gateway does not sweep")
	}
	restored.stop(t)
	out := t.TempDir()
	restored.must(t, "recover", "--config", restored.config(), "--key", first.dir+"-recovery-private.asc", "--out", out, "--all")
	var found []string
	for _, link := range []string{before, between} {
		for _, content := range filesIn(t, filepath.Join(out, idOf(t, link).String())) {
			found = append(found, strings.SplitN(string(content), "\n", 2)[0])
		}
	}
	if strings.Join(found, " ") != "before between" {
		t.Errorf("recovered were the files of the mails %v", found)
	}
}

// checkSpared: objects of before the restored database's first gateway were stored while it did not watch, so no sweep
// takes those that it does not know for left over.
func checkSpared(t *testing.T, db *sql.DB, stored []time.Time) {
	t.Helper()
	for _, at := range stored {
		query := fmt.Sprintf("SELECT COUNT(*) FROM unwatched WHERE since <= %d AND until > %[1]d", at.UnixMicro())
		if count(t, db, query) == 0 {
			t.Errorf("a sweep would remove an object of %v", at)
		}
	}
	if len(stored) == 0 {
		t.Error("there are no objects")
	}
}

// TestBackupDrillEmbedded: the database by `sealpost backup` while the gateway runs, the objects after it, and both into a
// new directory; then the same without any database.
func TestBackupDrillEmbedded(t *testing.T) {
	org := startOrg(t, sftest.Options{})
	n := install(t, filepath.Join(t.TempDir(), "gw"), org.Addr())
	n.start(t, "sealpost")
	n.sendNamed(t, "before")
	before := theLink(t, waitMails(t, org, 1)[0])
	backup := filepath.Join(t.TempDir(), "backup")
	n.must(t, "backup", "--config", n.config(), "--out", backup)
	n.sendNamed(t, "between")
	between := theLink(t, waitMails(t, org, 2)[1])
	mustRun(t, "cp", "-a", filepath.Join(n.dir, "data", "blobs"), backup)
	if out, err := n.command(t.Context(), "backup", "--config", n.config(), "--out", backup); err == nil {
		t.Errorf("a backup is overwritten:\n%s", out)
	}
	n.stop(t)

	restored := n.twin(t)
	mustRun(t, "mkdir", "-m", "700", filepath.Join(restored.dir, "data"))
	mustRun(t, "cp", "-a", filepath.Join(backup, databaseName), filepath.Join(backup, "blobs"), filepath.Join(restored.dir, "data"))
	db := restored.embedded(t)
	execute(t, db, "DELETE FROM work") // the gateway that was backed up had claimed the sweep for some minutes
	checkRestored(t, db, n, restored, before, between)
	var stored []time.Time
	for _, path := range objects(t, restored) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, info.ModTime())
	}
	checkSpared(t, db, stored)

	if err := os.Remove(filepath.Join(restored.dir, "data", databaseName)); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	restored.must(t, "recover", "--config", restored.config(), "--key", n.dir+"-recovery-private.asc", "--out", out, idOf(t, before).String())
	if files := filesIn(t, out); !bytes.Equal(files["file.bin"], contentOf("before")) {
		t.Error("without a database the file is not recovered")
	}
}

// TestBackupDrillLarge: pg_dump while the gateway runs, a copy of the bucket after it, and both into a new database and a
// new bucket.
func TestBackupDrillLarge(t *testing.T) {
	c, org := startCluster(t), startOrg(t, sftest.Options{})
	database, blobs := c.database.URL(c.name), c.bucket.Location(c.bucket.Endpoint)
	n := c.nodeAt(t, org.Addr(), database, blobs)
	n.must(t, "agent", "add", testAgent, "--config", n.config())
	n.start(t, "sealpost")
	n.sendNamed(t, "before")
	before := theLink(t, waitMails(t, org, 1)[0])
	dump := filepath.Join(t.TempDir(), "sealpost.dump")
	mustRun(t, "pg_dump", "--format=custom", "--exclude-table-data=watch", "--file="+dump, database)
	n.sendNamed(t, "between")
	between := theLink(t, waitMails(t, org, 2)[1])
	bucket := c.copyBucket(t)
	n.stop(t)

	fresh := c.database.URL(c.database.NewDatabase(t))
	mustRun(t, "pg_restore", "--exit-on-error", "--no-owner", "--dbname="+fresh, dump)
	restored := n.twin(t, database, fresh, "s3://"+c.bucket.Bucket+"/", "s3://"+bucket+"/")
	db, err := sql.Open("pgx", fresh)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	execute(t, db, "DELETE FROM work")
	checkRestored(t, db, n, restored, before, between)
	list, err := c.bucket.Client().ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String(bucket)})
	if err != nil {
		t.Fatal(err)
	}
	var stored []time.Time
	for _, object := range list.Contents {
		stored = append(stored, aws.ToTime(object.LastModified))
	}
	checkSpared(t, db, stored)
	if out, err := n.command(t.Context(), "backup", "--config", n.config(), "--out", t.TempDir()); err == nil || !strings.Contains(out, "pg_dump") {
		t.Errorf("backup of PostgreSQL: %v\n%s", err, out)
	}
}

// copyBucket copies all objects into a new bucket, as any S3 tool does.
func (c *cluster) copyBucket(t *testing.T) string {
	t.Helper()
	client, fresh := c.bucket.Client(), c.bucket.NewBucket(t)
	list, err := client.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String(c.bucket.Bucket)})
	if err != nil || len(list.Contents) == 0 {
		t.Fatalf("%d objects in the bucket, %v", len(list.Contents), err)
	}
	for _, object := range list.Contents {
		_, err := client.CopyObject(t.Context(), &s3.CopyObjectInput{
			Bucket: aws.String(fresh), Key: object.Key, CopySource: aws.String(c.bucket.Bucket + "/" + aws.ToString(object.Key))})
		if err != nil {
			t.Fatal(err)
		}
	}
	return fresh
}
