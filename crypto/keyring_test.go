package crypto

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
)

func newTestKeyring(t *testing.T) (*Keyring, string) {
	t.Helper()
	k, err := NewKeyring(testTime)
	if err != nil {
		t.Fatal(err)
	}
	return k, armored(t, func(w *bytes.Buffer) error { return k.Encode(w) })
}

func TestKeyringFile(t *testing.T) {
	k, text := newTestKeyring(t)
	got, err := ReadKeyring(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if again := armored(t, func(w *bytes.Buffer) error { return got.Encode(w) }); again != text {
		t.Error("does not round-trip")
	}
	wrapped, err := k.Wrap("t", "c", "r", []byte("value"))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := got.Unwrap("t", "c", "r", wrapped); err != nil || string(plain) != "value" {
		t.Errorf("unwrap after reading: %v", err)
	}
	if !bytes.Equal(k.Lookup("c", "v"), got.Lookup("c", "v")) {
		t.Error("index key differs")
	}
	// A head that one signs, the other verifies.
	f := newFixture(t, 1000, []byte("x"))
	sealer, err := NewSealer([]*RecoveryPublicKey{f.recovery.Public()}, got.SigningKey(), testTime)
	if err != nil {
		t.Fatal(err)
	}
	sealed := sealFiles(t, sealer, f.id, f.store, []byte("y"))
	o, err := OpenHead(bytes.NewReader(f.store.objects[sealed.Head]), f.id, sealed.ServerSecret, sealed.Keycode, k.VerifyKey())
	if err != nil || o.Signature() != Verified || len(k.VerifyKey().Fingerprint()) != 64 {
		t.Errorf("signing key differs: %v", err)
	}

	secret := regexp.MustCompile(`"index_key": "(.*)"`).FindStringSubmatch(text)[1]
	for name, c := range map[string]struct{ pattern, with, want string }{
		"not JSON":          {`^\{`, `[`, "not a JSON object"},
		"unknown version":   {`"version": 1`, `"version": 2`, "version 2"},
		"unknown field":     {`"active"`, `"x": 1, "active"`, "unknown"},
		"active is missing": {`"active": "[0-9a-f]*",`, ``, "active"},
		"active is another": {`"active": "[0-9a-f]*"`, `"active": "00000000"`, "not among"},
		"bad key id":        {`("wrapping_keys": \{\s*")[0-9a-f]*`, `${1}xyz`, "wrapping_keys"},
		"short index key":   {`("index_key": ").`, `$1`, "index_key"},
		"bad wrapping key":  {`("wrapping_keys": \{\s*"[0-9a-f]*": ").`, `$1`, "wrapping_keys"},
		"bad signing key":   {`("signing_key": ").`, `${1}*`, "signing_key"},
		"torn signing key":  {`("signing_key": ".{40}).*"`, `$1"`, "signing_key"},
		"wrong type":        {`"active": "[0-9a-f]*"`, `"active": 1`, "wrong type"},
	} {
		bad := regexp.MustCompile(c.pattern).ReplaceAllString(text, c.with)
		_, err := ReadKeyring(strings.NewReader(bad))
		if bad == text || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), secret[1:]) {
			t.Errorf("%s: the error tells a key", name)
		}
	}
}

// Promise 5: what the database holds cannot be read without the keyring, nor be moved to another place.
func TestWrap(t *testing.T) {
	k, text := newTestKeyring(t)
	other, _ := newTestKeyring(t)
	value := []byte("secret value")
	wrapped, err := k.Wrap("packages", "server_secret", "42", value)
	if err != nil {
		t.Fatal(err)
	}
	if len(wrapped) != 1+4+12+len(value)+16 || wrapped[0] != 1 || !bytes.Equal(wrapped[1:5], k.wrapping.Load().active[:]) || bytes.Contains(wrapped, value) {
		t.Errorf("wrapped to %x", wrapped)
	}
	again, err := k.Wrap("packages", "server_secret", "42", value)
	if err != nil || bytes.Equal(again, wrapped) {
		t.Error("wraps the same twice")
	}
	if got, err := k.Unwrap("packages", "server_secret", "42", wrapped); err != nil || !bytes.Equal(got, value) {
		t.Errorf("unwrap: %v", err)
	}
	empty, err := k.Wrap("t", "c", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.Unwrap("t", "c", "", empty); err != nil || len(got) != 0 {
		t.Errorf("empty value: %v", err)
	}
	for _, place := range [][3]string{{"items", "server_secret", "42"}, {"packages", "name", "42"}, {"packages", "server_secret", "43"}, {"packages", "server", "_secret42"}, {"", "", ""}} {
		if _, err := k.Unwrap(place[0], place[1], place[2], wrapped); !errors.Is(err, ErrUnwrap) {
			t.Errorf("at %q: %v", place, err)
		}
	}
	for at := range wrapped {
		_, err := k.Unwrap("packages", "server_secret", "42", flip(wrapped, at, at%8))
		want := ErrUnwrap
		if at >= 1 && at < 5 {
			want = ErrUnknownKey
		}
		if !errors.Is(err, want) {
			t.Errorf("flipped at %d: %v", at, err)
		}
		if _, err := k.Unwrap("packages", "server_secret", "42", wrapped[:at]); !errors.Is(err, ErrUnwrap) {
			t.Errorf("cut to %d: %v", at, err)
		}
	}
	if _, err := other.Unwrap("packages", "server_secret", "42", wrapped); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("another keyring: %v", err)
	}
	if _, err := k.Wrap("a\x00b", "c", "r", value); err == nil {
		t.Error("an ambiguous place was accepted")
	}
	// A retired key still unwraps.
	rotated := strings.Replace(text, `"active": "`+hex.EncodeToString(k.wrapping.Load().active[:]), `"active": "0badcafe`, 1)
	rotated = strings.Replace(rotated, `"wrapping_keys": {`, `"wrapping_keys": {"0badcafe": "`+encodeSecret(newSecret())+`",`, 1)
	next, err := ReadKeyring(strings.NewReader(rotated))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := next.Unwrap("packages", "server_secret", "42", wrapped); err != nil || !bytes.Equal(got, value) {
		t.Errorf("under a retired key: %v", err)
	}
	if fresh, err := next.Wrap("t", "c", "r", value); err != nil || !bytes.Equal(fresh[1:5], []byte{0x0b, 0xad, 0xca, 0xfe}) {
		t.Errorf("under the new key: %v", err)
	}
}

func TestLookup(t *testing.T) {
	k, _ := newTestKeyring(t)
	mac := hmac.New(sha256.New, k.index[:])
	mac.Write([]byte("message_id\x00<A@b>"))
	if !bytes.Equal(k.Lookup("message_id", "<A@b>"), mac.Sum(nil)) {
		t.Error("not HMAC-SHA256 of column, zero and value")
	}
	if !bytes.Equal(k.LookupAddress("address", " Ann@EXAMPLE.com"), k.Lookup("address", "ann@example.com")) {
		t.Error("an address is not looked up in its canonical form")
	}
	if bytes.Equal(k.Lookup("a", "v"), k.Lookup("b", "v")) {
		t.Error("columns share their values")
	}
}

func TestCanonicalAddress(t *testing.T) {
	if got := CanonicalAddress(" \tAnn.Lee@Example.COM\r\n"); got != "ann.lee@example.com" {
		t.Errorf("white space stays: %q", got)
	}
	for in, want := range map[string]string{
		"ann@example.com":           "ann@example.com",
		"ann@bücher.example":        "ann@xn--bcher-kva.example",
		"ann@BÜCHER.example":        "ann@xn--bcher-kva.example",
		"ann@bu\u0308cher.example":  "ann@xn--bcher-kva.example",
		"ann@xn--bcher-kva.example": "ann@xn--bcher-kva.example",
		"JÖRG@example.com":          "jörg@example.com",
		"postmaster":                "postmaster",
		"POSTMASTER":                "postmaster",
		"ann@[192.0.2.1]":           "ann@[192.0.2.1]",
		"ann@[IPv6:2001:DB8::1]":    "ann@[ipv6:2001:db8::1]",
		`"a@b"@Example.com`:         `"a@b"@example.com`,
		"ann@-Bad-.example":         "ann@-bad-.example",
		"":                          "",
		"@":                         "@",
		"ann@under_score.example":   "ann@under_score.example",
		"ann@faß.example":           "ann@xn--fa-hia.example",
	} {
		got := CanonicalAddress(in)
		if got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
		if again := CanonicalAddress(got); again != got {
			t.Errorf("%q: %q becomes %q", in, got, again)
		}
	}
}

func sealQueued(t testing.TB, key, mail []byte, step int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := SealQueued(&out, key)
	if err != nil {
		t.Fatal(err)
	}
	for rest := mail; len(rest) > 0; {
		n := min(step, len(rest))
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("wrote after close")
	}
	if err := w.Close(); err == nil {
		t.Error("closed twice")
	}
	return out.Bytes()
}

func openQueued(sealed, key []byte) ([]byte, error) {
	r, err := OpenQueued(bytes.NewReader(sealed), key)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// A waiting mail comes back whole or not at all: it must never be relayed short.
func TestQueuedMail(t *testing.T) {
	key := NewQueueKey()
	for _, size := range []int{0, 1, 511, 512, 1000, chunkSize - 12, chunkSize, chunkSize + 1, 1_000_000} {
		mail := pattern(size)
		for _, step := range []int{17, 100_000} {
			sealed := sealQueued(t, key, mail, step)
			got, err := openQueued(sealed, key)
			if err != nil || !bytes.Equal(got, mail) {
				t.Errorf("%d bytes in steps of %d: %v", size, step, err)
			}
			if _, err := openQueued(sealed, NewQueueKey()); !errors.Is(err, ErrAltered) {
				t.Errorf("%d bytes, another key: %v", size, err)
			}
		}
	}
	mail := pattern(600_000)
	sealed := sealQueued(t, key, mail, 4096)
	if len(sealed) > len(mail)+1000 {
		t.Errorf("%d bytes became %d", len(mail), len(sealed))
	}
	for n := 0; n < len(sealed); n += 1 + n/40 {
		if _, err := openQueued(sealed[:n], key); !errors.Is(err, ErrAltered) {
			t.Errorf("cut to %d: %v", n, err)
		}
		if _, err := openQueued(flip(sealed, n, n%8), key); !errors.Is(err, ErrAltered) {
			t.Errorf("flipped at %d: %v", n, err)
		}
	}
	for n := range 20 {
		if _, err := openQueued(sealed[:len(sealed)-1-n], key); !errors.Is(err, ErrAltered) {
			t.Errorf("cut by %d: %v", n+1, err)
		}
	}
	if _, err := openQueued(append(bytes.Clone(sealed), 0), key); !errors.Is(err, ErrAltered) {
		t.Errorf("extended: %v", err)
	}
	r, err := OpenQueued(io.MultiReader(bytes.NewReader(sealed[:300_000]), iotest.ErrReader(errTest)), key)
	if err == nil {
		_, err = io.ReadAll(r)
	}
	if !errors.Is(err, errTest) || errors.Is(err, ErrAltered) {
		t.Errorf("a failed read: %v", err)
	}
	w, err := SealQueued(failingWriter{}, key)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(mail[:100])
	if err := w.Close(); !errors.Is(err, errTest) {
		t.Errorf("a failed write: %v", err)
	}
	if _, err := SealQueued(io.Discard, key[:16]); err == nil {
		t.Error("took a short key")
	}
}

func FuzzOpenQueued(f *testing.F) {
	key := make([]byte, sessionKeySize)
	for _, size := range []int{0, 10, 2000} {
		f.Add(sealQueued(f, key, pattern(size), 100))
	}
	f.Add([]byte{headerSEIPD, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2, 9, 3, 12})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		got, err := openQueued(sealed, key)
		if err != nil {
			if !errors.Is(err, ErrAltered) {
				t.Errorf("the error has no kind: %v", err)
			}
			return
		}
		if !bytes.Equal(got, pattern(len(got))) {
			t.Error("opened something that was never sealed")
		}
	})
}

func TestPasswords(t *testing.T) {
	p := NewPasswords()
	ctx := t.Context()
	hash, err := p.Hash(ctx, "pässword")
	if err != nil || !regexp.MustCompile(`^\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$`).MatchString(hash) {
		t.Fatalf("hash %q, %v", hash, err)
	}
	if again, err := p.Hash(ctx, "pässword"); err != nil || again == hash {
		t.Error("hashes repeat")
	}
	for _, password := range []string{"pässword", "passwort", "", "pässword "} {
		if ok, err := p.Verify(ctx, hash, password); err != nil || ok != (password == "pässword") {
			t.Errorf("%q: %v, %v", password, ok, err)
		}
	}
	// Made by the reference implementation: argon2 somesalt -id -t 2 -m 16 -p 1 over "password".
	const reference = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	if ok, err := p.Verify(ctx, reference, "password"); err != nil || !ok {
		t.Errorf("reference hash: %v, %v", ok, err)
	}
	if err := p.VerifyDummy(ctx, "x"); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{
		"", "plain", "$argon2i$" + hash[10:], strings.Replace(hash, "v=19", "v=16", 1), strings.Replace(hash, "m=19456", "m=4194304", 1),
		strings.Replace(hash, "t=2", "t=0", 1), strings.Replace(hash, "t=2", "t=99", 1), strings.Replace(hash, "p=1", "p=0", 1),
		strings.Replace(hash, "p=1", "p=1,x=2", 1), hash + "=", hash + "$", hash[:len(hash)-30], strings.Replace(hash, "m=19456", "m=019456", 1),
	} {
		if _, err := p.Verify(ctx, bad, "pässword"); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

// At most two hashes run at once; who waits can be called off.
func TestPasswordsWaitTheirTurn(t *testing.T) {
	p := NewPasswords()
	p.slots <- struct{}{}
	p.slots <- struct{}{}
	canceled, cancel := context.WithCancel(t.Context())
	ctx := watchedContext{canceled, make(chan struct{}, 1)}
	done := make(chan error)
	go func() { done <- p.VerifyDummy(ctx, "x") }()
	<-ctx.waiting
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("called off: %v", err)
	}
	<-p.slots
	if _, err := p.Hash(t.Context(), "x"); err != nil {
		t.Error(err)
	}
}

// watchedContext tells when somebody waits for it.
type watchedContext struct {
	context.Context //nolint:containedctx // it is one
	waiting         chan struct{}
}

func (c watchedContext) Done() <-chan struct{} {
	select {
	case c.waiting <- struct{}{}:
	default:
	}
	return c.Context.Done()
}

func TestReadVerifyKeyTakesOneSigningKey(t *testing.T) {
	recovery, err := GenerateRecoveryKey(testTime)
	if err != nil {
		t.Fatal(err)
	}
	k, _ := newTestKeyring(t)
	good := armored(t, func(w *bytes.Buffer) error { return k.VerifyKey().WriteArmored(w) })
	if key, err := ReadVerifyKey(strings.NewReader(good)); err != nil || key.Fingerprint() != k.VerifyKey().Fingerprint() {
		t.Error(err)
	}
	private := armored(t, func(w *bytes.Buffer) error { return recovery.WriteArmored(w, []byte("x")) })
	for name, bad := range map[string]string{"two keys": good + good, "private": private, "no key": "x"} {
		if _, err := ReadVerifyKey(strings.NewReader(bad)); err == nil {
			t.Errorf("accepted %s", name)
		}
	}
}
