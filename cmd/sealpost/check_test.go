package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sealpost/gateway/config"
)

// countingHop is a next hop that answers every RCPT alike and keeps the commands that it got.
type countingHop struct {
	address  string
	rcpt     string // its reply
	mu       sync.Mutex
	commands []string // their verbs
}

func startHop(t testing.TB, rcpt string) *countingHop {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &countingHop{address: l.Addr().String(), rcpt: rcpt}
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

func (h *countingHop) serve(conn net.Conn) {
	text := textproto.NewConn(conn)
	defer text.Close()
	for reply := "220 hop.example"; ; {
		if text.PrintfLine("%s", reply) != nil || strings.HasPrefix(reply, "221") {
			return
		}
		line, err := text.ReadLine()
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		h.mu.Lock()
		h.commands = append(h.commands, verb)
		h.mu.Unlock()
		switch verb {
		case "RCPT":
			reply = h.rcpt
		case "DATA":
			reply = "354 go on"
		case "QUIT":
			reply = "221 bye"
		default:
			reply = "250 ok"
		}
	}
}

func (h *countingHop) got(verb string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(h.commands), func(c string) bool { return c != verb }))
}

// TestCheckAsksDNSAndNextHop: every finding of `sealpost check` about DNS and the next hop, with its mending step, its exit
// status, and that no mail is sent.
func TestCheckAsksDNSAndNextHop(t *testing.T) {
	right := []string{
		"mx.example.com. A 192.0.2.7", "7.2.0.192.in-addr.arpa. PTR mx.example.com.",
		"example.com. MX 10 mx.example.com.", "bounces.example.com. MX 10 mx.example.com.",
		"bounces.example.com. TXT \"v=spf1 a:mx.example.com -all\"", "hop.example. A 127.0.0.1",
	}
	without := func(name string, instead ...string) []string {
		return append(slices.DeleteFunc(slices.Clone(right), func(line string) bool { return strings.Contains(line, name) }), instead...)
	}
	for _, tc := range []struct {
		name   string
		zone   []string
		rcpt   string
		want   []string // of the output, each a pattern
		failed bool
	}{
		{"all is right", right, "250 ok", []string{
			`ok +MX: example\.com names mx\.example\.com`, `ok +MX: bounces\.example\.com names`, `ok +hostname: mx\.example\.com resolves both ways`,
			`ok +SPF: bounces\.example\.com allows mx\.example\.com`, `ok +next hop: support@example\.com: hop\.example:\d+ would take it, without TLS`,
			`ok +next hop: postmaster: .* would take it`,
		}, false},
		{"MX elsewhere", without(" MX ", "example.com. MX 10 mail.elsewhere.example."), "250 ok", []string{
			`warning +MX: example\.com does not name mx\.example\.com; this is right if another server forwards`,
			`warning +MX: bounces\.example\.com has no MX record that can be read`,
		}, false},
		{"reverse name of another", without("PTR", "7.2.0.192.in-addr.arpa. PTR host7.provider.example."), "250 ok", []string{
			`warning +hostname: mx\.example\.com is 192\.0\.2\.7, whose reverse name is not mx\.example\.com; ask .* for a PTR`,
		}, false},
		{"no reverse name", without("PTR"), "250 ok", []string{`warning +hostname: .* whose reverse name is not .*PTR`}, false},
		{"no address", without(" A 192.0.2.7"), "250 ok", []string{`warning +hostname: mx\.example\.com cannot be resolved .*give it an A or AAAA`}, false},
		{"no SPF", without("TXT"), "250 ok", []string{`warning +SPF: bounces\.example\.com gives none for 192\.0\.2\.7; add it .*a:mx\.example\.com`}, false},
		{"SPF without us", without("TXT", "bounces.example.com. TXT \"v=spf1 -all\""), "250 ok", []string{`warning +SPF: .* gives fail for 192\.0\.2\.7; add it`}, false},
		{"the hop refuses", right, "550 5.1.1 no such mailbox", []string{`error +next hop: support@example\.com: hop\.example:\d+ refuses its mail: 550 5\.1\.1 no such mailbox`}, true},
		{"the hop puts off", right, "450 4.2.0 greylisted", []string{`warning +next hop: support@example\.com: .* puts its mail off: 450`}, false},
		{"the hop has no address", without("hop.example"), "250 ok", []string{`warning +next hop: support@example\.com: hop\.example:\d+ cannot be reached now .*would wait`}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			hop, dns := startHop(t, tc.rcpt), startDNS(t, tc.zone...)
			_, port, _ := net.SplitHostPort(hop.address)
			n := install(t, filepath.Join(t.TempDir(), "gw"), "hop.example:"+port)
			n.appendConfig(t, "srs: {domain: bounces.example.com, keys: srs-keys}\ndns: [\""+dns+"\"]")
			n.must(t, "srs", "rotate", "--config", n.config())
			out, err := n.command(t.Context(), "check", "--config", n.config())
			wantStatus(t, err, tc.failed)
			for _, want := range tc.want {
				if !regexp.MustCompile(`(?m)^` + want).MatchString(out) {
					t.Errorf("want %s in\n%s", want, out)
				}
			}
			if mails := hop.got("DATA") + hop.got("BDAT"); mails > 0 {
				t.Errorf("%d mails were sent", mails)
			}
			if reached := slices.Contains(tc.zone, right[len(right)-1]); (hop.got("RCPT") == 2) != reached {
				t.Errorf("the hop was asked for %d mailboxes", hop.got("RCPT"))
			}
		})
	}
}

func wantStatus(t *testing.T, err error, failed bool) {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case !failed && err != nil:
		t.Errorf("check fails: %v", err)
	case failed && (!errors.As(err, &exit) || exit.ExitCode() != exitFailed):
		t.Errorf("check ends with %v, want status %d", err, exitFailed)
	}
}

// startSilence takes questions and never answers. It returns its address and how many came.
func startSilence(t *testing.T) (string, *atomic.Int64) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	questions, done := new(atomic.Int64), make(chan struct{})
	go func() {
		defer close(done)
		for buffer := make([]byte, 512); ; questions.Add(1) {
			if _, _, err := conn.ReadFrom(buffer); err != nil {
				return // it is closed
			}
		}
	}()
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return conn.LocalAddr().String(), questions
}

// TestSilentDNSServerIsLeft: when the first server is silent the second one is asked, and from then on first.
func TestSilentDNSServerIsLeft(t *testing.T) {
	silent, questions := startSilence(t)
	resolver := newResolver(&config.Config{DNS: []string{silent, startDNS(t, "example.com. MX 10 mx.example.com.")}})
	ask := func() error {
		records, err := resolver.LookupMX(context.Background(), "example.com.")
		if err == nil && len(records) != 1 {
			err = fmt.Errorf("%d records", len(records))
		}
		return err
	}
	if err := ask(); err != nil {
		t.Fatalf("the second server is not asked: %v", err)
	}
	before := questions.Load()
	for range 5 {
		if err := ask(); err != nil {
			t.Error(err)
		}
	}
	if before == 0 || questions.Load() != before {
		t.Errorf("the silent server was asked %d times, and then %d times more", before, questions.Load()-before)
	}
}

// TestCheckFindsTheNextHopByMX: a route without next_hop goes by the MX of forward_to's domain, to the domain itself where it
// has none (RFC 5321 section 5.1), and nowhere when it takes no mail (RFC 7505).
func TestCheckFindsTheNextHopByMX(t *testing.T) {
	domain := forwardTo[strings.IndexByte(forwardTo, '@')+1:] + "."
	for _, tc := range []struct{ name, record, want string }{
		{"MX", domain + " MX 5 hop.example.", `next hop: support@example\.com: hop\.example:25 `},
		{"no MX", domain + " TXT \"no mail server is named\"", `next hop: support@example\.com: ` + regexp.QuoteMeta(strings.TrimSuffix(domain, ".")) + `:25 `},
		{"null MX", domain + " MX 0 .", `error +next hop: support@example\.com: .*takes no mail`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := install(t, filepath.Join(t.TempDir(), "gw"), freeAddress(t))
			replaceInConfig(t, n, "    next_hop: ", "    #next_hop: ")
			n.appendConfig(t, "dns: [\""+startDNS(t, tc.record)+"\"]")
			if out, _ := n.command(t.Context(), "check", "--config", n.config()); !regexp.MustCompile(tc.want).MatchString(out) {
				t.Errorf("want %s in\n%s", tc.want, out)
			}
		})
	}
}

// TestCheckLooksAtCertificates: names and ends of the certificates, each with the mending step.
func TestCheckLooksAtCertificates(t *testing.T) {
	const day = 24 * time.Hour
	for _, tc := range []struct {
		name, host, want string
		lasts            time.Duration
		failed           bool
	}{
		{"good", "mx.example.com", `ok +smtp\.tls: .*\.crt, until 20`, 90 * day, false},
		{"ends soon", "mx.example.com", `warning +smtp\.tls: .*\.crt expires on 20.*; renew it`, 20 * day, false},
		{"ended", "mx.example.com", `error +smtp\.tls: .*\.crt expired on 20.*; renew it`, -time.Hour, true},
		{"another's name", "mail.elsewhere.example", `warning +smtp\.tls: there is none for mx\.example\.com; clients`, 90 * day, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := install(t, filepath.Join(t.TempDir(), "gw"), freeAddress(t))
			n.appendConfig(t, "dns: [\""+startDNS(t)+"\"]")
			base := filepath.Join(t.TempDir(), "mx")
			writeCertificate(t, base, "mx", tc.lasts, tc.host)
			replaceInConfig(t, n, "smtp:\n", "smtp:\n  tls: "+pair(base)+"\n")
			out, err := n.command(t.Context(), "check", "--config", n.config())
			wantStatus(t, err, tc.failed)
			if !regexp.MustCompile(`(?m)^` + tc.want).MatchString(out) {
				t.Errorf("want %s in\n%s", tc.want, out)
			}
		})
	}
}
