package certificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// write makes a self-signed certificate for names in dir.
func write(t *testing.T, dir string, serial int64, names ...string) Pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p := Pair{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	put(t, p.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	put(t, p.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	return p
}

func put(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func serial(t *testing.T, s *Store, name string) int64 {
	t.Helper()
	cert, err := s.TLSConfig(Listener{}).GetCertificate(&tls.ClientHelloInfo{ServerName: name})
	if err != nil {
		t.Fatal(err)
	}
	return cert.Leaf.SerialNumber.Int64()
}

func TestChoiceByName(t *testing.T) {
	s, err := New(t.Context(), Options{Files: []Pair{
		write(t, t.TempDir(), 1, "mx.example.com"), write(t, t.TempDir(), 2, "*.example.org"), write(t, t.TempDir(), 3, "a.example.org"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int64{"MX.example.com": 1, "mx.example.com.": 1, "b.example.org": 2, "a.example.org": 3,
		"x.b.example.org": 1, "": 1, "other.example": 1} {
		if got := serial(t, s, name); got != want {
			t.Errorf("%q: certificate %d, want %d", name, got, want)
		}
	}
	if infos := s.Certificates(); len(infos) != 3 || infos[0].Names[0] != "mx.example.com" || time.Until(infos[0].NotAfter) > time.Hour {
		t.Errorf("infos %+v", infos)
	}
}

func TestReloadAndBrokenReload(t *testing.T) {
	dir := t.TempDir()
	s, err := New(t.Context(), Options{Files: []Pair{write(t, dir, 1, "mx.example.com")}})
	if err != nil {
		t.Fatal(err)
	}
	p := write(t, dir, 2, "mx.example.com")
	s.refresh(t.Context())
	if got := serial(t, s, "mx.example.com"); got != 2 {
		t.Errorf("certificate %d after a change", got)
	}
	put(t, p.Cert, []byte("broken"))
	s.refresh(t.Context())
	if got := serial(t, s, "mx.example.com"); got != 2 {
		t.Errorf("certificate %d after a broken change", got)
	}
	write(t, dir, 3, "mx.example.com")
	s.refresh(t.Context())
	if got := serial(t, s, "mx.example.com"); got != 3 {
		t.Errorf("certificate %d after the mending", got)
	}
}

func TestNewRefusesBrokenFilesAndNothing(t *testing.T) {
	for _, o := range []Options{{}, {Files: []Pair{{"/does/not/exist", "/does/not/exist"}}}, {ACME: &ACME{Names: []string{"a.example"}}}} {
		if _, err := New(t.Context(), o); err == nil {
			t.Errorf("%+v accepted", o)
		}
	}
}

func TestOwnCertificateComesFirst(t *testing.T) {
	mail, files := write(t, t.TempDir(), 1, "mx.example.com", "both.example.com"), write(t, t.TempDir(), 2, "files.example.com", "both.example.com")
	s, err := New(t.Context(), Options{Files: []Pair{mail, files}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name     string
		listener Listener
		asked    string
		want     int64
	}{
		{"no name", Listener{Files: []Pair{mail}}, "", 1},
		{"no name, the other listener", Listener{Files: []Pair{files}}, "", 2},
		{"unknown name, the other listener", Listener{Files: []Pair{files}}, "x.example.net", 2},
		{"the other's name", Listener{Files: []Pair{files}}, "mx.example.com", 1},
		{"a name of both", Listener{Files: []Pair{files}}, "both.example.com", 2},
		{"none of its own", Listener{}, "", 1},
	} {
		cert, err := s.TLSConfig(tc.listener).GetCertificate(&tls.ClientHelloInfo{ServerName: tc.asked})
		if err != nil {
			t.Fatal(err)
		}
		if got := cert.Leaf.SerialNumber.Int64(); got != tc.want {
			t.Errorf("%s: certificate %d, want %d", tc.name, got, tc.want)
		}
	}
}
