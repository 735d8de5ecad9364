// Package acmetest starts a real ACME server, pebble, for the tests of several packages.
package acmetest

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const version = "v2.10.1"

// Server is a running CA, for which every name is at 127.0.0.1.
type Server struct {
	Directory string // its URL
	Roots     string // PEM file to trust for the server's own TLS
	// HTTPPort and TLSALPNPort are where it looks for the answers to its challenges. They are free.
	HTTPPort, TLSALPNPort int
}

// Start runs the server until the test ends. It is built once for this user.
func Start(t testing.TB) *Server {
	t.Helper()
	dir := t.TempDir()
	certificate, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePair(t, certificate, key)
	listen := "127.0.0.1:" + strconv.Itoa(freePort(t))
	s := &Server{Directory: "https://" + listen + "/dir", Roots: certificate, HTTPPort: freePort(t), TLSALPNPort: freePort(t)}
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{"listenAddress": listen, "certificate": certificate,
		"privateKey": key, "httpPort": s.HTTPPort, "tlsPort": s.TLSALPNPort}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "pebble.json")
	write(t, path, config)
	run(t, exec.CommandContext(t.Context(), program(t), "-config", path, "-dnsserver", dnsServer(t))) // #nosec G204 -- a program of the test's own
	return s
}

// run starts pebble and waits until it listens.
func run(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listens, ended := make(chan struct{}), make(chan struct{})
	var said strings.Builder // to be read once ended is closed
	go func() {
		defer close(ended)
		told := false
		for lines := bufio.NewScanner(out); lines.Scan(); {
			said.WriteString(lines.Text() + "\n")
			if !told && strings.Contains(lines.Text(), "Listening on") {
				close(listens)
				told = true
			}
		}
		_ = cmd.Wait() // it is killed
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	select {
	case <-listens:
	case <-ended:
		t.Fatalf("pebble ended:\n%s", said.String())
	}
}

// program returns pebble's path, having built it if need be.
func program(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = t.TempDir()
	}
	dir := filepath.Join(cache, "sealpost-test", "pebble-"+version)
	path := filepath.Join(dir, "pebble")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	cmd := exec.CommandContext(t.Context(), "go", "install", "github.com/letsencrypt/pebble/v2/cmd/pebble@"+version)
	cmd.Dir = t.TempDir() // outside the module
	cmd.Env = append(os.Environ(), "GOBIN="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the ACME server pebble: %v\n%s", err, out)
	}
	return path
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// dnsServer says 127.0.0.1 for every name; pebble asks by TCP.
func dnsServer(t testing.TB) string {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	started, done := make(chan struct{}), make(chan struct{})
	server := &dns.Server{Listener: l, NotifyStartedFunc: func() { close(started) },
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			if q.Question[0].Qtype == dns.TypeA {
				m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1)}}
			}
			_ = w.WriteMsg(m) // pebble, not answered, says so
		})}
	go func() {
		defer close(done)
		_ = server.ActivateAndServe() // ends by Shutdown
	}()
	<-started
	t.Cleanup(func() {
		_ = server.Shutdown()
		<-done
	})
	return l.Addr().String()
}

// writePair writes a self-signed certificate for 127.0.0.1, and its key.
func writePair(t testing.TB, certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write(t, certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

func write(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
