package intake_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sealpost/gateway"
	"sealpost/gateway/intake"
	"sealpost/storage/blob"
)

// sweepDatabase is an intake.SweepStore.
type sweepDatabase struct {
	journal *journal
	garbage []string
	spans   []gateway.Span
	needed  map[string]bool
	before  time.Time // of EndReplayWindows
	asked   []int     // how many names Referenced was asked for
	fail    map[string]error
	others  atomic.Bool // the work is another node's
}

func newSweepDatabase(j *journal) *sweepDatabase {
	return &sweepDatabase{journal: j, needed: map[string]bool{}, fail: map[string]error{}}
}

func (d *sweepDatabase) call(name string) error {
	d.journal.add(name)
	return d.fail[name]
}

func (d *sweepDatabase) Now(context.Context) (time.Time, error) { return clock(), d.call("Now") }

func (d *sweepDatabase) ClaimWork(_ context.Context, kind string, ttl time.Duration) (bool, error) {
	return !d.others.Load() && kind == "sweep" && ttl > time.Minute, d.call("ClaimWork")
}

func (d *sweepDatabase) Referenced(_ context.Context, names []string) (map[string]bool, error) {
	d.asked = append(d.asked, len(names))
	found := map[string]bool{}
	for _, name := range names {
		if d.needed[name] {
			found[name] = true
		}
	}
	return found, d.call("Referenced")
}

func (d *sweepDatabase) Garbage(_ context.Context, limit int) ([]string, error) {
	return slices.Clone(d.garbage[:min(limit, len(d.garbage))]), d.call("Garbage")
}

func (d *sweepDatabase) ForgetGarbage(_ context.Context, names []string) error {
	for _, name := range names {
		d.journal.add("forget " + name)
	}
	if err := d.call("ForgetGarbage"); err != nil {
		return err
	}
	d.garbage = slices.DeleteFunc(d.garbage, func(name string) bool { return slices.Contains(names, name) })
	return nil
}

func (d *sweepDatabase) KeepWatch(context.Context) error { return d.call("KeepWatch") }

func (d *sweepDatabase) Unwatched(context.Context) ([]gateway.Span, error) {
	return d.spans, d.call("Unwatched")
}

func (d *sweepDatabase) ExpirePackages(context.Context, int) (int, error) {
	return 1, d.call("ExpirePackages")
}

func (d *sweepDatabase) EndReplayWindows(_ context.Context, before time.Time) (int, error) {
	d.before = before
	return 0, d.call("EndReplayWindows")
}

func (d *sweepDatabase) ExpireMails(context.Context, int) (int, error) {
	return 0, d.call("ExpireMails")
}

func (d *sweepDatabase) EraseQueueKeys(context.Context) (int, error) {
	return 0, d.call("EraseQueueKeys")
}

func (d *sweepDatabase) DeleteExpiredSessions(context.Context) (int, error) {
	return 0, d.call("DeleteExpiredSessions")
}

func (d *sweepDatabase) Checkpoint(context.Context) error { return d.call("Checkpoint") }

// sweepFixture is a Sweeper with a directory store.
type sweepFixture struct {
	journal  *journal
	root     string
	blobs    *watchedBlobs
	database *sweepDatabase
	log      *bytes.Buffer
	sweeper  *intake.Sweeper
}

func newSweepFixture(t *testing.T) *sweepFixture {
	t.Helper()
	f := &sweepFixture{journal: &journal{}, root: t.TempDir(), log: &bytes.Buffer{}}
	dir, err := blob.NewDir(f.root)
	if err != nil {
		t.Fatal(err)
	}
	f.blobs = &watchedBlobs{Store: dir, journal: f.journal}
	f.database = newSweepDatabase(f.journal)
	f.sweeper = intake.NewSweeper(f.database, f.blobs, 7*day, slog.New(slog.NewJSONHandler(f.log, nil)))
	return f
}

// put stores an object of a day, and makes it as old as age by the database's clock.
func (f *sweepFixture) put(t *testing.T, date string, age time.Duration) string {
	t.Helper()
	name := objectName(date)
	if _, err := f.blobs.Store.Put(t.Context(), name, strings.NewReader("object")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(f.root, date, name[9:11], name[9:])
	if err := os.Chtimes(path, time.Time{}, clock().Add(-age)); err != nil {
		t.Fatal(err)
	}
	return name
}

func objectName(date string) string {
	return fmt.Sprintf("%s/%s.s.0123456789abcdef", date, gateway.NewPackageID())
}

func TestTidyDeletesFromTheStoreBeforeTheDatabaseForgets(t *testing.T) {
	f := newSweepFixture(t)
	f.database.garbage = []string{f.put(t, "20261124", time.Minute), f.put(t, "20250101", 600*day), objectName("20261123")}
	kept := f.put(t, "20261124", time.Minute)
	want := slices.Clone(f.database.garbage)
	if err := f.sweeper.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	calls := f.journal.calls()
	for _, name := range want {
		deleted, forgotten := slices.Index(calls, "delete "+name), slices.Index(calls, "forget "+name)
		if deleted < 0 || forgotten < deleted {
			t.Errorf("%s: deleted as call %d, forgotten as call %d", name, deleted, forgotten)
		}
	}
	if found := listAll(t, f.blobs); len(found) != 1 || found[kept] == 0 {
		t.Errorf("left: %v", found)
	}
	if len(f.database.garbage) > 0 {
		t.Errorf("not forgotten: %v", f.database.garbage)
	}
	if !f.database.before.Equal(clock().Add(-7 * day)) {
		t.Errorf("replay windows before %v were ended", f.database.before)
	}
	for _, step := range []string{"ExpirePackages", "EndReplayWindows", "ExpireMails", "EraseQueueKeys", "DeleteExpiredSessions"} {
		if at := slices.Index(calls, step); at < 0 || at > slices.Index(calls, "Garbage") {
			t.Errorf("%s is call %d, and makes garbage that is listed before", step, at)
		}
	}
	if calls[len(calls)-1] != "Checkpoint" {
		t.Errorf("the last call is %q: what was erased stays in the log of the database", calls[len(calls)-1])
	}
}

func TestObjectThatCannotBeDeletedIsNotForgotten(t *testing.T) {
	f := newSweepFixture(t)
	stuck := f.put(t, "20261124", time.Minute)
	f.database.garbage = []string{f.put(t, "20261124", time.Minute), stuck}
	f.blobs.onDelete = func(name string) error {
		if name == stuck {
			return errBroken
		}
		return nil
	}
	if err := f.sweeper.Tidy(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("tidy: %v", err)
	}
	if !slices.Contains(f.database.garbage, stuck) || listAll(t, f.blobs)[stuck] == 0 {
		t.Error("an object that is still there was forgotten")
	}
	f.blobs.onDelete = nil
	if err := f.sweeper.Tidy(t.Context()); err != nil {
		t.Errorf("the next turn: %v", err)
	}
	if found := listAll(t, f.blobs); len(found) > 0 || len(f.database.garbage) > 0 {
		t.Errorf("after the next turn there are %v, and as garbage %v", found, f.database.garbage)
	}
}

func TestTidyTakesGarbageOfAnyAmount(t *testing.T) {
	f := newSweepFixture(t)
	for range 1001 {
		f.database.garbage = append(f.database.garbage, objectName("20261124"))
	}
	want := slices.Clone(f.database.garbage)
	sweeper := intake.NewSweeper(f.database, &listed{journal: f.journal}, 0, slog.New(slog.DiscardHandler))
	if err := sweeper.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	calls := f.journal.calls()
	for _, name := range want {
		if !slices.Contains(calls, "delete "+name) {
			t.Fatalf("%s was not deleted", name)
		}
	}
	if len(f.database.garbage) > 0 {
		t.Errorf("%d are not forgotten", len(f.database.garbage))
	}
	if watched := slices.DeleteFunc(calls, func(call string) bool { return call != "KeepWatch" }); len(watched) != 3 {
		t.Errorf("watch was kept %d times, want once a batch", len(watched))
	}
}

// TestTidyStopsForAnotherNode: a round that outlasts its claim leaves the rest to who took over.
func TestTidyStopsForAnotherNode(t *testing.T) {
	f := newSweepFixture(t)
	f.database.others.Store(true)
	for range 1001 {
		f.database.garbage = append(f.database.garbage, objectName("20261124"))
	}
	sweeper := intake.NewSweeper(f.database, &listed{journal: f.journal}, 0, slog.New(slog.DiscardHandler))
	if err := sweeper.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := len(f.database.garbage); left != 501 {
		t.Errorf("%d are left, want all but one batch", left)
	}
}

func TestTidyReportsEveryFailure(t *testing.T) {
	for _, step := range []string{
		"Now", "KeepWatch", "ExpirePackages", "EndReplayWindows", "ExpireMails", "EraseQueueKeys", "DeleteExpiredSessions",
		"Garbage", "ForgetGarbage", "Checkpoint",
	} {
		f := newSweepFixture(t)
		f.database.fail[step] = errBroken
		if err := f.sweeper.Tidy(t.Context()); !errors.Is(err, errBroken) {
			t.Errorf("%s: %v", step, err)
		}
	}
	f := newSweepFixture(t)
	f.database.fail["Checkpoint"] = gateway.Errorf(gateway.CodeUnavailable, nil, "a reader is in the way")
	if err := f.sweeper.Tidy(t.Context()); err != nil {
		t.Errorf("a checkpoint that can wait: %v", err)
	}
}

// TestOrphansSparesWhatTheDatabaseCannotKnow: with a new or restored database nothing refers to packages that
// only the recovery key can open any more.
func TestOrphansSparesWhatTheDatabaseCannotKnow(t *testing.T) {
	f := newSweepFixture(t)
	unknown, orphan := f.put(t, "20261122", 50*time.Hour), f.put(t, "20261122", 40*time.Hour)
	f.database.spans = []gateway.Span{{Until: clock().Add(-45 * time.Hour)}}
	removed, err := f.sweeper.Orphans(t.Context())
	found := listAll(t, f.blobs)
	if err != nil || removed != 1 || found[unknown] == 0 || found[orphan] != 0 {
		t.Errorf("%d removed, %v; left %v", removed, err, found)
	}
}

// TestOrphansRemovesOnlyOldUnreferencedObjectsOfRecentDays is the end of promise 2: a crash leaves objects
// that a sweep removes, and nothing that is needed or may soon be is removed with them.
func TestOrphansRemovesOnlyOldUnreferencedObjectsOfRecentDays(t *testing.T) {
	f := newSweepFixture(t)
	remove := map[string]bool{
		f.put(t, "20261123", 25*time.Hour):             true,
		f.put(t, "20261123", 24*time.Hour+time.Second): true,
		f.put(t, "20261116", 8*day):                    true,
	}
	referenced := f.put(t, "20261123", 25*time.Hour)
	f.database.needed[referenced] = true
	keep := map[string]bool{
		referenced:                         true,
		f.put(t, "20261124", time.Minute):  true,
		f.put(t, "20261123", 24*time.Hour): true,
		f.put(t, "20261123", 23*time.Hour): true,
		f.put(t, "20261115", 9*day):        true, // was looked at when it was recent
		f.put(t, "20261125", -2*time.Hour): true, // by a node whose clock is ahead
	}
	removed, err := f.sweeper.Orphans(t.Context())
	if err != nil || removed != len(remove) {
		t.Errorf("%d removed, %v; want %d", removed, err, len(remove))
	}
	found := listAll(t, f.blobs)
	for name := range found {
		if !keep[name] {
			t.Errorf("%s is left", name)
		}
	}
	for name := range keep {
		if found[name] == 0 {
			t.Errorf("%s was removed", name)
		}
	}
	if n := strings.Count(f.log.String(), "\n"); n != 1 || !strings.Contains(f.log.String(), `"objects":3`) {
		t.Errorf("log: %s", f.log)
	}
	if again, err := f.sweeper.Orphans(t.Context()); again != 0 || err != nil {
		t.Errorf("the next sweep removed %d, %v", again, err)
	}
}

func TestOrphansRemovesNothingWithoutTheDatabasesWord(t *testing.T) {
	for _, step := range []string{"Now", "Referenced"} {
		f := newSweepFixture(t)
		name := f.put(t, "20261123", 30*time.Hour)
		f.database.fail[step] = errBroken
		if removed, err := f.sweeper.Orphans(t.Context()); removed != 0 || !errors.Is(err, errBroken) {
			t.Errorf("%s: %d removed, %v", step, removed, err)
		}
		if listAll(t, f.blobs)[name] == 0 {
			t.Errorf("%s: the object is gone", step)
		}
	}
	f := newSweepFixture(t)
	f.put(t, "20261123", 30*time.Hour)
	f.blobs.onDelete = func(string) error { return errBroken }
	if removed, err := f.sweeper.Orphans(t.Context()); removed != 0 || !errors.Is(err, errBroken) {
		t.Errorf("a deletion that fails: %d removed, %v", removed, err)
	}
}

// listed is a store that only lists and deletes.
type listed struct {
	blob.Store
	journal *journal
	names   []string
	days    []string
	err     error // after the names
	daysErr error
}

func (l *listed) Days(context.Context) ([]string, error) { return l.days, l.daysErr }

func (l *listed) List(_ context.Context, date string) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		for _, name := range l.names {
			if strings.HasPrefix(name, date) && !yield(blob.Info{Name: name, Modified: clock().Add(-2 * day)}, nil) {
				return
			}
		}
		if l.err != nil {
			yield(blob.Info{}, l.err)
		}
	}
}

func (l *listed) Delete(_ context.Context, name string) error {
	l.journal.add("delete " + name)
	return nil
}

func TestOrphansAsksInBatches(t *testing.T) {
	store := &listed{journal: &journal{}, days: []string{"20261122", "20261123"}}
	database := newSweepDatabase(&journal{})
	want := map[string]bool{}
	for i := range 1203 {
		name := objectName(store.days[i/1000])
		store.names = append(store.names, name)
		if i%3 == 0 {
			database.needed[name] = true
		} else {
			want["delete "+name] = true
		}
	}
	sweeper := intake.NewSweeper(database, store, 0, slog.New(slog.DiscardHandler))
	removed, err := sweeper.Orphans(t.Context())
	if err != nil || removed != len(want) {
		t.Errorf("%d removed, %v; want %d", removed, err, len(want))
	}
	got := map[string]bool{}
	for _, call := range store.journal.calls() {
		got[call] = true
	}
	if !maps.Equal(got, want) {
		t.Error("other objects were deleted than those without a reference")
	}
	if most := slices.Max(database.asked); most > 500 {
		t.Errorf("the database was asked for %d names at once", most)
	}
}

func TestOrphansReportsAStoreThatCannotList(t *testing.T) {
	for name, store := range map[string]*listed{
		"days": {daysErr: errBroken},
		"list": {journal: &journal{}, days: []string{"20261123"}, err: errBroken},
	} {
		sweeper := intake.NewSweeper(newSweepDatabase(&journal{}), store, 0, slog.New(slog.DiscardHandler))
		if _, err := sweeper.Orphans(t.Context()); !errors.Is(err, errBroken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRunTidiesEveryMinuteAndSweepsEveryHour runs for two hours of a clock that is not the machine's.
func TestRunTidiesEveryMinuteAndSweepsEveryHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, log := &journal{}, &journal{}
		database := newSweepDatabase(j)
		database.fail["Checkpoint"] = errBroken
		sweeper := intake.NewSweeper(database, &listed{journal: j, daysErr: errBroken}, 0, slog.New(slog.NewJSONHandler(log, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		over, began := make(chan error), time.Now()
		go func() { over <- sweeper.Run(ctx) }()
		for _, at := range []struct {
			after         time.Duration
			tidied, swept int
		}{{0, 1, 1}, {59 * time.Minute, 60, 1}, {60 * time.Minute, 61, 2}, {119 * time.Minute, 120, 2}, {120 * time.Minute, 121, 3}} {
			time.Sleep(time.Until(began.Add(at.after)))
			synctest.Wait()
			logged := strings.Join(log.calls(), "")
			tidied := strings.Count(strings.Join(j.calls(), "\n"), "ExpirePackages")
			tidyFailed, sweepFailed := strings.Count(logged, "tidy failed"), strings.Count(logged, "sweep failed")
			if tidied != at.tidied || tidyFailed != at.tidied || sweepFailed != at.swept {
				t.Errorf("after %v: tidied %d times; %d and %d failures were logged", at.after, tidied, tidyFailed, sweepFailed)
			}
		}
		cancel()
		if err := <-over; err != nil {
			t.Errorf("run ended with %v", err)
		}
	})
}

// TestRunLeavesTheWorkToOneNode: a node that has not the work does none of it, and begins with a sweep once it has.
func TestRunLeavesTheWorkToOneNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		database := newSweepDatabase(j)
		database.others.Store(true)
		sweeper := intake.NewSweeper(database, &listed{journal: j, days: []string{}}, 0, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan error)
		go func() { over <- sweeper.Run(ctx) }()
		count := func(call string) int {
			synctest.Wait()
			return strings.Count(strings.Join(j.calls(), "\n"), call)
		}
		time.Sleep(90*time.Minute + time.Second)
		if tidied, asked := count("ExpirePackages"), count("ClaimWork"); tidied != 0 || asked != 91 {
			t.Errorf("another node's work was done %d times, and asked for %d times", tidied, asked)
		}
		database.others.Store(false)
		time.Sleep(2 * time.Minute)
		if tidied, swept := count("ExpirePackages"), count("Unwatched"); tidied != 2 || swept != 1 {
			t.Errorf("its own work was done %d times, with %d sweeps; want 2, 1", tidied, swept)
		}
		cancel()
		if err := <-over; err != nil {
			t.Errorf("run ended with %v", err)
		}
	})
}

func TestRunStopsWithItsContextWithoutComplaint(t *testing.T) {
	f := newSweepFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.sweeper.Run(ctx); err != nil {
		t.Errorf("run ended with %v", err)
	}
	if strings.Contains(f.log.String(), "failed") {
		t.Errorf("a stop was logged as a failure: %s", f.log)
	}
}
