package meta

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// A database with one writer syncs its log once for each transaction. So callers that wait for the writer at
// the same time share one: each has a savepoint of its own, and fails alone. One of the callers does the work
// for all; there is no goroutine beside them.

// maxGroup bounds what one transaction holds.
const maxGroup = 64

// job is what one caller wants done.
type job struct {
	run  func(*transaction) error
	err  error         // set before done is closed
	done chan struct{} // closed once it is committed or has failed
}

// group is the queue of the jobs that wait.
type group struct {
	leader chan struct{} // holds a token while somebody works for all
	mu     sync.Mutex
	jobs   []*job
}

func newGroup() *group { return &group{leader: make(chan struct{}, 1)} }

// take removes up to maxGroup jobs from the queue.
func (g *group) take() []*job {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.jobs), maxGroup)
	taken := slices.Clone(g.jobs[:n])
	g.jobs = slices.Delete(g.jobs, 0, n)
	return taken
}

func (g *group) add(j *job) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.jobs = append(g.jobs, j)
}

// remove takes a job back, and reports whether that was in time.
func (g *group) remove(j *job) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.jobs, j)
	if i < 0 {
		return false
	}
	g.jobs = slices.Delete(g.jobs, i, i+1)
	return true
}

// update runs do inside of a transaction and commits what it did unless it fails. do may be run again, so it must not
// rely on what it left outside. Once it has begun, a shared transaction is not cut short by ctx: SQLite would roll back
// what others did in it.
func (s *Store) update(ctx context.Context, doing string, do func(*transaction) error) error {
	if err := s.confirmAgain(ctx); err != nil {
		return s.failure(ctx, doing, err)
	}
	if s.group == nil {
		return s.failure(ctx, doing, s.updateAlone(ctx, do))
	}
	j := &job{done: make(chan struct{}), run: func(tx *transaction) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return do(tx)
	}}
	s.group.add(j)
	select {
	case <-j.done:
	case s.group.leader <- struct{}{}:
		s.lead(context.WithoutCancel(ctx), j)
	case <-ctx.Done():
		if s.group.remove(j) {
			return s.failure(ctx, doing, ctx.Err())
		}
		<-j.done
	}
	return s.failure(ctx, doing, j.err)
}

// lead runs jobs until j is done. A job that panics must not keep the others from the database for ever.
func (s *Store) lead(ctx context.Context, j *job) {
	defer func() { <-s.group.leader }()
	for !s.isDone(j) {
		s.runJobs(ctx, s.group.take())
	}
}

func (s *Store) isDone(j *job) bool {
	select {
	case <-j.done:
		return true
	default:
		return false
	}
}

// runJobs runs jobs in one transaction and tells their callers.
func (s *Store) runJobs(ctx context.Context, jobs []*job) {
	err := errors.New("a job panicked")
	defer func() {
		for _, j := range jobs {
			if j.err == nil {
				j.err = err
			}
			close(j.done)
		}
	}()
	err = s.commitJobs(ctx, jobs)
}

// commitJobs returns the error that is everyone's; a job's own is in the job.
func (s *Store) commitJobs(ctx context.Context, jobs []*job) error {
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

func (tx *transaction) runAll(ctx context.Context, settled []settlement, jobs []*job) error {
	if err := tx.applySettlements(ctx, settled); err != nil {
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
func (tx *transaction) try(ctx context.Context, j *job) error {
	if _, err := tx.exec(ctx, qSavepoint); err != nil {
		return err
	}
	if j.err = j.run(tx); j.err != nil {
		if _, err := tx.exec(ctx, qUndo); err != nil {
			return fmt.Errorf("the transaction was lost: %w", j.err)
		}
	}
	_, err := tx.exec(ctx, qRelease)
	return err
}
