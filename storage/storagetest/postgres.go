package storagetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Postgres is a real PostgreSQL server of a test's own. Its fsync is on, so that what it says of a commit holds.
type Postgres struct {
	// Addr is its host and port on loopback.
	Addr string

	bin, dir string
	as       *syscall.Credential // whom the server runs as; it refuses root
	mu       sync.Mutex
	cmd      *exec.Cmd
	exited   chan struct{}
	said     *bytes.Buffer
}

// StartPostgres makes a cluster with one superuser, postgres, whom it trusts, and runs its server until the test ends.
func StartPostgres(t testing.TB) *Postgres {
	t.Helper()
	return StartPostgresIn(t, "")
}

// StartPostgresIn is StartPostgres with the cluster below a directory of the test's choice, on a small disk for example.
// The server's user must be able to pass through it, and its path must be short.
func StartPostgresIn(t testing.TB, dir string) *Postgres {
	t.Helper()
	p := &Postgres{bin: postgresPrograms(t), as: notRoot(t), Addr: freeAddress(t)}
	var err error
	if p.dir, err = os.MkdirTemp(dir, "sealpost-postgres-"); err != nil { // short: a socket's path has at most 107 bytes
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(p.dir) })
	if p.as != nil {
		if err := os.Chown(p.dir, int(p.as.Uid), int(p.as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	initdb := p.command("initdb", "--pgdata", p.data(), "--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	p.Start(t)
	t.Cleanup(p.Kill)
	return p
}

// postgresPrograms returns the directory of Debian's newest PostgreSQL.
func postgresPrograms(t testing.TB) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		t.Fatal("PostgreSQL's server is missing: on Debian, apt-get install postgresql")
	}
	return filepath.Dir(found[len(found)-1])
}

func notRoot(t testing.TB) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // only its number was wanted
	return l.Addr().String()
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

func (p *Postgres) command(program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.Background(), filepath.Join(p.bin, program), args...) // #nosec G204 -- a program of the test's own
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as}
	return cmd
}

// Start runs the server again and waits until it takes connections.
func (p *Postgres) Start(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	_, port, err := net.SplitHostPort(p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	p.said = &bytes.Buffer{}
	p.cmd = p.command("postgres", "-D", p.data(), "-c", "listen_addresses=127.0.0.1", "-c", "port="+port,
		"-c", "unix_socket_directories="+p.dir, "-c", "max_connections=200")
	p.cmd.Stdout, p.cmd.Stderr = p.said, p.said
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	p.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait() // how it ended is seen below
		close(exited)
	}(p.cmd, p.exited)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err := p.exec(t.Context(), "postgres", "SELECT 1"); err == nil {
			return
		}
		select {
		case <-p.exited:
			t.Fatalf("PostgreSQL ended:\n%s", p.said.String())
		default:
		}
	}
	t.Fatal("PostgreSQL takes no connections")
}

// Stop ends the server in order, cutting all connections: what is under way is rolled back.
func (p *Postgres) Stop() { p.signal(syscall.SIGINT) }

// Kill ends the server as a crash does.
func (p *Postgres) Kill() { p.signal(syscall.SIGQUIT) }

func (p *Postgres) signal(signal syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.cmd.Process.Signal(signal) // it may have ended
	<-p.exited
}

// URL names a database of the server.
func (p *Postgres) URL(database string) string { return URLAt(p.Addr, database) }

// URLAt is URL of a server that is reached at another address, as that of a proxy.
func URLAt(address, database string) string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: address, Path: database, RawQuery: "sslmode=disable"}
	return u.String()
}

// NewDatabase makes an empty database and returns its name.
func (p *Postgres) NewDatabase(t testing.TB) string {
	t.Helper()
	name := "test_" + strings.ToLower(rand.Text()[:12])
	if err := p.exec(t.Context(), "postgres", "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return name
}

func (p *Postgres) exec(ctx context.Context, database, statement string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.URL(database))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx) //nolint:errcheck // the statement's own result counts
	_, err = conn.Exec(ctx, statement)
	return err
}
