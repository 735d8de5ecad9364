package crypto

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func newRecovery(t *testing.T) *RecoveryPrivateKey {
	t.Helper()
	key, err := GenerateRecoveryKey(testTime)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sealerTo(t *testing.T, signer *SigningKey, keys ...*RecoveryPrivateKey) *Sealer {
	t.Helper()
	var public []*RecoveryPublicKey
	for _, key := range keys {
		public = append(public, key.Public())
	}
	s, err := NewSealer(public, signer, testTime)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func rewritten(t *testing.T, s *Sealer, head []byte, old *RecoveryPrivateKey) []byte {
	t.Helper()
	r, err := s.RewriteHead(bytes.NewReader(head), old)
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func sealsTo(t *testing.T, s *Sealer, head []byte) bool {
	t.Helper()
	is, err := s.SealsTo(bytes.NewReader(head))
	if err != nil {
		t.Fatal(err)
	}
	return is
}

// A rewritten head opens by the passphrase and by each new key, not by the old one; what is encrypted is as it was.
func TestRewriteHead(t *testing.T) {
	f := newFixture(t, 1000, []byte("x"), pattern(5000))
	next, second := newRecovery(t), newRecovery(t)
	both := sealerTo(t, f.signer, next, second)
	head := rewritten(t, both, f.head(), f.recovery)
	if bytes.Equal(head, f.head()) || !bytes.Equal(head[len(head)-200:], f.head()[len(f.head())-200:]) {
		t.Error("the encrypted manifest differs")
	}
	verify := f.signer.VerifyKey()
	o, err := OpenHead(bytes.NewReader(head), f.id, f.sealed.ServerSecret, f.sealed.Keycode, verify)
	if err != nil || o.Signature() != Verified {
		t.Fatalf("by the passphrase: %v", err)
	}
	for _, key := range []*RecoveryPrivateKey{next, second} {
		byKey, err := OpenHeadWithRecoveryKey(bytes.NewReader(head), f.id, key, verify)
		if err != nil {
			t.Fatalf("by a new key: %v", err)
		}
		var out bytes.Buffer
		if err := byKey.WriteItem(t.Context(), f.store, 1, &out); err != nil || !bytes.Equal(out.Bytes(), f.files[1]) {
			t.Errorf("the file: %v", err)
		}
	}
	if _, err := OpenHeadWithRecoveryKey(bytes.NewReader(head), f.id, f.recovery, verify); !errors.Is(err, ErrNotForKey) {
		t.Errorf("by the old key: %v", err)
	}
	// And on: from one of the two to a third.
	again := rewritten(t, sealerTo(t, f.signer, f.recovery), head, second)
	if _, err := OpenHeadWithRecoveryKey(bytes.NewReader(again), f.id, f.recovery, verify); err != nil || len(again) != len(f.head()) {
		t.Errorf("the second time: %v, %d bytes", err, len(again))
	}
	if _, err := both.RewriteHead(bytes.NewReader(head), f.recovery); !errors.Is(err, ErrNotForKey) {
		t.Errorf("with a key that it is not sealed to: %v", err)
	}
	if _, err := both.RewriteHead(bytes.NewReader(head[:100]), next); !errors.Is(err, ErrAltered) {
		t.Errorf("a cut head: %v", err)
	}
}

// What is sealed to exactly the wanted keys need not be rewritten.
func TestSealsTo(t *testing.T) {
	f := newFixture(t, 1000, []byte("x"))
	next := newRecovery(t)
	old, one, two := f.sealer, sealerTo(t, f.signer, next), sealerTo(t, f.signer, f.recovery, next)
	for name, c := range map[string]struct {
		sealer *Sealer
		head   []byte
		want   bool
	}{
		"as sealed":    {old, f.head(), true},
		"another key":  {one, f.head(), false},
		"one more":     {two, f.head(), false},
		"both":         {two, rewritten(t, two, f.head(), f.recovery), true},
		"one less":     {one, rewritten(t, two, f.head(), f.recovery), false},
		"rewritten":    {one, rewritten(t, one, f.head(), f.recovery), true},
		"the old gone": {old, rewritten(t, one, f.head(), f.recovery), false},
	} {
		if got := sealsTo(t, c.sealer, c.head); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if _, err := old.SealsTo(bytes.NewReader(f.head()[:100])); !errors.Is(err, ErrAltered) {
		t.Errorf("a cut head: %v", err)
	}
}

// An independent implementation opens a rewritten head too, by the passphrase and by the new recovery key.
func TestOpenPGPjsOpensRewrittenHead(t *testing.T) {
	node := nodeWithOpenPGP(t)
	dir := t.TempDir()
	writeVectors(t, dir)
	v := readVector(t, dir)
	store := diskStore(dir)
	old, err := ReadRecoveryPrivateKey(bytes.NewReader(store.read(t, "recovery-private.asc")), []byte(vectorPass))
	if err != nil {
		t.Fatal(err)
	}
	keyring, err := ReadKeyring(bytes.NewReader(store.read(t, "keyring.json")))
	if err != nil {
		t.Fatal(err)
	}
	next := newRecovery(t)
	head := rewritten(t, sealerTo(t, keyring.SigningKey(), next), store.read(t, "objects/"+v.Head), old)
	private := armored(t, func(w *bytes.Buffer) error { return next.WriteArmored(w, []byte(vectorPass)) })
	for name, data := range map[string][]byte{"objects/" + v.Head: head, "recovery-private.asc": []byte(private)} {
		if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(name)), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var got struct {
		Passphrase  []Digest `json:"passphrase"`
		RecoveryKey []Digest `json:"recovery_key"`
	}
	if err := json.Unmarshal(run(t, node, "open.mjs", dir), &got); err != nil {
		t.Fatal(err)
	}
	for i, file := range v.Files {
		if got.Passphrase[i] != file.SHA256 || got.RecoveryKey[i] != file.SHA256 {
			t.Errorf("file %d differs", i)
		}
	}
}
