package meta

import (
	"context"
	"errors"
	"time"
)

const (
	// aliveFor is how long after its last beat a process counts as alive.
	aliveFor = time.Minute
	// nodeKeep is how long a process is remembered that does not beat any more.
	nodeKeep = 24 * time.Hour

	qBeat = `INSERT INTO nodes (id, seen, keys, wraps) VALUES ($1, $2, $3, $4)
		ON CONFLICT (id) DO UPDATE SET seen = excluded.seen, keys = excluded.keys, wraps = excluded.wraps`
	qForgetNodes = `DELETE FROM nodes WHERE seen < $1`
	qForgetNode  = `DELETE FROM nodes WHERE id = $1`
	qClaimWork   = `INSERT INTO work (kind, owner, until) VALUES ($1, $2, $3)
		ON CONFLICT (kind) DO UPDATE SET owner = excluded.owner, until = excluded.until
		WHERE work.owner = excluded.owner OR work.until <= $4`
	qLeaveWork = `DELETE FROM work WHERE owner = $1`
)

// Beat records that the process of this Store lives. A gateway calls it before it takes mail and every 15 seconds: 60
// seconds after the last beat its sessions count as ended. Close takes it back. It also reads the keyring anew, wraps by
// the key that the database names, and records which keys this process has; what fails of that is told after the beat.
func (s *Store) Beat(ctx context.Context) error {
	s.queueKey.Store(nil) // so that one that is destroyed does not stay in memory
	failed := s.refreshKeys(ctx)
	held, wraps := s.keysHeld()
	return errors.Join(failed, s.update(ctx, "record that this process lives", func(tx *transaction) error {
		s.present.Store(true) // even if the commit fails, for it may have come through
		if _, err := tx.exec(ctx, qBeat, s.process, micros(tx.now), held, wraps); err != nil {
			return err
		}
		_, err := tx.exec(ctx, qForgetNodes, micros(tx.now.Add(-nodeKeep)))
		return err
	}))
}

// ClaimWork reports whether the work of a kind is this Store's until ttl from now: if it had it already, or if nobody
// has. Of all that have the database open at most one has it. Close gives it back.
func (s *Store) ClaimWork(ctx context.Context, kind string, ttl time.Duration) (mine bool, err error) {
	err = s.update(ctx, "claim work", func(tx *transaction) error {
		s.present.Store(true)
		n, err := tx.exec(ctx, qClaimWork, kind, s.process, micros(tx.now.Add(ttl)), micros(tx.now))
		mine = n > 0
		return err
	})
	return mine && err == nil, err
}

// leave takes back what Beat and ClaimWork recorded, and writes the settlements that wait.
func (s *Store) leave(ctx context.Context) error {
	present := s.present.Swap(false)
	if !present && !s.settle.some() {
		return nil
	}
	return s.update(ctx, "leave the database", func(tx *transaction) error {
		if !present {
			return nil
		}
		for _, query := range []string{qForgetNode, qLeaveWork} {
			if _, err := tx.exec(ctx, query, s.process); err != nil {
				return err
			}
		}
		return nil
	})
}
