package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sealpost/crypto"
	"sealpost/sfclient/sftest"
)

// sealedNode is a running gateway through which some mails have gone, with their links.
func sealedNode(t *testing.T, mails int) (n *node, links []string, content []byte) {
	t.Helper()
	org := startOrg(t, sftest.Options{})
	n = install(t, filepath.Join(t.TempDir(), "gw"), org.Addr())
	n.start(t, "sealpost")
	content = bytes.Repeat([]byte("content\n"), 10_000)
	for i := range mails {
		if err := n.send("jane@customer.example", bytes.NewReader(mailWith(fmt.Sprint("rotate ", i), "text", content))); err != nil {
			t.Fatal(err)
		}
	}
	for _, mail := range waitMails(t, org, mails) {
		links = append(links, theLink(t, mail))
	}
	return n, links, content
}

func (n *node) opensAll(t *testing.T, when string, links []string, content []byte) {
	t.Helper()
	for _, link := range links {
		if files := n.open(t, link); !bytes.Equal(files["file.bin"], content) {
			t.Errorf("%s a link opens to %d files", when, len(files))
		}
	}
}

// TestKeyringRotatesUnderARunningGateway: it takes the new key up by itself, and links open before, between and after.
func TestKeyringRotatesUnderARunningGateway(t *testing.T) {
	n, links, content := sealedNode(t, 2)
	before := readFile(t, filepath.Join(n.dir, "keyring"))
	n.opensAll(t, "before", links, content)
	out := n.must(t, "keyring", "rotate", "--config", n.config(), "--limit", "3")
	if !strings.Contains(out, "more are left") {
		t.Errorf("it did not stop:\n%s", out)
	}
	n.opensAll(t, "in between", links, content)
	n.must(t, "keyring", "rotate", "--config", n.config())
	n.opensAll(t, "after", links, content)
	n.stop(t)
	if strings.Contains(n.logs.String(), "level=ERROR") {
		t.Errorf("the gateway had trouble:\n%s", n.logs.String())
	}
	change(t, n, fmt.Sprintf("UPDATE wrapping_keys SET since = since - %d", (3*time.Hour).Microseconds()))
	out = n.must(t, "keyring", "prune", "--config", n.config())
	if !strings.Contains(out, "1 keys were removed") {
		t.Error(out)
	}
	after := readFile(t, filepath.Join(n.dir, "keyring"))
	if bytes.Equal(before, after) || bytes.Count(after, []byte("\n")) != bytes.Count(before, []byte("\n")) {
		t.Error("the keyring does not have one other key")
	}
	n.start(t, "sealpost")
	n.opensAll(t, "without the former key", links, content)
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// newRecoveryKey makes a recovery key, names its public half in the configuration, and returns the private file.
func (n *node) newRecoveryKey(t *testing.T) string {
	t.Helper()
	key, err := crypto.GenerateRecoveryKey(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var public, private bytes.Buffer
	if err := key.Public().WriteArmored(&public); err != nil {
		t.Fatal(err)
	}
	if err := key.WriteArmored(&private, []byte("recovery-passphrase")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "new-private.asc")
	for path, data := range map[string][]byte{filepath.Join(n.dir, "new.asc"): public.Bytes(), file: private.Bytes()} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	replaceInConfig(t, n, publicKeyName, "new.asc")
	return file
}

// heads returns the files of heads in the blob store.
func heads(t *testing.T, n *node) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(n.dir, "data", "blobs", "*", "*", "*.h.*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestRecoveryKeyRotates: under a running gateway, broken off and gone on with; what a crash left behind is removed.
func TestRecoveryKeyRotates(t *testing.T) {
	n, links, content := sealedNode(t, 5)
	old := n.dir + "-recovery-private.asc"
	fresh := n.newRecoveryKey(t)
	args := []string{"recovery", "rotate", "--config", n.config(), "--key", old}
	for _, step := range []struct {
		more []string
		want string
	}{
		{[]string{"--dry-run"}, "5 heads would be rewritten, 0 are"},
		{[]string{"--limit", "2"}, "2 heads were rewritten, 0 are"},
	} {
		if out := n.must(t, append(args, step.more...)...); !strings.Contains(out, step.want) {
			t.Errorf("%v:\n%s", step.more, out)
		}
	}
	n.opensAll(t, "in between", links, content)
	first := heads(t, n)[0]
	leftover := strings.Replace(strings.Replace(first, ".h.1.", ".h.7.", 1), ".h.2.", ".h.7.", 1)
	if err := os.WriteFile(leftover, readFile(t, first), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"3 heads were rewritten, 2 are", "0 heads were rewritten, 5 are"} {
		if out := n.must(t, args...); !strings.Contains(out, want) {
			t.Errorf("want %q:\n%s", want, out)
		}
	}
	if _, err := os.Stat(leftover); !os.IsNotExist(err) {
		t.Errorf("the head that a crash left behind: %v", err)
	}
	n.opensAll(t, "after", links, content)
	if out := n.must(t, "recover", "--config", n.config(), "--key", fresh); strings.Count(out, " verified ") != 5 {
		t.Errorf("by the new key:\n%s", out)
	}
	if out, err := n.command(t.Context(), "recover", "--config", n.config(), "--key", old); err == nil || strings.Contains(out, "verified") {
		t.Errorf("by the old key: %v\n%s", err, out)
	}
	// Back again; the old key is no use for that.
	replaceInConfig(t, n, "new.asc", publicKeyName)
	if out, err := n.command(t.Context(), args...); err == nil || !strings.Contains(out, "5 heads could not be rewritten") {
		t.Errorf("with a key that nothing is sealed to: %v\n%s", err, out)
	}
	args[len(args)-1] = fresh
	n.must(t, args...)
	if out := n.must(t, "recover", "--config", n.config(), "--key", old); strings.Count(out, " verified ") != 5 {
		t.Errorf("by the first key again:\n%s", out)
	}
	n.opensAll(t, "after the second time", links, content)
}

// TestRecoveryRotationSurvivesKill: killed in the middle, it is gone on with; no head is lost and none is left over.
func TestRecoveryRotationSurvivesKill(t *testing.T) {
	const mails = 40
	n, links, content := sealedNode(t, mails)
	n.stop(t)
	fresh := n.newRecoveryKey(t)
	args := []string{"recovery", "rotate", "--config", n.config(), "--key", n.dir + "-recovery-private.asc"}
	cmd := exec.Command("sealpost", args...)
	cmd.Env = append(os.Environ(), recoveryVariable+"=recovery-passphrase")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	begun := func() bool {
		return slices.ContainsFunc(heads(t, n), func(path string) bool { return strings.Contains(path, ".h.2.") })
	}
	if !eventually(begun) {
		t.Error("it does not begin")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()                 // killed, as it was to be
	if rowsOf(t, n, "work") == 1 { // else it was over before it was killed
		if out, err := n.command(t.Context(), args...); err == nil || !strings.Contains(out, "another process rewrites heads") {
			t.Errorf("at once: %v\n%s", err, out)
		}
	}
	change(t, n, "DELETE FROM work") // or two minutes had to go by
	n.must(t, args...)
	n.start(t, "sealpost")
	if !eventually(func() bool { return len(heads(t, n)) == mails }) {
		t.Errorf("%d heads are left of %d packages", len(heads(t, n)), mails)
	}
	n.opensAll(t, "after the kill", links[:3], content)
	if out := n.must(t, "recover", "--config", n.config(), "--key", fresh); strings.Count(out, " verified ") != mails {
		t.Errorf("by the new key:\n%s", out)
	}
}
