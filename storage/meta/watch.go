package meta

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"sealpost/gateway"
)

const (
	qLastWatch = `SELECT last FROM watch WHERE id = 1`
	qSetWatch  = `INSERT INTO watch (id, last) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET last = excluded.last`
	qAddSpan   = `INSERT INTO unwatched (since, until) VALUES ($1, $2) ON CONFLICT (since) DO UPDATE SET until = excluded.until`
	qSpans     = `SELECT since, until FROM unwatched ORDER BY since`
)

// watchGap is how long a gateway may be silent before it counts as away. What it stored in that time is left
// to the sweep like anything that it stored before.
const watchGap = 10 * time.Minute

// KeepWatch records that a gateway runs with this database now. Call it at the start and every minute. When
// the last record is missing or old, the time since then is an unwatched span for ever: the database is new,
// or comes from a backup, or nobody ran.
func (s *Store) KeepWatch(ctx context.Context) error {
	return s.update(ctx, "keep watch", func(tx *transaction) error {
		var last int64
		err := tx.row(ctx, qLastWatch).Scan(&last)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		since := time.UnixMicro(0)
		if err == nil {
			since = fromMicros(last).Add(watchGap)
		}
		if since.Before(tx.now) {
			if _, err := tx.exec(ctx, qAddSpan, micros(since), micros(tx.now)); err != nil {
				return err
			}
		}
		_, err = tx.exec(ctx, qSetWatch, micros(tx.now))
		return err
	})
}

// Unwatched returns the spans of time in which objects may have been stored that this database cannot know.
func (s *Store) Unwatched(ctx context.Context) ([]gateway.Span, error) {
	rows, err := s.query(ctx, qSpans)
	spans, err := collect(rows, err, func(row scanner) (gateway.Span, error) {
		var since, until int64
		err := row.Scan(&since, &until)
		return gateway.Span{Since: fromMicros(since), Until: fromMicros(until)}, err
	})
	return spans, s.failure(ctx, "list unwatched spans", err)
}
