package smtpd

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// listenTLS serves implicit TLS beside the other listener, and returns its address.
func (ts *testServer) listenTLS(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- ts.ServeTLS(l) }()
	t.Cleanup(func() {
		ts.stop(t)
		if err := <-served; err != nil {
			t.Errorf("ServeTLS: %v", err)
		}
	})
	return l.Addr().String()
}

func dialTLS(t testing.TB, address, name string) *client {
	t.Helper()
	nc, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, ServerName: name})
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, nc)
}

func TestImplicitTLS(t *testing.T) {
	ts := startServer(t, withTLS)
	c := dialTLS(t, ts.listenTLS(t), "mx.test")
	c.expect(greeting)
	c.send("EHLO client.test\r\n")
	if caps := c.capabilities(); caps["STARTTLS"] || !caps["PIPELINING"] || !caps["DSN"] {
		t.Errorf("capabilities %v", caps)
	}
	c.talk("> STARTTLS", "< 502 5.5.1 TLS not supported", "> MAIL FROM:<>", "< 250 2.1.0 sender ok",
		"> RCPT TO:<support@example.com>", "< 250 2.1.5 recipient ok", "> DATA", data354, "> .", "< 250 2.0.0 accepted as ID1",
		"> QUIT", "< 221 2.0.0 Bye")
	if _, err := c.r.ReadByte(); err != io.EOF {
		t.Errorf("no close_notify: %v", err)
	}
	if e := ts.taken()[0].envelope; e.Protocol != "ESMTPS" || !strings.HasPrefix(e.TLS, "TLS1.3 TLS_") {
		t.Errorf("envelope %+v", e)
	}
	ts.hello(t) // the other listener speaks plaintext first
}

// TestImplicitTLSFailures: plaintext and silence end the connection, and a silent client delays nobody.
func TestImplicitTLSFailures(t *testing.T) {
	ts := startServer(t, func(o *Options) {
		withTLS(o)
		o.Limits.CommandIdle = 100 * time.Millisecond
		o.Limits.ConnectionsPerClient = 3
	})
	address := ts.listenTLS(t)
	open := func(first string) *client {
		nc, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		c := newClient(t, nc)
		c.send(first)
		return c
	}
	silent, plain := open(""), open("EHLO client.test\r\n")
	dialTLS(t, address, "mx.test").expect(greeting)
	if _, err := io.Copy(io.Discard, plain.r); err != nil { // an alert
		t.Errorf("plaintext: %v", err)
	}
	silent.closed()
	_, _ = plain.Close(), silent.Close()
	ts.stop(t)
	if n := ts.counter(t, "sealpost_smtp_tls_failures_total", ""); n != 2 {
		t.Errorf("%v failures were counted", n)
	}
}

// TestImplicitTLSIsLimited: handshakes that are under way have a place, and who has none hears nothing.
func TestImplicitTLSIsLimited(t *testing.T) {
	ts := startServer(t, func(o *Options) {
		withTLS(o)
		o.Limits.Connections = 1
	})
	address := ts.listenTLS(t)
	first, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	newClient(t, first)
	second, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	newClient(t, second).closed()
}

func TestImplicitTLSNeedsACertificate(t *testing.T) {
	ts := startServer(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := ts.ServeTLS(l); err == nil {
		t.Error("ServeTLS returned nil")
	}
	if err := l.Close(); err == nil {
		t.Error("the listener was left open")
	}
}

// named makes a certificate for one name.
func named(t *testing.T, name string, serial int64) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestCertificatesByNameAndReloaded: the certificate is asked for by name in each handshake, by STARTTLS too.
func TestCertificatesByNameAndReloaded(t *testing.T) {
	var pool atomic.Pointer[map[string]*tls.Certificate]
	pool.Store(&map[string]*tls.Certificate{"a.test": named(t, "a.test", 1), "b.test": named(t, "b.test", 2)})
	ts := startServer(t, func(o *Options) {
		o.TLS = &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return (*pool.Load())[h.ServerName], nil },
		}
	})
	address := ts.listenTLS(t)
	serial := func(nc net.Conn) int64 {
		secured, ok := nc.(*tls.Conn)
		if !ok || secured.Handshake() != nil {
			t.Fatal("no TLS")
		}
		return secured.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	both := func(name string) [2]int64 {
		c := ts.hello(t)
		c.talk("> STARTTLS", "< 220 2.0.0 mx.test ready to start TLS")
		return [2]int64{serial(dialTLS(t, address, name).Conn), serial(tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true, ServerName: name}))}
	}
	if a, b := both("a.test"), both("b.test"); a != [2]int64{1, 1} || b != [2]int64{2, 2} {
		t.Errorf("a.test got %v, b.test got %v", a, b)
	}
	pool.Store(&map[string]*tls.Certificate{"a.test": named(t, "a.test", 3), "b.test": named(t, "b.test", 4)})
	if a, b := both("a.test"), both("b.test"); a != [2]int64{3, 3} || b != [2]int64{4, 4} {
		t.Errorf("reloaded: a.test got %v, b.test got %v", a, b)
	}
}

// opensslDialogue speaks SMTP through openssl s_client: each step is the beginning of a line to wait for,
// and what is said then.
func opensslDialogue(t *testing.T, dialogue []string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "openssl", append([]string{"s_client", "-ign_eof", "-crlf"}, args...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var seen strings.Builder
	r := bufio.NewReader(out)
	for _, step := range dialogue {
		want, say, _ := strings.Cut(step, " -> ")
		for {
			line, err := r.ReadString('\n')
			seen.WriteString(line)
			if strings.HasPrefix(line, want) {
				break
			}
			if err != nil {
				t.Fatalf("waiting for %q: %v in\n%s", want, err, seen.String())
			}
		}
		if _, err := io.WriteString(in, say+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	rest, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("openssl: %v\n%s%s", err, seen.String(), rest)
	}
	return seen.String() + string(rest)
}

// TestOpensslClient speaks both ways of TLS with a client that is not Go's.
func TestOpensslClient(t *testing.T) {
	ts := startServer(t, withTLS)
	for name, tt := range map[string]struct {
		ready string
		args  []string
	}{
		"starttls": {"Verify return code", []string{"-connect", ts.address, "-starttls", "smtp"}},
		"implicit": {"220 ", []string{"-connect", ts.listenTLS(t)}},
	} {
		out := opensslDialogue(t, []string{
			tt.ready + " -> EHLO openssl.test", "250 LIMITS -> MAIL FROM:<alice@sender.test>", "250 2.1.0 -> RCPT TO:<support@example.com>",
			"250 2.1.5 -> DATA", "354 -> hello\n.", "250 2.0.0 accepted -> QUIT",
		}, tt.args...)
		if !strings.Contains(out, "221 2.0.0 Bye") || !strings.Contains(out, "TLSv1.3") {
			t.Errorf("%s: %s", name, out)
		}
	}
	for _, m := range ts.taken() {
		if m.envelope.Protocol != "ESMTPS" || m.envelope.Hello != "openssl.test" || m.text != "hello\r\n" {
			t.Errorf("mail %+v", m)
		}
	}
	if n := len(ts.taken()); n != 2 {
		t.Errorf("%d mails, want 2", n)
	}
}

func TestSwaksWithImplicitTLS(t *testing.T) {
	ts := startServer(t, withTLS)
	host, port, _ := strings.Cut(ts.listenTLS(t), ":")
	out := peer(t, "swaks", "--server", host, "--port", port, "--tls-on-connect", "--ehlo", "swaks.test",
		"--from", "alice@sender.test", "--to", "support@example.com", "--body", "the body")
	if !strings.Contains(out, "250 2.0.0 accepted as ID1") {
		t.Errorf("swaks: %s", out)
	}
	ts.stop(t)
	if got := ts.fates(); got != "ID1 heard" {
		t.Errorf("settled %q", got)
	}
}
