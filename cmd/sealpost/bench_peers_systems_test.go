package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sealpost/storage/storagetest"
)

// peerSystem is one of the systems that are compared, running, with a sink of its own behind it.
type peerSystem struct {
	name      string
	addresses []string // where it takes mail; clients are spread over them
	groups    []processGroup
	sink      *peerSink
	cuts      bool // attachments do not arrive
	log       func() string
	kept      func() int // how many files or objects it keeps, where that is looked at
	database  string     // the URL of PostgreSQL, if it uses one
	sent      int        // mails so far; they are numbered from 1
}

// The systems, in the order of the table.
const (
	plainPostfix = "postfix"
	mimedefang   = "mimedefang"
	embedded     = "sealpost"
	scaledOne    = "sealpost-pg-s3"
	scaledTwo    = "sealpost-pg-s3-2"
)

// peerDescriptions say what each is.
var peerDescriptions = map[string]string{
	plainPostfix: "Postfix as a plain relay, Debian's, stock settings: it parses, seals and keeps nothing",
	mimedefang: "the same Postfix with MIMEDefang, Debian's, 2 to 10 workers with embedded Perl as its unit has them, action_replace_with_url on every " +
		"attachment, over a unix socket: it encrypts nothing",
	embedded:  "Sealpost on SQLite and a directory",
	scaledOne: "Sealpost on PostgreSQL and S3 (versitygw), one node; both servers on this machine, their CPU and memory counted",
	scaledTwo: "the same with two nodes, the clients spread over them",
}

// startPeer starts the system of that name. A reason says why it has to be left out.
func startPeer(b *testing.B, name, binary string) (system *peerSystem, reason string) {
	b.Helper()
	switch name {
	case plainPostfix:
		return startPlainPostfix(b, ""), ""
	case mimedefang:
		return startMIMEDefang(b), ""
	case embedded:
		return startEmbedded(b, binary), ""
	case scaledOne:
		return startScaled(b, name, binary, 1)
	case scaledTwo:
		return startScaled(b, name, binary, 2)
	}
	b.Fatalf("no system is called %s", name)
	return nil, ""
}

// startPlainPostfix starts a Postfix that relays to a sink. settings are further lines of main.cf.
func startPlainPostfix(b testing.TB, settings string) *peerSystem {
	b.Helper()
	sink := startPeerSink(b)
	p := startPostfix(b, "peer", "relay_domains = example.com\nrelay_transport = smtp:["+strings.Replace(sink.address, ":", "]:", 1)+"\n"+
		"message_size_limit = 300000000\nmailbox_size_limit = 0\n"+settings)
	text, err := os.ReadFile(filepath.Join(p.dir, "queue", "pid", "master.pid"))
	if err != nil {
		b.Fatal(err)
	}
	master, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		b.Fatal(err)
	}
	return &peerSystem{name: plainPostfix, addresses: []string{p.smtp}, sink: sink, log: p.log,
		groups: []processGroup{{name: "Postfix", roots: []int{master}}}}
}

// mimedefangFilter replaces every attachment, and refuses for now what it cannot replace. %s is where the files go.
const mimedefangFilter = `
$AdminAddress = 'postmaster@example.com';
$AdminName = 'Postmaster';
$DaemonAddress = 'mimedefang@example.com';
$AddWarningsInline = 0;
detect_and_load_perl_modules();
sub filter {
    my ($entity, $name, $extension, $type) = @_;
    return action_accept() unless lc($entity->head->mime_attr('content-disposition') || '') eq 'attachment';
    return if action_replace_with_url($entity, '%s', 'https://files.example.com', "The file was removed; it is at _URL_\n");
    return action_tempfail('the file cannot be replaced');
}
1;
`

// startMIMEDefang starts both of its daemons as Debian's unit files do, but for their directories, and a Postfix that
// asks them.
func startMIMEDefang(b testing.TB) *peerSystem {
	b.Helper()
	dir, err := os.MkdirTemp("", "sealpost-mimedefang-") // not TempDir, which only root may enter
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	owner := accountOf(b, "defang")
	spool, files, filter := filepath.Join(dir, "spool"), filepath.Join(dir, "files"), filepath.Join(dir, "filter")
	for _, path := range []string{spool, files} {
		if err := os.Mkdir(path, 0o755); err != nil {
			b.Fatal(err)
		}
	}
	if err := os.WriteFile(filter, fmt.Appendf(nil, mimedefangFilter, files), 0o644); err != nil {
		b.Fatal(err)
	}
	for _, path := range []string{dir, spool, files} {
		if err := os.Chown(path, owner, -1); err != nil {
			b.Fatal(err)
		}
		if err := os.Chmod(path, 0o755); err != nil {
			b.Fatal(err)
		}
	}
	workers, milter := filepath.Join(dir, "workers"), filepath.Join(dir, "milter")
	multiplexor := startDaemon(b, workers, spool, "mimedefang-multiplexor", "-D", "-E", "-z", spool, "-F", filter, "-m", "2", "-x", "10",
		"-U", "defang", "-b", "600", "-l", "-y", "0", "-s", workers, "-p", filepath.Join(dir, "workers.pid"))
	front := startDaemon(b, milter, spool, "mimedefang", "-D", "-R", "-1", "-m", workers, "-z", spool, "-U", "defang",
		"-p", "unix:"+milter, "-P", filepath.Join(dir, "milter.pid"))
	if err := os.Chmod(milter, 0o666); err != nil { // Postfix's smtpd connects as its own user
		b.Fatal(err)
	}
	s := startPlainPostfix(b, "smtpd_milters = unix:"+milter+"\n")
	s.name, s.cuts = mimedefang, true
	s.kept = func() int { return countFiles(files) }
	s.groups = append(s.groups, processGroup{name: "MIMEDefang", roots: []int{multiplexor, front}})
	return s
}

// startDaemon runs a program in the foreground until the test ends, and returns when its socket is there.
func startDaemon(b testing.TB, socket, home, program string, args ...string) (pid int) {
	b.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME="+home)
	said := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		b.Fatalf("%v; on Debian, as root: testdata/scripts/needs-peers.sh", err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is stopped by a signal
		close(exited)
	}()
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-exited:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-exited
		}
	})
	if !eventually(func() bool { _, err := os.Stat(socket); return err == nil || isClosed(exited) }) || isClosed(exited) {
		b.Fatalf("%s does not listen:\n%s", program, said.String())
	}
	return cmd.Process.Pid
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// peerSettings are what differs from the default: no system judges senders, reports, or mails alerts.
const peerSettings = "authentication: {enabled: false}\nnotices: {enabled: false}\nalerts: {mail: false}\n"

func startEmbedded(b testing.TB, binary string) *peerSystem {
	b.Helper()
	sink := startPeerSink(b)
	n := installWith(b, filepath.Join(b.TempDir(), "sealpost"), sink.address, peerSettings)
	n.start(b, binary)
	return sealpostSystem(embedded, sink, n)
}

func sealpostSystem(name string, sink *peerSink, nodes ...*node) *peerSystem {
	s := &peerSystem{name: name, sink: sink, cuts: true, groups: []processGroup{{name: "Sealpost"}}}
	for _, n := range nodes {
		s.addresses = append(s.addresses, n.smtp)
		s.groups[0].roots = append(s.groups[0].roots, n.cmd.Process.Pid)
	}
	s.log = func() string {
		var text strings.Builder
		for _, n := range nodes {
			text.WriteString(lastLines(n.logs.String()))
		}
		return text.String()
	}
	return s
}

// scaled are the servers that nodes share.
type scaled struct {
	database string // the URL
	objects  string // the directory of the S3 server
	settings string
	env      []string
	groups   []processGroup
}

func startServers(b testing.TB) *scaled {
	b.Helper()
	var database *storagetest.Postgres
	var objects *storagetest.S3
	s := &scaled{}
	s.groups = []processGroup{
		{name: "PostgreSQL", roots: children(func() { database = storagetest.StartPostgres(b) })},
		{name: "S3", roots: children(func() { objects = storagetest.StartS3(b) })},
	}
	s.objects = objects.Dir
	s.database = database.URL(database.NewDatabase(b))
	s.settings = peerSettings + "database: " + s.database + "\nblobs: " + objects.Location(objects.Endpoint) + "\n"
	s.env = []string{"AWS_ACCESS_KEY_ID=" + objects.AccessKey, "AWS_SECRET_ACCESS_KEY=" + objects.SecretKey,
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull}
	return s
}

// node makes a node that has the keyring of first, if there is one.
func (s *scaled) node(b testing.TB, hop string, first *node) *node {
	b.Helper()
	n := installWith(b, filepath.Join(b.TempDir(), "sealpost"), hop, s.settings)
	n.env = s.env
	if first == nil {
		return n
	}
	keyring, err := os.ReadFile(filepath.Join(first.dir, "keyring"))
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.dir, "keyring"), keyring, 0o600); err != nil {
		b.Fatal(err)
	}
	return n
}

// startScaled starts nodes that share a PostgreSQL and an S3 server, if the binary can.
func startScaled(b testing.TB, name, binary string, nodes int) (system *peerSystem, reason string) {
	b.Helper()
	servers, sink := startServers(b), startPeerSink(b)
	var all []*node
	for range nodes {
		var first *node
		if len(all) > 0 {
			first = all[0]
		}
		n := servers.node(b, sink.address, first)
		if reason := refusal(n, binary); first == nil && reason != "" {
			return nil, reason
		}
		n.start(b, binary)
		all = append(all, n)
	}
	if !hasTables(b, servers.database) {
		return nil, "its data is not in PostgreSQL"
	}
	s := sealpostSystem(name, sink, all...)
	s.groups = append(s.groups, servers.groups...)
	s.kept = func() int { return countFiles(servers.objects) }
	s.database = servers.database
	return s, ""
}

// refusal returns what `check` finds wrong.
func refusal(n *node, binary string) string {
	cmd := exec.Command(binary, "check", "--config", n.config())
	cmd.Env = append(os.Environ(), n.env...)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return ""
	}
	var wrong []string
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "ok ") && !strings.HasPrefix(line, "warning ") {
			wrong = append(wrong, strings.TrimSpace(line))
		}
	}
	return "`sealpost check` refuses it: " + strings.Join(wrong, "; ")
}

// hasTables tells whether the nodes made their tables in the database.
func hasTables(b testing.TB, url string) bool {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(ctx) //nolint:errcheck // only read from
	var found bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass('packages') IS NOT NULL").Scan(&found); err != nil {
		b.Fatal(err)
	}
	return found
}
