package certificate

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

const pebbleVersion = "v2.10.1"

// pebble returns the program, which it builds once for this user.
func pebble(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = t.TempDir()
	}
	dir := filepath.Join(cache, "sealpost-test", "pebble-"+pebbleVersion)
	program := filepath.Join(dir, "pebble")
	if _, err := os.Stat(program); err == nil {
		return program
	}
	cmd := exec.Command("go", "install", "github.com/letsencrypt/pebble/v2/cmd/pebble@"+pebbleVersion)
	cmd.Dir = t.TempDir() // outside the module
	cmd.Env = append(os.Environ(), "GOBIN="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the ACME server pebble: %v\n%s", err, out)
	}
	return program
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// dnsServer says 127.0.0.1 for every name; pebble asks by TCP.
func dnsServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
			_ = w.WriteMsg(m)
		})}
	go func() {
		defer close(done)
		_ = server.ActivateAndServe()
	}()
	<-started
	t.Cleanup(func() {
		_ = server.Shutdown()
		<-done
	})
	return l.Addr().String()
}

// startPebble runs the CA and returns options that use it.
func startPebble(t *testing.T, name string) *ACME {
	t.Helper()
	own := write(t, t.TempDir(), 1, "localhost")
	o := &ACME{Names: []string{name}, Email: "admin@example.com", Storage: filepath.Join(t.TempDir(), "acme"), RootsFile: own.Cert,
		HTTPPort: freePort(t), TLSALPNPort: freePort(t)}
	listen := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	o.Directory = "https://" + listen + "/dir"
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{"listenAddress": listen, "certificate": own.Cert,
		"privateKey": own.Key, "httpPort": o.HTTPPort, "tlsPort": o.TLSALPNPort}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pebble.json")
	put(t, path, config)
	cmd := exec.Command(pebble(t), "-config", path, "-dnsserver", dnsServer(t))
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready, done := make(chan bool, 1), make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.Contains(lines.Text(), "Listening on") {
				select {
				case ready <- true:
				default:
				}
			}
		}
		_ = cmd.Wait()
		select {
		case ready <- false:
		default:
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	if !<-ready {
		t.Fatal("pebble ended")
	}
	return o
}

func TestIssuedByRealACMEServer(t *testing.T) {
	for _, challenge := range []string{"http-01", "tls-alpn-01"} {
		t.Run(challenge, func(t *testing.T) {
			const name = "mx.example.com"
			ctx, cancel := context.WithCancel(t.Context())
			o := startPebble(t, name)
			s, err := New(ctx, Options{ACME: o, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
			if err != nil {
				t.Fatal(err)
			}
			s.issuer.DisableHTTPChallenge = challenge != "http-01"
			s.issuer.DisableTLSALPNChallenge = challenge == "http-01"
			ready := make(chan struct{}, 4)
			s.magic.OnEvent = func(_ context.Context, event string, _ map[string]any) error {
				if event == "cached_managed_cert" {
					ready <- struct{}{}
				}
				return nil
			}
			serveChallenge(t, s, o, challenge)
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			<-ready
			handshake(t, s, name)
			if infos := s.Certificates(); len(infos) != 1 || infos[0].Source != "acme" || infos[0].Names[0] != name {
				t.Errorf("infos %+v", infos)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// serveChallenge answers on the port that the CA asks.
func serveChallenge(t *testing.T, s *Store, o *ACME, challenge string) {
	t.Helper()
	server := httptest.NewUnstartedServer(s.HTTPChallenge(http.NotFoundHandler()))
	port := o.HTTPPort
	if challenge != "http-01" {
		port = o.TLSALPNPort
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	_ = server.Listener.Close()
	server.Listener = l
	if challenge != "http-01" {
		server.Listener = tls.NewListener(l, s.TLSConfig())
	}
	server.Start()
	t.Cleanup(server.Close)
}

func handshake(t *testing.T, s *Store, name string) {
	t.Helper()
	server, client := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- tls.Server(server, s.TLSConfig()).Handshake() }()
	conn := tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := conn.ConnectionState().PeerCertificates[0].VerifyHostname(name); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
