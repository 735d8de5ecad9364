package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealpost/gateway/certificate/acmetest"
	"sealpost/sfclient/sftest"
)

// writeCertificate puts a self-signed certificate for names at base.crt, and its key at base.key, in the place
// of those that are there. label is its subject.
func writeCertificate(t testing.TB, base, label string, lasts time.Duration, names ...string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: label}, DNSNames: names,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(lasts)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{base + ".crt": {Type: "CERTIFICATE", Bytes: der}, base + ".key": {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path+".new", pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
}

// pair is a certificate as the configuration names it.
func pair(base string) string { return fmt.Sprintf("{cert: %q, key: %q}", base+".crt", base+".key") }

// openssl returns what OpenSSL's client says of the certificate that an SMTP server shows by STARTTLS; without a
// name it asks for none.
func openssl(t testing.TB, address, name string) string {
	t.Helper()
	args := []string{"s_client", "-starttls", "smtp", "-connect", address, "-servername", name}
	if name == "" {
		args = append(args[:5], "-noservername")
	}
	cmd := exec.Command("openssl", args...)
	cmd.Stdin = strings.NewReader("QUIT\r\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl s_client: %v\n%s", err, out)
	}
	return string(out)
}

// subjectOf returns the label of the certificate that a TLS listener shows for a name.
func subjectOf(t testing.TB, address, name string) string {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// TestCertificatesByName: SMTP and the portal show the certificate of the name that the client asks for, each its own to
// whom asks for none, and a certificate that was replaced on disk without a restart.
func TestCertificatesByName(t *testing.T) {
	dir, org := t.TempDir(), startOrg(t, sftest.Options{})
	base := func(label string) string { return filepath.Join(dir, label) }
	n := install(t, filepath.Join(t.TempDir(), "gw"), org.Addr())
	writeCertificate(t, base("mx"), "mx", time.Hour, "mx.example.com")
	writeCertificate(t, base("mail"), "mail", time.Hour, "mail.example.org")
	writeCertificate(t, base("files"), "files", time.Hour, "files.example.com")
	writeCertificate(t, base("brand"), "brand", time.Hour, "*.brand.example")
	replaceInConfig(t, n, "smtp:\n", "smtp:\n  tls: {certificates: ["+pair(base("mx"))+", "+pair(base("mail"))+"]}\n")
	replaceInConfig(t, n, "portal:\n", "portal:\n  tls: {certificates: ["+pair(base("files"))+", "+pair(base("brand"))+"]}\n")
	replaceInConfig(t, n, "url: http://", "url: https://")
	n.secure = true
	n.start(t, "sealpost")
	for name, want := range map[string]string{"mx.example.com": "mx", "mail.example.org": "mail", "": "mx", "unknown.example": "mx"} {
		if out := openssl(t, n.smtp, name); !strings.Contains(out, "subject=CN = "+want+"\n") {
			t.Errorf("SMTP, %q: want %s in\n%s", name, want, out)
		}
	}
	for name, want := range map[string]string{"files.example.com": "files", "eu.brand.example": "brand", "": "files", "unknown.example": "files"} {
		if got := subjectOf(t, n.portal, name); got != want {
			t.Errorf("the portal, %q: %s, want %s", name, got, want)
		}
	}
	writeCertificate(t, base("mail"), "renewed", time.Hour, "mail.example.org")
	if !eventually(func() bool { return strings.Contains(openssl(t, n.smtp, "mail.example.org"), "subject=CN = renewed\n") }) {
		t.Error("the replaced certificate is not shown")
	}
}

// TestCertificateFromACMEServer: a gateway that has no certificate gets one from a real ACME server and shows it by STARTTLS.
func TestCertificateFromACMEServer(t *testing.T) {
	ca, org := acmetest.Start(t), startOrg(t, sftest.Options{})
	n := install(t, filepath.Join(t.TempDir(), "gw"), org.Addr())
	replaceInConfig(t, n, "smtp:\n", "smtp:\n  tls: {acme: [mx.example.com]}\n")
	n.appendConfig(t, fmt.Sprintf("acme: {directory: %q, roots: %q, email: admin@example.com, listen: \"127.0.0.1:%d\"}", ca.Directory, ca.Roots, ca.HTTPPort))
	n.start(t, "sealpost")
	got := func() bool {
		client := dial(t, n.smtp)
		defer client.conn.Close()
		client.say("EHLO customer.example", "250")
		client.say("STARTTLS", "220")
		conn := tls.Client(client.conn, &tls.Config{ServerName: "mx.example.com", InsecureSkipVerify: true})
		return conn.Handshake() == nil && conn.ConnectionState().PeerCertificates[0].VerifyHostname("mx.example.com") == nil
	}
	if !eventually(got) {
		t.Fatalf("no certificate comes:\n%s", n.logs.String())
	}
	if out := openssl(t, n.smtp, "mx.example.com"); !strings.Contains(out, "issuer=CN = Pebble Intermediate CA") {
		t.Errorf("it is not the CA's:\n%s", out)
	}
	n.stop(t)
	if strings.Contains(n.logs.String(), "level=ERROR") {
		t.Errorf("the log holds errors:\n%s", n.logs.String())
	}
}
