package meta

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Each transaction costs a database the same again and again: that it begins and ends, and that the log is on the disk.
// So callers that wait at the same time share one. One of the callers does the work for all; there is no goroutine
// beside them. On SQLite, with its one writer, all that writes is shared, and each caller has a savepoint of its own;
// on PostgreSQL see together.go.

// maxGroup bounds what one transaction holds.
const maxGroup = 64

// maxAlone is how many that were left out of a group try at the same time.
const maxAlone = 4

// call is what one caller wants done.
type call[T any] struct {
	ctx  context.Context //nolint:containedctx // of the caller, who waits until done is closed
	what T
	err  error         // set before done is closed
	done chan struct{} // closed once it is committed or has failed
}

// group is the queue of the calls that wait.
type group[T any] struct {
	run      func([]*call[T]) // tells the callers
	limit    int
	patience time.Duration // after which those that wait lead a group of their own; 0: never
	leader   chan struct{} // holds a token while somebody works for all
	alone    chan struct{} // holds a token for each that tries alone
	mu       sync.Mutex
	calls    []*call[T]
}

func newGroup[T any](limit int, patience time.Duration, run func([]*call[T])) *group[T] {
	return &group[T]{run: run, limit: limit, patience: patience, leader: make(chan struct{}, 1), alone: make(chan struct{}, maxAlone)}
}

// take removes as many calls from the queue as make a group.
func (g *group[T]) take() []*call[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.calls), g.limit)
	taken := slices.Clone(g.calls[:n])
	g.calls = slices.Delete(g.calls, 0, n)
	return taken
}

func (g *group[T]) add(c *call[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls = append(g.calls, c)
}

// waits reports whether nobody has taken the call yet.
func (g *group[T]) waits(c *call[T]) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Contains(g.calls, c)
}

// remove takes a call back, and reports whether that was in time.
func (g *group[T]) remove(c *call[T]) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.calls, c)
	if i < 0 {
		return false
	}
	g.calls = slices.Delete(g.calls, i, i+1)
	return true
}

// do returns when it is done. Once its group has begun, it is not cut short by ctx.
func (g *group[T]) do(ctx context.Context, what T) error {
	c := &call[T]{ctx: ctx, what: what, done: make(chan struct{})}
	g.add(c)
	for {
		select {
		case <-c.done:
			return g.outcome(c)
		case g.leader <- struct{}{}:
			if !g.waits(c) { // another serves it; those that wait lead themselves
				<-g.leader
				<-c.done
				return g.outcome(c)
			}
			g.lead()
		case <-ctx.Done():
			if g.remove(c) {
				return ctx.Err()
			}
			<-c.done
			return g.outcome(c)
		}
	}
}

// outcome is that of a call which its group has told; who was left to itself tries now, beside few others: each holds a
// connection while it waits for a lock.
func (g *group[T]) outcome(c *call[T]) error {
	if !errors.Is(c.err, errAlone) {
		return c.err
	}
	select {
	case g.alone <- struct{}{}:
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
	defer func() { <-g.alone }()
	own := &call[T]{ctx: c.ctx, what: c.what, done: make(chan struct{})}
	g.run([]*call[T]{own})
	return own.err
}

// lead runs the calls that wait. One that panics must not keep the others from the database for ever.
func (g *group[T]) lead() {
	lay := func() { <-g.leader }
	if g.patience > 0 {
		timer := time.AfterFunc(g.patience, lay)
		defer func() {
			if timer.Stop() {
				lay()
			}
		}()
	} else {
		defer lay()
	}
	if calls := g.take(); len(calls) > 0 {
		g.run(calls)
	}
}

// tell ends calls, with err unless they have one of their own.
func tell[T any](calls []*call[T], err error) {
	for _, c := range calls {
		if c.err == nil {
			c.err = err
		}
		close(c.done)
	}
}

// whileAny returns a context that ends when those of all callers have, and what to call when it is not needed any more.
func whileAny[T any](calls []*call[T]) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(calls[0].ctx))
	var left atomic.Int64
	left.Store(int64(len(calls)))
	stops := make([]func() bool, len(calls))
	for i, c := range calls {
		stops[i] = context.AfterFunc(c.ctx, func() {
			if left.Add(-1) == 0 {
				cancel()
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}

// errAlone is told to those who may do better without the others.
var errAlone = errors.New("not served with others")

// errPanicked is told to those whose group was broken off.
var errPanicked = errors.New("another's part of the transaction panicked")

// job is what a caller does in a transaction of SQLite.
type job = func(*transaction) error

// update runs do inside of a transaction and commits what it did unless it fails. do may be run again, so it must not
// rely on what it left outside. Once it has begun, a shared transaction is not cut short by ctx: SQLite would roll back
// what others did in it.
func (s *Store) update(ctx context.Context, doing string, do job) error {
	if err := s.confirmAgain(ctx); err != nil {
		return s.failure(ctx, doing, err)
	}
	if s.group == nil {
		return s.failure(ctx, doing, s.updateAlone(ctx, do))
	}
	return s.failure(ctx, doing, s.group.do(ctx, do))
}

// runJobs runs jobs in one transaction and tells their callers.
func (s *Store) runJobs(jobs []*call[job]) {
	err := errPanicked
	defer func() { tell(jobs, err) }()
	err = s.commitJobs(context.WithoutCancel(jobs[0].ctx), jobs)
}

// commitJobs returns the error that is everyone's; a job's own is in the job.
func (s *Store) commitJobs(ctx context.Context, jobs []*call[job]) error {
	sqlTx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	now, err := s.Now(ctx)
	if err != nil {
		return errors.Join(err, sqlTx.Rollback())
	}
	defer func() { _ = sqlTx.Rollback() }() // of a panic; else it is over by then
	tx := &transaction{executor: sqlTx, shared: sqlTx, stmts: s.writeStmts, now: now}
	settled := s.settle.take()
	if err := tx.runAll(ctx, settled, jobs); err != nil {
		s.settle.giveBack(settled)
		return err
	}
	if err := sqlTx.Commit(); err != nil {
		s.settle.giveBack(settled)
		return err
	}
	return nil
}

func (tx *transaction) runAll(ctx context.Context, settled []settlement, jobs []*call[job]) error {
	if err := tx.run(ctx, settlementsOneByOne(settled)); err != nil {
		return err
	}
	for _, j := range jobs {
		if err := tx.try(ctx, j); err != nil {
			return err
		}
	}
	return nil
}

const (
	qSavepoint = `SAVEPOINT job`
	qRelease   = `RELEASE job`
	qUndo      = `ROLLBACK TO job`
)

// try runs one job, and undoes what it did if it fails. It returns an error if the whole transaction is lost.
func (tx *transaction) try(ctx context.Context, j *call[job]) error {
	if _, err := tx.exec(ctx, qSavepoint); err != nil {
		return err
	}
	if j.err = runJob(tx, j); j.err != nil {
		if _, err := tx.exec(ctx, qUndo); err != nil {
			return fmt.Errorf("the transaction was lost: %w", j.err)
		}
	}
	_, err := tx.exec(ctx, qRelease)
	return err
}

func runJob(tx *transaction, j *call[job]) error {
	if err := j.ctx.Err(); err != nil {
		return err
	}
	return j.what(tx)
}
