// Package blobtest is the suite that every blob.Store has to pass.
package blobtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"sealpost/storage/blob"
)

// Day is the day of every object that the suite makes.
const Day = "20260314"

// Run runs the suite. open returns a new, empty store for each call, and closes it by t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) blob.Store) {
	t.Helper()
	tests := map[string]func(*testing.T, blob.Store){
		"RoundTrip":               roundTrip,
		"Ranges":                  ranges,
		"NotExist":                notExist,
		"NoOverwrite":             noOverwrite,
		"ConcurrentPuts":          concurrentPuts,
		"OneNameManyPuts":         oneNameManyPuts,
		"FailedBodyLeavesNothing": failedBody,
		"CancelLeavesNothing":     cancelled,
		"ListAndDays":             listAndDays,
		"Delete":                  deleteTwice,
		"BadNames":                badNames,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// Name returns a new object name of the day.
func Name(day string) string {
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return fmt.Sprintf("%s/%x.s.%x", day, b[:16], b[16:])
}

// Body returns n random bytes.
func Body(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}

func put(t *testing.T, s blob.Store, name string, body []byte) {
	t.Helper()
	n, err := s.Put(t.Context(), name, bytes.NewReader(body))
	if err != nil || n != int64(len(body)) {
		t.Fatalf("Put: %d, %v; want %d", n, err, len(body))
	}
	if err := s.Commit(t.Context(), name); err != nil {
		t.Fatalf("Commit: %v", err)
	}
}

func get(t *testing.T, s blob.Store, name string, offset, length int64) []byte {
	t.Helper()
	r, err := s.Get(t.Context(), name, offset, length)
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	b, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatalf("read what Get gave: %v", err)
	}
	return b
}

func list(t *testing.T, s blob.Store, day string) []string {
	t.Helper()
	var names []string
	for info, err := range s.List(t.Context(), day) {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		names = append(names, info.Name)
	}
	slices.Sort(names)
	return names
}

func wantGone(t *testing.T, s blob.Store, name string) {
	t.Helper()
	if _, err := s.Stat(t.Context(), name); !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("Stat: %v, want ErrNotExist", err)
	}
	if r, err := s.Get(t.Context(), name, 0, -1); !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("Get: %v, want ErrNotExist", err)
		if err == nil {
			_ = r.Close()
		}
	}
	if slices.Contains(list(t, s, name[:8]), name) {
		t.Errorf("List has it")
	}
}

func roundTrip(t *testing.T, s blob.Store) {
	const k128 = 128 << 10
	for _, size := range []int{0, 1, k128 - 1, k128, k128 + 1, 5 << 20, 5<<20 + 1, 11 << 20} {
		name, body := Name(Day), Body(size)
		put(t, s, name, body)
		if !bytes.Equal(get(t, s, name, 0, -1), body) {
			t.Errorf("%d bytes came back altered", size)
		}
		info, err := s.Stat(t.Context(), name)
		if err != nil || info.Size != int64(size) || info.Name != name || info.Modified.IsZero() {
			t.Errorf("Stat: %+v, %v; want %d bytes", info, err, size)
		}
	}
}

func ranges(t *testing.T, s blob.Store) {
	name, body := Name(Day), Body(1000)
	put(t, s, name, body)
	for _, r := range []struct{ offset, length, from, to int64 }{
		{0, -1, 0, 1000},
		{0, 0, 0, 0},
		{0, 1, 0, 1},
		{999, 1, 999, 1000},
		{999, -1, 999, 1000},
		{10, 100, 10, 110},
		{900, 200, 900, 1000},
		{1000, -1, 1000, 1000},
		{1000, 5, 1000, 1000},
		{2000, -1, 1000, 1000},
		{990, math.MaxInt64, 990, 1000},
	} {
		if got := get(t, s, name, r.offset, r.length); !bytes.Equal(got, body[r.from:r.to]) {
			t.Errorf("offset %d, length %d: %d bytes that are not %d to %d", r.offset, r.length, len(got), r.from, r.to)
		}
	}
	for _, r := range [][2]int64{{-1, 1}, {0, -2}} {
		if b, err := s.Get(t.Context(), name, r[0], r[1]); err == nil {
			_ = b.Close()
			t.Errorf("offset %d, length %d: no error", r[0], r[1])
		}
	}
}

func notExist(t *testing.T, s blob.Store) {
	wantGone(t, s, Name(Day))
	if names := list(t, s, Day); len(names) != 0 {
		t.Errorf("an empty store lists %v", names)
	}
	days, err := s.Days(t.Context())
	if err != nil || len(days) != 0 {
		t.Errorf("Days of an empty store: %v, %v", days, err)
	}
}

func noOverwrite(t *testing.T, s blob.Store) {
	for _, size := range []int{100, 6 << 20} {
		name, body := Name(Day), Body(size)
		put(t, s, name, body)
		for _, other := range []int{5, size + 1} {
			if _, err := s.Put(t.Context(), name, bytes.NewReader(Body(other))); !errors.Is(err, blob.ErrExist) {
				t.Errorf("the second Put: %v, want ErrExist", err)
			}
		}
		if !bytes.Equal(get(t, s, name, 0, -1), body) {
			t.Error("the first object was altered")
		}
	}
}

func concurrentPuts(t *testing.T, s blob.Store) {
	bodies := map[string][]byte{}
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(8)
	for i := range 50 {
		name, body := Name(Day), Body(i*1000)
		bodies[name] = body
		group.Go(func() error {
			if _, err := s.Put(ctx, name, bytes.NewReader(body)); err != nil {
				return err
			}
			return s.Commit(ctx, name)
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for name, body := range bodies {
		if !bytes.Equal(get(t, s, name, 0, -1), body) {
			t.Errorf("an object of %d bytes came back altered", len(body))
		}
	}
	if n := len(list(t, s, Day)); n != len(bodies) {
		t.Errorf("List has %d objects, want %d", n, len(bodies))
	}
}

func oneNameManyPuts(t *testing.T, s blob.Store) {
	for _, size := range []int{300 << 10, 6 << 20} {
		manyPuts(t, s, size)
	}
}

func manyPuts(t *testing.T, s blob.Store, size int) {
	t.Helper()
	const writers = 8
	name := Name(Day)
	bodies, errs := make([][]byte, writers), make([]error, writers)
	var group errgroup.Group
	for i := range writers {
		bodies[i] = Body(size)
		group.Go(func() error {
			_, errs[i] = s.Put(t.Context(), name, bytes.NewReader(bodies[i]))
			return nil
		})
	}
	_ = group.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won < 0:
			won = i
		case err == nil:
			t.Errorf("writers %d and %d both won", won, i)
		case !errors.Is(err, blob.ErrExist):
			t.Errorf("writer %d: %v, want ErrExist", i, err)
		}
	}
	if won < 0 || !bytes.Equal(get(t, s, name, 0, -1), bodies[won]) {
		t.Errorf("the object is not that of writer %d", won)
	}
}

var errBody = errors.New("the body broke off")

func failedBody(t *testing.T, s blob.Store) {
	for _, want := range []error{errBody, io.ErrUnexpectedEOF} {
		for _, size := range []int{0, 300 << 10, 5 << 20, 11 << 20} {
			name := Name(Day)
			body := io.MultiReader(bytes.NewReader(Body(size)), failing{want})
			if _, err := s.Put(t.Context(), name, body); !errors.Is(err, want) {
				t.Errorf("Put after %d bytes: %v, want the error of the body", size, err)
			}
			wantGone(t, s, name)
			put(t, s, name, Body(10)) // the name is free
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func cancelled(t *testing.T, s blob.Store) {
	name := Name(Day)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, size := range []int{300 << 10, 11 << 20} {
		ctx, cancel = context.WithCancel(t.Context())
		body := io.MultiReader(bytes.NewReader(Body(size)), cancelling{cancel}, bytes.NewReader(Body(300<<10)))
		if _, err := s.Put(ctx, name, body); !errors.Is(err, context.Canceled) {
			t.Errorf("Put: %v, want context.Canceled", err)
		}
		wantGone(t, s, name)
	}
	if _, err := s.Put(ctx, name, strings.NewReader("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("Put with a context that is done: %v, want context.Canceled", err)
	}
	wantGone(t, s, name)
	if _, err := s.Days(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Days: %v, want context.Canceled", err)
	}
}

// cancelling cancels when it is read, and gives nothing.
type cancelling struct{ cancel context.CancelFunc }

func (c cancelling) Read([]byte) (int, error) {
	c.cancel()
	return 0, io.EOF
}

func listAndDays(t *testing.T, s blob.Store) {
	days := []string{"20251231", "20260101", Day}
	want := map[string][]string{}
	for _, day := range days {
		for range 20 {
			name := Name(day)
			put(t, s, name, Body(7))
			want[day] = append(want[day], name)
		}
	}
	got, err := s.Days(t.Context())
	if err != nil || !slices.Equal(got, days) {
		t.Errorf("Days: %v, %v; want %v", got, err, days)
	}
	for _, day := range days {
		slices.Sort(want[day])
		if got := list(t, s, day); !slices.Equal(got, want[day]) {
			t.Errorf("List of %s: %v, want %v", day, got, want[day])
		}
	}
	for info, err := range s.List(t.Context(), Day) {
		if err != nil || info.Size != 7 || info.Modified.IsZero() {
			t.Errorf("List: %+v, %v", info, err)
		}
		break // and the iterator must bear it
	}
}

func deleteTwice(t *testing.T, s blob.Store) {
	name, other := Name(Day), Name(Day)
	put(t, s, name, Body(10))
	put(t, s, other, Body(10))
	for range 2 {
		if err := s.Delete(t.Context(), name); err != nil {
			t.Errorf("Delete: %v", err)
		}
		wantGone(t, s, name)
	}
	if got := list(t, s, Day); !slices.Equal(got, []string{other}) {
		t.Errorf("List: %v, want only the other object", got)
	}
	if err := s.Delete(t.Context(), other); err != nil {
		t.Errorf("Delete: %v", err)
	}
	put(t, s, name, Body(10)) // a day that was emptied takes objects again
}

func badNames(t *testing.T, s blob.Store) {
	good := Name(Day)
	for _, name := range []string{
		"", "/", "..", "../" + good, "/" + good, good + "/", good + "\x00", good + "\n", " " + good,
		Day + "/../" + good[9:], Day + "/..", Day + "/" + good[9:41], "20261314" + good[8:], "2026031" + good[8:],
		strings.ToUpper(good), good[:20] + "/" + good[20:], good + "." + strings.Repeat("a", 33), good + "..x",
		Day + "/.tmp", good[9:],
	} {
		if _, err := s.Put(t.Context(), name, strings.NewReader("x")); !errors.Is(err, blob.ErrName) {
			t.Errorf("Put %q: %v, want ErrName", name, err)
		}
		if r, err := s.Get(t.Context(), name, 0, -1); !errors.Is(err, blob.ErrName) {
			t.Errorf("Get %q: %v, want ErrName", name, err)
			if err == nil {
				_ = r.Close()
			}
		}
		if _, err := s.Stat(t.Context(), name); !errors.Is(err, blob.ErrName) {
			t.Errorf("Stat %q: %v, want ErrName", name, err)
		}
		if err := s.Delete(t.Context(), name); !errors.Is(err, blob.ErrName) {
			t.Errorf("Delete %q: %v, want ErrName", name, err)
		}
		if err := s.Commit(t.Context(), name); !errors.Is(err, blob.ErrName) {
			t.Errorf("Commit %q: %v, want ErrName", name, err)
		}
	}
	for _, day := range []string{"", "..", "2026031", "20261314", ".tmp"} {
		for _, err := range s.List(t.Context(), day) {
			if !errors.Is(err, blob.ErrName) {
				t.Errorf("List %q: %v, want ErrName", day, err)
			}
		}
	}
}
