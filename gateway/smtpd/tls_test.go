package smtpd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"strings"
	"testing"
	"time"
)

// testCertificate is made anew for each server: it is cheap, and no key lies about.
func testCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mx.test"}, DNSNames: []string{"mx.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

func withTLS(o *Options) {
	cert, err := testCertificate()
	if err == nil {
		o.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS10}
	}
}

// startTLS begins TLS and says EHLO.
func (c *client) startTLS() *client {
	c.t.Helper()
	c.talk("> STARTTLS", "< 220 2.0.0 mx.test ready to start TLS")
	secured := newClient(c.t, tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true}))
	secured.send("EHLO secured.test\r\n")
	if caps := secured.capabilities(); caps["STARTTLS"] || !caps["PIPELINING"] {
		c.t.Fatalf("capabilities within TLS: %v", caps)
	}
	return secured
}

func TestStartTLS(t *testing.T) {
	ts := startServer(t, withTLS)
	c := ts.dial(t, greeting)
	c.send("EHLO client.test\r\n")
	if caps := c.capabilities(); !caps["STARTTLS"] {
		t.Fatalf("STARTTLS is not offered: %v", caps)
	}
	c = c.startTLS()
	c.talk("> STARTTLS", "< 502 5.5.1 TLS not supported",
		"> MAIL FROM:<alice@sender.test>", "< 250 2.1.0 sender ok", "> RCPT TO:<support@example.com>", "< 250 2.1.5 recipient ok",
		"> DATA", data354, "> ..x", "> .", "< 250 2.0.0 accepted as ID1",
		"> MAIL FROM:<alice@sender.test> SMTPUTF8", "< 250 2.1.0 sender ok", "> RCPT TO:<support@example.com>", "< 250 2.1.5 recipient ok",
		`>> BDAT 4 LAST\r\n.x\r\n`, "< 250 2.0.0 accepted as ID2", "> QUIT", "< 221 2.0.0 Bye")
	if _, err := c.r.ReadByte(); err != io.EOF {
		t.Errorf("no close_notify: %v", err)
	}
	mails := ts.taken()
	if e := mails[0].envelope; e.Protocol != "ESMTPS" || !strings.HasPrefix(e.TLS, "TLS1.3 TLS_") || e.Hello != "secured.test" {
		t.Errorf("envelope %+v", e)
	}
	if e := mails[1].envelope; e.Protocol != "UTF8SMTPS" {
		t.Errorf("envelope %+v", e)
	}
	if n := ts.counter(t, "sealpost_smtp_mails_accepted_total", "yes"); n != 2 {
		t.Errorf("%v mails were counted", n)
	}
	if mails[0].text != ".x\r\n" || mails[1].text != ".x\r\n" {
		t.Errorf("texts %q", texts(mails))
	}
}

// TestStartTLSInjection: plaintext behind STARTTLS is not executed, neither before TLS nor within it.
func TestStartTLSInjection(t *testing.T) {
	ts := startServer(t, withTLS)
	c := ts.hello(t)
	c.talk(`>> STARTTLS\r\nEHLO evil.test\r\nMAIL FROM:<evil@sender.test>\r\nRCPT TO:<support@example.com>\r\nBDAT 1 LAST\r\nx`,
		"< 554 5.5.1 mx.test plaintext behind STARTTLS; closing", "closed")
	ts.stop(t)
	if n := ts.counter(t, "sealpost_smtp_tls_failures_total", ""); n != 1 {
		t.Errorf("%v failures were counted", n)
	}
	if len(ts.taken()) != 0 || !strings.Contains(ts.log.String(), "TLS failed") {
		t.Errorf("%d mails; log: %s", len(ts.taken()), ts.log.String())
	}
}

// TestStartTLSForgets: nothing that was said in plaintext is remembered (RFC 3207 section 4.2).
func TestStartTLSForgets(t *testing.T) {
	ts := startServer(t, withTLS)
	c := ts.ready(t)
	c.talk("> STARTTLS", "< 220 2.0.0 mx.test ready to start TLS")
	secured := newClient(t, tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true}))
	secured.talk("> DATA", "< 503 5.5.1 Missing RCPT TO command.",
		"> MAIL FROM:<alice@sender.test>", "< 503 5.5.1 Please introduce yourself first.")
}

// TestPipeliningAcrossStartTLS: what was sent in one packet with STARTTLS, before it, is answered and forgotten.
func TestPipeliningAcrossStartTLS(t *testing.T) {
	ts := startServer(t, withTLS)
	c := ts.hello(t)
	c.talk(`>> MAIL FROM:<evil@sender.test>\r\nRCPT TO:<support@example.com>\r\nSTARTTLS\r\n`,
		"< 250 2.1.0 sender ok", "< 250 2.1.5 recipient ok", "< 220 2.0.0 mx.test ready to start TLS")
	secured := newClient(t, tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true}))
	secured.send("EHLO secured.test\r\n")
	secured.capabilities()
	secured.talk("> DATA", "< 503 5.5.1 Missing RCPT TO command.", "> RCPT TO:<support@example.com>", "< 503 5.5.1 Missing MAIL FROM command.")
}

func TestStartTLSFailures(t *testing.T) {
	for name, fail := range map[string]func(c *client){
		"garbage": func(c *client) { c.send("EHLO not-tls.test\r\nQUIT\r\n") },
		"gone":    func(c *client) { _ = c.Close() },
		"too old": func(c *client) {
			old := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
			if err := old.Handshake(); err == nil {
				c.t.Error("TLS 1.1 was accepted")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			ts := startServer(t, withTLS)
			c := ts.hello(t)
			c.talk("> STARTTLS", "< 220 2.0.0 mx.test ready to start TLS")
			fail(c)
			_ = c.Close()
			ts.stop(t)
			if !strings.Contains(ts.log.String(), "TLS failed") {
				t.Errorf("log: %s", ts.log.String())
			}
		})
	}
}
