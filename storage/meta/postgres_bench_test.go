package meta_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"sealpost/gateway"
	"sealpost/storage/meta"
	"sealpost/storage/meta/metatest"
	"sealpost/storage/storagetest"
)

// BenchmarkMailCost takes in mails of 5 KiB with 10 goroutines as intake does, and leases and finishes their deliveries
// as the relay does, on a real PostgreSQL. "cost" tells what a mail costs the server, "work" what is asked of it.
func BenchmarkMailCost(b *testing.B) {
	b.Run("cost", func(b *testing.B) {
		p, url := newServer(b)
		m := &mailRun{s: openPostgres(b, url, metatest.NewKeys())}
		m.run(b, 500) // statements are prepared
		cpu, wal, started := serverCPU(b, p), walPosition(b, url), time.Now()
		b.ResetTimer()
		m.run(b, b.N)
		b.StopTimer()
		spent := time.Since(started).Seconds()
		b.ReportMetric(float64(serverCPU(b, p)-cpu)/float64(time.Millisecond)/float64(b.N), "server-ms/mail")
		b.ReportMetric(float64(walPosition(b, url)-wal)/float64(b.N), "WAL-B/mail")
		b.ReportMetric(float64(b.N)/spent, "mails/s")
	})
	b.Run("work", func(b *testing.B) {
		p, url := newServer(b)
		execPostgres(b, url, `ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'`)
		p.Stop()
		p.Start(b)
		execPostgres(b, url, `CREATE EXTENSION pg_stat_statements`)
		counter := startCounter(b, p.Addr)
		m := &mailRun{s: openPostgres(b, strings.Replace(url, p.Addr, counter.addr, 1), metatest.NewKeys())}
		m.run(b, 500)
		execPostgres(b, url, `SELECT pg_stat_statements_reset()`)
		before, committed := counter.trips.Load(), commits(b, url)
		b.ResetTimer()
		m.run(b, b.N)
		b.StopTimer()
		b.ReportMetric(float64(counter.trips.Load()-before)/float64(b.N), "trips/mail")
		b.ReportMetric(float64(called(b, url))/float64(b.N), "statements/mail")
		b.ReportMetric(float64(commits(b, url)-committed)/float64(b.N), "transactions/mail") // those of one statement, too
	})
}

// mailRun is a gateway as its database sees it.
type mailRun struct {
	s       *meta.Store
	arrived atomic.Int64
	ended   atomic.Int64
}

// run takes n mails in and delivers them.
func (m *mailRun) run(b *testing.B, n int) {
	b.Helper()
	m.arrived.Store(int64(n))
	m.ended.Store(0)
	var group errgroup.Group
	for range 10 {
		group.Go(func() error {
			for m.arrived.Add(-1) >= 0 {
				if err := m.take(b.Context()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error { return m.deliver(b.Context(), int64(n)) })
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
}

func (m *mailRun) take(ctx context.Context) error {
	now, err := m.s.Now(ctx)
	if err != nil {
		return err
	}
	key, err := m.s.QueueKey(ctx, now)
	if err != nil {
		return err
	}
	mail := metatest.NewMail(now, key, metatest.Routes(1)...)
	mail.Package = nil
	mail.Copy.Inline = make([]byte, 5<<10)
	mail.Fingerprint = []byte(mail.ID.String())
	if _, _, err := m.s.Repeated(ctx, mail.Fingerprint); err != nil {
		return err
	}
	if err := m.s.CommitMail(ctx, mail); err != nil {
		return err
	}
	m.s.SettleMail(mail.ID, true)
	return nil
}

// deliver is the relay's dispatcher with 20 workers; it ends when n deliveries have.
func (m *mailRun) deliver(ctx context.Context, n int64) error {
	slots := make(chan struct{}, 20)
	var workers errgroup.Group
	for m.ended.Load() < n {
		due, err := m.s.Due(ctx)
		if err != nil {
			return err
		}
		if _, err := m.s.Now(ctx); err != nil {
			return err
		}
		for _, lane := range due {
			leased, err := m.s.LeaseDeliveries(ctx, "node", lane.Lane, cap(slots)-len(slots), time.Minute)
			if err != nil {
				return err
			}
			for _, l := range leased {
				slots <- struct{}{}
				workers.Go(func() error {
					defer func() { <-slots }()
					defer m.ended.Add(1)
					return m.s.FinishAttempt(ctx, l.Lease, gateway.AttemptResult{
						Attempt: gateway.Attempt{Event: gateway.EventAccepted, Code: 250, Hop: "hop.example"}, Next: l.NextAttempt,
					})
				})
			}
		}
		select {
		case <-m.s.Wake():
		case <-time.After(50 * time.Millisecond): // what the relay pauses at least
		}
	}
	return workers.Wait()
}

// called returns how many statements there have been, but for most of BEGIN and COMMIT.
func called(b *testing.B, url string) (statements int64) {
	b.Helper()
	withPostgres(b, url, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT SUM(calls) FROM pg_stat_statements`).Scan(&statements)
	})
	return statements
}

// commits returns how many transactions there have been. What a session has done counts when it has ended or is idle.
func commits(b *testing.B, url string) (n int64) {
	b.Helper()
	withPostgres(b, url, func(ctx context.Context, conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, `SELECT pg_sleep(2)`); err != nil { // sessions report once a second
			return err
		}
		return conn.QueryRow(ctx, `SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()`).Scan(&n)
	})
	return n
}

func walPosition(b *testing.B, url string) (at int64) {
	b.Helper()
	withPostgres(b, url, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint`).Scan(&at)
	})
	return at
}

// serverCPU returns what the server's processes have spent, those that ended included.
func serverCPU(b *testing.B, p *storagetest.Postgres) time.Duration {
	b.Helper()
	stats := map[int][]string{} // by process: what follows its name in /proc/PID/stat, from its state on
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		b.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file) // #nosec G304 -- of /proc
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if _, rest, ok := strings.Cut(string(text), ") "); ok && err == nil {
			stats[pid] = strings.Fields(rest)
		}
	}
	postmaster := ownPostmaster(b, p)
	var ticks int64
	add := func(fields []string) {
		for _, field := range fields {
			n, _ := strconv.ParseInt(field, 10, 64)
			ticks += n
		}
	}
	for pid, fields := range stats {
		switch {
		case pid == postmaster:
			add(fields[11:15]) // with its children that have ended
		case fields[1] == strconv.Itoa(postmaster):
			add(fields[11:13])
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100
}

func ownPostmaster(b *testing.B, p *storagetest.Postgres) (pid int) {
	b.Helper()
	withPostgres(b, p.URL("postgres"), func(ctx context.Context, conn *pgx.Conn) error {
		var file string
		if err := conn.QueryRow(ctx, `SELECT pg_read_file('postmaster.pid')`).Scan(&file); err != nil {
			return err
		}
		_, err := fmt.Sscan(file, &pid)
		return err
	})
	return pid
}

// counter passes on what a Store sends, and counts how often it does: each time it waits for an answer.
type counter struct {
	addr  string
	trips atomic.Int64
}

func startCounter(b *testing.B, target string) *counter {
	b.Helper()
	l, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	c := &counter{addr: l.Addr().String()}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { c.pass(client, target) })
		}
	})
	b.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	return c
}

// pass returns when both have ended.
func (c *counter) pass(client net.Conn, target string) {
	server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", target)
	if err != nil {
		_ = client.Close()
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	})
	_, _ = io.Copy(server, countedReader{client, &c.trips})
	_ = server.Close()
	back.Wait()
}

type countedReader struct {
	io.Reader
	n *atomic.Int64
}

func (r countedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.n.Add(1)
	}
	return n, err
}
