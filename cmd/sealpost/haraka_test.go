package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sealpost/sfclient/sftest"
)

const (
	harakaHost     = "haraka.hop.example"
	harakaUser     = "gateway"
	harakaPassword = "open-the-next-hop"
)

// haraka is a Haraka of a test's own: configuration and mails are below dir.
type haraka struct {
	dir  string
	port string
	ca   string // the file of the authority that certified it
	logs lockedBuffer
}

// harakaMail is a mail that it took, and how that came.
type harakaMail struct {
	From       string            `json:"from"`
	To         []string          `json:"to"`
	Connection string            `json:"connection"`
	User       string            `json:"user"`
	Protocol   string            `json:"protocol"`
	Parameters map[string]string `json:"parameters"` // of MAIL
	raw        []byte
}

// startHaraka starts an instance, which offers STARTTLS under its own name and takes mail from one user only, and ends
// it with the test.
func startHaraka(t *testing.T) *haraka {
	t.Helper()
	source, err := filepath.Abs("testdata/haraka")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(source, "node_modules", ".bin", "haraka")
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("Haraka is not here; `make needs` installs it: %v", err)
	}
	h := &haraka{dir: t.TempDir()}
	_, h.port, _ = net.SplitHostPort(freeAddress(t))
	h.configure(t, source)
	cmd := exec.Command(program, "-c", h.dir)
	cmd.Env = append(os.Environ(), "SEALPOST_KEEP="+h.kept())
	cmd.Stdout, cmd.Stderr = &h.logs, &h.logs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	if !eventually(func() bool { return strings.Contains(h.logs.String(), "Listening on 127.0.0.1:"+h.port) }) {
		t.Fatalf("Haraka does not listen:\n%s", h.logs.String())
	}
	return h
}

func (h *haraka) configure(t *testing.T, source string) {
	t.Helper()
	plugin, err := os.ReadFile(filepath.Join(source, "plugins", "keep.js"))
	if err != nil {
		t.Fatal(err)
	}
	group, err := os.ReadFile(filepath.Join(source, "dhparams.pem")) // else Haraka makes its own, which takes long
	if err != nil {
		t.Fatal(err)
	}
	ca, cert, key := certify(t, harakaHost)
	h.ca = filepath.Join(h.dir, "ca.pem")
	for name, text := range map[string]string{
		"ca.pem": ca, "plugins/keep.js": string(plugin), "config/dhparams.pem": string(group), "config/tls_cert.pem": cert, "config/tls_key.pem": key,
		"config/me": harakaHost + "\n", "config/plugins": "tls\nauth/flat_file\nkeep\n", "kept/.keep": "",
		"config/log.ini":            "[main]\nlevel=protocol\nformat=default\n",
		"config/smtp.ini":           "listen=127.0.0.1:" + h.port + "\nnodes=0\n",
		"config/tls.ini":            "key=tls_key.pem\ncert=tls_cert.pem\n",
		"config/auth_flat_file.ini": "[core]\nmethods=PLAIN\nconstrain_sender=false\n[users]\n" + harakaUser + "=" + harakaPassword + "\n",
		// It adds nothing, and breaks no long line.
		"config/connection.ini": "[headers]\nadd_received=false\nclean_auth_results=false\nmax_lines=1000\nmax_received=100\n" +
			"[max]\nbytes=26214400\nmime_parts=1000\nline_length=512\ndata_line_length=1000000\n" +
			"[message]\nhelo=hello\nclose=bye\n[uuid]\nbanner_chars=6\ndeny_chars=0\n",
	} {
		path := filepath.Join(h.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (h *haraka) kept() string { return filepath.Join(h.dir, "kept") }

// mails returns what it took so far, by sender. A second mail of one sender fails the test.
func (h *haraka) mails(t *testing.T) map[string]harakaMail {
	t.Helper()
	done, err := filepath.Glob(filepath.Join(h.kept(), "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	mails := map[string]harakaMail{}
	for _, path := range done {
		var mail harakaMail
		how, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(how, &mail)
		}
		if err == nil {
			mail.raw, err = os.ReadFile(strings.TrimSuffix(path, ".json") + ".eml")
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := mails[mail.From]; twice {
			t.Errorf("the mail of %s arrived twice", mail.From)
		}
		mails[mail.From] = mail
	}
	return mails
}

// wait waits until it took n mails.
func (h *haraka) wait(t *testing.T, n int) map[string]harakaMail {
	t.Helper()
	if !eventually(func() bool { return len(h.mails(t)) >= n }) {
		t.Fatalf("%d of %d mails arrived:\n%s", len(h.mails(t)), n, h.logs.String())
	}
	return h.mails(t)
}

// certify makes an authority and a certificate of it for host, all PEM.
func certify(t *testing.T, host string) (ca, cert, key string) {
	t.Helper()
	now := time.Now()
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		}
	}
	root, leaf := template(1, "Test Authority"), template(2, host)
	root.IsCA, root.BasicConstraintsValid, root.KeyUsage = true, true, x509.KeyUsageCertSign
	leaf.DNSNames = []string{host}
	rootKey, leafKey := newECKey(t), newECKey(t)
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, leafKey.Public(), rootKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return text("CERTIFICATE", rootDER), text("CERTIFICATE", leafDER), text("PRIVATE KEY", keyDER)
}

func newECKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// installBefore makes an installation whose route goes to h by name, TLS verified, logging in with password.
func installBefore(t *testing.T, h *haraka, password, settings string) *node {
	t.Helper()
	dns := startDNS(t, harakaHost+". A 127.0.0.1")
	n := installWith(t, filepath.Join(t.TempDir(), "gw"), harakaHost+":"+h.port,
		"authentication: {enabled: false}\nalerts: {mail: false}\ndns: [\""+dns+"\"]\n"+settings)
	secret := filepath.Join(n.dir, "hop-password")
	if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	replaceInConfig(t, n, "    #auth: {}", "    auth: {user: "+harakaUser+", password_file: "+secret+"}")
	replaceInConfig(t, n, "    #tls: opportunistic", "    tls: verify")
	return n
}

// listed returns the first column of `queue list`, the mails' IDs, of those in a state.
func (n *node) listed(t *testing.T, state string) []string {
	t.Helper()
	var ids []string
	list := []string{"queue", "list", "--state", state, "--config", n.config()}
	for line := range strings.Lines(n.must(t, list...) + n.must(t, append(list, "--return")...)) {
		if id, _, _ := strings.Cut(line, " "); id != "MAIL" {
			ids = append(ids, id)
		}
	}
	return ids
}

// waitDeferred waits until one mail waits for its second attempt, and returns its ID.
func (n *node) waitDeferred(t *testing.T, reply string) string {
	t.Helper()
	var id string
	if !eventually(func() bool {
		ids := n.listed(t, "pending")
		if len(ids) != 1 || !strings.Contains(n.must(t, "queue", "show", ids[0], "--config", n.config()), reply) {
			return false
		}
		id = ids[0]
		return true
	}) {
		t.Fatalf("no mail waits with %q:\n%s", reply, n.must(t, "queue", "list", "--config", n.config()))
	}
	return id
}

// hasten makes a waiting mail due at once, as an admin would.
func (n *node) hasten(t *testing.T, id string) {
	t.Helper()
	n.must(t, "queue", "hold", id, "--config", n.config())
	n.must(t, "queue", "release", id, "--config", n.config())
}

// TestHarakaIsVerified: what a route with tls: verify sends waits as long as the next hop's certificate is not trusted,
// neither mail nor password goes out meanwhile, and a password that is refused loses no mail either.
func TestHarakaIsVerified(t *testing.T) {
	h := startHaraka(t)
	n := installBefore(t, h, "not-the-password", "")
	n.start(t, "sealpost")
	d := dial(t, n.smtp)
	d.give("jane@customer.example", testRoute, mailWith("verify", "text", []byte("file")), "250")
	d.say("QUIT", "221")
	id := n.waitDeferred(t, "certificate")
	if log := h.logs.String(); strings.Contains(log, harakaUser) || strings.Contains(log, "MAIL FROM") {
		t.Errorf("something was said to a server that is not trusted:\n%s", log)
	}
	n.stop(t)

	n.start(t, "sealpost", "SSL_CERT_FILE="+h.ca)
	n.hasten(t, id)
	n.waitDeferred(t, "Authentication failed")
	n.stop(t)
	if err := os.WriteFile(filepath.Join(n.dir, "hop-password"), []byte(harakaPassword), 0o600); err != nil {
		t.Fatal(err)
	}
	n.start(t, "sealpost", "SSL_CERT_FILE="+h.ca)
	n.hasten(t, id)
	mail := h.wait(t, 1)["jane@customer.example"]
	if mail.User != harakaUser || !strings.HasPrefix(mail.Protocol, "TLSv1.3") {
		t.Errorf("it came from user %q under %q", mail.User, mail.Protocol)
	}
	if got := n.open(t, theLink(t, sftest.Mail{Raw: mail.raw})); string(got["file.bin"]) != "file" {
		t.Errorf("the link opens to %q", got)
	}
	if strings.Contains(n.logs.String(), harakaPassword) || strings.Contains(n.logs.String(), "not-the-password") {
		t.Error("a password is in the log")
	}
}

// TestHarakaTakesAllMails: the mails of testdata/mail arrive as their golden results say, byte for byte, over one connection.
// One that is refused for now at first arrives once.
func TestHarakaTakesAllMails(t *testing.T) {
	h := startHaraka(t)
	n := installBefore(t, h, harakaPassword, "relay: {connections_per_hop: 1}")
	replaceInConfig(t, n, "http://"+n.portal, "https://files.example.com") // as in the golden results
	n.start(t, "sealpost", "SSL_CERT_FILE="+h.ca)
	dial(t, n.smtp).give("soft@customer.example", testRoute, mailWith("soft", "text", []byte("file")), "250")
	soft := n.waitDeferred(t, "4.3.2 come back later")
	if got := len(h.mails(t)); got != 0 {
		t.Errorf("%d mails arrived, want none", got)
	}
	n.hasten(t, soft)
	h.wait(t, 1)

	golden := goldenMails(t)
	for name, pair := range golden {
		if err := (handed{from: name + "@customer.example", raw: pair.in}).send(n.smtp); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	foreign := handedMails()[2]
	if err := foreign.send(n.smtp); err != nil {
		t.Fatal(err)
	}
	mails := h.wait(t, len(golden)+2)
	connections := map[string]bool{}
	for name, pair := range golden {
		got := mails[name+"@customer.example"]
		connections[got.Connection] = true
		if got.To[0] != forwardTo || got.User != harakaUser {
			t.Errorf("%s went to %q by %q", name, got.To, got.User)
		}
		if have, want := comparableMail(afterTrace(t, got.raw)), comparableMail(pair.want); have != want {
			t.Errorf("%s arrived as\n%q\nwant\n%q", name, have, want)
		}
	}
	if len(connections) > 2 { // a session carries at most 100 mails, and is closed when it was idle for long
		t.Errorf("%d mails came over %d connections", len(golden), len(connections))
	}
	checkForeign(t, mails[foreign.from], foreign)
	if waits := n.listed(t, "pending"); len(waits) != 0 {
		t.Errorf("%d mails wait still", len(waits))
	}
}

// checkForeign: a mail of an address outside ASCII goes on with what it needs (RFC 6531, RFC 6152).
func checkForeign(t *testing.T, got harakaMail, sent handed) {
	t.Helper()
	if _, utf8 := got.Parameters["SMTPUTF8"]; !utf8 || got.Parameters["BODY"] != "8BITMIME" {
		t.Errorf("the mail of %s came with %q", sent.from, got.Parameters)
	}
	for _, line := range sent.unchanged {
		if !bytes.Contains(got.raw, []byte(line+"\r\n")) {
			t.Errorf("it came without the line %q:\n%s", line, got.raw)
		}
	}
}

type goldenPair struct{ in, want []byte }

// goldenMails reads testdata/mail, without the mails that are refused at the door.
func goldenMails(t *testing.T) map[string]goldenPair {
	t.Helper()
	mails := map[string]goldenPair{}
	dirs, err := filepath.Glob("../../testdata/mail/*/in.eml")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range dirs {
		in, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(filepath.Dir(path), "want.eml"))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(bytes.ReplaceAll(in, []byte("\r\n"), nil), []byte("\n")) {
			continue // bare newlines
		}
		mails[filepath.Base(filepath.Dir(path))] = goldenPair{in, afterTrace(t, want)}
	}
	if len(mails) < 20 {
		t.Fatalf("only %d mails", len(mails))
	}
	return mails
}

var (
	// Haraka puts its own field above ours: that somebody has logged in.
	traceField = regexp.MustCompile(`^(?:Authentication-Results: haraka\.hop\.example;\r\n\tauth=pass \(plain\)\r\n)?` +
		`Received: [^\r]*\r\n(?:[ \t][^\r]*\r\n)*`)
	base64Text = regexp.MustCompile(`(?:[A-Za-z0-9+/]{76}\r\n)+[A-Za-z0-9+/]*={0,2}\r\n`)
	// What no two mails share: a link, perhaps with a soft line break in it, and a boundary of ours.
	unique    = regexp.MustCompile(`/p/(?:[0-9a-f]|=\r\n){32,33}#(?:[A-Za-z0-9_-]|=\r\n){43,44}|=_sealpost_[0-9a-f]{32}`)
	anyLetter = regexp.MustCompile(`[A-Za-z0-9_-]`)
)

const goldenUntil = "24 November 2027"

// afterTrace returns a mail without the Received field in front.
func afterTrace(t *testing.T, mail []byte) []byte {
	t.Helper()
	trace := traceField.Find(mail)
	if trace == nil {
		t.Fatalf("no Received field in front of\n%s", mail[:min(len(mail), 500)])
	}
	return mail[len(trace):]
}

// comparableMail returns a mail without what differs from run to run; all else is there byte for byte.
func comparableMail(mail []byte) string {
	text := base64Text.ReplaceAllStringFunc(string(mail), func(lines string) string {
		decoded, err := base64.StdEncoding.DecodeString(lines) // it ignores line ends
		if err != nil {
			return lines
		}
		return string(decoded)
	})
	for _, hours := range []time.Duration{0, -24} { // midnight may have passed meanwhile
		until := time.Now().UTC().Add(365*24*time.Hour + hours*time.Hour).Format("2 January 2006")
		text = strings.ReplaceAll(text, until, goldenUntil)
	}
	return unique.ReplaceAllStringFunc(text, func(s string) string { return anyLetter.ReplaceAllString(s, "x") })
}

// TestHarakaKnowsNoDSN: where the next hop writes no reports, the sender hears from us what it asked for, with its own
// ENVID and ORCPT, and never of forward_to (RFC 3461 sections 5.2.2 and 6.2).
func TestHarakaKnowsNoDSN(t *testing.T) {
	outside := startOrg(t, sftest.Options{})
	h := startHaraka(t)
	n := installBefore(t, h, harakaPassword, "srs: {bounce_next_hop: \"smtp://"+outside.Addr()+"\"}")
	n.start(t, "sealpost", "SSL_CERT_FILE="+h.ca)
	d := dial(t, n.smtp)
	for i, tt := range []struct{ from, notify, action, status string }{
		{"jane", "SUCCESS,FAILURE,DELAY", "relayed", "2.0.0"},
		{"hard", "SUCCESS,FAILURE,DELAY", "failed", "5.1.1"},
		{"hard", "FAILURE", "failed", "5.1.1"},
	} {
		d.giveAsking(tt.from+"@customer.example", tt.notify, mailWith(fmt.Sprint("asked ", i), "text", []byte("a file")))
		report := waitMails(t, outside, i+1)[i]
		checkReport(t, report, tt.from+"@customer.example", tt.action, tt.status)
	}
	for _, tt := range []struct{ from, notify string }{{"joe", "FAILURE,DELAY"}, {"jim", "NEVER"}, {"hard", "NEVER"}} {
		d.giveAsking(tt.from+"@customer.example", tt.notify, mailWith("unasked "+tt.notify, "text", []byte("a file")))
	}
	h.wait(t, 3)
	if !eventually(func() bool { return len(n.listed(t, "dead")) == 3 }) {
		t.Errorf("dead: %q", n.listed(t, "dead"))
	}
	if !eventually(func() bool { return len(n.listed(t, "pending"))+len(n.listed(t, "sending")) == 0 }) || len(outside.Mails()) != 3 {
		t.Errorf("%d notices went out, want 3", len(outside.Mails()))
	}
}
