package meta

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"sealpost/gateway"
)

// ErrLeaseLost says that a lease has ended: another has the delivery, or it is no longer being sent. It has
// gateway.CodeConflict.
var ErrLeaseLost error = gateway.Errorf(gateway.CodeConflict, nil, "the lease was lost")

const (
	// unreadableRetry is when a delivery is due again whose copy could not be unwrapped.
	unreadableRetry = 15 * time.Minute
	// giveUpAfter is how long a delivery is tried before it is dead.
	giveUpAfter = 5 * 24 * time.Hour
)

// A package whose mail was delivered later than lateAfter can be opened for lateGrace at least.
const (
	lateAfter = 5 * 24 * time.Hour
	lateGrace = 7 * 24 * time.Hour
)

const (
	qExtendPackage    = `UPDATE packages SET expires = $2 WHERE id = $1 AND expires < $2 AND created < $3`
	qExtendPlacements = `UPDATE placements SET expires = $2 WHERE package_id = $1 AND expires < $2
		AND EXISTS (SELECT 1 FROM packages WHERE id = $1 AND created < $3)`
	qEndLease = `UPDATE deliveries SET state = $2, next_attempt = $3, last_code = $4, last_reply = $5, await_case = $6,
		sent_at = $7, dead_at = $8, told = CASE WHEN $9 = '' THEN told ELSE $9 END, untold = $10,
		owner = NULL, leased_at = NULL, lease_until = NULL WHERE id = $1`
	qInsertAttempt = `INSERT INTO attempts (delivery_id, number, started, ended, hop, event, code, reply, tls)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`
	qAttemptIsThere = `SELECT 1 FROM attempts WHERE delivery_id = $1 AND number = $2`
	qRenewLease     = `UPDATE deliveries SET lease_until = $1
		WHERE id = $2 AND owner = $3 AND fence = $4 AND state = 'sending'`
	qIsLeased = `SELECT 1 FROM deliveries WHERE id = $1 AND owner = $2 AND fence = $3`
	qLeased   = `SELECT mail_id, state, attempts, COALESCE(owner, ''), fence FROM deliveries WHERE id = $1`
	qCopy     = `SELECT m.id, m.mail_from, m.size, m.eight_bit, m.utf8, m.queue_day, k.key, m.copy, COALESCE(m.copy_object, ''),
		m.created, m.silence, m.dsn_return, m.envelope_id
		FROM mails m JOIN queue_keys k ON k.day = m.queue_day WHERE m.id = $1`
)

const (
	dueOfLane = `SELECT id FROM deliveries WHERE state = 'pending' AND next_attempt <= $3 AND lane = $6
		ORDER BY next_attempt, id LIMIT $5`
	leaseWhere = `UPDATE deliveries SET state = $1, owner = $2, fence = fence + 1, leased_at = $3, lease_until = $4,
		attempts = attempts + 1 WHERE id IN `
	returningLeased = ` RETURNING ` + deliveryColumns + `, fence, lease_until`

	// qLease leases what is due, the longest due first.
	qLease = leaseWhere + `(` + dueOfLane + `)` + returningLeased
	// qLeaseWithCopies does so on PostgreSQL, and returns what openLeased needs beside. What locks must run once,
	// whatever the plan; and with its limit a copy is looked up for one mail after the other, whatever the plan.
	qLeaseWithCopies = `WITH due AS MATERIALIZED (` + dueOfLane + forUpdate + ` SKIP LOCKED),
		leased AS (` + leaseWhere + `(SELECT id FROM due)` + returningLeased + `)
		SELECT leased.*, c.* FROM leased LEFT JOIN LATERAL (SELECT m.id, m.mail_from, m.size, m.eight_bit <> 0, m.utf8 <> 0,
			m.queue_day, k.key, m.copy, m.copy_object, m.created, m.silence, m.dsn_return, m.envelope_id
			FROM mails m JOIN queue_keys k ON k.day = m.queue_day WHERE m.id = leased.mail_id LIMIT 1) AS c ON true`
)

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

// LeaseDeliveries gives owner the right to attempt up to limit due deliveries of a lane until ttl from now, the longest
// due first. Before that, leases that ran out end as attempts that failed; those that this Store gave out itself only
// when they were neither renewed nor finished for another ttl. Each delivery comes with the copy of its mail; one whose
// copy cannot be unwrapped is deferred or given up instead. An error may come beside deliveries, which are leased all
// the same: it tells of each other that was given up or could not be opened.
func (s *Store) LeaseDeliveries(ctx context.Context, owner, lane string, limit int, ttl time.Duration) ([]gateway.LeasedDelivery, error) {
	const doing = "lease deliveries"
	sending, err := gateway.Pending.Next(gateway.EventLeased)
	if err != nil {
		return nil, s.failure(ctx, doing, err)
	}
	var all []leased
	var givenUp []error
	err = s.update(ctx, doing, func(tx *transaction) error {
		lost, found, err := tx.lease(ctx, string(sending), owner, micros(tx.now), micros(tx.now.Add(ttl)), limit, lane)
		if err != nil {
			return err
		}
		if all = found; len(all) > 0 {
			tx.provenBy(qIsLeased, all[0].ID, owner, all[0].lease.Fence) // or two would send what a crash took from one
		}
		givenUp, err = s.endLostLeases(ctx, tx, lost)
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b leased) int {
		return cmp.Or(a.NextAttempt.Compare(b.NextAttempt), cmp.Compare(a.ID, b.ID))
	})
	now := s.local()
	s.hand.tidy(now)
	for i := range all {
		all[i].lease.Owner = owner
		s.hand.hold(now, all[i].lease, ttl)
	}
	opened, unreadable := s.open(ctx, all)
	return opened, s.failure(ctx, doing, errors.Join(append(givenUp, unreadable...)...))
}

// local is the time by this host's clock, for spans of time only.
func (s *Store) local() time.Time {
	if s.dialect.local != nil {
		return s.dialect.local()
	}
	return time.Now()
}

// lease leases deliveries, and returns those besides whose leases ran out. What becomes of these is later than now, so
// they are not among the former. args are those of qLease.
func (tx *transaction) lease(ctx context.Context, args ...any) (lost []lostLease, all []leased, err error) {
	if tx.own != nil {
		return tx.leaseAtOnce(ctx, args)
	}
	rows, err := tx.query(ctx, qLostLeases, micros(tx.now))
	if lost, err = collect(rows, err, scanLostLease); err != nil {
		return nil, nil, err
	}
	rows, err = tx.query(ctx, qLease, args...)
	all, err = collect(rows, err, func(row scanner) (leased, error) { return scanLeased(row) })
	if err != nil {
		return nil, nil, err
	}
	return lost, all, tx.readCopies(ctx, all)
}

// leaseAtOnce is lease in one round trip.
func (tx *transaction) leaseAtOnce(ctx context.Context, args []any) (lost []lostLease, all []leased, err error) {
	batch := &pgx.Batch{}
	queueRows(batch, func(row pgx.Rows) error {
		l, err := scanLostLease(row)
		lost = append(lost, l)
		return err
	}, qLostLeases+forUpdate+` SKIP LOCKED`, micros(tx.now))
	queueRows(batch, func(row pgx.Rows) error {
		l, err := scanLeasedWithCopy(row)
		all = append(all, l)
		return err
	}, qLeaseWithCopies, args...)
	err = tx.own.raw(func(c *pgx.Conn) error { return c.SendBatch(ctx, batch).Close() })
	return lost, all, err
}

func scanLeased(row scanner, more ...any) (leased, error) {
	var l leased
	var until int64
	var err error
	l.wrappedDelivery, err = scanDelivery(row, append([]any{&l.lease.Fence, &until}, more...)...)
	l.lease.Delivery, l.lease.Until = l.ID, fromMicros(until)
	return l, err
}

// scanLeasedWithCopy scans a row of qLeaseWithCopies.
func scanLeasedWithCopy(row scanner) (leased, error) {
	var id, day, object, silence, dsnReturn *string
	var size, received *int64
	var eightBit, utf8 *bool
	var c wrappedCopy
	var envelopeID []byte
	l, err := scanLeased(row, &id, &c.mailFrom, &size, &eightBit, &utf8, &day, &c.key, &c.inline, &object, &received, &silence, &dsnReturn, &envelopeID)
	if err != nil || id == nil {
		l.missing = sql.ErrNoRows
		return l, err
	}
	c.mail = gateway.QueuedMail{ID: l.Mail, Size: *size, EightBit: *eightBit, UTF8: *utf8, Key: gateway.QueueKey{Day: *day}}
	if object != nil {
		c.mail.Object = *object
	}
	l.copy, l.received, l.silence, l.dsnReturn, l.envelopeID = c, *received, *silence, *dsnReturn, envelopeID
	return l, nil
}

// open unwraps what the leased deliveries need. It defers those of which that is not possible, and says so of each.
func (s *Store) open(ctx context.Context, all []leased) (opened []gateway.LeasedDelivery, unreadable []error) {
	keys := map[string]gateway.Secret{} // by day
	for _, l := range all {
		d, err := s.openLeased(l, keys)
		if err == nil {
			opened = append(opened, d)
			continue
		}
		state, failed := s.deferUnreadable(ctx, d)
		unreadable = append(unreadable, errors.Join(fmt.Errorf("delivery %s cannot be read and is %s: %w", d.ID, state, err), failed))
	}
	return opened, unreadable
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

// deferUnreadable ends the attempt of a delivery that cannot be read, and returns the delivery's state.
func (s *Store) deferUnreadable(ctx context.Context, l gateway.LeasedDelivery) (gateway.DeliveryState, error) {
	now, err := s.Now(ctx)
	if err != nil {
		return l.State, err
	}
	event, state, untold := gateway.EventDeferred, gateway.Pending, ""
	if now.Sub(l.Since) >= giveUpAfter {
		event, state, untold = gateway.EventGaveUp, gateway.Dead, "the mail cannot be read"
	}
	err = s.FinishAttempt(ctx, l.Lease, gateway.AttemptResult{
		Attempt: gateway.Attempt{
			Started: now, Ended: now, Event: event,
			Reply: gateway.NewSecret("the copy of the mail cannot be unwrapped: does the keyring belong to this database?"),
		},
		Next: now.Add(unreadableRetry), AwaitCase: true, Untold: untold,
	})
	if err != nil {
		return l.State, err
	}
	return state, nil
}

// extendLate gives a package time to be opened whose mail was delivered long after it came, by a retry.
func extendLate(mail string, now time.Time) []statement {
	until, late := micros(now.Add(lateGrace)), micros(now.Add(-lateAfter))
	return []statement{{qExtendPackage, []any{mail, until, late}}, {qExtendPlacements, []any{mail, until, late}}}
}

// readCopies fills in the copies of leased deliveries' mails, and what else their mails' rows hold.
func (tx *transaction) readCopies(ctx context.Context, all []leased) error {
	byMail := map[string][]*leased{}
	for i := range all {
		id := all[i].Mail.String()
		all[i].missing = sql.ErrNoRows
		byMail[id] = append(byMail[id], &all[i])
	}
	for id := range byMail {
		if err := tx.scanCopies(ctx, byMail, id); err != nil {
			return err
		}
	}
	return nil
}

func (tx *transaction) scanCopies(ctx context.Context, byMail map[string][]*leased, mail string) error {
	rows, err := tx.query(ctx, qCopy, mail)
	_, err = collect(rows, err, func(row scanner) (struct{}, error) {
		var id string
		var c wrappedCopy
		var l leased
		err := row.Scan(&id, &c.mailFrom, &c.mail.Size, &c.mail.EightBit, &c.mail.UTF8, &c.mail.Key.Day, &c.key, &c.inline,
			&c.mail.Object, &l.received, &l.silence, &l.dsnReturn, &l.envelopeID)
		for _, of := range byMail[id] {
			of.copy, of.missing = c, nil
			of.copy.mail.ID = of.Mail
			of.received, of.silence, of.dsnReturn, of.envelopeID = l.received, l.silence, l.dsnReturn, l.envelopeID
		}
		return struct{}{}, err
	})
	return err
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

func (s *Store) attemptStatement(delivery string, a gateway.Attempt) (statement, error) {
	reply, err := s.wrap("attempts", "reply", attemptRow(delivery, a.Number), a.Reply)
	if err != nil {
		return statement{}, err
	}
	hop, err := s.wrap("attempts", "hop", attemptRow(delivery, a.Number), gateway.NewSecret(a.Hop))
	return statement{qInsertAttempt, []any{delivery, a.Number, micros(a.Started), micros(a.Ended), hop,
		string(a.Event), a.Code, reply, a.TLS}}, err
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
	switch {
	case err == nil:
		s.hand.hold(s.local(), lease, ttl)
	case errors.Is(err, ErrLeaseLost):
		s.hand.drop(lease)
	}
	return lease, err
}
