package meta_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sealpost/gateway"
	"sealpost/storage/meta"
	"sealpost/storage/meta/metatest"
)

// longPostgresQueue copies the one mail and its delivery n times, by ten routes, older and older, and a tenth as many
// that are dead.
const longPostgresQueue = `
	INSERT INTO mails (id, created, expires, size, eight_bit, utf8, queue_day, copy)
		SELECT md5(n::text), created, expires, size, eight_bit, utf8, queue_day, copy FROM mails, generate_series(1, %[1]d) AS n;
	INSERT INTO deliveries (id, mail_id, state, route, lane, forward_to, created, since, next_attempt)
		SELECT md5(n::text), md5(n::text), 'pending', 'lane' || n %% 10 || '@example.com', 'lane' || n %% 10 || '@example.com',
			'x.case.example', created - n, since - n, next_attempt - n
		FROM deliveries, generate_series(1, %[1]d) AS n WHERE state = 'pending';
	INSERT INTO deliveries (id, mail_id, state, route, lane, forward_to, created, since, next_attempt, dead_at)
		SELECT 'd' || id, mail_id, 'dead', route, lane, 'd' || forward_to, created, since - 1, next_attempt, since FROM deliveries
		WHERE route = 'lane0@example.com'`

// TestLongQueueUsesIndexesOfPostgres: with 50,000 mails that wait, what is asked again and again reads along indexes, by
// the plan that is made for all values, and gives the right answers.
func TestLongQueueUsesIndexesOfPostgres(t *testing.T) {
	const waiting = 50_000
	_, url := newPostgres(t)
	s := openPostgres(t, url, metatest.NewKeys())
	mail := newMail(t, s)
	mail.Deliveries = mail.Deliveries[:1]
	if err := s.CommitMail(t.Context(), mail); err != nil {
		t.Fatal(err)
	}
	execPostgres(t, url, fmt.Sprintf(longPostgresQueue, waiting))
	execPostgres(t, url, `ANALYZE`)
	withPostgres(t, url, func(ctx context.Context, conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, `SET plan_cache_mode = force_generic_plan`); err != nil {
			return err
		}
		for name, query := range meta.PostgresQueries() {
			plan, err := planOf(ctx, conn, query)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			for _, table := range []string{"deliveries", "mails"} {
				if strings.Contains(plan, "Seq Scan on "+table) {
					t.Errorf("%s reads all %s:\n%s", name, table, plan)
				}
			}
		}
		return nil
	})
	due, err := s.Due(t.Context())
	if err != nil || len(due) != 11 {
		t.Errorf("%d lanes, %v; want 11", len(due), err)
	}
	leased, err := s.LeaseDeliveries(t.Context(), "node", "lane7@example.com", 50, time.Minute)
	if len(leased) != 0 || err == nil { // the copies were copied, and belong to another row
		t.Errorf("%d leased, %v", len(leased), err)
	}
	facts, err := s.QueueFacts(t.Context())
	if err != nil || facts.Counts[gateway.Dead] != waiting/10 || facts.OldestPending.IsZero() {
		t.Errorf("%+v, %v", facts, err)
	}
}

// planOf returns how PostgreSQL would run a query whatever its values.
func planOf(ctx context.Context, conn *pgx.Conn, query string) (string, error) {
	if _, err := conn.Exec(ctx, `PREPARE planned AS `+query); err != nil {
		return "", err
	}
	var nulls []string
	for strings.Contains(query, fmt.Sprintf("$%d", len(nulls)+1)) {
		nulls = append(nulls, "NULL")
	}
	execute := `EXPLAIN EXECUTE planned`
	if len(nulls) > 0 {
		execute += `(` + strings.Join(nulls, ", ") + `)`
	}
	rows, err := conn.Query(ctx, execute, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return "", err
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return "", err
	}
	_, err = conn.Exec(ctx, `DEALLOCATE planned`)
	return strings.Join(lines, "\n"), err
}

// One mail from commit to the end of its delivery, with leases for groups of 50: see BenchmarkMail.
func BenchmarkMailOnPostgres(b *testing.B) {
	_, url := newPostgres(b)
	for _, writers := range []int{1, 5, 25} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			clock := metatest.NewClock()
			s := openPostgres(b, url, metatest.NewKeys(), meta.WithClock(clock.Now))
			execPostgres(b, url, emptied)
			benchmarkMail(b, s, clock, writers)
		})
	}
}
