package senderauth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/foxcpp/go-mockdns"

	"sealpost/gateway"
)

const clientAddress = "192.0.2.10"

var errServfail = &net.DNSError{Err: "server misbehaving", IsTemporary: true}

// keys are made once: RSA keys are slow to make.
var keys = sync.OnceValues(func() (map[string]crypto.Signer, map[string]string) {
	signers, records := map[string]crypto.Signer{}, map[string]string{}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, nil
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, nil
	}
	signers["rsa"], records["rsa"] = key, "v=DKIM1; k=rsa; p="+base64.StdEncoding.EncodeToString(der)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil
	}
	signers["ed"], records["ed"] = private, "v=DKIM1; k=ed25519; p="+base64.StdEncoding.EncodeToString(public)
	return signers, records
})

// zones is the DNS of the tests: name without the last dot -> TXT records.
func zones(txt map[string][]string) map[string]mockdns.Zone {
	z := map[string]mockdns.Zone{}
	for name, records := range txt {
		z[name+"."] = mockdns.Zone{TXT: records}
	}
	return z
}

func newTest(z map[string]mockdns.Zone, trusted ...string) *Authenticator {
	return New(Options{AuthservID: "mx.gate.example", Resolver: &mockdns.Resolver{Zones: z}, TrustedIDs: trusted})
}

func envelopeFrom(mailFrom string) gateway.Envelope {
	return gateway.Envelope{MailFrom: mailFrom, Hello: "out.sender.example", Client: netip.MustParseAddr(clientAddress)}
}

func plain(from string) string {
	return crlf("From: " + from + "\nTo: support@shop.example\nSubject: Hello\nMessage-ID: <1@sender.example>\n\nHello there.\n")
}

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func sign(t testing.TB, mail, domain, key string) string {
	t.Helper()
	signers, _ := keys()
	var out bytes.Buffer
	err := dkim.Sign(&out, strings.NewReader(mail), &dkim.SignOptions{
		Domain: domain, Selector: key, Signer: signers[key],
		HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
		HeaderKeys: []string{"From", "To", "Subject"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func judge(t testing.TB, a *Authenticator, envelope gateway.Envelope, mail string) (gateway.Authentication, string) {
	t.Helper()
	result, field, err := a.Authenticate(context.Background(), envelope, strings.NewReader(mail))
	if err != nil {
		t.Fatal(err)
	}
	checkField(t, field)
	return result, strings.Join(strings.Fields(string(field)), " ")
}

// checkField holds what must be true of every field that is written.
func checkField(t testing.TB, field []byte) {
	t.Helper()
	s := string(field)
	if !strings.HasPrefix(s, "Authentication-Results: mx.gate.example;") || !strings.HasSuffix(s, "\r\n") {
		t.Errorf("not a field of ours: %q", s)
	}
	if len(s) > maxField {
		t.Errorf("field of %d octets", len(s))
	}
	for i, line := range strings.Split(strings.TrimSuffix(s, "\r\n"), "\r\n") {
		if i > 0 && !strings.HasPrefix(line, "\t") {
			t.Errorf("line %q begins a field of its own", line)
		}
		for _, r := range line {
			if r != '\t' && (r < ' ' || r > '~') {
				t.Errorf("octet %q in the field", r)
			}
		}
	}
}
