package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"sealpost/crypto"
	"sealpost/gateway"
)

var (
	growthPackages = flag.String("growth.packages", "0,100000,1000000", "BenchmarkGrowth: packages that are in the database already")
	growthNodes    = flag.String("growth.nodes", "1,2,3", "BenchmarkGrowth: numbers of nodes")
)

// growthClass is a small mail with a small file, so that each makes a package.
var growthClass = peerCase{peerClass{"5KiB with a file", 5 << 10, true, 1500, 50}, 10}

// BenchmarkGrowth shows how cost grows: mails/s with more and more packages in the database, with more and more nodes
// on one database, and what sealing gives over the size of a file. `make bench-growth` runs it.
func BenchmarkGrowth(b *testing.B) {
	binary := buildSealpost(b)
	say(os.Stdout, "%s\n%s; medians over %d rounds; memory: the highest\n", machine(), growthClass, *peersRounds)
	c := growthClass
	c.count = max(c.connections, int(float64(c.count)*(*peersScale)))
	var tables []func(io.Writer)
	grow := func(title, counts string, start func(b *testing.B, count int) (*peerSystem, string)) {
		b.Run(title, func(b *testing.B) {
			b.ReportMetric(0, "ns/op")
			tables = append(tables, growthTable(b, title, c, counts, start))
		})
	}
	grow("packages in SQLite", *growthPackages, func(b *testing.B, count int) (*peerSystem, string) {
		return startFilled(b, binary, count), ""
	})
	grow("packages in PostgreSQL", *growthPackages, func(b *testing.B, count int) (*peerSystem, string) {
		s, reason := startScaled(b, "", binary, 1)
		if reason == "" {
			fillPostgres(b, s.database, count)
		}
		return s, reason
	})
	grow("nodes on PostgreSQL and S3", *growthNodes, func(b *testing.B, count int) (*peerSystem, string) {
		return startScaled(b, "", binary, count)
	})
	for _, table := range tables {
		table(os.Stdout)
	}
	sealTable(b, os.Stdout)
}

// growthTable measures a system for each of the counts and returns what prints it.
func growthTable(b *testing.B, title string, c peerCase, counts string, start func(b *testing.B, count int) (*peerSystem, string)) func(io.Writer) {
	b.Helper()
	var systems []*peerSystem
	for text := range strings.SplitSeq(counts, ",") {
		count, err := strconv.Atoi(text)
		if err != nil {
			b.Fatalf("%s: %q is no number", title, text)
		}
		s, reason := start(b, count)
		if reason != "" {
			return func(w io.Writer) { say(w, "\n%s: left out: %s\n", title, reason) }
		}
		s.name = text
		systems = append(systems, s)
	}
	results := runRounds(b, c, systems)
	return func(w io.Writer) {
		say(w, "\n")
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		say(table, "%s\taccepted/s\tdelivered/s\tp50 ms\tp99 ms\tCPU ms\tPSS MiB\tof the first\t\n", title)
		first := results[systems[0].name]
		for _, s := range systems {
			m := results[s.name]
			say(table, "%s\t", s.name)
			for _, f := range []figure{accepted, delivered, latency50, latency99, cpuTime, memory} {
				say(table, "%s\t", number(m.values[f]))
			}
			say(table, "%s, %s\t\n", number(m.values[accepted]/first.values[accepted]), number(m.values[delivered]/first.values[delivered]))
		}
		_ = table.Flush()
	}
}

// startFilled starts a node whose SQLite database has so many packages.
func startFilled(b testing.TB, binary string, packages int) *peerSystem {
	b.Helper()
	sink := startPeerSink(b)
	n := installWith(b, filepath.Join(b.TempDir(), "sealpost"), sink.address, peerSettings)
	// An agent has been added, so the tables are there.
	database, err := sql.Open("sqlite", "file:"+filepath.Join(n.dir, "data", "sealpost.db")+
		"?_pragma=synchronous(OFF)&_pragma=cache_size(-200000)&_pragma=temp_store(MEMORY)")
	if err != nil {
		b.Fatal(err)
	}
	fill(b, database, packages, strings.NewReplacer(
		"{numbers}", fmt.Sprintf("(WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < %d) SELECT n FROM s) AS s", packages),
		"{id}", "lower(hex(randomblob(16)))", "{hash}", "randomblob(32)", "{wrapped}", "randomblob(64)"),
		"PRAGMA wal_checkpoint(TRUNCATE)")
	n.start(b, binary)
	return sealpostSystem("", sink, n)
}

func fillPostgres(b testing.TB, url string, packages int) {
	b.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		b.Fatal(err)
	}
	const hash = "sha256(gen_random_uuid()::text::bytea)"
	fill(b, stdlib.OpenDB(*config), packages, strings.NewReplacer("{numbers}", fmt.Sprintf("generate_series(1, %d) AS s (n)", packages),
		"{id}", "replace(gen_random_uuid()::text, '-', '')", "{hash}", hash, "{wrapped}", hash+" || "+hash), "VACUUM ANALYZE")
}

// filling makes packages as they are once their mails are delivered and their copies erased: created over the last
// 300 days, kept for a year. {now} is microseconds since 1970, {day} those of a day.
var filling = []string{
	`CREATE TEMP TABLE seed AS SELECT n, {id} AS id, {now} - (n % 300) * {day} AS created FROM {numbers}`,
	`CREATE TEMP TABLE sorted AS SELECT * FROM seed ORDER BY id`,
	`INSERT INTO packages (id, source, state, created, expires, server_secret, proof_hash, head)
		SELECT id, 'mail', '{available}', created, created + 365 * {day}, {wrapped}, {hash}, '20260101/' || id || '.h.0.' || substr(id, 1, 16) FROM sorted`,
	`INSERT INTO items (package_id, ordinal, size, segments) SELECT id, 0, 3000, 1 FROM sorted`,
	`INSERT INTO objects (name, package_id, position, item, size)
		SELECT '20260101/' || id || '.s.' || substr(id, 1, 16), id, 0, 0, 3100 FROM sorted`,
	`INSERT INTO objects (name, package_id, position, item, size)
		SELECT '20260101/' || id || '.h.0.' || substr(id, 1, 16), id, 1, -1, 1200 FROM sorted`,
	`INSERT INTO placements (package_id, position, kind, place, case_ref, expires)
		SELECT id, 0, 'route', '{route}', '', created + 365 * {day} FROM sorted`,
	`INSERT INTO addresses (owner_id, role, position, lookup, address) SELECT id, 'sender', 0, {hash}, {wrapped} FROM sorted`,
	`INSERT INTO addresses (owner_id, role, position, lookup, address) SELECT id, 'recipient', 1, {hash}, {wrapped} FROM sorted`,
	`INSERT INTO mails (id, created, expires, message_id_lookup, message_id, client, size, eight_bit, utf8, hello)
		SELECT id, created, created + 365 * {day}, {hash}, {wrapped}, {wrapped}, 5000, 0, 0, {wrapped} FROM sorted`,
	`INSERT INTO deliveries (id, mail_id, state, route, lane, forward_to, created, since, attempts, next_attempt, last_code, sent_at)
		SELECT id, id, '{state}', '{route}', '{route}', '{forward}', created, created, 1, created, 250, created FROM sorted`,
	`INSERT INTO attempts (delivery_id, number, started, ended, hop, event, code, reply, tls)
		SELECT id, 1, created, created, {wrapped}, 'accepted', 250, {wrapped}, '' FROM sorted`,
	`DROP TABLE seed`, `DROP TABLE sorted`,
}

// fill adds packages in one transaction, runs the statement after that, and closes the database.
func fill(b testing.TB, database *sql.DB, packages int, dialect *strings.Replacer, after string) {
	b.Helper()
	defer database.Close()
	if packages == 0 {
		return
	}
	database.SetMaxOpenConns(1)
	common := strings.NewReplacer("{now}", strconv.FormatInt(time.Now().UnixMicro(), 10), "{day}", strconv.FormatInt((24*time.Hour).Microseconds(), 10),
		"{route}", testRoute, "{forward}", forwardTo, "{state}", string(gateway.Unconfirmed),
		"{available}", string(gateway.PackageAvailable))
	ctx := context.Background()
	tx, err := database.BeginTx(ctx, nil)
	if err != nil {
		b.Fatal(err)
	}
	for _, statement := range filling {
		if _, err := tx.ExecContext(ctx, common.Replace(dialect.Replace(statement))); err != nil {
			b.Fatalf("%v\n%s", err, statement)
		}
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
	if _, err := database.ExecContext(ctx, after); err != nil {
		b.Fatal(err)
	}
}

// repeated reads the same bytes again and again.
type repeated []byte

func (r repeated) Read(p []byte) (int, error) { return copy(p, r), nil }

// discarded stores nothing.
type discarded struct{}

func (discarded) Put(_ context.Context, _ string, body io.Reader) (int64, error) {
	return io.Copy(io.Discard, body)
}

// sealTable prints what sealing alone gives: a package with one file, head and all, one after the other, stored nowhere.
func sealTable(b *testing.B, w io.Writer) {
	b.Helper()
	const atLeast = time.Second
	sealer := newBenchSealer(b)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	say(w, "\n")
	say(table, "file of\tsealed MB/s\tms for each package\t\n")
	for _, size := range []int64{1 << 10, 10 << 10, 100 << 10, mebibyte, 10 * mebibyte, 100 * mebibyte} {
		packages := 0
		began := time.Now()
		for time.Since(began) < atLeast {
			if err := sealOne(b.Context(), sealer, size); err != nil {
				b.Fatal(err)
			}
			packages++
		}
		each := time.Since(began) / time.Duration(packages)
		say(table, "%d KiB\t%s\t%s\t\n", size>>10, number(float64(size)/each.Seconds()/1e6), number(milliseconds(each)))
	}
	_ = table.Flush()
}

func newBenchSealer(b testing.TB) *crypto.Sealer {
	b.Helper()
	keyring, err := crypto.NewKeyring(time.Now())
	if err != nil {
		b.Fatal(err)
	}
	recovery, err := crypto.GenerateRecoveryKey(time.Now())
	if err != nil {
		b.Fatal(err)
	}
	sealer, err := crypto.NewSealer([]*crypto.RecoveryPublicKey{recovery.Public()}, keyring.SigningKey(), time.Now())
	if err != nil {
		b.Fatal(err)
	}
	return sealer
}

func sealOne(ctx context.Context, sealer *crypto.Sealer, size int64) error {
	var id crypto.ID
	_, _ = rand.Read(id[:]) // never fails
	p, err := sealer.Begin(id, time.Now(), "mail")
	if err != nil {
		return err
	}
	if _, err := p.AddItem(ctx, discarded{}, "file.bin", "application/octet-stream", io.LimitReader(make(repeated, 64<<10), size)); err != nil {
		return err
	}
	_, err = p.Finish(ctx, discarded{})
	return err
}
