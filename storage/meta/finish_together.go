package meta

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"sealpost/gateway"
)

// The rows of many deliveries and of their mails are locked in the order of their IDs, all deliveries before all mails. For
// several attempts those that are locked are left out: one must not keep the others waiting until their leases are lost.
const (
	qAllLeased = `SELECT id, mail_id, state, attempts, COALESCE(owner, ''), fence, created FROM deliveries
		WHERE id = ANY ($1) ORDER BY id` + forUpdate
	skipLocked        = ` SKIP LOCKED`
	mailsOfDeliveries = `IN (SELECT mail_id FROM deliveries WHERE id = ANY ($1))`
	qLockCopies       = `SELECT id, COALESCE(queue_day, ''), copy_object IS NOT NULL FROM mails WHERE id ` + mailsOfDeliveries + ` ORDER BY id` + forUpdate
	qStatesOfMails    = `SELECT mail_id, id, state, await_case <> 0 FROM deliveries WHERE mail_id ` + mailsOfDeliveries

	qAllCopiesToGarbage = `INSERT INTO garbage (name, since) SELECT copy_object, $2 FROM mails
		WHERE id = ANY ($1) AND copy_object IS NOT NULL ORDER BY copy_object ON CONFLICT (name) DO NOTHING`
	qEraseCopies = `UPDATE mails SET mail_from = NULL, copy = NULL, copy_object = NULL, queue_day = NULL WHERE id = ANY ($1)`
	// qEndLeases is qEndLease for many.
	qEndLeases = `UPDATE deliveries d SET state = v.state, next_attempt = v.next_attempt, last_code = v.last_code,
		last_reply = v.last_reply, await_case = v.await_case, sent_at = v.sent_at, dead_at = v.dead_at,
		told = CASE WHEN v.told = '' THEN d.told ELSE v.told END, untold = v.untold,
		owner = NULL, leased_at = NULL, lease_until = NULL
		FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bigint[], $7::bigint[], $8::bigint[],
			$9::text[], $10::text[]) AS v (id, state, next_attempt, last_code, last_reply, await_case, sent_at, dead_at, told, untold)
		WHERE d.id = v.id`
)

// finishAttempts finishes attempts together.
func (s *Store) finishAttempts(calls []*call[*endedAttempt]) {
	share(calls, func(ctx context.Context, calls []*call[*endedAttempt]) error {
		f := newFinishing(calls)
		err := s.tryOwn(ctx, f.ask, func(tx *transaction) ([]statement, error) { return s.finishAll(tx, f) })
		switch {
		case err == nil || !s.dialect.missingParent(err):
			return err
		case f.erasesKeys: // and a mail was committed meanwhile with one of them
			return failedTry{gateway.Errorf(gateway.CodeUnavailable, err, "a queue key is in use")}
		}
		return gateway.Errorf(gateway.CodeUnavailable, err, "the queue key of a notice is gone")
	})
}

// finishing is what one transaction needs to know to finish attempts.
type finishing struct {
	calls       []*call[*endedAttempt]
	all, ending []string // deliveries; those that do not need the mail's copy any more
	rows        map[string]leasedRow
	created     map[string]int64
	copies      map[string]mailCopy
	states      map[string][]deliveryOfMail // by mail
	skipsLocked bool                        // rows that are not there may be locked
	erasesKeys  bool
}

// mailCopy is what there is to erase of a mail.
type mailCopy struct {
	day      string
	inObject bool
}

type deliveryOfMail struct {
	id    string
	keeps bool // the mail's copy
}

func newFinishing(calls []*call[*endedAttempt]) *finishing {
	f := &finishing{
		calls: calls, skipsLocked: len(calls) > 1, rows: map[string]leasedRow{}, created: map[string]int64{}, copies: map[string]mailCopy{}, states: map[string][]deliveryOfMail{},
	}
	for _, c := range calls {
		f.all = append(f.all, c.what.lease.Delivery)
		state, err := gateway.Sending.Next(c.what.result.Attempt.Event)
		if err == nil && !state.KeepsCopy(c.what.result.AwaitCase) {
			f.ending = append(f.ending, c.what.lease.Delivery)
		}
	}
	return f
}

// ask locks what is to be changed and reads what decides on it.
func (f *finishing) ask(batch *pgx.Batch) {
	locking := ""
	if f.skipsLocked {
		locking = skipLocked
	}
	queueRows(batch, func(row pgx.Rows) error {
		var id string
		var l leasedRow
		var created int64
		err := row.Scan(&id, &l.mail, &l.state, &l.attempts, &l.owner, &l.fence, &created)
		f.rows[id], f.created[l.mail] = l, created
		return err
	}, qAllLeased+locking, f.all)
	if len(f.ending) == 0 {
		return
	}
	queueRows(batch, func(row pgx.Rows) error {
		var id string
		var c mailCopy
		err := row.Scan(&id, &c.day, &c.inObject)
		f.copies[id] = c
		return err
	}, qLockCopies+locking, f.ending)
	// Of two deliveries that end at once on two nodes, the second sees what became of the first: it has waited for the mail.
	queueRows(batch, func(row pgx.Rows) error {
		var mail, id string
		var state gateway.DeliveryState
		var awaitCase bool
		err := row.Scan(&mail, &id, &state, &awaitCase)
		f.states[mail] = append(f.states[mail], deliveryOfMail{id, state.KeepsCopy(awaitCase)})
		return err
	}, qStatesOfMails, f.ending)
}

// finishAll returns what ends the attempts whose leases still hold.
func (s *Store) finishAll(tx *transaction, f *finishing) ([]statement, error) {
	var statements []statement
	var late []string
	over := map[string]bool{} // deliveries whose need of a copy ends here
	for _, c := range f.calls {
		if c.err = f.mayEnd(c.what); c.err != nil {
			continue
		}
		delete(f.rows, c.what.lease.Delivery) // one lease ends once
		e := c.what
		attempt, err := s.attemptStatement(e.lease.Delivery, e.result.Attempt)
		if err != nil {
			return nil, err
		}
		tx.provenBy(qAttemptIsThere, e.lease.Delivery, e.result.Attempt.Number)
		statements = append(append(statements, statement{qEndLease, e.end(tx.now)}, attempt), at(tx.now, e.notice)...)
		// A package was made no more than maxIntake before its deliveries.
		if e.state == gateway.Sent && f.created[e.mail] < micros(tx.now.Add(maxIntake-lateAfter)) {
			late = append(late, e.mail)
		}
		over[e.lease.Delivery] = !e.keepsCopy()
	}
	slices.Sort(late) // two nodes lock their packages in one order
	for _, mail := range slices.Compact(late) {
		statements = append(statements, extendLate(mail, tx.now)...)
	}
	return append(s.dialect.inserts.merge(statements), f.erase(tx, over)...), nil
}

// mayEnd compares the lease of an attempt with what was read, and says whether all rows are locked that it needs.
func (f *finishing) mayEnd(e *endedAttempt) error {
	row, ok := f.rows[e.lease.Delivery]
	switch {
	case !ok && f.skipsLocked:
		return errAlone
	case !ok:
		return ErrLeaseLost
	}
	if err := e.holds(row); err != nil {
		return err
	}
	if _, locked := f.copies[e.mail]; !locked && !e.keepsCopy() && f.skipsLocked {
		return errAlone
	}
	return nil
}

// erase returns what erases the copies that no delivery needs any more.
func (f *finishing) erase(tx *transaction, over map[string]bool) []statement {
	var mails []string
	objects := false
	for mail, deliveries := range f.states {
		if !slices.ContainsFunc(deliveries, func(d deliveryOfMail) bool { return over[d.id] }) ||
			slices.ContainsFunc(deliveries, func(d deliveryOfMail) bool { return d.keeps && !over[d.id] }) {
			continue
		}
		mails = append(mails, mail)
		objects = objects || f.copies[mail].inObject
		f.erasesKeys = f.erasesKeys || f.copies[mail].day < tx.openDay()
	}
	if len(mails) == 0 {
		return nil
	}
	slices.Sort(mails)
	var statements []statement
	if objects {
		statements = append(statements, statement{qAllCopiesToGarbage, []any{mails, micros(tx.now)}})
	}
	statements = append(statements, statement{qEraseCopies, []any{mails}})
	if f.erasesKeys {
		statements = append(statements, tx.eraseKeys())
	}
	return statements
}
