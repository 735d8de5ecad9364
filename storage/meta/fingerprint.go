package meta

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"sealpost/gateway"
)

// repeatWindow is how long a mail counts as a repeat of another.
const repeatWindow = 24 * time.Hour

const (
	qInsertFingerprint = `INSERT INTO fingerprints (mail_id, fingerprint, at, owner) VALUES ($1, $2, $3, $4)`
	qFingerprinted     = `SELECT 1 FROM fingerprints WHERE fingerprint = $1 LIMIT 1`
	qRepeated          = `SELECT mail_id FROM fingerprints WHERE fingerprint = $1 AND at > $2 AND (ended = 1 OR owner <> $3)
		ORDER BY at DESC LIMIT 1`
	qCountRepeat        = `UPDATE fingerprints SET repeats = repeats + 1 WHERE mail_id = $1`
	qHeard              = `DELETE FROM fingerprints WHERE mail_id = $1 AND repeats = 0`
	qHeardRepeat        = `UPDATE fingerprints SET at = 0 WHERE mail_id = $1`
	qUnheard            = `UPDATE fingerprints SET ended = 1 WHERE mail_id = $1`
	qForgetFingerprints = `DELETE FROM fingerprints WHERE at < $1 AND repeats = 0`
)

// settlement is what became known of whether a mail's 250 was heard.
type settlement struct {
	mail  string
	heard bool
}

// settlements wait for the next transaction, so that a mail costs no transaction of its own for them.
type settlements struct {
	mu      sync.Mutex
	waiting []settlement
}

func (w *settlements) add(one settlement) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = append(w.waiting, one)
}

func (w *settlements) some() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.waiting) > 0
}

func (w *settlements) take() []settlement {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := w.waiting
	w.waiting = nil
	return taken
}

func (w *settlements) giveBack(taken []settlement) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = append(taken, w.waiting...)
}

// SettleMail says whether the client heard the 250 of a mail: it sent a further command, or the session ended
// without one. It takes effect with the next transaction of this process and before the next Repeated. If a crash
// comes first, an equal mail (all octets, sender and recipients) counts as a repeat for a day.
func (s *Store) SettleMail(_ context.Context, id gateway.PackageID, heard bool) error {
	s.settle.add(settlement{id.String(), heard})
	return nil
}

// flushSettlements writes what waits in a transaction of its own.
func (s *Store) flushSettlements(ctx context.Context) error {
	return s.update(ctx, "settle mails", func(*transaction) error { return nil })
}

// applySettlements writes what waits. It runs at the head of a transaction.
func (tx *transaction) applySettlements(ctx context.Context, all []settlement) error {
	for _, one := range all {
		queries := []string{qUnheard}
		if one.heard {
			queries = []string{qHeard, qHeardRepeat}
		}
		for _, query := range queries {
			if _, err := tx.exec(ctx, query, one.mail); err != nil {
				return err
			}
		}
	}
	return nil
}

// Repeated returns the mail that was accepted within a day with this fingerprint and whose 250 may have been lost:
// its session ended without a further command, or its process did. It counts the repeat.
func (s *Store) Repeated(ctx context.Context, fingerprint []byte) (gateway.PackageID, bool, error) {
	const doing = "look for a repeated mail"
	var known int
	err := s.row(ctx, qFingerprinted, fingerprint).Scan(&known)
	if errors.Is(err, sql.ErrNoRows) {
		return gateway.PackageID{}, false, nil // as with nearly every mail, which so costs no transaction
	}
	if err != nil {
		return gateway.PackageID{}, false, s.failure(ctx, doing, err)
	}
	var id string
	err = s.update(ctx, doing, func(tx *transaction) error { // in which all that was settled is settled
		if err := tx.row(ctx, qRepeated, fingerprint, micros(tx.now.Add(-repeatWindow)), s.process).Scan(&id); err != nil {
			return err
		}
		_, err := tx.exec(ctx, qCountRepeat, id)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return gateway.PackageID{}, false, nil
	}
	if err != nil {
		return gateway.PackageID{}, false, err
	}
	parsed, err := gateway.ParsePackageID(id)
	return parsed, err == nil, err
}
