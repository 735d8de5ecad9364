package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"sealpost/sfclient/sftest"
)

const (
	testAgent    = "agent@example.com"
	testPassword = "correct-horse-battery"
	testRoute    = "support@example.com"
	forwardTo    = "support@x-1a2b3c4d5e.case.salesforce.com"
	waitLimit    = 60 * time.Second
)

// node is a gateway of a test's own: an installation, and the process that serves it.
type node struct {
	dir    string // sealpost.yaml is in here
	smtp   string
	portal string
	secure bool // the portal's listener begins with TLS
	logs   lockedBuffer
	env    []string
	cmd    *exec.Cmd
	exited chan struct{}
}

// lockedBuffer takes a process's output while a test reads it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// freeAddress returns a loopback address whose port is free now.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// install makes an installation in dir whose mail goes to hop, with one agent.
func install(t testing.TB, dir, hop string) *node {
	t.Helper()
	// The tests' DNS is their own, and so are the mails that they count.
	return installWith(t, dir, hop, "authentication: {enabled: false}\nnotices: {enabled: false}\nalerts: {mail: false}")
}

// installWith is install with settings of the test's own.
func installWith(t testing.TB, dir, hop, settings string) *node {
	t.Helper()
	n := installBare(t, dir, hop)
	n.must(t, "agent", "add", testAgent, "--config", n.config())
	n.appendConfig(t, settings)
	return n
}

// installBare is what `init` makes, without an agent.
func installBare(t testing.TB, dir, hop string) *node {
	t.Helper()
	n := &node{dir: dir, smtp: freeAddress(t), portal: freeAddress(t)}
	n.must(t, "init", dir, "--route", testRoute+"="+forwardTo, "--next-hop", "smtp://"+hop, "--hostname", "mx.example.com",
		"--smtp-listen", n.smtp, "--portal-listen", n.portal, "--portal-url", "http://"+n.portal)
	return n
}

func (n *node) config() string { return filepath.Join(n.dir, configName) }

// appendConfig adds lines to the configuration file.
func (n *node) appendConfig(t testing.TB, lines string) {
	t.Helper()
	f, err := os.OpenFile(n.config(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("\n" + lines + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// command runs sealpost to its end.
func (n *node) command(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "sealpost", args...)
	cmd.Env = append(os.Environ(), passwordVariable+"="+testPassword, recoveryVariable+"=recovery-passphrase")
	cmd.Env = append(cmd.Env, n.env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (n *node) must(t testing.TB, args ...string) string {
	t.Helper()
	out, err := n.command(context.Background(), args...)
	if err != nil {
		t.Fatalf("sealpost %s: %v\n%s", args[0], err, out)
	}
	return out
}

// start runs program (sealpost, or another name that TestMain knows) as the node's process and waits
// until it takes mail.
func (n *node) start(t testing.TB, program string, env ...string) {
	t.Helper()
	n.cmd = exec.Command(program, "serve", "--config", n.config())
	n.cmd.Env = append(append(os.Environ(), n.env...), env...)
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
	if !eventually(func() bool { return n.ready() || n.gone() }) || n.gone() {
		t.Fatalf("the node does not become ready:\n%s", n.logs.String())
	}
}

func (n *node) ready() bool {
	scheme, transport := "http", &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	if n.secure {
		scheme = "https"
	}
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport}).Get(scheme + "://" + n.portal + "/readyz")
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

func (n *node) gone() bool {
	select {
	case <-n.exited:
		return true
	default:
		return false
	}
}

// kill ends the process at once, if it runs.
func (n *node) kill() {
	if n.cmd != nil && !n.gone() {
		_ = n.cmd.Process.Kill()
		<-n.exited
	}
}

// stop ends the process in order.
func (n *node) stop(t testing.TB) {
	t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-n.exited:
	case <-time.After(waitLimit):
		t.Fatal("the node does not stop")
	}
	if code := n.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("exit status %d:\n%s", code, n.logs.String())
	}
}

// send hands a mail to the node as a customer's server would; nil means 250.
func (n *node) send(from string, mail io.Reader) error {
	client, err := smtp.Dial(n.smtp)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.SendMail(from, []string{testRoute}, mail); err != nil {
		return err
	}
	return client.Quit()
}

// open opens a Secure Link with `sealpost open` and returns the files.
func (n *node) open(t testing.TB, link string) map[string][]byte {
	t.Helper()
	out := t.TempDir()
	n.must(t, "open", link, "--out", out, "--agent", testAgent)
	return filesIn(t, out)
}

func filesIn(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files[info.Name()] = data
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// eventually asks until the answer is yes, for no longer than waitLimit.
func eventually(ask func() bool) bool {
	for deadline := time.Now().Add(waitLimit); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if ask() {
			return true
		}
	}
	return false
}

// startOrg runs a stand-in for Salesforce.
func startOrg(t testing.TB, options sftest.Options) *sftest.Org {
	t.Helper()
	org, err := sftest.Start(context.Background(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := org.Close(); err != nil {
			t.Error(err)
		}
	})
	return org
}

// waitMails waits until the org has n mails.
func waitMails(t testing.TB, org *sftest.Org, n int) []sftest.Mail {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	mails, err := org.Wait(ctx, n)
	if err != nil {
		t.Fatalf("waiting for %d mails: %v", n, err)
	}
	return mails
}

// theLink returns the one Secure Link of a mail.
func theLink(t testing.TB, mail sftest.Mail) string {
	t.Helper()
	links := sftest.Links(mail)
	if len(links) != 1 {
		t.Fatalf("%d links in\n%s", len(links), mail.Raw)
	}
	return links[0]
}

// mailWith makes a mail with a text and one attachment, file.bin.
func mailWith(subject, text string, content []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: Jane <jane@customer.example>\r\nTo: %s\r\nSubject: %s\r\nMessage-ID: <%x@customer.example>\r\n"+
		"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b1\r\n\r\n--b1\r\nContent-Type: text/plain\r\n\r\n%s\r\n"+
		"--b1\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"file.bin\"\r\n"+
		"Content-Transfer-Encoding: base64\r\n\r\n", testRoute, subject, subject, text)
	writeBase64(&b, content)
	b.WriteString("\r\n--b1--\r\n")
	return b.Bytes()
}

func lines(text string) int { return strings.Count(text, "\n") }
