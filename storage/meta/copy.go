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
)

// eraseCopyUnlessKept erases the copy of a mail when none of its deliveries needs it any more, and the queue
// keys that nothing needs then.
func (tx *transaction) eraseCopyUnlessKept(ctx context.Context, mail string) error {
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
	if _, err := tx.exec(ctx, qCopyToGarbage, mail, micros(tx.now)); err != nil {
		return err
	}
	if _, err := tx.exec(ctx, qEraseCopy, mail); err != nil {
		return err
	}
	_, err = tx.eraseQueueKeys(ctx)
	return err
}

// eraseQueueKeys destroys the keys of days that no mail can be committed for any more and that no copy needs.
func (tx *transaction) eraseQueueKeys(ctx context.Context) (int64, error) {
	return tx.exec(ctx, qEraseKeys, tx.now.Add(-maxIntake).Format("20060102"))
}

// EraseQueueKeys destroys the queue keys of past days that no waiting mail needs, and returns their number. It
// is for the days whose last delivery ended before midnight.
func (s *Store) EraseQueueKeys(ctx context.Context) (int, error) {
	var n int64
	err := s.update(ctx, "erase queue keys", func(tx *transaction) error {
		var err error
		n, err = tx.eraseQueueKeys(ctx)
		return err
	})
	return int(n), err
}
