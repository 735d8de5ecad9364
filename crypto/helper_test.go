package crypto

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

var testTime = time.Date(2026, 11, 24, 5, 30, 0, 0, time.UTC)

// memory is a store that keeps objects in a map.
type memory struct {
	mu      sync.Mutex
	objects map[string][]byte
}

func newMemory() *memory { return &memory{objects: make(map[string][]byte)} }

func (m *memory) Put(_ context.Context, name string, body io.Reader) (int64, error) {
	data, err := io.ReadAll(body)
	if err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.objects[name]; ok {
		return 0, errors.New("overwritten")
	}
	m.objects[name] = data
	return int64(len(data)), nil
}

func (m *memory) Get(_ context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.objects[name]
	if !ok {
		return nil, errors.New("no such object")
	}
	data = data[offset:]
	if length >= 0 {
		data = data[:length]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// with returns a store in which one object is another.
func (m *memory) with(name string, data []byte) *memory {
	c := newMemory()
	for k, v := range m.objects {
		c.objects[k] = v
	}
	c.objects[name] = data
	return c
}

// fixture is a sealed package and all that opens it.
type fixture struct {
	id       ID
	recovery *RecoveryPrivateKey
	signer   *SigningKey
	sealer   *Sealer
	store    *memory
	sealed   Sealed
	files    [][]byte
}

func newFixture(t testing.TB, segmentSize int64, files ...[]byte) *fixture {
	t.Helper()
	f := &fixture{id: ID{1, 2, 3, byte(len(files))}, store: newMemory(), files: files}
	var err error
	if f.recovery, err = GenerateRecoveryKey(testTime); err != nil {
		t.Fatal(err)
	}
	if f.signer, err = newSigningKey(testTime); err != nil {
		t.Fatal(err)
	}
	if f.sealer, err = NewSealer([]*RecoveryPublicKey{f.recovery.Public()}, f.signer, testTime); err != nil {
		t.Fatal(err)
	}
	f.sealer.segmentSize = segmentSize
	f.sealed = sealFiles(t, f.sealer, f.id, f.store, files...)
	return f
}

func sealFiles(t testing.TB, s *Sealer, id ID, to Putter, files ...[]byte) Sealed {
	t.Helper()
	p, err := s.Begin(id, testTime, "mail")
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range files {
		if _, err := p.AddItem(t.Context(), to, fileName(i), "application/octet-stream", bytes.NewReader(file)); err != nil {
			t.Fatal(err)
		}
	}
	sealed, err := p.Finish(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func fileName(i int) string {
	return []string{"notiz — 1.txt", "empty.bin", "plan <&>.pdf", "d", "e"}[i]
}

func (f *fixture) head() []byte { return f.store.objects[f.sealed.Head] }

func (f *fixture) open(t testing.TB) *Opened {
	t.Helper()
	o, err := OpenHead(bytes.NewReader(f.head()), f.id, f.sealed.ServerSecret, f.sealed.Keycode, f.signer.VerifyKey())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// pattern returns size bytes that look random and are always the same.
func pattern(size int) []byte {
	out := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(out)
	return out
}
