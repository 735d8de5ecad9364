package meta

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"sealpost/gateway"
)

// ErrLeaseLost says that a lease has ended: another has the delivery, or it is no longer being sent. It has
// gateway.CodeConflict.
var ErrLeaseLost error = gateway.Errorf(gateway.CodeConflict, nil, "the lease was lost")

// unreadableRetry is when a delivery is due again whose copy could not be unwrapped.
const (
	unreadableRetry = 15 * time.Minute
	// unreadableGiveUp is how long it is tried before it is dead, as for any other delivery.
	unreadableGiveUp = 5 * 24 * time.Hour
)

// A package whose mail was delivered later than lateAfter can be opened for lateGrace at least.
const (
	lateAfter = 5 * 24 * time.Hour
	lateGrace = 7 * 24 * time.Hour
)

const (
	qLostLeases = `SELECT id, mail_id, attempts, leased_at FROM deliveries
		WHERE state = 'sending' AND lease_until <= $1`
	qExtendPackage    = `UPDATE packages SET expires = $2 WHERE id = $1 AND expires < $2 AND created < $3`
	qExtendPlacements = `UPDATE placements SET expires = $2 WHERE package_id = $1 AND expires < $2
		AND EXISTS (SELECT 1 FROM packages WHERE id = $1 AND created < $3)`
	qEndLease = `UPDATE deliveries SET state = $2, next_attempt = $3, last_code = $4, last_reply = $5, await_case = $6,
		sent_at = $7, owner = NULL, leased_at = NULL, lease_until = NULL WHERE id = $1`
	qReleaseLost = `UPDATE deliveries SET state = $2, next_attempt = $3, owner = NULL, leased_at = NULL,
		lease_until = NULL WHERE id = $1`
	qInsertAttempt = `INSERT INTO attempts (delivery_id, number, started, ended, hop, event, code, reply, tls)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`
	qRenewLease = `UPDATE deliveries SET lease_until = $1
		WHERE id = $2 AND owner = $3 AND fence = $4 AND state = 'sending'`
	qLeased = `SELECT mail_id, state, attempts, COALESCE(owner, ''), fence FROM deliveries WHERE id = $1`
	qCopy   = `SELECT m.mail_from, m.size, m.eight_bit, m.utf8, m.queue_day, k.key, m.copy, COALESCE(m.copy_object, ''),
		m.created, m.silence, m.dsn_return, m.envelope_id
		FROM mails m JOIN queue_keys k ON k.day = m.queue_day WHERE m.id = $1`
	// qDue steps from route to route along the index, however many deliveries wait.
	qDue = `WITH RECURSIVE routes (route) AS (
			SELECT MIN(route) FROM deliveries WHERE state = 'pending'
			UNION ALL SELECT (SELECT MIN(d.route) FROM deliveries d WHERE d.state = 'pending' AND d.route > routes.route)
				FROM routes WHERE routes.route IS NOT NULL)
		SELECT route, MIN(due) FROM (
			SELECT route, (SELECT MIN(next_attempt) FROM deliveries d WHERE d.state = 'pending' AND d.route = routes.route) AS due
				FROM routes WHERE route IS NOT NULL
			UNION ALL SELECT route, MIN(lease_until) FROM deliveries WHERE state = 'sending' GROUP BY route) AS both_kinds
		GROUP BY route ORDER BY route`
	qTold = `UPDATE deliveries SET told = CASE WHEN $2 = '' THEN told ELSE $2 END, untold = $3 WHERE id = $1`
)

// qLease leases what is due, the longest due first.
func qLease(d dialect) string {
	return `UPDATE deliveries SET state = $1, owner = $2, fence = fence + 1, leased_at = $3, lease_until = $4,
		attempts = attempts + 1
		WHERE id IN (SELECT id FROM deliveries WHERE state = 'pending' AND next_attempt <= $3
			AND route = $6 ORDER BY next_attempt, id LIMIT $5` + d.skipLocked + `)
		RETURNING ` + deliveryColumns + `, fence, lease_until`
}

// leased is a leased delivery as it is in the database.
type leased struct {
	wrappedDelivery
	lease      gateway.Lease
	copy       wrappedCopy
	received   int64
	silence    string
	dsnReturn  string
	envelopeID []byte
	missing    error // why there is no copy to open
}

type wrappedCopy struct {
	mailFrom, key, inline []byte
	mail                  gateway.QueuedMail
}

// LeaseDeliveries gives owner the right to attempt up to limit due deliveries of a route until ttl from now, the longest
// due first. Before that, leases that ran out end as deferred attempts, due at once. Each delivery comes with
// the copy of its mail; one whose copy cannot be unwrapped is deferred instead, and that is an error only if
// there was no other.
func (s *Store) LeaseDeliveries(ctx context.Context, owner, route string, limit int, ttl time.Duration) ([]gateway.LeasedDelivery, error) {
	const doing = "lease deliveries"
	sending, err := gateway.Pending.Next(gateway.EventLeased)
	if err != nil {
		return nil, s.failure(ctx, doing, err)
	}
	var all []leased
	err = s.update(ctx, doing, func(tx *transaction) error {
		if err := s.endLostLeases(ctx, tx); err != nil {
			return err
		}
		rows, err := tx.query(ctx, qLease(s.dialect), string(sending), owner, micros(tx.now), micros(tx.now.Add(ttl)), limit, route)
		if all, err = collect(rows, err, scanLeased); err != nil {
			return err
		}
		for i := range all {
			all[i].copy, all[i].missing = readCopy(ctx, tx, &all[i])
			if err := all[i].missing; err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b leased) int {
		return cmp.Or(a.NextAttempt.Compare(b.NextAttempt), cmp.Compare(a.ID, b.ID))
	})
	return s.open(ctx, owner, all)
}

func scanLeased(row scanner) (leased, error) {
	var l leased
	var until int64
	var err error
	l.wrappedDelivery, err = scanDelivery(row, &l.lease.Fence, &until)
	l.lease.Delivery, l.lease.Until = l.ID, fromMicros(until)
	return l, err
}

// open unwraps what the leased deliveries need.
func (s *Store) open(ctx context.Context, owner string, all []leased) ([]gateway.LeasedDelivery, error) {
	opened := make([]gateway.LeasedDelivery, 0, len(all))
	keys := map[string]gateway.Secret{} // by day
	var unreadable []error
	for _, l := range all {
		l.lease.Owner = owner
		d, err := s.openLeased(l, keys)
		if err == nil {
			opened = append(opened, d)
			continue
		}
		unreadable = append(unreadable, err)
		if err := s.deferUnreadable(ctx, d); err != nil {
			unreadable = append(unreadable, err)
		}
	}
	if len(opened) == 0 && len(unreadable) > 0 {
		return nil, s.failure(ctx, "open the copies of waiting mails", errors.Join(unreadable...))
	}
	return opened, nil
}

func (s *Store) openLeased(l leased, keys map[string]gateway.Secret) (gateway.LeasedDelivery, error) {
	d := gateway.LeasedDelivery{
		Delivery: l.Delivery, Lease: l.lease, Received: fromMicros(l.received), Silence: l.silence, Return: l.dsnReturn,
	}
	err := l.missing
	if err == nil {
		d.Copy, err = s.openCopy(l.copy, keys)
	}
	if err == nil {
		d.Delivery, err = s.openDelivery(l.wrappedDelivery)
	}
	if err == nil {
		d.EnvelopeID, err = s.unwrap("mails", "envelope_id", l.Mail.String(), l.envelopeID)
	}
	return d, err
}

func (s *Store) deferUnreadable(ctx context.Context, l gateway.LeasedDelivery) error {
	now, err := s.Now(ctx)
	if err != nil {
		return err
	}
	event := gateway.EventDeferred
	if now.Sub(l.Since) > unreadableGiveUp {
		event = gateway.EventGaveUp
	}
	return s.FinishAttempt(ctx, l.Lease, gateway.AttemptResult{
		Attempt: gateway.Attempt{
			Started: now, Ended: now, Event: event,
			Reply: gateway.NewSecret("the copy of the mail cannot be unwrapped: does the keyring belong to this database?"),
		},
		Next: now.Add(unreadableRetry), AwaitCase: true, Untold: "the mail cannot be read",
	})
}

// extendLate gives a package time to be opened whose mail was delivered long after it came, by a retry.
func (tx *transaction) extendLate(ctx context.Context, mail string) error {
	until, late := micros(tx.now.Add(lateGrace)), micros(tx.now.Add(-lateAfter))
	if _, err := tx.exec(ctx, qExtendPackage, mail, until, late); err != nil {
		return err
	}
	_, err := tx.exec(ctx, qExtendPlacements, mail, until, late)
	return err
}

// readCopy returns the copy of a leased delivery's mail, and fills in what else its mail's row holds.
func readCopy(ctx context.Context, q querier, l *leased) (wrappedCopy, error) {
	c := wrappedCopy{mail: gateway.QueuedMail{ID: l.Mail}}
	err := q.row(ctx, qCopy, l.Mail.String()).Scan(&c.mailFrom, &c.mail.Size, &c.mail.EightBit, &c.mail.UTF8,
		&c.mail.Key.Day, &c.key, &c.inline, &c.mail.Object, &l.received, &l.silence, &l.dsnReturn, &l.envelopeID)
	return c, err
}

// openCopy unwraps a copy. keys holds the queue keys that were unwrapped before.
func (s *Store) openCopy(c wrappedCopy, keys map[string]gateway.Secret) (gateway.QueuedMail, error) {
	mail, id := c.mail, c.mail.ID.String()
	var err error
	if _, ok := keys[mail.Key.Day]; !ok {
		if keys[mail.Key.Day], err = s.unwrap("queue_keys", "key", mail.Key.Day, c.key); err != nil {
			delete(keys, mail.Key.Day)
			return mail, err
		}
	}
	mail.Key.Key = keys[mail.Key.Day]
	if mail.MailFrom, err = s.unwrap("mails", "mail_from", id, c.mailFrom); err != nil {
		return mail, err
	}
	if c.inline != nil {
		mail.Inline, err = s.unwrapBytes("mails", "copy", id, c.inline)
	}
	return mail, err
}

// endLostLeases brings back what nobody has in hand any more.
func (s *Store) endLostLeases(ctx context.Context, tx *transaction) error {
	type lost struct {
		id, mail string
		attempts int
		leasedAt int64
	}
	rows, err := tx.query(ctx, qLostLeases+s.dialect.skipLocked, micros(tx.now))
	all, err := collect(rows, err, func(row scanner) (l lost, err error) {
		return l, row.Scan(&l.id, &l.mail, &l.attempts, &l.leasedAt)
	})
	if err != nil {
		return err
	}
	pending, err := gateway.Sending.Next(gateway.EventDeferred)
	if err != nil {
		return err
	}
	for _, l := range all {
		if _, err := tx.exec(ctx, qReleaseLost, l.id, string(pending), micros(tx.now)); err != nil {
			return err
		}
		if err := s.insertAttempt(ctx, tx, l.id, gateway.Attempt{
			Number: l.attempts, Started: fromMicros(l.leasedAt), Ended: tx.now,
			Event: gateway.EventDeferred, Reply: gateway.NewSecret("lease lost"),
		}); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) insertAttempt(ctx context.Context, tx *transaction, delivery string, a gateway.Attempt) error {
	reply, err := s.wrap("attempts", "reply", attemptRow(delivery, a.Number), a.Reply)
	if err != nil {
		return err
	}
	_, err = tx.exec(ctx, qInsertAttempt, delivery, a.Number, micros(a.Started), micros(a.Ended), a.Hop,
		string(a.Event), a.Code, reply, a.TLS)
	return err
}

// RenewLease makes a lease end ttl from now. ErrLeaseLost if it has been taken or the delivery is not being
// sent any more; a lease that ran out but that nobody took is renewed.
func (s *Store) RenewLease(ctx context.Context, lease gateway.Lease, ttl time.Duration) (gateway.Lease, error) {
	err := s.update(ctx, "renew a lease", func(tx *transaction) error {
		lease.Until = tx.now.Add(ttl)
		n, err := tx.exec(ctx, qRenewLease, micros(lease.Until), lease.Delivery, lease.Owner, lease.Fence)
		if err == nil && n == 0 {
			return ErrLeaseLost
		}
		return err
	})
	return lease, err
}

// FinishAttempt records an attempt and moves its delivery by the attempt's event; a delivery that is pending again
// is due at result.Next. The attempt's number is the delivery's own count. A notice to the sender is committed in
// the same transaction. When no delivery of the mail needs its copy any more, the copy is erased in it too.
// ErrLeaseLost, and nothing is changed, if the lease has been taken.
func (s *Store) FinishAttempt(ctx context.Context, lease gateway.Lease, result gateway.AttemptResult) error {
	const doing = "finish an attempt"
	lastReply, err := s.wrap("deliveries", "last_reply", lease.Delivery, result.Attempt.Reply)
	if err != nil {
		return s.failure(ctx, doing, err)
	}
	notice, err := s.noticeStatements(ctx, result.Notice)
	if err != nil {
		return s.failure(ctx, doing, err)
	}
	due := len(notice) > 0
	err = s.update(ctx, doing, func(tx *transaction) error {
		mail, state, err := tx.leasedState(ctx, s.dialect, lease, &result.Attempt)
		if err != nil {
			return err
		}
		due = due || state == gateway.Pending
		return s.finish(ctx, tx, finished{lease.Delivery, mail, state, lastReply, result, notice})
	})
	if err == nil && due {
		s.signal()
	}
	return err
}

// leasedState returns the mail of a delivery that is still leased, and the state that the attempt leads to.
func (tx *transaction) leasedState(ctx context.Context, d dialect, lease gateway.Lease, attempt *gateway.Attempt) (mail string, state gateway.DeliveryState, err error) {
	var owner string
	var fence int64
	err = tx.row(ctx, qLeased+d.forUpdate, lease.Delivery).Scan(&mail, &state, &attempt.Number, &owner, &fence)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return mail, state, ErrLeaseLost
	case err != nil:
		return mail, state, err
	case state != gateway.Sending || owner != lease.Owner || fence != lease.Fence:
		return mail, state, ErrLeaseLost
	}
	state, err = state.Next(attempt.Event)
	return mail, state, err
}

// finished is what the end of an attempt writes.
type finished struct {
	delivery, mail string
	state          gateway.DeliveryState
	lastReply      []byte
	result         gateway.AttemptResult
	notice         []statement
}

func (s *Store) finish(ctx context.Context, tx *transaction, f finished) error {
	var sentAt time.Time
	if f.state == gateway.Sent {
		sentAt = tx.now
	}
	if _, err := tx.exec(ctx, qEndLease, f.delivery, string(f.state), micros(f.result.Next), f.result.Attempt.Code, f.lastReply,
		bit(f.result.AwaitCase), nullMicros(sentAt)); err != nil {
		return err
	}
	var told gateway.NoticeKind
	if f.result.Notice != nil {
		told = f.result.Notice.Kind
	}
	if _, err := tx.exec(ctx, qTold, f.delivery, string(told), f.result.Untold); err != nil {
		return err
	}
	if err := s.insertAttempt(ctx, tx, f.delivery, f.result.Attempt); err != nil {
		return err
	}
	if err := tx.execAll(ctx, s.dialect, f.notice); err != nil {
		return err
	}
	if f.state == gateway.Sent {
		if err := tx.extendLate(ctx, f.mail); err != nil {
			return err
		}
	}
	if f.state.KeepsCopy(f.result.AwaitCase) {
		return nil
	}
	return tx.eraseCopyUnlessKept(ctx, f.mail)
}

// noticeStatements commit a notice to a sender.
func (s *Store) noticeStatements(ctx context.Context, notice *gateway.Notice) ([]statement, error) {
	if notice == nil {
		return nil, nil
	}
	now, err := s.Now(ctx)
	if err != nil {
		return nil, err
	}
	return s.mailStatements(notice.Mail, now)
}

// Due returns each route that has deliveries waiting, and when the first of them is due, or when a lease of one
// runs out.
func (s *Store) Due(ctx context.Context) ([]gateway.Due, error) {
	rows, err := s.query(ctx, qDue)
	due, err := collect(rows, err, func(row scanner) (gateway.Due, error) {
		var d gateway.Due
		var next int64
		err := row.Scan(&d.Route, &next)
		d.Next = fromMicros(next)
		return d, err
	})
	return due, s.failure(ctx, "look for due deliveries", err)
}
