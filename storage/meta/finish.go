package meta

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"sealpost/gateway"
)

// FinishAttempt records an attempt and moves its delivery by the attempt's event; a delivery that is pending again
// is due at result.Next. The attempt's number is the delivery's own count. A notice to the sender is committed in
// the same transaction. When no delivery of the mail needs its copy any more, the copy is erased in it too.
// ErrLeaseLost, and nothing is changed, if the lease has been taken.
func (s *Store) FinishAttempt(ctx context.Context, lease gateway.Lease, result gateway.AttemptResult) error {
	const doing = "finish an attempt"
	ended := endedAttempt{lease: lease, result: result}
	var err error
	if ended.lastReply, err = s.wrap("deliveries", "last_reply", lease.Delivery, result.Attempt.Reply); err != nil {
		return s.failure(ctx, doing, err)
	}
	if result.Notice != nil {
		if ended.notice, err = s.mailStatements(result.Notice.Mail); err != nil {
			return s.failure(ctx, doing, err)
		}
	}
	if s.attempts != nil {
		err = s.together(ctx, doing, func() error { return s.attempts.do(ctx, &ended) })
	} else {
		err = s.update(ctx, doing, func(tx *transaction) error { return s.finishOne(ctx, tx, &ended) })
	}
	if err == nil || errors.Is(err, ErrLeaseLost) {
		s.hand.drop(lease)
	}
	if err == nil && (ended.notice != nil || ended.state == gateway.Pending) {
		s.signal()
	}
	return err
}

// endedAttempt is one that is to be recorded. The transaction fills in the latter fields.
type endedAttempt struct {
	lease     gateway.Lease
	result    gateway.AttemptResult
	lastReply []byte
	notice    []statement

	mail  string
	state gateway.DeliveryState
}

// leasedRow is what the row of a delivery says of who has it.
type leasedRow struct {
	mail, owner string
	state       gateway.DeliveryState
	attempts    int
	fence       int64
}

// holds compares a lease with the row of its delivery, and takes from it what is needed.
func (e *endedAttempt) holds(row leasedRow) error {
	if row.state != gateway.Sending || row.owner != e.lease.Owner || row.fence != e.lease.Fence {
		return ErrLeaseLost
	}
	var err error
	e.mail, e.result.Attempt.Number = row.mail, row.attempts
	e.state, err = row.state.Next(e.result.Attempt.Event)
	return err
}

// end are the values of qEndLease.
func (e *endedAttempt) end(now time.Time) []any {
	var sentAt, deadAt time.Time
	switch e.state {
	case gateway.Sent:
		sentAt = now
	case gateway.Dead:
		deadAt = now
	}
	var told gateway.NoticeKind
	if e.result.Notice != nil {
		told = e.result.Notice.Kind
	}
	return []any{e.lease.Delivery, string(e.state), micros(e.result.Next), e.result.Attempt.Code, e.lastReply,
		bit(e.result.AwaitCase), nullMicros(sentAt), nullMicros(deadAt), string(told), e.result.Untold}
}

// keepsCopy reports whether the delivery needs the mail's copy after that.
func (e *endedAttempt) keepsCopy() bool { return e.state.KeepsCopy(e.result.AwaitCase) }

// finishOne is for SQLite.
func (s *Store) finishOne(ctx context.Context, tx *transaction, e *endedAttempt) error {
	var row leasedRow
	err := tx.row(ctx, qLeased, e.lease.Delivery).Scan(&row.mail, &row.state, &row.attempts, &row.owner, &row.fence)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrLeaseLost
	}
	if err != nil {
		return err
	}
	if err := e.holds(row); err != nil {
		return err
	}
	attempt, err := s.attemptStatement(e.lease.Delivery, e.result.Attempt)
	if err != nil {
		return err
	}
	statements := append([]statement{{qEndLease, e.end(tx.now)}, attempt}, e.notice...)
	if e.state == gateway.Sent {
		statements = append(statements, extendLate(e.mail, tx.now)...)
	}
	if err := tx.execAll(ctx, s.dialect, statements); err != nil {
		return err
	}
	if e.keepsCopy() {
		return nil
	}
	return tx.eraseCopyUnlessKept(ctx, e.mail)
}
