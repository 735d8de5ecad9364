package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"sealpost/gateway"
	"sealpost/storage/blob"
)

const (
	// orphanAge is how old an object must be before it counts as left over: far older than the hour after
	// which the database refuses to commit a mail.
	orphanAge = 24 * time.Hour
	// recentDays are the days of objects that a sweep looks at; older ones were looked at when they were recent.
	recentDays = 8
	batch      = 500
	// sweepWork is what the nodes agree on who does it. Another takes over when nothing was heard for workTTL.
	sweepWork = "sweep"
	workTTL   = 3 * time.Minute
)

// SweepStore is what the Sweeper needs of the database. Each method is safe to run on several nodes.
type SweepStore interface {
	Now(ctx context.Context) (time.Time, error)
	// ClaimWork reports whether the work of a kind is this node's until ttl from now.
	ClaimWork(ctx context.Context, kind string, ttl time.Duration) (bool, error)
	// KeepWatch records that a gateway runs; Unwatched returns the spans of time in which none did, so that
	// objects stored then may be unknown to a database that is new or comes from a backup.
	KeepWatch(ctx context.Context) error
	Unwatched(ctx context.Context) ([]gateway.Span, error)
	// Referenced tells which of the object names the database still needs.
	Referenced(ctx context.Context, names []string) (map[string]bool, error)
	// Garbage returns names of objects that the database no longer needs; ForgetGarbage is told once they are gone.
	Garbage(ctx context.Context, limit int) ([]string, error)
	ForgetGarbage(ctx context.Context, names []string) error
	// ExpirePackages erases up to limit packages whose time is over and returns how many.
	ExpirePackages(ctx context.Context, limit int) (int, error)
	// EndReplayWindows ends the wait for a Case of deliveries sent before then.
	EndReplayWindows(ctx context.Context, before time.Time) (int, error)
	// ExpireMails deletes what is known of up to limit mails whose time is over, and returns how many.
	ExpireMails(ctx context.Context, limit int) (int, error)
	// EraseQueueKeys destroys the queue keys of past days that no waiting mail needs.
	EraseQueueKeys(ctx context.Context) (int, error)
	DeleteExpiredSessions(ctx context.Context) (int, error)
	// Checkpoint removes what was erased from the database's write-ahead log too.
	Checkpoint(ctx context.Context) error
}

// Sweeper removes what is no longer needed: expired packages, their objects, queued copies whose
// deliveries have ended, and what a crash left.
type Sweeper struct {
	store        SweepStore
	blobs        blob.Store
	replayWindow time.Duration
	logger       *slog.Logger
}

// NewSweeper returns a Sweeper.
func NewSweeper(store SweepStore, blobs blob.Store, replayWindow time.Duration, logger *slog.Logger) *Sweeper {
	return &Sweeper{store, blobs, replayWindow, logger}
}

// Run tidies every minute and sweeps for orphans at the start and every hour, until ctx ends. Of all nodes one does
// so at a time. A failure is logged and tried again at the next turn.
func (s *Sweeper) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	due := true // the sweep for orphans: also of who takes over from another node
	for turn := 0; ; turn++ {
		due = due || turn%60 == 0
		mine, err := s.store.ClaimWork(ctx, sweepWork, workTTL)
		s.report(ctx, "claiming the sweep", err)
		if mine {
			s.round(ctx, due)
			due = false
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *Sweeper) round(ctx context.Context, orphans bool) {
	s.report(ctx, "tidy", s.Tidy(ctx))
	if orphans {
		_, err := s.Orphans(ctx)
		s.report(ctx, "sweep", err)
	}
}

func (s *Sweeper) report(ctx context.Context, what string, err error) {
	if err != nil && ctx.Err() == nil {
		s.logger.ErrorContext(ctx, what+" failed; it will be tried again", "error", err)
	}
}

// Tidy ends what is over by the clock and deletes the objects that the database has let go.
func (s *Sweeper) Tidy(ctx context.Context) error {
	now, err := s.store.Now(ctx)
	if err != nil {
		return fmt.Errorf("ask the database's clock: %w", err)
	}
	if err := s.store.KeepWatch(ctx); err != nil {
		return fmt.Errorf("keep watch: %w", err)
	}
	if expired, err := s.store.ExpirePackages(ctx, batch); err != nil {
		return fmt.Errorf("expire packages: %w", err)
	} else if expired > 0 {
		s.logger.InfoContext(ctx, "packages expired", "packages", expired)
	}
	if _, err := s.store.EndReplayWindows(ctx, now.Add(-s.replayWindow)); err != nil {
		return fmt.Errorf("end replay windows: %w", err)
	}
	if _, err := s.store.ExpireMails(ctx, batch); err != nil {
		return fmt.Errorf("expire mails: %w", err)
	}
	if _, err := s.store.EraseQueueKeys(ctx); err != nil {
		return fmt.Errorf("destroy queue keys: %w", err)
	}
	if _, err := s.store.DeleteExpiredSessions(ctx); err != nil {
		return fmt.Errorf("delete expired sessions: %w", err)
	}
	failed := s.deleteGarbage(ctx)
	// A reader in the way is no fault: the next turn comes in a minute.
	if err := s.store.Checkpoint(ctx); err != nil && gateway.ErrorCode(err) != gateway.CodeUnavailable {
		failed = errors.Join(failed, fmt.Errorf("checkpoint the database: %w", err))
	}
	return failed
}

// deleteGarbage deletes from the blob store first: a crash in between only deletes twice.
func (s *Sweeper) deleteGarbage(ctx context.Context) error {
	for {
		names, err := s.store.Garbage(ctx, batch)
		if err != nil {
			return fmt.Errorf("list the garbage: %w", err)
		}
		gone, failed := make([]string, 0, len(names)), error(nil)
		for _, name := range names {
			if err := s.blobs.Delete(ctx, name); err != nil {
				failed = errors.Join(failed, fmt.Errorf("delete an object: %w", err))
				continue
			}
			gone = append(gone, name)
		}
		if err := s.store.ForgetGarbage(ctx, gone); err != nil {
			return errors.Join(failed, fmt.Errorf("forget the garbage: %w", err))
		}
		if failed != nil || len(names) < batch {
			return failed
		}
		if mine, err := s.goOn(ctx); err != nil || !mine {
			return err
		}
	}
}

// goOn keeps the watch and the claim through a long round: without the one the time would count as unwatched, and
// without the other a second node would begin the same. It reports whether the work is still this node's.
func (s *Sweeper) goOn(ctx context.Context) (bool, error) {
	if err := s.store.KeepWatch(ctx); err != nil {
		return false, fmt.Errorf("keep watch: %w", err)
	}
	mine, err := s.store.ClaimWork(ctx, sweepWork, workTTL)
	if err != nil {
		return false, fmt.Errorf("keep the claim on the sweep: %w", err)
	}
	return mine, nil
}

// Orphans deletes objects of recent days that are old enough and that the database does not know, and
// returns how many. Objects of a time that this database cannot know are spared: `sealpost recover` opens them.
func (s *Sweeper) Orphans(ctx context.Context) (int, error) {
	now, err := s.store.Now(ctx)
	if err != nil {
		return 0, fmt.Errorf("ask the database's clock: %w", err)
	}
	days, err := s.blobs.Days(ctx)
	if err != nil {
		return 0, fmt.Errorf("list the days of the blob store: %w", err)
	}
	unwatched, err := s.store.Unwatched(ctx)
	if err != nil {
		return 0, fmt.Errorf("ask when nobody watched: %w", err)
	}
	removed := 0
	for _, day := range days {
		if !recent(day, now) {
			continue
		}
		n, err := s.orphansOf(ctx, day, now, unwatched)
		removed += n
		if err != nil {
			return removed, err
		}
	}
	if uploads, ok := s.blobs.(blob.Uploads); ok {
		if _, err := uploads.AbortUploads(ctx, now.Add(-orphanAge)); err != nil {
			return removed, fmt.Errorf("end half uploads: %w", err)
		}
	}
	if removed > 0 {
		s.logger.InfoContext(ctx, "left-over objects removed", "objects", removed)
	}
	return removed, nil
}

func (s *Sweeper) orphansOf(ctx context.Context, day string, now time.Time, unwatched []gateway.Span) (removed int, err error) {
	var old []string
	for info, err := range s.blobs.List(ctx, day) {
		if err != nil {
			return removed, fmt.Errorf("list the objects of %s: %w", day, err)
		}
		if LeftOver(info, now, unwatched) {
			old = append(old, info.Name)
		}
		if len(old) == batch {
			n, err := s.deleteUnreferenced(ctx, old)
			removed, old = removed+n, old[:0]
			if err != nil {
				return removed, err
			}
			if mine, err := s.goOn(ctx); err != nil || !mine {
				return removed, err
			}
		}
	}
	n, err := s.deleteUnreferenced(ctx, old)
	return removed + n, err
}

func (s *Sweeper) deleteUnreferenced(ctx context.Context, names []string) (removed int, err error) {
	if len(names) == 0 {
		return 0, nil
	}
	needed, err := s.store.Referenced(ctx, names)
	if err != nil {
		return 0, fmt.Errorf("ask which objects are needed: %w", err)
	}
	for _, name := range names {
		if needed[name] {
			continue
		}
		if err := s.blobs.Delete(ctx, name); err != nil {
			return removed, fmt.Errorf("delete a left-over object: %w", err)
		}
		removed++
	}
	return removed, nil
}
