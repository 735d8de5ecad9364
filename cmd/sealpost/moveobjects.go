package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"sealpost/gateway"
	"sealpost/gateway/intake"
	"sealpost/storage/blob"
)

// parallelObjects is how many objects are carried over at once.
const parallelObjects = 8

// objectTally counts objects and their bytes.
type objectTally struct {
	copied, there, lost int
	bytes               int64
}

// objects carries over, day by day, every object that a row refers to, and whatever else no sweep of the source would
// remove: a database that is new or came from a backup does not know of all that it must spare.
func (m *move) objects(ctx context.Context) error {
	if m.from == nil {
		return m.say("Objects: both configurations have the same blob store; none is carried over.\n")
	}
	now, err := m.source.Now(ctx)
	if err != nil {
		return err
	}
	unwatched, err := m.source.Unwatched(ctx)
	if err != nil {
		return err
	}
	days, err := m.days(ctx)
	if err != nil {
		return err
	}
	var all objectTally
	for _, day := range days {
		needed, err := m.needed(ctx, day, now, unwatched, &all)
		if err == nil {
			err = m.day(ctx, day, needed, &all)
		}
		if err != nil {
			return fmt.Errorf("carry over the objects of %s: %w", day, err)
		}
	}
	if err := m.say("Objects: %d carried over (%s), %d were there.\n", all.copied, humanSize(all.bytes), all.there); err != nil {
		return err
	}
	if all.lost > 0 && !m.lostObjects {
		return fmt.Errorf("%d objects that the database refers to are lost in the source or have another size: "+
			"bring them back from a backup and run the same command again, or go on without them by --lost-objects", all.lost)
	}
	return nil
}

// days returns the days of which there may be objects.
func (m *move) days(ctx context.Context) ([]string, error) {
	stored, err := m.from.Days(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the days of the blob store: %w", err)
	}
	known, err := m.source.ObjectDays(ctx)
	if err != nil {
		return nil, err
	}
	days := slices.Concat(stored, known)
	slices.Sort(days)
	return slices.Compact(days), nil
}

// needed returns the objects of a day that are to be carried over, with their sizes, and names those that are lost.
func (m *move) needed(ctx context.Context, day string, now time.Time, unwatched []gateway.Span, all *objectTally) (map[string]int64, error) {
	referenced, err := m.source.Objects(ctx, day)
	if err != nil {
		return nil, err
	}
	let, err := m.source.Garbage(ctx, day)
	if err != nil {
		return nil, err
	}
	garbage := map[string]bool{}
	for _, name := range let {
		garbage[name] = true
	}
	needed := map[string]int64{}
	for object, err := range m.from.List(ctx, day) {
		if err != nil {
			return nil, err
		}
		size, is := referenced[object.Name]
		switch {
		case is && (size == object.Size || size < 0):
			needed[object.Name] = object.Size
			delete(referenced, object.Name)
		case !is && !garbage[object.Name] && !intake.LeftOver(object, now, unwatched):
			needed[object.Name] = object.Size
		}
	}
	for _, name := range slices.Sorted(maps.Keys(referenced)) { // what is left of them
		all.lost++
		if _, err := fmt.Fprintf(m.std.err, "%s: lost in the source, or of another size\n", name); err != nil {
			return nil, err
		}
	}
	return needed, nil
}

// day carries over objects of one day and makes them durable.
func (m *move) day(ctx context.Context, day string, needed map[string]int64, all *objectTally) error {
	there := map[string]int64{}
	for object, err := range m.to.List(ctx, day) {
		if err != nil {
			return err
		}
		there[object.Name] = object.Size
	}
	var total int64
	for name, size := range needed {
		if _, ok := there[name]; !ok {
			total += size
		}
	}
	bar := &sharedProgress{bar: newProgress(m.std, "objects of "+day, total)}
	defer bar.bar.end()
	group, groupContext := errgroup.WithContext(ctx)
	group.SetLimit(parallelObjects)
	for _, name := range slices.Sorted(maps.Keys(needed)) {
		if groupContext.Err() != nil {
			break
		}
		if size, ok := there[name]; ok {
			all.there++
			group.Go(func() error { return m.thereAlready(groupContext, name, needed[name], size) })
			continue
		}
		all.copied++
		all.bytes += needed[name]
		m.step("before an object")
		group.Go(func() error { return named(name, blob.Copy(groupContext, m.from, m.to, name, bar)) })
	}
	if err := errors.Join(group.Wait(), ctx.Err()); err != nil {
		return err
	}
	m.step("before the objects are durable")
	return m.to.Commit(ctx, slices.Sorted(maps.Keys(needed))...)
}

// thereAlready looks at an object that an earlier try has carried over.
func (m *move) thereAlready(ctx context.Context, name string, size, stored int64) error {
	if size != stored {
		return fmt.Errorf("%s: the target has another object of this name: begin with an empty blob store", name)
	}
	if m.verify {
		if err := blob.Compare(ctx, m.from, m.to, name); err != nil {
			return named(name, err)
		}
	}
	return nil
}

// sharedProgress is a progress that several may write to.
type sharedProgress struct {
	mu  sync.Mutex
	bar *progress
}

func (s *sharedProgress) Write(data []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bar.Write(data)
}

// statusLine shows on a terminal what is being done; elsewhere nothing.
type statusLine struct {
	out   *os.File // nil: show nothing
	drawn time.Time
}

func newStatusLine(std streams) *statusLine {
	if out, ok := std.err.(*os.File); ok && term.IsTerminal(int(out.Fd())) {
		return &statusLine{out: out}
	}
	return &statusLine{}
}

func (l *statusLine) show(format string, args ...any) {
	if l.out == nil || time.Since(l.drawn) < 100*time.Millisecond {
		return
	}
	l.drawn = time.Now()
	_, _ = fmt.Fprintf(l.out, "\r\x1b[K"+format, args...)
}

// end removes the line.
func (l *statusLine) end() {
	if l.out != nil {
		_, _ = fmt.Fprint(l.out, "\r\x1b[K")
	}
}
