package crypto

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// regions returns where the packets of a head begin, and its length.
func regions(t *testing.T, head []byte) (pkesk, skesk, seipd, end int) {
	t.Helper()
	r := bytes.NewReader(head)
	var starts []int
	for {
		starts = append(starts, len(head)-r.Len())
		if _, err := packet.NewOpaqueReader(r).Next(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if len(starts) != 4 {
		t.Fatalf("the head has %d packets", len(starts)-1)
	}
	return starts[0], starts[1], starts[2], starts[3]
}

func flip(data []byte, at, bit int) []byte {
	out := bytes.Clone(data)
	out[at] ^= 1 << bit
	return out
}

// A flipped bit of the head shuts whatever it protects: each way of opening fails if its own part, or the
// manifest, is touched; none ever gives another manifest.
func TestHeadWithFlippedBitDoesNotOpen(t *testing.T) {
	f := newFixture(t, 1000, []byte("text"))
	pkesk, skesk, seipd, end := regions(t, f.head())
	bySecret := func(head []byte) error {
		_, err := OpenHead(bytes.NewReader(head), f.id, f.sealed.ServerSecret, f.sealed.Keycode, f.signer.VerifyKey())
		return err
	}
	byRecovery := func(head []byte) error {
		_, err := OpenHeadWithRecoveryKey(bytes.NewReader(head), f.id, f.recovery, f.signer.VerifyKey())
		return err
	}
	for at := range end {
		head := flip(f.head(), at, at%8)
		if at >= seipd || at < skesk {
			if err := byRecovery(head); !isExpected(err) {
				t.Errorf("recovery key, byte %d of [%d %d %d %d]: %v", at, pkesk, skesk, seipd, end, err)
			}
		}
		if at >= skesk {
			if err := bySecret(head); !isExpected(err) {
				t.Errorf("passphrase, byte %d of [%d %d %d %d]: %v", at, pkesk, skesk, seipd, end, err)
			}
		}
	}
}

func isExpected(err error) bool {
	return errors.Is(err, ErrAltered) || errors.Is(err, ErrWrongSecret) || errors.Is(err, ErrNotForKey)
}

func TestCutOrExtendedHeadDoesNotOpen(t *testing.T) {
	f := newFixture(t, 1000, []byte("text"))
	heads := map[string][]byte{"extended": append(bytes.Clone(f.head()), 0), "doubled": append(bytes.Clone(f.head()), f.head()...)}
	for n := range len(f.head()) {
		heads[fmt.Sprint("cut to ", n)] = f.head()[:n]
	}
	for name, head := range heads {
		if _, err := OpenHead(bytes.NewReader(head), f.id, f.sealed.ServerSecret, f.sealed.Keycode, nil); !isExpected(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	failing := io.MultiReader(bytes.NewReader(f.head()[:100]), iotest.ErrReader(errTest))
	if _, err := OpenHead(failing, f.id, f.sealed.ServerSecret, f.sealed.Keycode, nil); !errors.Is(err, errTest) || errors.Is(err, ErrAltered) {
		t.Errorf("a failed read is %v", err)
	}
}

// Promise 5: neither half alone opens anything, nor do halves of two packages.
func TestHeadNeedsBothRightHalves(t *testing.T) {
	f := newFixture(t, 1000, []byte("text"))
	other := sealFiles(t, f.sealer, ID{9}, f.store, []byte("other"))
	stranger := newFixture(t, 1000, []byte("x"))
	cases := []struct {
		name string
		s    ServerSecret
		k    Keycode
	}{
		{"no server secret", ServerSecret{}, f.sealed.Keycode},
		{"no keycode", f.sealed.ServerSecret, Keycode{}},
		{"another's server secret", other.ServerSecret, f.sealed.Keycode},
		{"another's keycode", f.sealed.ServerSecret, other.Keycode},
		{"the halves swapped", ServerSecret{raw: f.sealed.Keycode.raw}, Keycode{raw: f.sealed.ServerSecret.raw}},
	}
	for _, c := range cases {
		if _, err := OpenHead(bytes.NewReader(f.head()), f.id, c.s, c.k, nil); !errors.Is(err, ErrWrongSecret) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := OpenHeadWithRecoveryKey(bytes.NewReader(f.head()), f.id, stranger.recovery, nil); !errors.Is(err, ErrNotForKey) {
		t.Errorf("another's recovery key: %v", err)
	}
	// The head of another package, with its own right secrets, under this package's ID.
	swapped := bytes.NewReader(f.store.objects[other.Head])
	if _, err := OpenHead(swapped, f.id, other.ServerSecret, other.Keycode, f.signer.VerifyKey()); !errors.Is(err, ErrAltered) {
		t.Errorf("the head of another package: %v", err)
	}
}

func TestSignatureIsVerifiedOrSaidNotToBe(t *testing.T) {
	f := newFixture(t, 1000, []byte("text"))
	stranger := newFixture(t, 1000, []byte("x"))
	o, err := OpenHead(bytes.NewReader(f.head()), f.id, f.sealed.ServerSecret, f.sealed.Keycode, nil)
	if err != nil || o.Signature() != Unverified {
		t.Errorf("without a key: %v", err)
	}
	if _, err := OpenHead(bytes.NewReader(f.head()), f.id, f.sealed.ServerSecret, f.sealed.Keycode, stranger.signer.VerifyKey()); !errors.Is(err, ErrSignature) {
		t.Errorf("with another's key: %v", err)
	}
}

// forgeHead seals a head as the package's own, around whatever write puts into it.
func (f *fixture) forgeHead(t *testing.T, write func(w io.WriteCloser)) []byte {
	t.Helper()
	key := f.open(t).sessionKey
	_, _, seipd, _ := regions(t, f.head())
	head := bytes.NewBuffer(bytes.Clone(f.head()[:seipd]))
	body, err := encryptTo(head, key)
	if err != nil {
		t.Fatal(err)
	}
	write(body)
	if err := body.Close(); err != nil {
		t.Fatal(err)
	}
	return head.Bytes()
}

type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }

// Whoever can open a package can encrypt under its session key. What is not signed by the gateway, or not of
// the right form, is refused all the same.
func TestForgedHeadDoesNotOpen(t *testing.T) {
	f := newFixture(t, 1000, []byte("text"))
	m := f.open(t).Manifest()
	text, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	literal := func(w io.Writer) {
		l, err := packet.SerializeLiteral(keepOpen{w}, true, "", 0)
		check(err)
		_, err = l.Write(text)
		check(err)
		check(l.Close())
	}
	var signed bytes.Buffer
	check(f.signer.sign(&signed, text, testTime))
	stranger := newFixture(t, 1000, []byte("x"))
	heads := map[string][]byte{
		"as it should be": f.forgeHead(t, func(w io.WriteCloser) { check(f.signer.sign(w, text, testTime)) }),
		"not signed":      f.forgeHead(t, func(w io.WriteCloser) { literal(w) }),
		"signed by another": f.forgeHead(t, func(w io.WriteCloser) {
			check(stranger.signer.sign(w, text, testTime))
		}),
		"another text": f.forgeHead(t, func(w io.WriteCloser) {
			_, err := w.Write(bytes.Replace(signed.Bytes(), []byte(`"mail"`), []byte(`"liam"`), 1))
			check(err)
		}),
		"a packet more": f.forgeHead(t, func(w io.WriteCloser) {
			check(f.signer.sign(w, text, testTime))
			literal(w)
		}),
		"compressed": f.forgeHead(t, func(w io.WriteCloser) {
			c, err := packet.SerializeCompressed(keepOpen{w}, packet.CompressionZIP, nil)
			check(err)
			check(f.signer.sign(c, text, testTime))
			check(c.Close())
		}),
		"compressed inside the signature": f.forgeHead(t, func(w io.WriteCloser) { signCompressed(t, w, f.signer, text) }),
		"no manifest": f.forgeHead(t, func(w io.WriteCloser) {
			check(f.signer.sign(w, []byte(`{"version":1}`), testTime))
		}),
	}
	for name, head := range heads {
		_, err := OpenHead(bytes.NewReader(head), f.id, f.sealed.ServerSecret, f.sealed.Keycode, f.signer.VerifyKey())
		if name == "as it should be" {
			check(err)
		} else if !errors.Is(err, ErrAltered) && !errors.Is(err, ErrSignature) && !errors.Is(err, ErrManifest) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// signCompressed writes one-pass signature, compressed literal, signature: valid OpenPGP, but not ours.
func signCompressed(t *testing.T, w io.Writer, key *SigningKey, text []byte) {
	t.Helper()
	var signed bytes.Buffer
	config := packetConfig(testTime)
	in, err := openpgp.SignWithParams(&signed, []*openpgp.Entity{key.entity}, &openpgp.SignParams{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = in.Write(text)
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	r := packet.NewOpaqueReader(&signed)
	for {
		op, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if op.Tag != 11 {
			if err := op.Serialize(w); err != nil {
				t.Fatal(err)
			}
			continue
		}
		c, err := packet.SerializeCompressed(keepOpen{w}, packet.CompressionZIP, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := op.Serialize(c); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Promise: a cut or altered stream is a failed download, never a short or wrong file.
func TestAlteredSegmentIsAnError(t *testing.T) {
	const segment = 600_000 // three chunks
	files := [][]byte{pattern(2 * segment), pattern(segment)}
	f := newFixture(t, segment, files...)
	o := f.open(t)
	first, second, third := f.sealed.Objects[0].Name, f.sealed.Objects[1].Name, f.sealed.Objects[2].Name
	object := f.store.objects[first]

	altered := map[string]*memory{
		"swapped with the next one":       f.store.with(first, f.store.objects[second]),
		"swapped with its twin elsewhere": f.store.with(first, f.store.objects[third]),
		"extended":                        f.store.with(first, append(bytes.Clone(object), 0)),
		"followed by another":             f.store.with(first, append(bytes.Clone(object), f.store.objects[second]...)),
		"empty":                           f.store.with(first, nil),
		"the head":                        f.store.with(first, f.head()),
	}
	rng := rand.New(rand.NewPCG(1, 2))
	cuts := []int{1, 2, 3, 38, 39, 40, chunkSize, chunkSize + 16, len(object) - 1, len(object) - 16, len(object) - 17}
	flips := []int{0, 1, 2, 3, 4, 5, 6, 37, 38, chunkSize, len(object) - 1, len(object) - 16, len(object) - 17}
	for range 40 {
		cuts = append(cuts, rng.IntN(len(object)))
		flips = append(flips, rng.IntN(len(object)))
	}
	for _, n := range cuts {
		altered[fmt.Sprint("cut to ", n)] = f.store.with(first, object[:n])
	}
	for i, n := range flips {
		altered[fmt.Sprint("flipped at ", n)] = f.store.with(first, flip(object, n, i%8))
	}
	for name, store := range altered {
		var got bytes.Buffer
		if err := o.WriteItem(t.Context(), store, 0, &got); !errors.Is(err, ErrAltered) {
			t.Errorf("%s: %v", name, err)
		}
		if got.Len() > len(files[0]) {
			t.Errorf("%s: wrote %d bytes", name, got.Len())
		}
	}
}

// reseal stores other packets in the place of an object, with sums that agree, to see that the form of the
// object is verified by itself.
func TestSegmentOfAnotherFormIsAnError(t *testing.T) {
	f := newFixture(t, 1000, []byte("0123456789"))
	name := f.sealed.Objects[0].Name
	literal := func(w io.Writer, binary bool, fileName string, text string) {
		l, err := packet.SerializeLiteral(keepOpen{w}, binary, fileName, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(l, text)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cases := map[string]struct {
		suite packet.CipherSuite
		chunk uint64
		write func(w io.Writer)
		want  error
	}{
		"as it should be": {cipherSuite(), chunkSize, func(w io.Writer) { literal(w, true, "", "0123456789") }, nil},
		"text":            {cipherSuite(), chunkSize, func(w io.Writer) { literal(w, false, "", "0123456789") }, ErrAltered},
		"named":           {cipherSuite(), chunkSize, func(w io.Writer) { literal(w, true, "x", "0123456789") }, ErrAltered},
		"shorter":         {cipherSuite(), chunkSize, func(w io.Writer) { literal(w, true, "", "012345678") }, ErrAltered},
		"longer":          {cipherSuite(), chunkSize, func(w io.Writer) { literal(w, true, "", "0123456789!") }, ErrAltered},
		"other text":      {cipherSuite(), chunkSize, func(w io.Writer) { literal(w, true, "", "012345678!") }, ErrAltered},
		"two packets": {cipherSuite(), chunkSize, func(w io.Writer) {
			literal(w, true, "", "0123456789")
			literal(w, true, "", "")
		}, ErrAltered},
		"no packet": {cipherSuite(), chunkSize, func(io.Writer) {}, ErrAltered},
		"compressed": {cipherSuite(), chunkSize, func(w io.Writer) {
			c, err := packet.SerializeCompressed(keepOpen{w}, packet.CompressionZIP, nil)
			if err != nil {
				t.Fatal(err)
			}
			literal(c, true, "", "0123456789")
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}, ErrAltered},
		"OCB":          {packet.CipherSuite{Cipher: packet.CipherAES256, Mode: packet.AEADModeOCB}, chunkSize, func(w io.Writer) { literal(w, true, "", "0123456789") }, ErrAltered},
		"other chunks": {cipherSuite(), 1 << 20, func(w io.Writer) { literal(w, true, "", "0123456789") }, ErrAltered},
	}
	for what, c := range cases {
		o := f.open(t)
		config := packetConfig(testTime)
		config.AEADConfig.ChunkSize = c.chunk
		var object bytes.Buffer
		body, err := packet.SerializeSymmetricallyEncrypted(&object, packet.CipherAES256, true, c.suite, o.sessionKey, config)
		if err != nil {
			t.Fatal(err)
		}
		c.write(body)
		if err := body.Close(); err != nil {
			t.Fatal(err)
		}
		s := &o.manifest.Items[0].Segments[0]
		stored := newSum()
		_, _ = stored.Write(object.Bytes())
		s.StoredSize, s.StoredSHA256 = stored.size, stored.digest()
		if err := o.WriteItem(t.Context(), f.store.with(name, object.Bytes()), 0, io.Discard); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

type getFunc func() (io.ReadCloser, error)

func (f getFunc) Get(context.Context, string, int64, int64) (io.ReadCloser, error) { return f() }

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errTest }

// A store or a disk that fails must not look like data that was altered.
func TestFailuresKeepTheirNames(t *testing.T) {
	f := newFixture(t, 1000, pattern(900))
	o := f.open(t)
	object := f.store.objects[f.sealed.Objects[0].Name]
	cases := map[string]struct {
		from Getter
		to   io.Writer
	}{
		"get": {getFunc(func() (io.ReadCloser, error) { return nil, errTest }), io.Discard},
		"read": {getFunc(func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(object[:300]), iotest.ErrReader(errTest))), nil
		}), io.Discard},
		"write": {f.store, failingWriter{}},
	}
	for name, c := range cases {
		if err := o.WriteItem(t.Context(), c.from, 0, c.to); !errors.Is(err, errTest) || errors.Is(err, ErrAltered) {
			t.Errorf("%s: %v", name, err)
		}
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := o.WriteItem(canceled, f.store, 0, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("called off: %v", err)
	}
}
