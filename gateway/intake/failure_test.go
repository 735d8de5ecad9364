package intake_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"sealpost/gateway"
	"sealpost/gateway/intake"
	"sealpost/storage/blob"
)

var errBroken = errors.New("broken for the test")

// largeMail makes four objects: two segments, a head and the copy.
func largeMail() string {
	files := twoFiles()
	files[1].content = "PNG"
	return mixed(strings.Repeat("MARKER text.\r\n", 8000), files...)
}

const largeMailObjects = 4

// TestNothingIsCommittedBeforeItIsDurable is promise 2, as an order of calls.
func TestNothingIsCommittedBeforeItIsDurable(t *testing.T) {
	f := newFixture(t)
	m := f.accept(t, envelope(), largeMail())
	calls := f.journal.calls()
	last := len(calls) - 1
	if calls[0] != "now" || calls[last] != "commit mail" {
		t.Fatalf("the first and the last call are %q and %q", calls[0], calls[last])
	}
	var put []string
	for _, call := range calls {
		if name, ok := strings.CutPrefix(call, "put "); ok {
			put = append(put, name)
		}
	}
	if len(put) != largeMailObjects {
		t.Fatalf("%d objects were put", len(put))
	}
	if want := "durable " + strings.Join(put, " "); calls[last-1] != want {
		t.Errorf("before the commit came %q, want %q", calls[last-1], want)
	}
	for _, want := range []string{"now", "commit mail", "queue key of 20261124"} {
		if n := len(slices.DeleteFunc(slices.Clone(calls), func(c string) bool { return c != want })); n != 1 {
			t.Errorf("%q was called %d times", want, n)
		}
	}
	if m.Copy.Object != put[len(put)-1] || m.Package.Head != put[len(put)-2] {
		t.Error("the head is not put after the segments, or the copy not after the head")
	}
}

// failsClean expects that a mail is refused with code, and that nothing of it is left.
func (f *fixture) failsClean(ctx context.Context, t *testing.T, spooled gateway.Spooled, code gateway.Code, cause error) {
	t.Helper()
	id, err := f.intake.Accept(ctx, envelope(), spooled)
	if err == nil || id != "" || gateway.ErrorCode(err) != code {
		t.Errorf("id %q, code %q, want %q: %v", id, gateway.ErrorCode(err), code, err)
	}
	if cause != nil && !errors.Is(err, cause) {
		t.Errorf("%v is lost: %v", cause, err)
	}
	if found := f.objects(t); len(found) > 0 {
		t.Errorf("objects are left: %v", found)
	}
	if len(f.database.mails) > 0 {
		t.Error("the mail was committed")
	}
	if f.log.Len() > 0 {
		t.Errorf("an error is both returned and logged: %s", f.log)
	}
	for _, secret := range []string{"MARKER", "invoice", "Größe", "customer.example", "case.salesforce.com", portalURL} {
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("the error tells %q: %v", secret, err)
		}
	}
}

func TestEveryFailedPutLeavesNothing(t *testing.T) {
	for n := 1; n <= largeMailObjects; n++ {
		for _, when := range []string{"at once", "half way", "at the end"} {
			for cause, code := range map[error]gateway.Code{
				errBroken: gateway.CodeInternal,
				fmt.Errorf("write a block: %w", blob.ErrFull): gateway.CodeStorageFull,
			} {
				t.Run(fmt.Sprintf("put %d %s, %s", n, when, code), func(t *testing.T) {
					f := newFixture(t)
					f.blobs.onPut = func(_ context.Context, put int, body io.Reader) error {
						if put != n {
							return nil
						}
						if err := readSome(body, when); err != nil {
							return err
						}
						return cause
					}
					f.failsClean(t.Context(), t, f.spooled(t, largeMail()), code, cause)
					if f.blobs.puts != n {
						t.Errorf("%d objects were put after the failure", f.blobs.puts-n)
					}
				})
			}
		}
	}
}

func readSome(body io.Reader, when string) error {
	var err error
	switch when {
	case "half way":
		_, err = io.CopyN(io.Discard, body, 10)
	case "at the end":
		_, err = io.Copy(io.Discard, body)
	}
	return err
}

func TestEveryFailedStepLeavesNothing(t *testing.T) {
	away := gateway.Errorf(gateway.CodeUnavailable, errBroken, "the database is away")
	tests := []struct {
		name  string
		spoil func(f *fixture)
		code  gateway.Code
		cause error
	}{
		{"the clock", func(f *fixture) { f.database.fail["Now"] = away }, gateway.CodeUnavailable, errBroken},
		{"the queue key", func(f *fixture) { f.database.fail["QueueKey"] = away }, gateway.CodeUnavailable, errBroken},
		{"the queue key, without a code", func(f *fixture) { f.database.fail["QueueKey"] = errBroken }, gateway.CodeInternal, errBroken},
		{"making durable", func(f *fixture) { f.blobs.onCommit = func() error { return errBroken } }, gateway.CodeInternal, errBroken},
		{"making durable on a full disk", func(f *fixture) {
			f.blobs.onCommit = func() error { return fmt.Errorf("sync: %w", blob.ErrFull) }
		}, gateway.CodeStorageFull, blob.ErrFull},
		{"a commit for which there is no room", func(f *fixture) {
			f.database.fail["CommitMail"] = gateway.Errorf(gateway.CodeStorageFull, errBroken, "no room")
		}, gateway.CodeStorageFull, errBroken},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			test.spoil(f)
			f.failsClean(t.Context(), t, f.spooled(t, largeMail()), test.code, test.cause)
		})
	}
}

// TestObjectsStayWhenTheCommitsOutcomeIsUnknown: the mail may be committed after all, and then needs them.
func TestObjectsStayWhenTheCommitsOutcomeIsUnknown(t *testing.T) {
	for _, err := range []error{
		errBroken, gateway.Errorf(gateway.CodeUnavailable, nil, "the connection is gone"), context.DeadlineExceeded,
	} {
		f := newFixture(t)
		f.database.fail["CommitMail"] = err
		id, got := f.intake.Accept(t.Context(), envelope(), f.spooled(t, largeMail()))
		if id != "" || !errors.Is(got, err) || gateway.ErrorCode(got) != gateway.ErrorCode(err) {
			t.Errorf("%v became %q, %v", err, id, got)
		}
		if n := len(f.objects(t)); n != largeMailObjects {
			t.Errorf("%v: %d objects are there", err, n)
		}
	}
}

// TestUnknownCommitIsNotDoubled: a mail that was answered 4xx because nobody knew of its commit is tried again. If it was
// committed, the next try is a repeat; if not, it is taken in anew.
func TestUnknownCommitIsNotDoubled(t *testing.T) {
	for _, committed := range []bool{true, false} {
		f := newFixture(t, func(o *intake.Options) { o.FingerprintKey = bytes.Repeat([]byte{7}, 32) })
		where := map[bool]string{true: "CommitMail, unheard", false: "CommitMail"}[committed]
		f.database.fail[where] = gateway.Errorf(gateway.CodeUnavailable, errBroken, "whether anything was stored is not known")
		if _, err := f.intake.Accept(t.Context(), envelope(), f.spooled(t, largeMail())); gateway.ErrorCode(err) != gateway.CodeUnavailable {
			t.Fatalf("the first try: %v", err)
		}
		clear(f.database.fail)
		id, err := f.intake.Accept(t.Context(), envelope(), f.spooled(t, largeMail()))
		if err != nil || len(f.database.mails) != 1 || id != f.database.mails[0].ID.String() {
			t.Errorf("committed at first: %t; then id %q, %v, and %d mails in all", committed, id, err, len(f.database.mails))
		}
	}
}

func TestFailedCleaningUpHidesNoCode(t *testing.T) {
	f := newFixture(t)
	f.blobs.onPut = func(_ context.Context, n int, _ io.Reader) error {
		if n == largeMailObjects {
			return blob.ErrFull
		}
		return nil
	}
	kept := ""
	f.blobs.onDelete = func(name string) error {
		if kept == "" {
			kept = name
		}
		if name == kept {
			return errBroken
		}
		return nil
	}
	_, err := f.intake.Accept(t.Context(), envelope(), f.spooled(t, largeMail()))
	if gateway.ErrorCode(err) != gateway.CodeStorageFull || !errors.Is(err, errBroken) {
		t.Errorf("code %q: %v", gateway.ErrorCode(err), err)
	}
	if found := f.objects(t); len(found) != 1 || found[kept] == 0 {
		t.Errorf("%v are left, only %s could not be deleted", found, kept)
	}
}

// failingSpool is a mail of which only the first reads succeed.
type failingSpool struct {
	gateway.Spooled
	left int
}

func (s *failingSpool) ReadAt(p []byte, offset int64) (int, error) {
	s.left--
	if s.left < 0 {
		return 0, errBroken
	}
	return s.Spooled.ReadAt(p, offset)
}

// TestEveryFailedReadOfTheSpoolLeavesNothing fails one read later each time.
func TestEveryFailedReadOfTheSpoolLeavesNothing(t *testing.T) {
	f := newFixture(t)
	for reads := range f.readsOf(t, largeMail()) {
		f.failsAfterReads(t, largeMail(), reads)
	}
}

// onceFailingSpool is a mail of which one read fails.
type onceFailingSpool struct {
	gateway.Spooled
	reads, at int
}

func (s *onceFailingSpool) ReadAt(p []byte, offset int64) (int, error) {
	if s.reads++; s.reads == s.at {
		return 0, errBroken
	}
	return s.Spooled.ReadAt(p, offset)
}

// TestMailThatCannotBeTakenApartIsSealedWhole: what goes wrong while a mail is taken apart, whatever it is, leads to the
// whole mail in one file and to nothing else, or to an error if the mail cannot be read at all.
func TestMailThatCannotBeTakenApartIsSealedWhole(t *testing.T) {
	f := newFixture(t)
	whole := 0
	for at := range f.readsOf(t, largeMail()) {
		before := f.objects(t)
		id, err := f.intake.Accept(t.Context(), envelope(), &onceFailingSpool{Spooled: f.spooled(t, largeMail()), at: at + 1})
		if err != nil {
			if after := f.objects(t); len(after) != len(before) {
				t.Errorf("read %d: %d objects are left of a refused mail", at, len(after)-len(before))
			}
			continue
		}
		m := f.database.mails[len(f.database.mails)-1]
		if m.ID.String() != id || m.Package == nil {
			t.Fatalf("read %d: %s is not the last mail, or has no package", at, id)
		}
		if len(m.Package.Items) == 1 {
			whole++
			if got := m.Package.Items[0].Size; got != int64(len(largeMail())) {
				t.Errorf("read %d: %d bytes were sealed", at, got)
			}
		}
		if n := len(f.objects(t)) - len(before); n != len(m.Package.Objects) && m.Copy.Object == "" || n > len(m.Package.Objects)+1 {
			t.Errorf("read %d: %d objects are there, the package has %d", at, n, len(m.Package.Objects))
		}
	}
	if whole == 0 {
		t.Error("no mail was sealed whole")
	}
}

// TestCopyThatLacksItsEndIsNeverStored fails the last reads of a text so long that the copy is on its way
// to the store by then.
func TestCopyThatLacksItsEndIsNeverStored(t *testing.T) {
	f := newFixture(t)
	long := strings.Replace(mixed(strings.Repeat("MARKER text.\r\n", 50000), twoFiles()...), "text/plain", "text/enriched", 1)
	total := f.readsOf(t, long)
	for reads := total - 10; reads < total; reads++ {
		before := f.blobs.puts
		f.failsAfterReads(t, long, reads)
		begun := f.blobs.puts - before
		if calls := strings.Join(f.journal.calls(), "\n"); strings.Contains(calls, ".q.") || reads == total-1 && begun != largeMailObjects {
			t.Errorf("after %d of %d reads %d objects were begun, and stored: %s", reads, total, begun, calls)
		}
	}
}

// readsOf counts the reads that a mail needs, and forgets the mail.
func (f *fixture) readsOf(t *testing.T, mail string) int {
	t.Helper()
	const enough = 1 << 20
	counting := &failingSpool{f.spooled(t, mail), enough}
	if _, err := f.intake.Accept(t.Context(), envelope(), counting); err != nil || f.blobs.puts != largeMailObjects {
		t.Fatalf("%d objects, %v", f.blobs.puts, err)
	}
	for name := range f.objects(t) {
		if err := f.blobs.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	f.database.mails, f.journal.lines = nil, nil
	f.log.Reset()
	return enough - counting.left
}

func (f *fixture) failsAfterReads(t *testing.T, mail string, reads int) {
	t.Helper()
	f.failsClean(t.Context(), t, &failingSpool{f.spooled(t, mail), reads}, gateway.CodeInternal, errBroken)
	if t.Failed() {
		t.Fatalf("with %d reads", reads)
	}
}

func TestPolicyRefusesTheMail(t *testing.T) {
	for verdict, code := range map[gateway.Verdict]gateway.Code{
		gateway.Reject: gateway.CodeRejected, gateway.Defer: gateway.CodeUnavailable,
	} {
		f := newFixture(t, func(o *intake.Options) {
			o.Rules.Judge = func(part gateway.Part) (gateway.Verdict, string) {
				if part.Type == "image/png" {
					return verdict, ""
				}
				return gateway.Seal, ""
			}
		})
		f.failsClean(t.Context(), t, f.spooled(t, largeMail()), code, nil)
		if f.blobs.puts != 0 {
			t.Errorf("%s: %d objects were put before the verdict was known", verdict, f.blobs.puts)
		}
	}
}

// TestEndedContextLeavesNothing: what was put is removed although the mail's time is over.
func TestEndedContextLeavesNothing(t *testing.T) {
	for n := 1; n <= largeMailObjects; n++ {
		t.Run(fmt.Sprintf("cancelled at put %d", n), func(t *testing.T) {
			f := newFixture(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			f.blobs.onPut = func(_ context.Context, put int, _ io.Reader) error {
				if put == n {
					cancel()
				}
				return nil
			}
			f.failsClean(ctx, t, f.spooled(t, largeMail()), gateway.CodeInternal, context.Canceled)
		})
		t.Run(fmt.Sprintf("timed out at put %d", n), func(t *testing.T) {
			f := newFixture(t)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			f.blobs.onPut = func(_ context.Context, put int, _ io.Reader) error {
				if put == n {
					<-ctx.Done()
				}
				return nil
			}
			f.failsClean(ctx, t, f.spooled(t, largeMail()), gateway.CodeInternal, context.DeadlineExceeded)
		})
	}
	t.Run("cancelled before", func(t *testing.T) {
		f := newFixture(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		f.failsClean(ctx, t, f.spooled(t, largeMail()), gateway.CodeInternal, context.Canceled)
	})
	t.Run("cancelled while made durable", func(t *testing.T) {
		f := newFixture(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		f.blobs.onCommit = func() error { cancel(); return nil }
		f.failsClean(ctx, t, f.spooled(t, largeMail()), gateway.CodeInternal, context.Canceled)
	})
}

func TestOneFailureHarmsNoOtherMail(t *testing.T) {
	f := newFixture(t)
	kept := f.accept(t, envelope(), largeMail())
	f.database.fail["QueueKey"] = errBroken
	if _, err := f.intake.Accept(t.Context(), envelope(), f.spooled(t, largeMail())); err == nil {
		t.Fatal("accepted without a queue key")
	}
	if n := len(f.objects(t)); n != largeMailObjects {
		t.Errorf("%d objects are there", n)
	}
	if got := f.open(t, kept); len(got) != 2 {
		t.Errorf("%d items open", len(got))
	}
}
