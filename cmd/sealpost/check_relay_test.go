package main

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"sealpost/gateway"
	"sealpost/gateway/config"
)

// startTLSHop is a next hop with TLS from the beginning, whose certificate is base's.
func startTLSHop(t *testing.T, base string) *countingHop {
	t.Helper()
	certificate, err := tls.LoadX509KeyPair(base+".crt", base+".key")
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		t.Fatal(err)
	}
	h := &countingHop{address: l.Addr().String(), rcpt: "250 ok"}
	var sessions sync.WaitGroup
	sessions.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // it is closed
			}
			sessions.Go(func() { h.serve(conn) })
		}
	})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		sessions.Wait()
	})
	return h
}

// TestPrivateCAIsTrustedByFile: with tls: verify a next hop may have a certificate of relay.roots, and check says what is
// wrong with that file.
func TestPrivateCAIsTrustedByFile(t *testing.T) {
	base := filepath.Join(t.TempDir(), "hop")
	writeCertificate(t, base, "hop", 24*time.Hour, "hop.example")
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, roots, want string
		failed            bool
	}{
		{"trusted", base + ".crt", `ok +next hop: support@example\.com: 127\.0\.0\.1:\d+ would take it, with TLS`, false},
		{"unknown", "", `warning +next hop: support@example\.com: 127\.0\.0\.1:\d+ cannot be reached now \(.*certificate.*\); mail for it would wait`, false},
		{"not a certificate", empty, `error +relay\.roots: .*there is no certificate in`, true},
		{"not there", empty + ".gone", `error +relay\.roots: .*no such file`, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			plain, hop := startHop(t, "250 ok"), startTLSHop(t, base)
			n := install(t, filepath.Join(t.TempDir(), "gw"), plain.address)
			replaceInConfig(t, n, "    next_hop: smtp://"+plain.address, "    tls: verify\n    next_hop: smtps://"+hop.address)
			n.appendConfig(t, "dns: [\""+startDNS(t)+"\"]\nrelay: {roots: \""+tc.roots+"\"}")
			out, err := n.command(t.Context(), "check", "--config", n.config())
			wantStatus(t, err, tc.failed)
			if !regexp.MustCompile(`(?m)^` + tc.want).MatchString(out) {
				t.Errorf("want %s in\n%s", tc.want, out)
			}
			if hop.got("DATA") > 0 {
				t.Error("a mail was sent")
			}
		})
	}
}

// TestWhichRoutesAwaitACase: the postmaster's mail and what goes back to senders never become Cases, so that their copies
// are not kept.
func TestWhichRoutesAwaitACase(t *testing.T) {
	for _, window := range []config.Duration{0, 1} {
		w := &wiring{cfg: &config.Config{ReplayWindow: window}}
		for route, want := range map[string]bool{"support@example.com": window > 0, config.PostmasterAddress: false, gateway.ReturnRoute: false} {
			if got := w.awaitsCase(route); got != want {
				t.Errorf("window %d, %s: %v", window, route, got)
			}
		}
	}
}
