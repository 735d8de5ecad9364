package crypto

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// keyringFileOf is a keyring file that can be replaced.
type keyringFileOf struct {
	text  string
	err   error
	reads int
}

func (f *keyringFileOf) open() (io.ReadCloser, error) {
	f.reads++
	return io.NopCloser(strings.NewReader(f.text)), f.err
}

func wrapOne(t *testing.T, k *Keyring) []byte {
	t.Helper()
	wrapped, err := k.Wrap("t", "c", "r", []byte("value"))
	if err != nil {
		t.Fatal(err)
	}
	return wrapped
}

func encoded(t *testing.T, k *Keyring) string {
	t.Helper()
	return armored(t, func(w *bytes.Buffer) error { return k.Encode(w) })
}

// A key is added, distributed, used and at last removed; what a key has wrapped can be told from its mark.
func TestKeyringRotation(t *testing.T) {
	first, text := newTestKeyring(t)
	file := &keyringFileOf{text: text}
	other, err := OpenKeyring(file.open)
	if err != nil {
		t.Fatal(err)
	}
	old := wrapOne(t, first)
	added, err := first.AddKey()
	if err != nil {
		t.Fatal(err)
	}
	if first.ActiveKey() != added || first.WrappingKey() == added || !bytes.Equal(wrapOne(t, first)[:5], old[:5]) {
		t.Error("an added key is used before all have it")
	}
	if err := first.Use(added); err != nil {
		t.Fatal(err)
	}
	fresh := wrapOne(t, first)
	if mark, err := first.Mark(added); err != nil || !bytes.Equal(fresh[:5], mark) || bytes.Equal(fresh[:5], old[:5]) {
		t.Errorf("the mark is %x, %v", mark, err)
	}

	// The other node has the file as it was; then it is copied there.
	if _, err := other.Unwrap("t", "c", "r", fresh); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("without the key: %v", err)
	}
	if err := other.Use(added); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("use without the key: %v", err)
	}
	if file.reads != 2 {
		t.Errorf("the file was read %d times, want at the start and once for the missing key", file.reads)
	}
	file.text = encoded(t, first)
	if err := other.Refresh(); err != nil {
		t.Fatal(err)
	}
	if got, err := other.Unwrap("t", "c", "r", fresh); err != nil || string(got) != "value" {
		t.Errorf("with the key: %q, %v", got, err)
	}
	if !bytes.Equal(wrapOne(t, other)[:5], old[:5]) || !slices.Equal(other.KeyIDs(), first.KeyIDs()) || len(other.KeyIDs()) != 2 {
		t.Errorf("after the copy it wraps by %s of %v", other.WrappingKey(), other.KeyIDs())
	}
	if err := other.Use(added); err != nil {
		t.Error(err)
	}

	retired := strings.Trim(strings.Replace(strings.Join(first.KeyIDs(), " "), added, "", 1), " ")
	if err := first.RemoveKey(added); err == nil {
		t.Error("the key in use was removed")
	}
	if err := first.RemoveKey(retired); err != nil {
		t.Error(err)
	}
	if _, err := first.Unwrap("t", "c", "r", old); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("a removed key: %v", err)
	}
}

// A node that meets a key which it does not know reads its file anew by itself.
func TestKeyringReadsAnewWhatItLacks(t *testing.T) {
	first, text := newTestKeyring(t)
	file := &keyringFileOf{text: text}
	other, err := OpenKeyring(file.open)
	if err != nil {
		t.Fatal(err)
	}
	added, err := first.AddKey()
	if err == nil {
		err = first.Use(added)
	}
	if err != nil {
		t.Fatal(err)
	}
	value := wrapOne(t, first)
	file.err = errors.New("the file is being replaced")
	if got, err := other.Unwrap("t", "c", "r", value); !errors.Is(err, file.err) {
		t.Errorf("%q, %v", got, err)
	}
	file.text, file.err = encoded(t, first), nil
	if got, err := other.Unwrap("t", "c", "r", value); err != nil || string(got) != "value" {
		t.Errorf("after the file could not be read: %q, %v", got, err)
	}
}

// A file that would take the key in use away changes nothing.
func TestKeyringRefusesToLoseKeys(t *testing.T) {
	first, text := newTestKeyring(t)
	_, stranger := newTestKeyring(t)
	file := &keyringFileOf{text: text}
	k, err := OpenKeyring(file.open)
	if err != nil {
		t.Fatal(err)
	}
	old := wrapOne(t, k)
	used := first.WrappingKey()
	added, err := first.AddKey()
	if err == nil {
		err = first.Use(added)
	}
	if err == nil {
		err = first.RemoveKey(used)
	}
	if err != nil {
		t.Fatal(err)
	}
	pruned := encoded(t, first)
	broken := errors.New("broken disk")
	for name, bad := range map[string]keyringFileOf{
		"pruned": {text: pruned}, "stranger": {text: stranger}, "torn": {text: text[:40]}, "broken": {text: text, err: broken},
	} {
		file.text, file.err = bad.text, bad.err
		if err := k.Refresh(); err == nil || strings.Contains(err.Error(), "value") {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := k.Unwrap("t", "c", "r", old); err != nil || string(got) != "value" {
			t.Errorf("%s: what was wrapped is lost: %v", name, err)
		}
	}
}
