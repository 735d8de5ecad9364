package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	_ "github.com/jackc/pgx/v5/stdlib"

	"sealpost/sfclient/sftest"
	"sealpost/storage/storagetest"
)

// launch starts the node's process and does not wait.
func (n *node) launch(t testing.TB) {
	t.Helper()
	n.cmd = exec.Command("sealpost", "serve", "--config", n.config())
	n.cmd.Env = append(os.Environ(), n.env...)
	n.cmd.Stdout, n.cmd.Stderr = &n.logs, &n.logs
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait() // how it ended is for the test to say
		close(exited)
	}(n.cmd, n.exited)
	t.Cleanup(n.kill)
}

func (n *node) waitReady(t testing.TB) {
	t.Helper()
	if !eventually(func() bool { return n.ready() || n.gone() }) || n.gone() {
		t.Fatalf("the node does not become ready:\n%s", tail(n.logs.String()))
	}
}

// nodes installs nodes of one cluster, not started: each with its own data directory and listeners, all with the
// keyring, the recovery key and the portal of the first.
func (c *cluster) nodes(t *testing.T, hop string, number int) []*node {
	t.Helper()
	var nodes []*node
	for i := range number {
		n := c.nodeAt(t, hop, c.database.URL(c.name), c.bucket.Location(c.bucket.Endpoint))
		if i > 0 {
			first := nodes[0]
			replaceInConfig(t, n, "keyring: "+n.dir, "keyring: "+first.dir)
			replaceInConfig(t, n, "recovery_keys: ["+n.dir, "recovery_keys: ["+first.dir)
			replaceInConfig(t, n, "url: http://"+n.portal, "url: http://"+first.portal)
		}
		nodes = append(nodes, n)
	}
	return nodes
}

func startAll(t *testing.T, nodes []*node) {
	t.Helper()
	for _, n := range nodes {
		n.launch(t)
	}
	for _, n := range nodes {
		n.waitReady(t)
	}
}

// killAtRandom kills one of the nodes under load and starts it again, over and over, and returns how often.
func killAtRandom(t *testing.T, load *steady, nodes []*node) (kills int) {
	t.Helper()
	const few = 5
	end, pause := time.Now().Add(*faultsFor), 300*time.Millisecond
	if *faultsFor > 0 {
		pause = 5 * time.Second
	}
	for ; kills < few || time.Now().Before(end); kills++ {
		n := nodes[rand.IntN(len(nodes))]
		was := load.tally().accepted
		load.until(t, "mails accepted by three nodes", func(now tally) bool { return now.accepted >= was+fullSpeed })
		<-time.After(rand.N(pause)) // so that it falls anywhere
		n.kill()
		was = load.tally().accepted
		load.until(t, "mails accepted by two nodes", func(now tally) bool { return now.accepted >= was+fullSpeed })
		n.launch(t)
		n.waitReady(t)
	}
	return kills
}

// TestNodes: three nodes make the schema of an empty database at once, and then take a steady load while one of them is
// killed again and again. Each 250 arrives and opens, at nodes where the agent did not log in, and of those that sweep
// afterwards one does.
func TestNodes(t *testing.T) {
	t.Parallel()
	c, org := clusterOf(t, storagetest.StartPostgres(t)), startOrg(t, sftest.Options{})
	db, nodes := c.open(t), c.nodes(t, org.Addr(), 3)
	startAll(t, nodes)
	if versions := count(t, db, "SELECT COUNT(*) - COUNT(DISTINCT version_id) FROM goose_db_version"); versions != 0 {
		t.Errorf("%d migrations ran twice", versions)
	}
	nodes[0].must(t, "agent", "add", testAgent, "--config", nodes[0].config())

	load := startLoad(t, nodes...)
	kills := killAtRandom(t, load, nodes)
	load.end()
	for _, n := range nodes {
		n.stop(t)
	}
	left := count(t, db, "SELECT COUNT(*) FROM deliveries WHERE state = 'sending'")
	execute(t, db, "UPDATE deliveries SET lease_until = 1 WHERE state = 'sending'") // as time would: their nodes are dead
	startAll(t, nodes)
	drain(t, db)
	t.Logf("%d kills; %d deliveries were in the hands of dead nodes at the end", kills, left)
	load.checkArrivals(t, org, attemptsOf(t, db), nodes...)
	c.checkSweep(t, db, nodes...)
}

// aside puts another clock in the place of the database's.
const aside = `CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
	$$ SELECT pg_catalog.clock_timestamp() + interval '%d seconds' $$`

// TestSkew: nodes hear of each other by the database alone, so what matters is how far a node's clock is from the
// database's. A minute either way does no harm: mail is taken, delivered and tried again in time, sessions and grants hold
// at every node, and all that is stored has the database's time.
func TestSkew(t *testing.T) {
	t.Parallel()
	c := clusterOf(t, storagetest.StartPostgres(t))
	for _, seconds := range []int{60, -60} {
		t.Run(fmt.Sprintf("%+d s", seconds), func(t *testing.T) {
			c.name = c.database.NewDatabase(t)
			db := c.open(t)
			execute(t, db, fmt.Sprintf(aside, seconds), "ALTER DATABASE "+c.name+" SET search_path = public, pg_catalog")
			org := startOrg(t, sftest.Options{FailFirst: 1})
			nodes := c.nodes(t, org.Addr(), 2)
			nodes[0].must(t, "agent", "add", testAgent, "--config", nodes[0].config())
			startAll(t, nodes)
			const id = "steady-0-0"
			if err := nodes[0].send("jane@customer.example", bytes.NewReader(steadyMail(id, 0))); err != nil {
				t.Fatal(err)
			}
			if !eventually(func() bool { return count(t, db, "SELECT COUNT(*) FROM attempts") == 1 }) {
				t.Fatal("no attempt was made")
			}
			checkRetry(t, db)
			drain(t, db)
			all, copies := arrived(t, org)
			if copies != 1 || openAll(t, all, nodes) != 1 {
				t.Errorf("%d mails arrived", copies)
			}
			checkTimes(t, db, seconds)
			for _, n := range nodes {
				n.stop(t)
			}
		})
	}
}

// checkRetry expects that a delivery waits for the minute of its first retry, a tenth more or less, by the database's clock.
func checkRetry(t *testing.T, db *sql.DB) {
	t.Helper()
	if !eventually(func() bool { return count(t, db, "SELECT COUNT(*) FROM deliveries WHERE state = 'pending'") == 1 }) {
		t.Fatal("the delivery does not wait")
	}
	wait := time.Duration(count(t, db, "SELECT next_attempt - "+databaseClock+" FROM deliveries")) * time.Microsecond
	if wait < 40*time.Second || wait > 70*time.Second {
		t.Errorf("it is tried again in %s", wait)
	}
}

// databaseClock is in microseconds since 1970.
const databaseClock = "(EXTRACT(EPOCH FROM public.clock_timestamp()) * 1000000)::bigint"

// checkTimes expects times that are nearer to the database's clock than to the nodes'.
func checkTimes(t *testing.T, db *sql.DB, seconds int) {
	t.Helper()
	for _, column := range []string{"created FROM mails", "created FROM packages", "created FROM deliveries", "sent_at FROM deliveries", "seen FROM nodes", "at FROM audit_events", "last FROM watch"} {
		name, table, _ := strings.Cut(column, " FROM ")
		age := time.Duration(count(t, db, fmt.Sprintf("SELECT %s - MIN(%s) FROM %s", databaseClock, name, table))) * time.Microsecond
		if age < 0 || age > 30*time.Second {
			t.Errorf("%s of %s is off by %s where the database's clock is by %d s", name, table, age, seconds)
		}
	}
}

// clusterOf is a cluster whose nodes are given the credentials, so that tests with clusters can run at the same time.
func clusterOf(t *testing.T, database *storagetest.Postgres) *cluster {
	t.Helper()
	return &cluster{database: database, bucket: storagetest.StartS3(t), name: database.NewDatabase(t)}
}

// nodeAt installs a node, without an agent, whose log can be read by a program.
func (c *cluster) nodeAt(t *testing.T, hop, database, blobs string) *node {
	t.Helper()
	n := installBare(t, filepath.Join(t.TempDir(), "gw"), hop)
	n.env = []string{"AWS_ACCESS_KEY_ID=" + c.bucket.AccessKey, "AWS_SECRET_ACCESS_KEY=" + c.bucket.SecretKey,
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull}
	n.appendConfig(t, "authentication: {enabled: false}\nnotices: {enabled: false}\nalerts: {mail: false}\nlog: {format: json}\n"+
		"database: \""+database+"\"\nblobs: \""+blobs+"\"\n")
	return n
}

// open opens the cluster's database for what a test wants to see for itself.
func (c *cluster) open(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", c.database.URL(c.name))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxIdleConns(0) // a restart of the server would end them
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func execute(t testing.TB, db *sql.DB, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := db.ExecContext(context.Background(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

func count(t testing.TB, db *sql.DB, query string) (n int) {
	t.Helper()
	if err := db.QueryRowContext(context.Background(), query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// hurry makes due what waits for its next attempt, as time would. Any goroutine may call it.
func hurry(t testing.TB, db *sql.DB) {
	t.Helper()
	for _, statement := range []string{"UPDATE deliveries SET next_attempt = 1 WHERE state = 'pending'", "SELECT pg_notify('sealpost', 'test')"} {
		if _, err := db.ExecContext(context.Background(), statement); err != nil {
			t.Errorf("%s: %v", statement, err)
		}
	}
}

// drain waits until nothing is to be delivered any more.
func drain(t testing.TB, db *sql.DB) {
	t.Helper()
	for deadline := time.Now().Add(faultLimit()); ; time.Sleep(200 * time.Millisecond) {
		if count(t, db, "SELECT COUNT(*) FROM deliveries WHERE state IN ('pending', 'sending')") == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d deliveries are pending and %d sending",
				count(t, db, "SELECT COUNT(*) FROM deliveries WHERE state = 'pending'"), count(t, db, "SELECT COUNT(*) FROM deliveries WHERE state = 'sending'"))
		}
		hurry(t, db)
	}
}

// attemptsOf returns how many attempts were made for each package, and how many did not end well.
func attemptsOf(t testing.TB, db *sql.DB) map[string]int {
	t.Helper()
	rows, err := db.QueryContext(context.Background(), "SELECT d.mail_id, COUNT(*) FROM deliveries d JOIN attempts a ON a.delivery_id = d.id GROUP BY d.mail_id")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	made := map[string]int{}
	for rows.Next() {
		var id string
		var n int
		if err := rows.Scan(&id, &n); err != nil {
			t.Fatal(err)
		}
		made[id] = n
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return made
}

// objects returns the keys of the bucket that are ours, and the paths of all that the server keeps for it.
func (c *cluster) objects(t testing.TB) (keys map[string]bool, paths []string) {
	t.Helper()
	keys = map[string]bool{}
	root := filepath.Join(c.bucket.Dir, c.bucket.Bucket)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if os.IsNotExist(err) { // the sweep is at work
			return nil
		}
		if err != nil {
			return err
		}
		paths = append(paths, path)
		if name, ours := strings.CutPrefix(path, filepath.Join(root, "objects")+"/"); ours && !entry.IsDir() {
			keys[name] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys, paths
}

// needed returns the names of the objects that the database refers to.
func needed(t testing.TB, db *sql.DB) map[string]bool {
	t.Helper()
	rows, err := db.QueryContext(context.Background(), "SELECT name FROM objects UNION SELECT copy_object FROM mails WHERE copy_object IS NOT NULL")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	names := map[string]bool{}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names[name] = true
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}

// checkSweep, with nodes that run, makes all objects two days old, adds some that nobody knows, and starts the nodes, all at once. Just what
// is needed stays, no upload is left half, and one of them swept.
func (c *cluster) checkSweep(t *testing.T, db *sql.DB, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		n.stop(t)
	}
	const planted = 3
	day := time.Now().UTC().Format("20060102")
	if err := os.MkdirAll(filepath.Join(c.bucket.Dir, c.bucket.Bucket, "objects", day), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range planted {
		name := fmt.Sprintf("%s/%032x.s.%016x", day, i, i)
		if err := os.WriteFile(filepath.Join(c.bucket.Dir, c.bucket.Bucket, "objects", name), []byte("nobody knows it"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keys, paths := c.objects(t)
	old := time.Now().Add(-48 * time.Hour)
	for _, path := range paths {
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	execute(t, db, "DELETE FROM unwatched", "DELETE FROM work")
	want := needed(t, db)
	read := make([]int, len(nodes))
	for i, n := range nodes {
		read[i] = len(n.logs.String())
		n.launch(t)
	}
	if !eventually(func() bool {
		left, _ := c.objects(t)
		return maps.Equal(left, want)
	}) {
		left, _ := c.objects(t)
		t.Errorf("%d objects are left, want the %d that are needed", len(left), len(want))
	}
	swept := func() (times int) {
		for i, n := range nodes {
			times += strings.Count(n.logs.String()[read[i]:], `"msg":"left-over objects removed"`)
		}
		return times
	}
	if !eventually(func() bool { return swept() > 0 }) {
		t.Error("no node says that it swept")
	}
	c.checkUploads(t)
	for _, n := range nodes {
		n.waitReady(t)
		n.stop(t)
	}
	if n := swept(); n != 1 {
		t.Errorf("%d nodes swept at once", n)
	}
	t.Logf("of %d objects %d are needed, and the sweep of one of %d nodes left just those", len(keys), len(want), len(nodes))
}

func (c *cluster) checkUploads(t *testing.T) {
	t.Helper()
	uploads, err := c.bucket.Client().ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: aws.String(c.bucket.Bucket)})
	if err != nil {
		t.Fatal(err)
	}
	if len(uploads.Uploads) > 0 {
		t.Errorf("%d uploads are left half", len(uploads.Uploads))
	}
}
