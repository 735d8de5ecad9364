package main

import (
	"database/sql"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sealpost/sfclient/sftest"
	"sealpost/storage/storagetest"
)

// faultsFor makes the fault tests long: how long nodes are killed; each single fault then lasts for longer than any
// patience of ours.
var faultsFor = flag.Duration("faults.for", 0, "TestFaults, TestNodes: how long nodes are killed; 0: a few of each")

// faultHold is how long one fault lasts at least.
func faultHold() time.Duration {
	if *faultsFor > 0 {
		return 50 * time.Second
	}
	return 700 * time.Millisecond
}

// faultLimit is when a test gives up waiting.
func faultLimit() time.Duration {
	if *faultsFor > 0 {
		return 8 * time.Minute
	}
	return waitLimit
}

const (
	mostMemory      = 256.0 // MiB of a node under this load
	mostFiles       = 120   // open files of a node, connections among them
	mostConnections = 41    // to the database: the pool's 20, who listens, and for each of the pool one that cancels its statement
	fullSpeed       = 12    // so many mails are waited for before a fault and after
	repliesLost     = 3     // by the next hop, of the first mails: these arrive twice
)

// faultRig is one node of the large size, whose ways to the database, to the bucket and to the next hop lead through
// proxies.
type faultRig struct {
	*cluster
	node          *node
	org           *sftest.Org
	db, blobs, to *storagetest.Proxy
	answers       *storagetest.HTTPFaults
	sql           *sql.DB
	load          *steady
	read          int // of the node's log
}

func startFaultRig(t *testing.T, database *storagetest.Postgres) *faultRig {
	t.Helper()
	r := &faultRig{cluster: clusterOf(t, database), org: startOrg(t, sftest.Options{FailFirst: 2, DropAfterData: repliesLost})}
	r.db, r.to = storagetest.StartProxy(t, r.database.Addr), storagetest.StartProxy(t, r.org.Addr())
	r.answers = storagetest.StartHTTPFaults(t, r.bucket.Endpoint)
	r.blobs = storagetest.StartProxy(t, strings.TrimPrefix(r.answers.URL, "http://"))
	r.sql = r.open(t)
	r.node = r.nodeAt(t, r.to.Addr, storagetest.URLAt(r.db.Addr, r.name), r.bucket.Location("http://"+r.blobs.Addr))
	r.node.must(t, "agent", "add", testAgent, "--config", r.node.config())
	r.node.start(t, "sealpost")
	r.load = startLoad(t, r.node)
	return r
}

// fault is one thing that goes wrong.
type fault struct {
	name       string
	begin, end func()
	// refuses says that mails are answered 4xx meanwhile: the fault lasts until some were.
	refuses bool
	// defers says that deliveries are put off meanwhile: the fault lasts until some were.
	defers bool
}

// again does something over and over until end is called.
type again struct {
	stop chan struct{}
	done sync.WaitGroup
}

func (a *again) begin(every time.Duration, do func()) func() {
	return func() {
		a.stop = make(chan struct{})
		a.done.Go(func() {
			for {
				do()
				select {
				case <-a.stop:
					return
				case <-time.After(every):
				}
			}
		})
	}
}

func (a *again) end() {
	close(a.stop)
	a.done.Wait()
}

// slowCommits makes each COMMIT of a mail take a while, so that what is cut is often cut just there.
const slowCommits = `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$;
	CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON mails DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()`

func (r *faultRig) databaseFaults(t *testing.T) []fault {
	var cuts again
	quick := func() { execute(t, r.sql, "DROP TRIGGER slow ON mails", "DROP FUNCTION slow()") }
	return []fault{
		{"the database is restarted", r.database.Stop, func() { r.database.Start(t) }, true, false},
		{"the database crashes", r.database.Kill, func() { r.database.Start(t) }, true, false},
		{"the database refuses", r.db.Refuse, r.db.Heal, true, false},
		{"the database is slow", func() { r.db.Delay(25 * time.Millisecond) }, r.db.Heal, false, false},
		{"the database is silent", r.db.Stall, r.db.Heal, *faultsFor > 0, false},
		{"connections are lost in COMMIT", func() {
			execute(t, r.sql, slowCommits)
			cuts.begin(40*time.Millisecond, r.db.Cut)()
		}, func() {
			cuts.end()
			quick()
		}, false, false},
		{"connections are lost in COMMIT and not to be had again", func() {
			execute(t, r.sql, slowCommits)
			<-time.After(500 * time.Millisecond) // so that commits are under way
			r.db.Refuse()
		}, func() {
			r.db.Heal()
			quick()
		}, true, false},
	}
}

const slowDown = `<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>`

func (r *faultRig) bucketFaults() []fault {
	stores := func(request *http.Request) bool {
		return request.Method == http.MethodPut || request.Method == http.MethodPost
	}
	inject := func(all ...storagetest.HTTPFault) func() {
		return func() {
			for _, f := range all {
				r.answers.Add(f)
			}
		}
	}
	half := func(request *http.Request) bool {
		return stores(request) && request.URL.Path[len(request.URL.Path)-1]%2 == 0
	}
	var cuts, altered again
	return []fault{
		{"the bucket answers 500 and SlowDown", inject(
			storagetest.HTTPFault{Match: half, Times: -1, Status: http.StatusInternalServerError},
			storagetest.HTTPFault{Match: stores, Times: -1, Status: http.StatusServiceUnavailable, Body: slowDown},
		), r.answers.Heal, true, false},
		{"the bucket refuses", r.blobs.Refuse, r.blobs.Heal, *faultsFor > 0, false},
		{"the bucket is silent in the middle of parts", r.blobs.Stall, r.blobs.Heal, *faultsFor > 0, false},
		{"answers of the bucket are lost", inject(storagetest.HTTPFault{Match: stores, Times: 12, LoseAnswer: true}), r.answers.Heal, false, false},
		{"objects are cut", cuts.begin(20*time.Millisecond, func() { r.blobs.CutAfter(-1, rand.Int64N(200_000)) }), func() { cuts.end(); r.blobs.Heal() }, false, false},
		{"answers are altered", altered.begin(20*time.Millisecond, func() { r.blobs.Corrupt(rand.Int64N(50_000)) }), func() { altered.end(); r.blobs.Heal() }, false, false},
	}
}

func (r *faultRig) hopFaults(t *testing.T) []fault {
	healed := func() { r.to.Heal(); hurry(t, r.sql) }
	var cuts again
	// cut cuts a connection within so many bytes, again and again.
	cut := func(commands, replies int64) func() {
		return cuts.begin(50*time.Millisecond, func() {
			if commands > 0 {
				r.to.CutAfter(rand.Int64N(commands), -1)
			} else {
				r.to.CutAfter(-1, rand.Int64N(replies))
			}
			hurry(t, r.sql)
		})
	}
	stopped := func() { cuts.end(); healed() }
	return []fault{
		{name: "the next hop refuses", begin: r.to.Refuse, end: healed, defers: true},
		{name: "the next hop is a tarpit", begin: func() { r.to.Delay(150 * time.Millisecond) }, end: healed},
		{name: "the next hop is silent", begin: r.to.Stall, end: healed},
		{name: "the next hop cuts the dialogue at our commands", begin: cut(150, 0), end: stopped, defers: true},
		{name: "the next hop cuts the dialogue within a mail", begin: cut(6_000, 0), end: stopped, defers: true},
		{name: "the next hop cuts the dialogue at its replies", begin: cut(0, 200), end: stopped, defers: true},
	}
}

// TestDatabaseFaults, TestBucketFaults and TestHopFaults: each fault meets a node that works. Mails are answered 250 or
// 4xx, what it costs is bounded, and afterwards all is as fast as before. In the end each 250 has arrived and opens, and
// the sweep leaves just what is needed.
func TestDatabaseFaults(t *testing.T) {
	t.Parallel()
	r := startFaultRig(t, storagetest.StartPostgres(t))
	r.sufferAll(t, r.databaseFaults(t))
}

// TestBucketFaults: see TestDatabaseFaults.
func TestBucketFaults(t *testing.T) {
	t.Parallel()
	r := startFaultRig(t, storagetest.StartPostgres(t))
	r.sufferAll(t, r.bucketFaults())
}

// TestHopFaults: see TestDatabaseFaults.
func TestHopFaults(t *testing.T) {
	t.Parallel()
	r := startFaultRig(t, storagetest.StartPostgres(t))
	r.sufferAll(t, r.hopFaults(t))
}

func (r *faultRig) sufferAll(t *testing.T, faults []fault) {
	t.Helper()
	for _, f := range faults {
		if !t.Run(strings.ReplaceAll(f.name, " ", "-"), func(t *testing.T) { r.suffer(t, f) }) {
			t.Logf("the log after %q:\n%s", f.name, tail(r.node.logs.String()))
		}
	}
	r.checkEnd(t)
}

// TestFullDiskOfTheDatabase: PostgreSQL finds no room, or even gives up, and has room again.
func TestFullDiskOfTheDatabase(t *testing.T) {
	t.Parallel()
	disk := mountSmallDisk(t, 160)
	for _, dir := range []string{disk.dir, filepath.Dir(disk.dir)} {
		if err := os.Chmod(dir, 0o711); err != nil { // #nosec G302 -- the server's user passes through
			t.Fatal(err)
		}
	}
	r := startFaultRig(t, storagetest.StartPostgresIn(t, disk.dir))
	r.suffer(t, fault{"the database's disk is full", func() { disk.fill(t, 0) }, func() {
		disk.empty(t)
		if r.sql.PingContext(t.Context()) != nil {
			r.database.Stop()
			r.database.Start(t)
		}
	}, true, false})
	r.checkEnd(t)
}

// checkEnd is promise 2 after all faults.
func (r *faultRig) checkEnd(t *testing.T) {
	t.Helper()
	r.load.end()
	drain(t, r.sql)
	if twice := r.load.checkArrivals(t, r.org, attemptsOf(t, r.sql), r.node); twice < repliesLost {
		t.Errorf("%d mails arrived twice, though %d replies were lost: the count is wrong", twice, repliesLost)
	}
	t.Logf("%d attempts were put off", count(t, r.sql, putOff))
	r.checkSweep(t, r.sql, r.node)
}

const putOff = "SELECT COUNT(*) FROM attempts WHERE event = 'deferred'"

// suffer puts the node through one fault.
func (r *faultRig) suffer(t *testing.T, f fault) {
	r.read = len(r.node.logs.String())
	before := r.load.until(t, "mails accepted before", r.accepts(fullSpeed))
	was, watch := r.load.tally(), r.watch()
	delayed := count(t, r.sql, putOff)
	f.begin()
	hold := time.After(faultHold())
	if f.defers && !eventually(func() bool { return count(t, r.sql, putOff) >= delayed+senders }) {
		t.Error("no delivery was put off")
	}
	if f.refuses {
		r.load.until(t, "mails refused", func(now tally) bool { return now.deferred > was.deferred })
	}
	<-hold
	at := r.load.tally()
	f.end()
	mails := len(r.org.Mails())
	first := r.load.until(t, "a mail accepted afterwards", r.accepts(1))
	after := r.load.until(t, "as many as before", r.accepts(fullSpeed))
	if !eventually(func() bool { return len(r.org.Mails()) >= mails+fullSpeed }) {
		t.Error("deliveries do not go on")
	}
	memory, files, connections := watch.stop()
	t.Logf("%d accepted, %d deferred, %d broken, %d replies lost meanwhile; then the first 250 after %s, and %d more in %s (before: %s); at most %.0f MiB, %d files, %d connections to the database",
		at.accepted-was.accepted, at.deferred-was.deferred, at.broken-was.broken, at.lost-was.lost,
		first.Round(time.Millisecond), fullSpeed, after.Round(time.Millisecond), before.Round(time.Millisecond), memory, files, connections)
	if memory > mostMemory || files > mostFiles || connections > mostConnections {
		t.Error("that is more than a node may take")
	}
	if f.refuses && at.deferred == was.deferred {
		t.Error("no mail was answered 4xx")
	}
	r.checkLog(t, f, r.load.tally().deferred-was.deferred, count(t, r.sql, putOff)-delayed)
}

func (r *faultRig) accepts(more int) func(tally) bool {
	want := r.load.tally().accepted + more
	return func(now tally) bool { return now.accepted >= want }
}

// checkLog expects a line of what went wrong, one for each mail that was refused or put off and few beside, and no secret.
func (r *faultRig) checkLog(t *testing.T, f fault, refused, delayed int) {
	t.Helper()
	text := r.node.logs.String()[r.read:]
	kinds := troubles(text)
	const beside = 40 // of one kind
	for kind, n := range kinds {
		if n > refused+delayed+beside {
			t.Errorf("%d lines say %q", n, kind)
		}
	}
	if f.refuses && kinds["mail refused"] < refused {
		t.Errorf("%d mails were refused, and the log says:\n%s", refused, tail(text))
	}
	if f.defers && !strings.Contains(text, `"event":"deferred"`) {
		t.Errorf("deliveries were put off, and the log says:\n%s", tail(text))
	}
	for _, secret := range []string{"jane@customer.example", "steady-", "file.bin", testPassword, forwardTo} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
	t.Logf("the log: %v", kinds)
}

// troubles counts the warnings and errors of a log by what they say.
func troubles(text string) map[string]int {
	kinds := map[string]int{}
	for line := range strings.Lines(text) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Level != "INFO" && entry.Level != "DEBUG" {
			kinds[entry.Msg]++
		}
	}
	return kinds
}

func tail(text string) string { return text[max(0, len(text)-8000):] }

// costs are the most that a node took while they were watched.
type costs struct {
	ended  chan struct{}
	done   sync.WaitGroup
	memory float64 // PSS, in MiB
	files  int
	conns  int
}

func (r *faultRig) watch() *costs {
	c := &costs{ended: make(chan struct{})}
	pid := r.node.cmd.Process.Pid
	c.done.Go(func() {
		for {
			c.memory = max(c.memory, processGroup{roots: []int{pid}}.pss(map[int]process{pid: {}}))
			if open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err == nil {
				c.files = max(c.files, len(open))
			}
			c.conns = max(c.conns, connectionsTo(r.db.Addr))
			select {
			case <-c.ended:
				return
			case <-time.After(pssInterval):
			}
		}
	})
	return c
}

// connectionsTo counts the open connections to a port of this host, as the kernel lists them (proc(5), /proc/net/tcp): by
// the side of who called, which may have given one up that a silent proxy still holds.
func connectionsTo(address string) (open int) {
	const established = "01"
	_, port, _ := net.SplitHostPort(address) // a proxy's own
	number, _ := strconv.Atoi(port)
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) > 3 && fields[3] == established && strings.HasSuffix(fields[2], fmt.Sprintf(":%04X", number)) {
			open++
		}
	}
	return open
}

func (c *costs) stop() (memory float64, files, connections int) {
	close(c.ended)
	c.done.Wait()
	return c.memory, c.files, c.conns
}
