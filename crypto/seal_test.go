package crypto

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Promise 5, split knowledge: both halves together open a package, and so does the recovery key alone.
func TestSealAndOpen(t *testing.T) {
	const segment = 100_000
	files := [][]byte{[]byte("hello"), {}, pattern(3*segment + 1), pattern(segment), pattern(2 * segment)}
	f := newFixture(t, segment, files...)

	wantSegments := []int{1, 1, 4, 1, 2}
	for i, item := range f.sealed.Items {
		if item != (Item{Ordinal: i, Size: int64(len(files[i])), Segments: wantSegments[i]}) {
			t.Errorf("item %d: %+v", i, item)
		}
	}
	if len(f.sealed.Objects) != len(f.store.objects) || len(f.sealed.Objects) != 10 {
		t.Errorf("%d objects told of, %d stored", len(f.sealed.Objects), len(f.store.objects))
	}
	for _, object := range f.sealed.Objects {
		if int64(len(f.store.objects[object.Name])) != object.Size {
			t.Errorf("object %s: wrong size %d", object.Name, object.Size)
		}
	}
	if last := f.sealed.Objects[9]; last.Item != HeadObject || last.Name != f.sealed.Head {
		t.Errorf("the last object is not the head: %+v", last)
	}
	proof, err := f.sealed.Keycode.Proof(f.id)
	if err != nil || proof.Hash() != f.sealed.ProofHash {
		t.Errorf("proof hash differs: %v", err)
	}

	byRecovery, err := OpenHeadWithRecoveryKey(bytes.NewReader(f.head()), f.id, f.recovery, f.signer.VerifyKey())
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]*Opened{"passphrase": f.open(t), "recovery key": byRecovery} {
		if o.Signature() != Verified {
			t.Errorf("%s: signature %s", name, o.Signature())
		}
		m := o.Manifest()
		if m.Package != f.id || !m.Created.Equal(testTime) || m.Source != "mail" || len(m.Items) != len(files) {
			t.Errorf("%s: wrong manifest", name)
		}
		for i, want := range files {
			var got bytes.Buffer
			if err := o.WriteItem(t.Context(), f.store, i, &got); err != nil {
				t.Errorf("%s, item %d: %v", name, i, err)
			}
			if !bytes.Equal(got.Bytes(), want) || m.Items[i].Name != fileName(i) || uint32(m.Items[i].CRC32) != crc32.ChecksumIEEE(want) {
				t.Errorf("%s, item %d differs", name, i)
			}
		}
		if err := o.WriteItem(t.Context(), f.store, len(files), io.Discard); err == nil {
			t.Error("an item that does not exist was written")
		}
	}
}

// The objects must be what DESIGN and RFC 9580 say, octet by octet where it matters.
func TestSealedPacketsAreOfTheProfile(t *testing.T) {
	f := newFixture(t, SegmentSize, pattern(600_000))
	r := bufio.NewReader(bytes.NewReader(f.head()))
	var kinds []string
	for {
		op, err := packet.NewOpaqueReader(r).Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, fmt.Sprintf("%d v%d", op.Tag, op.Contents[0]))
		c := op.Contents
		switch op.Tag {
		case 1:
			if c[1] != 33 || c[2] != 6 || c[35] != byte(packet.PubKeyAlgoX25519) {
				t.Errorf("PKESK is not to a v6 X25519 key: %x", c[:40])
			}
		case 3:
			if c[2] != 9 || c[3] != 3 || c[5] != 3 || c[6] != 8 || c[15] != 96 {
				t.Errorf("SKESK is not AES-256, GCM, iterated SHA-256 S2K at 65536 bytes: %x", c[:16])
			}
		case 18:
			if c[1] != 9 || c[2] != 3 || c[3] != 12 {
				t.Errorf("SEIPD is not AES-256, GCM, 256 KiB: %x", c[:4])
			}
		}
	}
	if got := strings.Join(kinds, ", "); got != "1 v6, 3 v6, 18 v2" {
		t.Errorf("the head is %s", got)
	}
	segment := f.store.objects[f.sealed.Objects[0].Name]
	op, err := packet.NewOpaqueReader(bytes.NewReader(segment)).Next()
	if err != nil || op.Tag != 18 || !bytes.Equal(op.Contents[:4], []byte{2, 9, 3, 12}) {
		t.Errorf("the segment is not SEIPD v2 with AES-256-GCM and 256 KiB: %v", err)
	}
	e, err := decryptPacket(bufio.NewReader(bytes.NewReader(segment)), f.open(t).sessionKey)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := packet.NewOpaqueReader(e.inner).Next()
	if err != nil || plain.Tag != 11 || !bytes.Equal(plain.Contents[:6], []byte{'b', 0, 0, 0, 0, 0}) {
		t.Errorf("the plaintext is not a nameless binary literal packet of time 0: %v", err)
	}
	if err := e.finish(); err != nil {
		t.Error(err)
	}
}

// Two packages of the same files share nothing.
func TestPackagesHaveTheirOwnSecrets(t *testing.T) {
	f := newFixture(t, SegmentSize, []byte("same"))
	again := sealFiles(t, f.sealer, f.id, f.store, []byte("same"))
	if again.Keycode == f.sealed.Keycode || again.ServerSecret == f.sealed.ServerSecret || again.Head == f.sealed.Head {
		t.Error("secrets or names repeat")
	}
	if bytes.Equal(f.store.objects[again.Objects[0].Name], f.store.objects[f.sealed.Objects[0].Name]) {
		t.Error("ciphertext repeats")
	}
}

func TestSealConcurrently(t *testing.T) {
	f := newFixture(t, 1000, []byte("x"))
	o := f.open(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			store := newMemory()
			id := ID{byte(i)}
			sealed := sealFiles(t, f.sealer, id, store, pattern(5000))
			head := bytes.NewReader(store.objects[sealed.Head])
			got, err := OpenHeadWithRecoveryKey(head, id, f.recovery, f.signer.VerifyKey())
			if err != nil || got.Signature() != Verified {
				t.Errorf("package %d: %v", i, err)
			}
			if err := o.WriteItem(t.Context(), f.store, 0, io.Discard); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

type putFunc func(ctx context.Context, name string, body io.Reader) (int64, error)

func (f putFunc) Put(ctx context.Context, name string, body io.Reader) (int64, error) {
	return f(ctx, name, body)
}

var errTest = errors.New("test failure")

// A failed item leaves the package as it was: the item can be added again, and nothing half is ever listed.
func TestAddItemFailsAsAWhole(t *testing.T) {
	f := newFixture(t, 1000, []byte("x"))
	p, err := f.sealer.Begin(f.id, testTime, "mail")
	if err != nil {
		t.Fatal(err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	data := pattern(2500)
	cases := []struct {
		name string
		ctx  context.Context //nolint:containedctx // a test table
		to   Putter
		in   io.Reader
		want error
	}{
		{"the store fails", t.Context(), putFunc(func(context.Context, string, io.Reader) (int64, error) { return 0, errTest }), bytes.NewReader(data), errTest},
		{"the store stops early", t.Context(), putFunc(func(_ context.Context, _ string, r io.Reader) (int64, error) {
			n, err := r.Read(make([]byte, 10))
			return int64(n), err
		}), bytes.NewReader(data), nil},
		{"the store loses a byte", t.Context(), putFunc(func(ctx context.Context, name string, r io.Reader) (int64, error) {
			n, err := newMemory().Put(ctx, name, r)
			return n - 1, err
		}), bytes.NewReader(data), nil},
		{"the plaintext fails", t.Context(), newMemory(), io.MultiReader(bytes.NewReader(data), iotest.ErrReader(errTest)), errTest},
		{"the plaintext is cut", t.Context(), newMemory(), io.MultiReader(bytes.NewReader(data), iotest.ErrReader(io.ErrUnexpectedEOF)), io.ErrUnexpectedEOF},
		{"the plaintext is cut at a segment's end", t.Context(), newMemory(), io.MultiReader(bytes.NewReader(data[:1000]), iotest.ErrReader(fmt.Errorf("cut: %w", io.EOF))), io.EOF},
		{"it is called off", canceled, newMemory(), bytes.NewReader(data), context.Canceled},
	}
	for _, c := range cases {
		if _, err := p.AddItem(c.ctx, c.to, "n", "t", c.in); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	store := newMemory()
	if _, err := p.AddItem(t.Context(), store, "bad \xff name", "t", bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Finish(t.Context(), cases[0].to); !errors.Is(err, errTest) {
		t.Errorf("a store that fails at the head: %v", err)
	}
	sealed, err := p.Finish(t.Context(), store)
	if err != nil || len(sealed.Items) != 1 || len(sealed.Objects) != 4 {
		t.Fatalf("after failures: %v", err)
	}
	o, err := OpenHead(bytes.NewReader(store.objects[sealed.Head]), f.id, sealed.ServerSecret, sealed.Keycode, nil)
	if err != nil || o.Manifest().Items[0].Name != "bad \uFFFD name" {
		t.Errorf("the package does not open: %v", err)
	}
	if _, err := p.Finish(t.Context(), store); err == nil {
		t.Error("finished twice")
	}
	if _, err := p.AddItem(t.Context(), store, "n", "t", bytes.NewReader(data)); err == nil {
		t.Error("added to a finished package")
	}
	empty, err := f.sealer.Begin(f.id, testTime, "mail")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := empty.Finish(t.Context(), store); err == nil {
		t.Error("sealed a package without items")
	}
}

func TestNewSealerNeedsItsKeys(t *testing.T) {
	f := newFixture(t, 1000, []byte("x"))
	if _, err := NewSealer(nil, f.signer, testTime); err == nil {
		t.Error("no recovery key")
	}
	if _, err := NewSealer(slices.Repeat([]*RecoveryPublicKey{f.recovery.Public()}, maxRecipients+1), f.signer, testTime); err == nil {
		t.Error("more recovery keys than OpenHead reads")
	}
	if _, err := NewSealer([]*RecoveryPublicKey{f.recovery.Public()}, nil, testTime); err == nil {
		t.Error("no signing key")
	}
}

// A clock that was set back, or that is wrong where a package is opened, loses nothing.
func TestClockMayRunBackward(t *testing.T) {
	f := newFixture(t, 1000, []byte("x"))
	earlier := testTime.AddDate(0, 0, -3)
	sealer, err := NewSealer([]*RecoveryPublicKey{f.recovery.Public()}, f.signer, earlier)
	if err != nil {
		t.Fatal(err)
	}
	p, err := sealer.Begin(f.id, earlier, "mail")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.AddItem(t.Context(), f.store, "n", "t", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	sealed, err := p.Finish(t.Context(), f.store)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(sealed.Head, "20261121/") {
		t.Errorf("head %s", sealed.Head)
	}
	o, err := OpenHeadWithRecoveryKey(bytes.NewReader(f.store.objects[sealed.Head]), f.id, f.recovery, f.signer.VerifyKey())
	if err != nil || o.Signature() != Verified {
		t.Errorf("%v", err)
	}
}

// Promise 7: what sealing holds does not grow with the file.
func TestSealedReaderHoldsOneChunk(t *testing.T) {
	s := newSegmentReader()
	if err := s.reset(io.LimitReader(zeros{}, 20<<20), NewQueueKey(), 0); err != nil {
		t.Fatal(err)
	}
	most := 0
	buf := make([]byte, 1000)
	for {
		_, err := s.Read(buf)
		most = max(most, s.ready.Len())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if most > 3*chunkSize || s.size != 20<<20 {
		t.Errorf("held %d bytes of %d", most, s.size)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func BenchmarkSeal(b *testing.B) {
	f := newFixture(b, SegmentSize, []byte("x"))
	discard := putFunc(func(_ context.Context, _ string, r io.Reader) (int64, error) { return io.Copy(io.Discard, r) })
	for _, size := range []int64{5 << 10, 1 << 20, 100 << 20} {
		b.Run(fmt.Sprint(size>>10, "KiB"), func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				p, err := f.sealer.Begin(f.id, testTime, "mail")
				if err != nil {
					b.Fatal(err)
				}
				if _, err := p.AddItem(b.Context(), discard, "n", "t", io.LimitReader(zeros{}, size)); err != nil {
					b.Fatal(err)
				}
				if _, err := p.Finish(b.Context(), discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, size := range []int{5 << 10, 1 << 20, 100 << 20} {
		f := newFixture(b, SegmentSize, pattern(size))
		b.Run(fmt.Sprint(size>>10, "KiB"), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := f.open(b).WriteItem(b.Context(), f.store, 0, io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
