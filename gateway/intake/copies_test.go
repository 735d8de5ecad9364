package intake_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"sealpost/crypto"
	"sealpost/gateway"
	"sealpost/gateway/intake"
	"sealpost/storage/blob"
)

// ofSize is a mail without files of exactly that many bytes.
func ofSize(size int) string {
	const head, line = "Message-ID: <1@customer.example>\r\nContent-Type: text/html\r\n\r\n", "ten bytes.\r\n"
	body := size - len(head) - len("\r\n")
	return head + strings.Repeat(line, body/len(line)) + strings.Repeat("x", body%len(line)) + "\r\n"
}

func TestCopyIsInTheRowUpToInlineLimitAndAnObjectBeyond(t *testing.T) {
	f := newFixture(t)
	first := f.accept(t, envelope(), ofSize(intake.InlineLimit-1000))
	overhead := len(first.Copy.Inline) - intake.InlineLimit + 1000 // of trace and encryption
	inline, object := 0, 0
	for _, more := range []int{-2, -1, 0, 1, 2, 3, 4, 5, 10, 20} {
		mail := ofSize(intake.InlineLimit - overhead + more)
		before := len(f.objects(t))
		m := f.accept(t, envelope(), mail)
		if m.copy != received(m.ID)+mail {
			t.Errorf("%+d: the copy is another mail", more)
		}
		if m.Copy.Object == "" {
			inline = max(inline, len(m.Copy.Inline))
			if len(m.Copy.Inline) > intake.InlineLimit || len(f.objects(t)) != before {
				t.Errorf("%+d: %d bytes are in the row, %d objects were stored", more, len(m.Copy.Inline), len(f.objects(t))-before)
			}
			continue
		}
		object++
		name, err := crypto.ParseObjectName(m.Copy.Object)
		if err != nil || name.ID != crypto.ID(m.ID) || name.Kind != crypto.KindQueue || name.Day != "20261124" {
			t.Errorf("%+d: object %q: %v", more, m.Copy.Object, err)
		}
		if size := f.objects(t)[m.Copy.Object]; size <= intake.InlineLimit || m.Copy.Inline != nil {
			t.Errorf("%+d: an object of %d bytes, and %d in the row", more, size, len(m.Copy.Inline))
		}
	}
	if inline != intake.InlineLimit || object == 0 {
		t.Errorf("the largest copy in the row has %d bytes, %d are objects", inline, object)
	}
}

// oneObject is a store in which every object has the same bytes. It counts what is not closed.
type oneObject struct {
	blob.Store
	data []byte
	open int
	err  error
}

type counted struct {
	io.Reader
	store *oneObject
}

func (c counted) Close() error { c.store.open--; return nil }

func (o *oneObject) Get(context.Context, string, int64, int64) (io.ReadCloser, error) {
	if o.err != nil {
		return nil, o.err
	}
	o.open++
	return counted{bytes.NewReader(o.data), o}, nil
}

// TestAlteredOrCutCopyNeverEndsAsAMail covers every byte of a copy in the row, and samples of a large one.
func TestAlteredOrCutCopyNeverEndsAsAMail(t *testing.T) {
	f := newFixture(t)
	small := f.accept(t, envelope(), plainMail).Copy
	large := f.accept(t, envelope(), ofSize(700<<10)).Copy
	r, err := f.blobs.Get(t.Context(), large.Object, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	packet, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		copied gateway.QueuedMail
		packet []byte
		step   int
	}{
		{"in the row", small, small.Inline, 1},
		{"an object", large, packet, len(packet) / 40},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			try := func(what string, at int, data []byte) {
				t.Helper()
				store := &oneObject{data: data}
				copied := test.copied
				if copied.Object == "" {
					copied.Inline = data
				}
				if _, err := readCopy(t, store, copied); err == nil {
					t.Errorf("%s at %d: read without an error", what, at)
				}
				if store.open != 0 {
					t.Errorf("%s at %d: %d readers were not closed", what, at, store.open)
				}
			}
			for at := 0; at < len(test.packet); at += test.step {
				altered := slices.Clone(test.packet)
				altered[at] ^= 0x40
				try("altered", at, altered)
				try("cut", at, test.packet[:at])
			}
			last := len(test.packet) - 1
			try("cut", last, test.packet[:last])
			try("extended", last+1, append(slices.Clone(test.packet), 0))
			try("doubled", last+1, append(slices.Clone(test.packet), test.packet...))
		})
	}
}

func TestCopyNeedsItsKeyAndItsObject(t *testing.T) {
	f := newFixture(t)
	for _, mail := range []string{plainMail, ofSize(100 << 10)} {
		copied := f.accept(t, envelope(), mail).Copy
		copied.Key.Key = gateway.NewSecret(string(crypto.NewQueueKey()))
		if _, err := f.read(t, copied); !errors.Is(err, crypto.ErrAltered) {
			t.Errorf("under another key: %v", err)
		}
		if copied.Object == "" {
			continue
		}
		if err := f.blobs.Delete(t.Context(), copied.Object); err != nil {
			t.Fatal(err)
		}
		if _, err := f.read(t, copied); !errors.Is(err, blob.ErrNotExist) {
			t.Errorf("without its object: %v", err)
		}
	}
}

// TestSameMailTwiceHasNothingInCommon shows that each copy and each package has secrets of its own.
func TestSameMailTwiceHasNothingInCommon(t *testing.T) {
	f := newFixture(t)
	mail := mixed("Hello", twoFiles()...)
	a, b := f.accept(t, envelope(), mail), f.accept(t, envelope(), mail)
	if a.ID == b.ID || a.link(t).Keycode.Reveal() == b.link(t).Keycode.Reveal() ||
		a.Package.ServerSecret.Equal(b.Package.ServerSecret) || a.Package.ProofHash == b.Package.ProofHash {
		t.Error("two packages share an ID or a secret")
	}
	if bytes.Contains(b.Copy.Inline, a.Copy.Inline[64:96]) {
		t.Error("two copies share ciphertext")
	}
}
