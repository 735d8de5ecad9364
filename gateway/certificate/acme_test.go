package certificate

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"testing"

	"sealpost/gateway/certificate/acmetest"
)

func TestIssuedByRealACMEServer(t *testing.T) {
	for _, challenge := range []string{"http-01", "tls-alpn-01"} {
		t.Run(challenge, func(t *testing.T) {
			const name = "mx.example.com"
			ctx, cancel := context.WithCancel(t.Context())
			ca := acmetest.Start(t)
			o := &ACME{Names: []string{name}, Email: "admin@example.com", Storage: filepath.Join(t.TempDir(), "acme"),
				Directory: ca.Directory, RootsFile: ca.Roots, HTTPPort: ca.HTTPPort, TLSALPNPort: ca.TLSALPNPort}
			files := write(t, t.TempDir(), 7, "files.example.com")
			s, err := New(t.Context(), Options{Files: []Pair{files}, ACME: o, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
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
			handshake(t, s.TLSConfig(Listener{Files: []Pair{files}}), name, name)
			handshake(t, s.TLSConfig(Listener{Files: []Pair{files}}), "", "files.example.com")
			handshake(t, s.TLSConfig(Listener{ACME: o.Names}), "", name)
			if infos := s.Certificates(); len(infos) != 2 || infos[1].Source != "acme" || infos[1].Names[0] != name {
				t.Errorf("infos %+v", infos)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			stacks := make([]byte, 1<<20)
			if stacks = stacks[:runtime.Stack(stacks, true)]; bytes.Contains(stacks, []byte("certmagic.(*Cache).maintainAssets(")) {
				t.Error("the upkeep goes on when Run has returned")
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
		server.Listener = tls.NewListener(l, s.TLSConfig(Listener{}))
	}
	server.Start()
	t.Cleanup(server.Close)
}

// handshake asks for a name (none if empty) and wants the certificate of another.
func handshake(t *testing.T, config *tls.Config, asked, want string) {
	t.Helper()
	server, client := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- tls.Server(server, config).Handshake() }()
	conn := tls.Client(client, &tls.Config{ServerName: asked, InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := conn.ConnectionState().PeerCertificates[0].VerifyHostname(want); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
