package meta

import (
	"context"

	"sealpost/gateway"
)

const (
	qStatesOfMail  = `SELECT state, await_case FROM deliveries WHERE mail_id = $1`
	qCopyToGarbage = `INSERT INTO garbage (name, since) SELECT copy_object, $2 FROM mails
		WHERE id = $1 AND copy_object IS NOT NULL ON CONFLICT (name) DO NOTHING`
	qEraseCopy = `UPDATE mails SET mail_from = NULL, copy = NULL, copy_object = NULL, queue_day = NULL WHERE id = $1`
	qEraseKeys = `DELETE FROM queue_keys
		WHERE day < $1 AND NOT EXISTS (SELECT 1 FROM mails WHERE mails.queue_day = queue_keys.day)`
	// qEraseFreeKeys leaves out what another transaction refers to or erases. PostgreSQL would read all mails to see that
	// there is none of a day, but finds the next day that there is along the index.
	qEraseFreeKeys = `WITH free AS MATERIALIZED (SELECT day FROM queue_keys WHERE day < $1
			AND (SELECT MIN(queue_day) FROM mails WHERE queue_day >= queue_keys.day) IS DISTINCT FROM day
			` + forUpdate + ` SKIP LOCKED)
		DELETE FROM queue_keys WHERE day IN (SELECT day FROM free)`
)

// eraseCopyUnlessKept erases the copy of a mail when none of its deliveries needs it any more, and the queue
// keys that nothing needs then.
func (tx *transaction) eraseCopyUnlessKept(ctx context.Context, mail string) error {
	// Of two deliveries that end at once, the second must see what became of the first.
	if err := tx.lock(ctx, qMailIsThere, mail); err != nil {
		return err
	}
	rows, err := tx.query(ctx, qStatesOfMail, mail)
	kept, err := collect(rows, err, func(row scanner) (bool, error) {
		var state gateway.DeliveryState
		var awaitCase bool
		err := row.Scan(&state, &awaitCase)
		return state.KeepsCopy(awaitCase), err
	})
	if err != nil {
		return err
	}
	for _, keeps := range kept {
		if keeps {
			return nil
		}
	}
	return tx.erase(ctx, statement{qCopyToGarbage, []any{mail, micros(tx.now)}}, statement{qEraseCopy, []any{mail}})
}

// erase runs statements, and destroys the keys of days that no mail can be committed for any more and that no copy
// needs then.
func (tx *transaction) erase(ctx context.Context, statements ...statement) error {
	return erased(tx.run(ctx, append(statements, tx.eraseKeys())))
}

func (tx *transaction) eraseKeys() statement {
	query := qEraseKeys
	if tx.own != nil {
		query = qEraseFreeKeys
		tx.own.forgetKey()
	}
	return statement{query, []any{tx.openDay()}}
}

// openDay returns the first day for which a mail can still be committed.
func (tx *transaction) openDay() string { return tx.now.Add(-maxIntake).Format("20060102") }

// erased has the transaction tried again if a mail was committed meanwhile with a key that was to be erased.
func erased(err error) error {
	if pgCode(err) == "23503" {
		return failedTry{err}
	}
	return err
}

// EraseQueueKeys destroys the queue keys of past days that no waiting mail needs, and returns their number. It
// is for the days whose last delivery ended before midnight.
func (s *Store) EraseQueueKeys(ctx context.Context) (int, error) {
	var n int64
	err := s.update(ctx, "erase queue keys", func(tx *transaction) error {
		keys := tx.eraseKeys()
		var err error
		n, err = tx.exec(ctx, keys.query, keys.args...)
		return erased(err)
	})
	return int(n), err
}
