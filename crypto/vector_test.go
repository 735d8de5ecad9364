package crypto

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the test vectors anew")

const (
	vectorDir  = "testdata/vectors"
	nodeDir    = "testdata/node"
	vectorPass = "test vector passphrase"
)

// vector is what testdata/vectors/vector.json says. None of its secrets protects anything.
type vector struct {
	ID                 ID         `json:"id"`
	Keycode            string     `json:"keycode"`
	ServerSecret       string     `json:"server_secret"`
	Proof              string     `json:"proof"`
	ProofHash          Digest     `json:"proof_sha256"`
	RecoveryPassphrase string     `json:"recovery_passphrase"`
	SigningKey         string     `json:"signing_key_fingerprint"`
	Head               string     `json:"head"`
	Files              []testFile `json:"files"`
	Wrapped            string     `json:"wrapped"` // hex: "value" in table t, column c, row r
	Lookup             string     `json:"lookup"`  // hex: "ann@xn--bcher-kva.example" in column c
	QueueKey           string     `json:"queue_key"`
	QueuedSHA256       Digest     `json:"queued_sha256"` // of the mail in queued.pgp
}

type testFile struct {
	Name   string `json:"name"`
	SHA256 Digest `json:"sha256"` // of the whole file
}

// diskStore keeps objects under their names in a directory.
type diskStore string

func (d diskStore) put(name string, data []byte) error {
	path := filepath.Join(string(d), "objects", filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

func (d diskStore) read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(string(d), filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// writeVectors seals a package of a small text, an empty file and one of several segments into dir.
func writeVectors(t *testing.T, dir string) {
	t.Helper()
	f := newFixture(t, 64<<10, []byte("Grüße aus dem Test\n"), nil, pattern(150_000))
	keyring, err := NewKeyring(testTime)
	if err != nil {
		t.Fatal(err)
	}
	f.sealer.signer, f.store = keyring.SigningKey(), newMemory()
	f.sealed = sealFiles(t, f.sealer, f.id, f.store, f.files...)
	proof, err := f.sealed.Keycode.Proof(f.id)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := keyring.Wrap("t", "c", "r", []byte("value"))
	if err != nil {
		t.Fatal(err)
	}
	queueKey, mail := newSecret(), pattern(300_000)
	v := vector{
		ID: f.id, Keycode: f.sealed.Keycode.Reveal(), ServerSecret: f.sealed.ServerSecret.Reveal(), Proof: proof.Reveal(),
		ProofHash: f.sealed.ProofHash, RecoveryPassphrase: vectorPass, SigningKey: keyring.VerifyKey().Fingerprint(), Head: f.sealed.Head,
		Wrapped: hex.EncodeToString(wrapped), Lookup: hex.EncodeToString(keyring.LookupAddress("c", "Ann@Bücher.example")),
		QueueKey: encodeSecret(queueKey), QueuedSHA256: sha256.Sum256(mail),
	}
	for i, file := range f.files {
		v.Files = append(v.Files, testFile{Name: fileName(i), SHA256: sha256.Sum256(file)})
	}
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"vector.json":          string(text) + "\n",
		"keyring.json":         armored(t, func(w *bytes.Buffer) error { return keyring.Encode(w) }),
		"recovery-public.asc":  armored(t, func(w *bytes.Buffer) error { return f.recovery.Public().WriteArmored(w) }),
		"recovery-private.asc": armored(t, func(w *bytes.Buffer) error { return f.recovery.WriteArmored(w, []byte(vectorPass)) }),
		"signing-public.asc":   armored(t, func(w *bytes.Buffer) error { return keyring.VerifyKey().WriteArmored(w) }),
		"queued.pgp":           string(sealQueued(t, queueKey[:], mail, 4096)),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range f.store.objects {
		if err := diskStore(dir).put(name, data); err != nil {
			t.Fatal(err)
		}
	}
}

func readVector(t *testing.T, dir string) vector {
	t.Helper()
	var v vector
	if err := json.Unmarshal(diskStore(dir).read(t, "vector.json"), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// What was sealed once must open for ever.
func TestVectorsOpenInGo(t *testing.T) {
	if *update {
		if err := os.RemoveAll(filepath.Join(vectorDir, "objects")); err != nil {
			t.Fatal(err)
		}
		writeVectors(t, vectorDir)
	}
	v, dir := readVector(t, vectorDir), diskStore(vectorDir)
	keyring, err := ReadKeyring(bytes.NewReader(dir.read(t, "keyring.json")))
	if err != nil {
		t.Fatal(err)
	}
	recovery, err := ReadRecoveryPrivateKey(bytes.NewReader(dir.read(t, "recovery-private.asc")), []byte(v.RecoveryPassphrase))
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseKeycode(v.Keycode)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseServerSecret(v.ServerSecret)
	if err != nil {
		t.Fatal(err)
	}
	if proof, err := k.Proof(v.ID); err != nil || proof.Reveal() != v.Proof || proof.Hash() != v.ProofHash {
		t.Errorf("proof differs: %v", err)
	}
	head := dir.read(t, "objects/"+v.Head)
	bySecret, err := OpenHead(bytes.NewReader(head), v.ID, s, k, keyring.VerifyKey())
	if err != nil {
		t.Fatal(err)
	}
	verify, err := ReadVerifyKey(bytes.NewReader(dir.read(t, "signing-public.asc")))
	if err != nil {
		t.Fatal(err)
	}
	byRecovery, err := OpenHeadWithRecoveryKey(bytes.NewReader(head), v.ID, recovery, verify)
	if err != nil {
		t.Fatal(err)
	}
	store := newMemory()
	for _, item := range bySecret.Manifest().Items {
		for _, segment := range item.Segments {
			store.objects[segment.Object] = dir.read(t, "objects/"+segment.Object)
		}
	}
	for _, o := range []*Opened{bySecret, byRecovery} {
		if items := o.Manifest().Items; len(items) != 3 || len(items[2].Segments) != 3 || o.Signature() != Verified {
			t.Fatalf("%d items, %s", len(items), o.Signature())
		}
		for i, file := range v.Files {
			sum := newSum()
			if err := o.WriteItem(t.Context(), store, i, sum); err != nil || sum.digest() != file.SHA256 || o.Manifest().Items[i].Name != file.Name {
				t.Errorf("file %d differs: %v", i, err)
			}
		}
	}
	checkKeyringVector(t, v, dir, keyring)
}

func checkKeyringVector(t *testing.T, v vector, dir diskStore, keyring *Keyring) {
	t.Helper()
	wrapped, err := hex.DecodeString(v.Wrapped)
	if err != nil {
		t.Fatal(err)
	}
	if value, err := keyring.Unwrap("t", "c", "r", wrapped); err != nil || string(value) != "value" {
		t.Errorf("unwrap: %v", err)
	}
	if got := hex.EncodeToString(keyring.Lookup("c", "ann@xn--bcher-kva.example")); got != v.Lookup || keyring.VerifyKey().Fingerprint() != v.SigningKey {
		t.Error("keyring differs")
	}
	queueKey, err := decodeSecret(v.QueueKey, "key")
	if err != nil {
		t.Fatal(err)
	}
	mail, err := openQueued(dir.read(t, "queued.pgp"), queueKey[:])
	if err != nil || sha256.Sum256(mail) != v.QueuedSHA256 {
		t.Errorf("queued mail: %v", err)
	}
	public, err := ReadRecoveryPublicKeys(bytes.NewReader(dir.read(t, "recovery-public.asc")))
	if err != nil || len(public) != 1 || public[0].Check(testTime) != nil {
		t.Errorf("recovery key: %v", err)
	}
}

// An independent implementation opens it too: the kept vectors, and what is sealed right now.
func TestOpenPGPjsOpensWhatGoSealed(t *testing.T) {
	node := nodeWithOpenPGP(t)
	fresh := t.TempDir()
	writeVectors(t, fresh)
	kept, err := filepath.Abs(vectorDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{kept, fresh} {
		v := readVector(t, dir)
		out := run(t, node, "open.mjs", dir)
		var got struct {
			Manifest    string   `json:"manifest"`
			SessionKey  []Digest `json:"session_key"`
			Passphrase  []Digest `json:"passphrase"`
			RecoveryKey []Digest `json:"recovery_key"`
		}
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		m, err := ParseManifest(bytes.NewReader([]byte(got.Manifest)))
		if err != nil || m.Package != v.ID {
			t.Errorf("manifest: %v", err)
		}
		for way, digests := range map[string][]Digest{"session key": got.SessionKey, "passphrase": got.Passphrase, "recovery key": got.RecoveryKey} {
			if len(digests) != len(v.Files) {
				t.Fatalf("%s: %d files", way, len(digests))
			}
			for i, file := range v.Files {
				if digests[i] != file.SHA256 {
					t.Errorf("by %s, file %d differs", way, i)
				}
			}
		}
	}
}

// nodeWithOpenPGP returns the path of Node.js and installs openpgp.js where the script looks for it.
func nodeWithOpenPGP(t *testing.T) string {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("this test needs Node.js 20 or later in PATH, to open sealed packages with openpgp.js")
	}
	if _, err := os.Stat(filepath.Join(nodeDir, "node_modules", "openpgp")); err != nil {
		run(t, "npm", "ci", "--no-audit", "--no-fund")
	}
	return node
}

// run runs a command in the Node directory and returns what it printed.
func run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = nodeDir
	var out, failed bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &failed
	if err := cmd.Run(); err != nil {
		t.Fatal(fmt.Errorf("%s %v: %w\n%s", name, args, err, failed.Bytes()))
	}
	return out.Bytes()
}
