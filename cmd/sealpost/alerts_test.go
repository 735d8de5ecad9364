package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealpost/gateway"
	"sealpost/gateway/alert"
	"sealpost/gateway/config"
	"sealpost/sfclient/sftest"
)

// installWatched makes an installation that mails its alerts to desk; its metrics are at the returned address.
func installWatched(t *testing.T, hop string, desk *sftest.Org) (n *node, metrics string) {
	t.Helper()
	n = install(t, filepath.Join(t.TempDir(), "gw"), hop)
	replaceInConfig(t, n, "  forward_to: postmaster@example.com\n  next_hop: smtp://"+hop,
		"  forward_to: postmaster@desk.example\n  next_hop: smtp://"+desk.Addr())
	replaceInConfig(t, n, "alerts: {mail: false}", "alerts: {mail: true}")
	metrics = freeAddress(t)
	n.appendConfig(t, "metrics: {listen: \""+metrics+"\"}")
	return n, metrics
}

// logged waits until the log holds text times times.
func (n *node) logged(t testing.TB, text string, times int) {
	t.Helper()
	if !eventually(func() bool { return strings.Count(n.logs.String(), text) >= times }) {
		t.Fatalf("the log does not hold %q %d times:\n%s", text, times, n.logs.String())
	}
}

// wantOneAlert looks at the one mail that desk has, and then has the node start again, which tells of the alert
// by log and metric once more and mails nothing, since its time has not come.
func wantOneAlert(t *testing.T, n *node, metrics string, desk *sftest.Org, kind string, secrets ...string) {
	t.Helper()
	mail := waitMails(t, desk, 1)[0]
	text := string(mail.Raw)
	for _, want := range []string{"To: <postmaster@desk.example>", "Auto-Submitted: auto-generated", "1 alert(s)", "\r\n" + kind} {
		if !strings.Contains(text, want) {
			t.Errorf("the mail lacks %q:\n%s", want, text)
		}
	}
	for _, secret := range secrets {
		if strings.Contains(text, secret) || strings.Contains(n.logs.String(), secret) {
			t.Errorf("the alert tells %q:\n%s\n%s", secret, text, n.logs.String())
		}
	}
	if mail.From != "" {
		t.Errorf("it comes from <%s>, so that a bounce could come back", mail.From)
	}
	n.stop(t)
	before := strings.Count(n.logs.String(), "msg=alert kind="+kind)
	n.start(t, "sealpost")
	n.logged(t, "msg=alert kind="+kind, before+1)
	if !eventually(func() bool {
		return strings.Contains(page(t, "http://"+metrics+"/metrics"), "sealpost_alerts{kind=\""+kind+"\"} 1\n")
	}) {
		t.Error("the metric does not tell of the alert")
	}
	d := dial(t, n.smtp)
	d.say("EHLO customer.example", "250")
	d.say("QUIT", "221")
	n.stop(t)
	if out := n.must(t, "queue", "list", "--config", n.config()); strings.Count(out, config.PostmasterAddress) != 1 {
		t.Errorf("not one mail to the postmaster is in the queue:\n%s", out)
	}
	if mails := desk.Mails(); len(mails) != 1 {
		t.Errorf("%d mails came, want one in six hours", len(mails))
	}
}

// TestDeadMailIsAlerted: a mail that is refused for good and whose sender cannot be told is kept, and the postmaster hears of it
// once, without anything of the mail itself.
func TestDeadMailIsAlerted(t *testing.T) {
	desk := startOrg(t, sftest.Options{})
	org := startOrg(t, sftest.Options{RefuseRcpt: 550})
	n, metrics := installWatched(t, org.Addr(), desk)
	n.start(t, "sealpost")
	dial(t, n.smtp).give("", testRoute, mailWith("quarterly", "text", []byte("a file")), "250")
	if !eventually(func() bool {
		return strings.Contains(n.must(t, "trace", "<717561727465726c79@customer.example>", "--config", n.config()), "it is dead")
	}) {
		t.Fatal("the mail does not become dead")
	}
	n.stop(t)
	n.start(t, "sealpost") // the watch looks when it starts, and then every minute
	wantOneAlert(t, n, metrics, desk, string(alert.Dead), "quarterly", "717561727465726c79", "file.bin", "jane", "customer.example", forwardTo)
}

// TestScannerDownIsAlerted: mail is put off while the scanner is away, and the postmaster hears of that once.
func TestScannerDownIsAlerted(t *testing.T) {
	desk := startOrg(t, sftest.Options{})
	org := startOrg(t, sftest.Options{})
	n, metrics := installWatched(t, org.Addr(), desk)
	n.appendConfig(t, "scan: {clamd: \"unix:"+filepath.Join(n.dir, "no-clamd")+"\"}")
	n.start(t, "sealpost")
	dial(t, n.smtp).give("jane@customer.example", testRoute, mailWith("quarterly", "text", []byte("a file")), "451")
	wantOneAlert(t, n, metrics, desk, string(alert.ScannerDown), "quarterly", "file.bin", "jane", forwardTo)
	if got := len(org.Mails()); got != 0 {
		t.Errorf("%d unscanned mails went on", got)
	}
}

// TestCertificateEndIsAlerted: three weeks before a certificate ends the postmaster hears of it once.
func TestCertificateEndIsAlerted(t *testing.T) {
	desk := startOrg(t, sftest.Options{})
	n, metrics := installWatched(t, freeAddress(t), desk)
	base := filepath.Join(t.TempDir(), "mx")
	writeCertificate(t, base, "mx", 20*24*time.Hour, "mx.example.com")
	replaceInConfig(t, n, "smtp:\n", "smtp:\n  tls: "+pair(base)+"\n")
	n.start(t, "sealpost")
	wantOneAlert(t, n, metrics, desk, string(alert.Certificate))
}

// TestDNSAlertIsMailed: when senders cannot be judged for want of DNS, the postmaster hears of it. The watch runs here, since it
// looks only once a minute; what it hands in is delivered by the real gateway.
func TestDNSAlertIsMailed(t *testing.T) {
	desk := startOrg(t, sftest.Options{})
	n, _ := installWatched(t, freeAddress(t), desk)
	replaceInConfig(t, n, "authentication: {enabled: false}", "authentication: {enabled: true}")
	n.appendConfig(t, "dns: [\""+freeAddress(t)+"\"]") // nobody answers there
	watchTemporaryErrors(t, n)
	n.start(t, "sealpost")
	text := string(waitMails(t, desk, 1)[0].Raw)
	if !strings.Contains(text, "\r\nauthentication: Sender authentication failed for want of DNS for 10 of 10\r\nmails.") {
		t.Errorf("the mail does not say what is wrong:\n%s", text)
	}
	if strings.Contains(text, "customer.example") {
		t.Errorf("the mail tells whose mails they were:\n%s", text)
	}
}

// watchTemporaryErrors judges ten senders with the node's own parts and watches until that is told.
func watchTemporaryErrors(t *testing.T, n *node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	cfg, err := config.Load(n.config())
	if err != nil {
		t.Fatal(err)
	}
	stores, err := openStores(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stores.Close(); err != nil {
			t.Error(err)
		}
	}()
	w, err := newWiring(ctx, cfg, stores, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	taking, err := w.intake()
	if err != nil {
		t.Fatal(err)
	}
	envelope := gateway.Envelope{MailFrom: "jane@customer.example", Hello: "customer.example", Client: netip.MustParseAddr("192.0.2.7"), Received: time.Now()}
	mail := bytes.NewReader([]byte("From: jane@customer.example\r\n\r\ntext\r\n"))
	for range 10 {
		if _, _, err := w.senders.Authenticate(ctx, envelope, io.NewSectionReader(mail, 0, mail.Size())); err != nil {
			t.Fatal(err)
		}
	}
	options := w.alertOptions(taking)
	submit := options.Mail
	var submitted error
	options.Mail = func(ctx context.Context, alerts []alert.Alert) error {
		submitted = submit(ctx, alerts)
		cancel()
		return submitted
	}
	if err := alert.New(options).Run(ctx); err != nil || submitted != nil {
		t.Fatal(err, submitted)
	}
}
