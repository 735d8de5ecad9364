package smtpd

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// peer runs a mail program of Debian's against the server.
func peer(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path = "/usr/sbin/" + name
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is missing: apt-get install swaks postfix", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out.String())
	}
	return out.String()
}

func TestSwaksWithStartTLS(t *testing.T) {
	ts := startServer(t, withTLS)
	host, port, _ := strings.Cut(ts.address, ":")
	out := peer(t, "swaks", "--server", host, "--port", port, "--tls", "--ehlo", "swaks.test",
		"--from", "alice@sender.test", "--to", "support@example.com", "--body", "the body\n.\n..dots")
	if !strings.Contains(out, "250 2.0.0 accepted as ID1") || !strings.Contains(out, "=== TLS started") {
		t.Errorf("swaks: %s", out)
	}
	mails := ts.taken()
	if len(mails) != 1 || mails[0].envelope.Protocol != "ESMTPS" || !strings.Contains(mails[0].text, "the body\r\n.\r\n..dots\r\n") {
		t.Errorf("mails %+v", mails)
	}
}

func TestPostfixSmtpSource(t *testing.T) {
	ts := startServer(t, nil)
	peer(t, "smtp-source", "-s", "5", "-m", "50", "-l", "100000", "-f", "alice@sender.test", "-t", "support@example.com", "inet:"+ts.address)
	mails := ts.taken()
	if len(mails) != 50 {
		t.Fatalf("%d mails, want 50", len(mails))
	}
	for _, m := range mails {
		if len(m.text) < 100000 || m.envelope.MailFrom != "alice@sender.test" {
			t.Errorf("%d octets from %q", len(m.text), m.envelope.MailFrom)
		}
	}
}
