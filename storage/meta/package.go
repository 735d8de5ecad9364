package meta

import (
	"context"
	"errors"
	"slices"
	"time"

	"sealpost/gateway"
)

// deadReturnKeep is how long a mail is kept that no server took back for its sender.
const deadReturnKeep = 5 * 24 * time.Hour

const (
	qPackage = `SELECT source, state, created, expires, server_secret, proof_hash, head, scan, scan_signature
		FROM packages WHERE id = $1`
	qItems   = `SELECT ordinal, size, segments FROM items WHERE package_id = $1 ORDER BY ordinal`
	qObjects = `SELECT name, item, size FROM objects WHERE package_id = $1 ORDER BY position`
	qPlaces  = `SELECT kind, place, case_ref, expires FROM placements WHERE package_id = $1 ORDER BY position`
	qObject  = `SELECT name, item, size FROM objects WHERE name = $1 AND package_id = $2`

	qExpiredPackages = `SELECT id FROM packages WHERE state <> 'erased' AND expires <= $1
		AND NOT EXISTS (SELECT 1 FROM mails WHERE mails.id = packages.id AND queue_day IS NOT NULL) ORDER BY expires LIMIT $2`
	qObjectsToGarbage = `INSERT INTO garbage (name, since) SELECT name, $2 FROM objects WHERE package_id = $1
		ON CONFLICT (name) DO NOTHING`
	qDeleteObjects = `DELETE FROM objects WHERE package_id = $1`
	qDeleteItems   = `DELETE FROM items WHERE package_id = $1`
	qDeleteGrants  = `DELETE FROM grants WHERE package_id = $1`
	qErasePackage  = `UPDATE packages SET state = $2, server_secret = NULL WHERE id = $1` // the proof's hash stays: it lets the portal say `expired`
	// The correspondents of a package that came by mail go with the mail.
	qErasePackageAddresses = `DELETE FROM addresses
		WHERE owner_id = $1 AND NOT EXISTS (SELECT 1 FROM mails WHERE mails.id = $1)`
	qExpiredMails = `SELECT id FROM mails WHERE queue_day IS NULL AND expires <= $1 ORDER BY expires LIMIT $2`
	// Of mails that go back to senders only, those of which something is dead for long and nothing waits.
	qDeadReturns = `SELECT d.mail_id FROM deliveries d WHERE d.state = 'dead' AND d.route = $1 AND d.dead_at <= $2
		AND NOT EXISTS (SELECT 1 FROM deliveries o WHERE o.mail_id = d.mail_id AND ` + keepsReturn + `)
		ORDER BY d.dead_at LIMIT $3`
	keepsReturn = `(o.route <> $1 OR o.state IN ('pending', 'sending', 'held') OR o.dead_at > $2)`
	qStillDead  = `SELECT EXISTS (SELECT 1 FROM deliveries d WHERE d.mail_id = $3 AND d.state = 'dead' AND d.dead_at <= $2)
		AND NOT EXISTS (SELECT 1 FROM deliveries o WHERE o.mail_id = $3 AND ` + keepsReturn + `)`
	qDeliveriesOfMail = `SELECT id FROM deliveries WHERE mail_id = $1 ORDER BY id`
	// With its deliveries and their attempts, by cascade.
	qDeleteMail      = `DELETE FROM mails WHERE id = $1`
	qDeleteAddresses = `DELETE FROM addresses WHERE owner_id = $1`
)

// Package returns a package as it stands: its state and expiry are the caller's to judge. CodeNotFound.
func (s *Store) Package(ctx context.Context, id gateway.PackageID) (gateway.Package, error) {
	const doing = "read a package"
	p := gateway.Package{ID: id}
	var created, expires int64
	var secret, proof []byte
	err := s.row(ctx, qPackage, id.String()).Scan(&p.Source, &p.State, &created, &expires, &secret, &proof, &p.Head,
		&p.Scan.Verdict, &p.Scan.Signature)
	if err != nil {
		return p, s.failure(ctx, doing, orNotFound(err, "package"))
	}
	p.Created, p.Expires = fromMicros(created), fromMicros(expires)
	if proof != nil && copy(p.ProofHash[:], proof) != len(p.ProofHash) {
		return p, s.failure(ctx, doing, errors.New("the proof hash is cut"))
	}
	if p.ServerSecret, err = s.unwrap("packages", "server_secret", id.String(), secret); err != nil {
		return p, s.failure(ctx, doing, err)
	}
	return p, s.failure(ctx, doing, s.readParts(ctx, &p))
}

func (s *Store) readParts(ctx context.Context, p *gateway.Package) error {
	id := p.ID.String()
	rows, err := s.query(ctx, qItems, id)
	p.Items, err = collect(rows, err, func(row scanner) (i gateway.Item, err error) {
		return i, row.Scan(&i.Ordinal, &i.Size, &i.Segments)
	})
	if err != nil {
		return err
	}
	rows, err = s.query(ctx, qObjects, id)
	if p.Objects, err = collect(rows, err, scanObject); err != nil {
		return err
	}
	rows, err = s.query(ctx, qPlaces, id)
	p.Placements, err = collect(rows, err, func(row scanner) (gateway.Placement, error) {
		var place gateway.Placement
		var expires int64
		err := row.Scan(&place.Kind, &place.Place, &place.CaseRef, &expires)
		place.Expires = fromMicros(expires)
		return place, err
	})
	return err
}

func scanObject(row scanner) (o gateway.Object, err error) {
	return o, row.Scan(&o.Name, &o.Item, &o.Size)
}

// ObjectOf returns an object of a package by its name. CodeNotFound if it is not one of that package.
func (s *Store) ObjectOf(ctx context.Context, id gateway.PackageID, name string) (gateway.Object, error) {
	o, err := scanObject(s.row(ctx, qObject, name, id.String()))
	return o, s.failure(ctx, "read an object's row", orNotFound(err, "object"))
}

// ExpirePackages erases up to limit packages that have expired, but none whose mail still waits for delivery: server secret, items and grants are
// gone, the objects are garbage. It returns their number.
func (s *Store) ExpirePackages(ctx context.Context, limit int) (int, error) {
	n := 0
	err := s.update(ctx, "expire packages", func(tx *transaction) error {
		rows, err := tx.query(ctx, qExpiredPackages+s.dialect.skipLocked, micros(tx.now), limit)
		ids, err := collect(rows, err, scanString)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := s.erasePackage(ctx, tx, id); err != nil {
				return err
			}
		}
		n = len(ids)
		return nil
	})
	return n, err
}

func (s *Store) erasePackage(ctx context.Context, tx *transaction, id string) error {
	pkg, err := gateway.ParsePackageID(id)
	if err != nil {
		return err
	}
	for _, st := range []statement{
		{qObjectsToGarbage, []any{id, micros(tx.now)}},
		{qDeleteObjects, []any{id}},
		{qDeleteItems, []any{id}},
		{qDeleteGrants, []any{id}},
		{qErasePackageAddresses, []any{id}},
		{qErasePackage, []any{id, string(gateway.PackageErased)}},
	} {
		if _, err := tx.exec(ctx, st.query, st.args...); err != nil {
			return err
		}
	}
	return s.audit(ctx, tx, gateway.AuditEvent{
		Principal: gateway.Principal{Kind: gateway.PrincipalSystem}, Action: gateway.AuditExpire, Package: &pkg, Outcome: "ok",
	})
}

// ExpireMails deletes up to limit mails that have expired and whose copy is gone, with their deliveries, attempts
// and correspondents, and forgets old refusals and fingerprints. As many mails it deletes that could not be brought
// back to their senders for five days, with their copies. It returns the number of mails.
func (s *Store) ExpireMails(ctx context.Context, limit int) (int, error) {
	n := 0
	err := s.update(ctx, "expire mails", func(tx *transaction) error {
		rows, err := tx.query(ctx, qExpiredMails+s.dialect.skipLocked, micros(tx.now), limit)
		ids, err := collect(rows, err, scanString)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := tx.deleteMail(ctx, id); err != nil {
				return err
			}
		}
		undelivered, err := s.deleteDeadReturns(ctx, tx, limit)
		if err != nil {
			return err
		}
		n = len(ids) + undelivered
		if _, err := tx.exec(ctx, qForgetFingerprints, micros(tx.now.Add(-repeatWindow))); err != nil {
			return err
		}
		for _, query := range []string{qForgetRefused, qForgetRefusals} {
			if _, err := tx.exec(ctx, query, micros(tx.now.Add(-refusalKeep)), maxRefusals); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}

// deleteDeadReturns deletes mails that nobody took back, and returns their number.
func (s *Store) deleteDeadReturns(ctx context.Context, tx *transaction, limit int) (int, error) {
	before := micros(tx.now.Add(-deadReturnKeep))
	rows, err := tx.query(ctx, qDeadReturns+s.dialect.skipLocked, gateway.ReturnRoute, before, limit)
	ids, err := collect(rows, err, scanString)
	if err != nil {
		return 0, err
	}
	slices.Sort(ids)
	n := 0
	for _, id := range slices.Compact(ids) {
		dead, err := tx.stillDead(ctx, id, before)
		if err != nil {
			return 0, err
		}
		if !dead {
			continue
		}
		if _, err := tx.exec(ctx, qCopyToGarbage, id, micros(tx.now)); err != nil {
			return 0, err
		}
		if err := tx.deleteMail(ctx, id); err != nil {
			return 0, err
		}
		n++
	}
	if n > 0 {
		err = tx.erase(ctx)
	}
	return n, err
}

// stillDead locks a mail with all its deliveries, some of which an admin may have moved since they were found, and
// reports whether it is dead for long.
func (tx *transaction) stillDead(ctx context.Context, mail string, before int64) (dead bool, err error) {
	for _, query := range []string{qDeliveriesOfMail, qMailIsThere} {
		if err := tx.lock(ctx, query, mail); err != nil {
			return false, err
		}
	}
	return dead, tx.row(ctx, qStillDead, gateway.ReturnRoute, before, mail).Scan(&dead)
}

func (tx *transaction) deleteMail(ctx context.Context, id string) error {
	if _, err := tx.exec(ctx, qDeleteAddresses, id); err != nil {
		return err
	}
	_, err := tx.exec(ctx, qDeleteMail, id)
	return err
}
