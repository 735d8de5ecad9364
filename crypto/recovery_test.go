package crypto

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

func armored(t testing.TB, write func(*bytes.Buffer) error) string {
	t.Helper()
	var out bytes.Buffer
	if err := write(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func publicArmor(t testing.TB, e *openpgp.Entity) string {
	t.Helper()
	return armored(t, func(w *bytes.Buffer) error { return (&RecoveryPublicKey{entity: e}).WriteArmored(w) })
}

func TestRecoveryKeyFiles(t *testing.T) {
	key, err := GenerateRecoveryKey(testTime)
	if err != nil {
		t.Fatal(err)
	}
	pass := []byte("correct horse — battery")
	private := armored(t, func(w *bytes.Buffer) error { return key.WriteArmored(w, pass) })
	public := armored(t, func(w *bytes.Buffer) error { return key.Public().WriteArmored(w) })
	if !strings.HasPrefix(private, "-----BEGIN PGP PRIVATE KEY BLOCK-----\n") || !strings.HasPrefix(public, "-----BEGIN PGP PUBLIC KEY BLOCK-----\n") {
		t.Error("not armored")
	}
	got, err := ReadRecoveryPrivateKey(strings.NewReader(private), pass)
	if err != nil || got.Fingerprint() != key.Fingerprint() || len(got.Fingerprint()) != 64 {
		t.Fatalf("private half: %v", err)
	}
	if isLocked(key.entity) {
		t.Error("exporting locked the key in memory")
	}
	keys, err := ReadRecoveryPublicKeys(strings.NewReader("a comment\n" + public + "\n" + public))
	if err != nil || len(keys) != 2 || keys[1].Fingerprint() != key.Fingerprint() {
		t.Fatalf("public half: %v", err)
	}
	if err := keys[0].Check(testTime); err != nil {
		t.Error(err)
	}
	// What is sealed to the public file opens with the private one.
	f := newFixture(t, 1000, []byte("x"))
	sealer, err := NewSealer(keys[:1], f.signer, testTime)
	if err != nil {
		t.Fatal(err)
	}
	sealed := sealFiles(t, sealer, f.id, f.store, []byte("y"))
	if _, err := OpenHeadWithRecoveryKey(bytes.NewReader(f.store.objects[sealed.Head]), f.id, got, f.signer.VerifyKey()); err != nil {
		t.Error(err)
	}

	lines := strings.SplitAfter(public, "\n")
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"wrong passphrase":  {readPrivate(private, "wrong"), "does not unlock"},
		"no passphrase":     {readPrivate(private, ""), "no passphrase was given"},
		"public as private": {readPrivate(public, "x"), "public half"},
		"two private keys":  {readPrivate(private+private, "x"), "want one private key"},
		"private as public": {readPublic(private), "private half"},
		"empty":             {readPublic(""), "not an armored OpenPGP key"},
		"text":              {readPublic("hello\n"), "not an armored OpenPGP key"},
		"a message":         {readPublic(strings.ReplaceAll(public, "PUBLIC KEY BLOCK", "MESSAGE")), "not an OpenPGP key"},
		"a torn key":        {readPublic(lines[0] + lines[1] + lines[2] + lines[len(lines)-2]), "damaged"},
		"a huge file":       {readPublic(strings.Repeat("x\n", maxKeyFile)), "over 1048576 bytes"},
		"export unlocked":   {key.WriteArmored(&bytes.Buffer{}, nil), "needs a passphrase"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v", name, c.err)
		}
	}
	if err := readPrivate(private, "wrong"); !errors.Is(err, ErrPassphrase) {
		t.Errorf("wrong passphrase: %v", err)
	}
}

func readPrivate(text, pass string) error {
	_, err := ReadRecoveryPrivateKey(strings.NewReader(text), []byte(pass))
	return err
}

func readPublic(text string) error {
	_, err := ReadRecoveryPublicKeys(strings.NewReader(text))
	return err
}

// makeKey makes a key and reads it from its file, as an admin's would be.
func makeKey(t *testing.T, change func(*packet.Config), alter func(*openpgp.Entity, *packet.Config)) *RecoveryPublicKey {
	t.Helper()
	config := packetConfig(testTime)
	config.V6Keys, config.Algorithm = true, packet.PubKeyAlgoEd25519
	config.MinRSABits = 1024
	change(config)
	e, err := openpgp.NewEntity("admin", "", "", config)
	if err != nil {
		t.Fatal(err)
	}
	alter(e, config)
	keys, err := ReadRecoveryPublicKeys(strings.NewReader(publicArmor(t, e)))
	if err != nil {
		t.Fatal(err)
	}
	return keys[0]
}

// A key that could make anything but our profile, or lose what is sealed to it, is refused before the first mail.
func TestUnfitRecoveryKeyIsRefused(t *testing.T) {
	f := newFixture(t, 1000, []byte("x"))
	keep := func(*openpgp.Entity, *packet.Config) {}
	same := func(*packet.Config) {}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	cases := []struct {
		name   string
		change func(*packet.Config)
		alter  func(*openpgp.Entity, *packet.Config)
		want   string // "" for a key that serves
	}{
		{"as ours", same, keep, ""},
		{"version 4 that announces it", func(c *packet.Config) { c.V6Keys = false }, keep, ""},
		{"RSA 2048 that announces it", func(c *packet.Config) { c.Algorithm = packet.PubKeyAlgoRSA }, keep, ""},
		{"as from GnuPG", func(c *packet.Config) { c.V6Keys, c.AEADConfig = false, nil }, keep, "does not announce AES-256 with GCM"},
		{"OCB only", func(c *packet.Config) { c.AEADConfig = &packet.AEADConfig{DefaultMode: packet.AEADModeOCB} }, keep, "does not announce AES-256 with GCM"},
		{"AES-128 only", func(c *packet.Config) { c.DefaultCipher = packet.CipherAES128 }, keep, "does not announce AES-256 with GCM"},
		{"expired", func(c *packet.Config) { c.KeyLifetimeSecs = 3600 }, keep, "has expired"},
		{"RSA 1024", func(c *packet.Config) { c.Algorithm, c.RSABits = packet.PubKeyAlgoRSA, 1024 }, keep, "rsa"},
		{"signs only", same, func(e *openpgp.Entity, _ *packet.Config) { e.Subkeys = nil }, "cannot be encrypted to"},
		{"revoked", same, func(e *openpgp.Entity, c *packet.Config) { check(e.Revoke(packet.KeyCompromised, "lost", c)) }, "is revoked"},
		{"subkey revoked", same, func(e *openpgp.Entity, c *packet.Config) {
			check(e.Subkeys[0].Revoke(packet.KeyCompromised, "lost", c))
		}, "cannot be encrypted to"},
	}
	for _, c := range cases {
		key := makeKey(t, c.change, c.alter)
		_, err := NewSealer([]*RecoveryPublicKey{f.recovery.Public(), key}, f.signer, testTime.AddDate(0, 0, 1))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), key.Fingerprint())):
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// Every kind of key that is accepted must open what is sealed to it, also when there are several.
func TestEachAcceptedRecoveryKeyOpens(t *testing.T) {
	f := newFixture(t, 1000, []byte("x"))
	var private []*RecoveryPrivateKey
	public := []*RecoveryPublicKey{f.recovery.Public()}
	for _, change := range []func(*packet.Config){
		func(c *packet.Config) { c.V6Keys = true },
		func(c *packet.Config) { c.V6Keys = false },
		func(c *packet.Config) { c.Algorithm = packet.PubKeyAlgoRSA },
		func(c *packet.Config) { c.Algorithm, c.Curve = packet.PubKeyAlgoECDSA, packet.CurveNistP256 },
		func(c *packet.Config) { c.KeyLifetimeSecs = 3600 },
	} {
		config := packetConfig(testTime)
		config.Algorithm = packet.PubKeyAlgoEd25519
		change(config)
		e, err := openpgp.NewEntity("admin", "", "", config)
		if err != nil {
			t.Fatal(err)
		}
		key, err := newRecoveryPrivateKey(e)
		if err != nil {
			t.Fatal(err)
		}
		private, public = append(private, key), append(public, key.Public())
	}
	sealer, err := NewSealer(public, f.signer, testTime.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	sealed := sealFiles(t, sealer, f.id, f.store, []byte("y"))
	for i, key := range private {
		o, err := OpenHeadWithRecoveryKey(bytes.NewReader(f.store.objects[sealed.Head]), f.id, key, f.signer.VerifyKey())
		if err != nil || o.Signature() != Verified {
			t.Errorf("key %d: %v", i, err)
		}
	}
}
