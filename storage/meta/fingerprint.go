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
	// A process that is not known to live has no sessions.
	qRepeated = `SELECT mail_id FROM fingerprints WHERE fingerprint = $1 AND at > $2
		AND (ended = 1 OR owner <> $3 AND NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.id = fingerprints.owner AND nodes.seen > $4))
		AND EXISTS (SELECT 1 FROM deliveries d WHERE d.mail_id = fingerprints.mail_id AND d.state NOT IN ('dead', 'dropped'))
		ORDER BY at DESC LIMIT 1`
	qCountRepeat = `UPDATE fingerprints SET repeats = repeats + 1 WHERE mail_id = $1`
	qHeard       = `DELETE FROM fingerprints WHERE mail_id = $1 AND repeats = 0`
	qHeardRepeat = `UPDATE fingerprints SET at = 0 WHERE mail_id = $1`
	qUnheard     = `UPDATE fingerprints SET ended = 1 WHERE mail_id = $1`
	qAllUnheard  = `UPDATE fingerprints SET ended = 1 WHERE mail_id = ANY ($1)`
	qAllHeard    = `DELETE FROM fingerprints WHERE mail_id = ANY ($1) AND repeats = 0`
	// A statement of its own: a repeat that was counted while the DELETE waited is not in that one's snapshot.
	qAllHeardRepeats    = `UPDATE fingerprints SET at = 0 WHERE mail_id = ANY ($1)`
	qForgetFingerprints = `DELETE FROM fingerprints WHERE at < $1 AND repeats = 0`
)

// settlement is what became known of whether a mail's 250 was heard.
type settlement struct {
	mail  string
	heard bool
}

// settlements wait for the next transaction, so that a mail costs no transaction of its own for them. What was not heard
// has one of its own where the client may try another node next, which is rare.
type settlements struct {
	mu      sync.Mutex
	waiting []settlement
	carried sync.Mutex // held while transactions that are not shared write some
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

// carry is take for one transaction at a time: the others take nothing. release is to be called when it is over.
func (w *settlements) carry() (taken []settlement, release func()) {
	if !w.some() || !w.carried.TryLock() {
		return nil, func() {}
	}
	return w.take(), w.carried.Unlock
}

// writeSettlements returns when all that was settled before is written. Shared transactions see to that themselves.
func (s *Store) writeSettlements(ctx context.Context, doing string) error {
	if s.group != nil {
		return nil
	}
	s.settle.carried.Lock()
	defer s.settle.carried.Unlock()
	settled := s.settle.take()
	if len(settled) == 0 {
		return nil
	}
	err := s.update(ctx, doing, func(tx *transaction) error { return tx.run(ctx, settlementsAtOnce(settled)) })
	if err != nil {
		s.settle.giveBack(settled)
	}
	return err
}

// SettleMail says whether the client heard the 250 of a mail: it sent a further command, or the session ended
// without one. It takes effect with the next transaction of this process and before the next Repeated; on PostgreSQL
// what was not heard is written at once, but not waited for, so that other nodes know. If a crash comes first, an equal
// mail (all octets, sender and recipients) counts as a repeat for a day.
func (s *Store) SettleMail(id gateway.PackageID, heard bool) {
	s.settle.add(settlement{id.String(), heard})
	if !heard && s.server != nil {
		s.server.settleNow()
	}
}

// settlementsOneByOne write what waits.
func settlementsOneByOne(all []settlement) []statement {
	var statements []statement
	for _, one := range all {
		queries := []string{qUnheard}
		if one.heard {
			queries = []string{qHeard, qHeardRepeat}
		}
		for _, query := range queries {
			statements = append(statements, statement{query, []any{one.mail}})
		}
	}
	return statements
}

// settlementsAtOnce do the same on PostgreSQL, in three statements at most. Whether a mail was heard may be settled twice:
// then that it was counts, in whatever order it came.
func settlementsAtOnce(all []settlement) []statement {
	var heard, unheard []string
	for _, one := range all {
		if one.heard {
			heard = append(heard, one.mail)
		} else {
			unheard = append(unheard, one.mail)
		}
	}
	var statements []statement
	if len(unheard) > 0 {
		statements = append(statements, statement{qAllUnheard, []any{unheard}})
	}
	if len(heard) > 0 {
		statements = append(statements, statement{qAllHeard, []any{heard}}, statement{qAllHeardRepeats, []any{heard}})
	}
	return statements
}

// Repeated returns the mail that was accepted within a day with this fingerprint and whose 250 may have been lost:
// its session ended without a further command, or its process did, as the end of its beats tells. It counts the repeat.
// A mail of which every delivery is dead or dropped has none: its sender tries again for good reason.
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
	if err := s.writeSettlements(ctx, doing); err != nil {
		return gateway.PackageID{}, false, err
	}
	var id string
	err = s.update(ctx, doing, func(tx *transaction) error { // in which all that was settled is settled
		if err := tx.row(ctx, qRepeated, fingerprint, micros(tx.now.Add(-repeatWindow)), s.process,
			micros(tx.now.Add(-aliveFor))).Scan(&id); err != nil {
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
