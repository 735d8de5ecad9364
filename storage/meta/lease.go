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
	qCopy   = `SELECT m.mail_from, m.size, m.eight_bit, m.utf8, m.queue_day, k.key, m.copy, COALESCE(m.copy_object, '')
		FROM mails m JOIN queue_keys k ON k.day = m.queue_day WHERE m.id = $1`
	qNextDue = `SELECT MIN(due) FROM (
		SELECT MIN(next_attempt) AS due FROM deliveries WHERE state = 'pending'
		UNION ALL SELECT MIN(lease_until) FROM deliveries WHERE state = 'sending') AS both_kinds`
)

// qLease leases what is due, the longest due first.
func qLease(d dialect) string {
	return `UPDATE deliveries SET state = $1, owner = $2, fence = fence + 1, leased_at = $3, lease_until = $4,
		attempts = attempts + 1
		WHERE id IN (SELECT id FROM deliveries WHERE state = 'pending' AND next_attempt <= $3
			ORDER BY next_attempt, id LIMIT $5` + d.skipLocked + `)
		RETURNING ` + deliveryColumns + `, fence, lease_until`
}

// leased is a leased delivery as it is in the database.
type leased struct {
	gateway.LeasedDelivery
	lastReply []byte
	copy      wrappedCopy
	missing   error // why there is no copy to open
}

type wrappedCopy struct {
	mailFrom, key, inline []byte
	mail                  gateway.QueuedMail
}

// LeaseDeliveries gives owner the right to attempt up to limit due deliveries until ttl from now, the longest
// due first. Before that, leases that ran out end as deferred attempts, due at once. Each delivery comes with
// the copy of its mail; one whose copy cannot be unwrapped is deferred instead, and that is an error only if
// there was no other.
func (s *Store) LeaseDeliveries(ctx context.Context, owner string, limit int, ttl time.Duration) ([]gateway.LeasedDelivery, error) {
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
		rows, err := tx.query(ctx, qLease(s.dialect), string(sending), owner, micros(tx.now), micros(tx.now.Add(ttl)), limit)
		if all, err = collect(rows, err, scanLeased); err != nil {
			return err
		}
		for i := range all {
			all[i].copy, all[i].missing = readCopy(ctx, tx, all[i].Mail)
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
	d, reply, err := scanDelivery(row, &l.Lease.Fence, &until)
	l.Delivery, l.lastReply = d, reply
	l.Lease.Delivery, l.Lease.Until = d.ID, fromMicros(until)
	return l, err
}

// open unwraps what the leased deliveries need.
func (s *Store) open(ctx context.Context, owner string, all []leased) ([]gateway.LeasedDelivery, error) {
	opened := make([]gateway.LeasedDelivery, 0, len(all))
	keys := map[string]gateway.Secret{} // by day
	var unreadable []error
	for _, l := range all {
		l.Lease.Owner = owner
		err := l.missing
		if err == nil {
			l.Copy, err = s.openCopy(l.copy, keys)
		}
		if err == nil {
			l.LastReply, err = s.unwrap("deliveries", "last_reply", l.ID, l.lastReply)
		}
		if err == nil {
			opened = append(opened, l.LeasedDelivery)
			continue
		}
		unreadable = append(unreadable, err)
		if err := s.deferUnreadable(ctx, l.LeasedDelivery); err != nil {
			unreadable = append(unreadable, err)
		}
	}
	if len(opened) == 0 && len(unreadable) > 0 {
		return nil, s.failure(ctx, "open the copies of waiting mails", errors.Join(unreadable...))
	}
	return opened, nil
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
	return s.FinishAttempt(ctx, l.Lease, gateway.Attempt{
		Started: now, Ended: now, Event: event,
		Reply: gateway.NewSecret("the copy of the mail cannot be unwrapped: does the keyring belong to this database?"),
	}, now.Add(unreadableRetry), true)
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

func readCopy(ctx context.Context, q querier, mail gateway.PackageID) (wrappedCopy, error) {
	c := wrappedCopy{mail: gateway.QueuedMail{ID: mail}}
	err := q.row(ctx, qCopy, mail.String()).Scan(&c.mailFrom, &c.mail.Size, &c.mail.EightBit, &c.mail.UTF8,
		&c.mail.Key.Day, &c.key, &c.inline, &c.mail.Object)
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

// FinishAttempt records an attempt and moves its delivery by attempt.Event; a delivery that is pending again is
// due at next. The attempt's number is the delivery's own count. awaitCase tells whether a Case is looked for
// after this delivery; if not, sent is the end. When no delivery of the mail needs its copy any more, the copy
// is erased in the same transaction. ErrLeaseLost, and nothing is changed, if the lease has been taken.
func (s *Store) FinishAttempt(ctx context.Context, lease gateway.Lease, attempt gateway.Attempt, next time.Time, awaitCase bool) error {
	lastReply, err := s.wrap("deliveries", "last_reply", lease.Delivery, attempt.Reply)
	if err != nil {
		return s.failure(ctx, "finish an attempt", err)
	}
	due := false
	err = s.update(ctx, "finish an attempt", func(tx *transaction) error {
		var mail, owner string
		var state gateway.DeliveryState
		var fence int64
		err := tx.row(ctx, qLeased+s.dialect.forUpdate, lease.Delivery).Scan(&mail, &state, &attempt.Number, &owner, &fence)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrLeaseLost
		}
		if err != nil {
			return err
		}
		if state != gateway.Sending || owner != lease.Owner || fence != lease.Fence {
			return ErrLeaseLost
		}
		if state, err = state.Next(attempt.Event); err != nil {
			return err
		}
		var sentAt time.Time
		if state == gateway.Sent {
			sentAt = tx.now
		}
		due = state == gateway.Pending
		if _, err := tx.exec(ctx, qEndLease, lease.Delivery, string(state), micros(next), attempt.Code, lastReply,
			bit(awaitCase), nullMicros(sentAt)); err != nil {
			return err
		}
		if err := s.insertAttempt(ctx, tx, lease.Delivery, attempt); err != nil {
			return err
		}
		if state == gateway.Sent {
			if err := tx.extendLate(ctx, mail); err != nil {
				return err
			}
		}
		if state.KeepsCopy(awaitCase) {
			return nil
		}
		return tx.eraseCopyUnlessKept(ctx, mail)
	})
	if err == nil && due {
		s.signal()
	}
	return err
}

// NextDue returns when the next pending delivery is due, or the next lease runs out; false if there is none.
func (s *Store) NextDue(ctx context.Context) (time.Time, bool, error) {
	var due sql.NullInt64
	if err := s.row(ctx, qNextDue).Scan(&due); err != nil {
		return time.Time{}, false, s.failure(ctx, "look for the next delivery", err)
	}
	if !due.Valid {
		return time.Time{}, false, nil
	}
	return fromMicros(due.Int64), true, nil
}
