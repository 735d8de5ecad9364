package meta

import (
	"context"
	"fmt"

	"sealpost/gateway"
)

const (
	qCountHeads  = `SELECT COUNT(*) FROM packages WHERE state <> 'erased'`
	qHeads       = `SELECT id, head FROM packages WHERE state <> 'erased' AND id > $1 ORDER BY id LIMIT $2`
	qReplaceHead = `UPDATE packages SET head = $3 WHERE id = $1 AND head = $2 AND state <> 'erased'`
	// The new head takes the place of the old one among the package's objects.
	qInsertHead = `INSERT INTO objects (name, package_id, position, item, size)
		SELECT $3, package_id, position, item, CAST($4 AS BIGINT) FROM objects WHERE package_id = $1 AND name = $2`
	qDeleteObject    = `DELETE FROM objects WHERE package_id = $1 AND name = $2`
	qObjectToGarbage = `INSERT INTO garbage (name, since) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`
)

// Head is the head of a package that is not erased.
type Head struct {
	Package gateway.PackageID
	Name    string // of the object
}

// CountHeads returns how many there are.
func (s *Store) CountHeads(ctx context.Context) (n int64, err error) {
	err = s.row(ctx, qCountHeads).Scan(&n)
	return n, s.failure(ctx, "count heads", err)
}

// Heads returns up to limit heads by the order of their packages' IDs: those after the package, from the first on if it
// is nil.
func (s *Store) Heads(ctx context.Context, after *gateway.PackageID, limit int) ([]Head, error) {
	from := ""
	if after != nil {
		from = after.String()
	}
	rows, err := s.query(ctx, qHeads, from, limit)
	heads, err := collect(rows, err, func(row scanner) (h Head, err error) {
		var id string
		if err := row.Scan(&id, &h.Name); err != nil {
			return h, err
		}
		h.Package, err = gateway.ParsePackageID(id)
		return h, err
	})
	return heads, s.failure(ctx, "list heads", err)
}

// ReplaceHead makes an object, which must be durable, the head of a package; the old one becomes garbage. CodeConflict
// if that is not its head any more.
func (s *Store) ReplaceHead(ctx context.Context, id gateway.PackageID, old string, fresh gateway.Object) error {
	return s.update(ctx, "replace a head", func(tx *transaction) error {
		n, err := tx.exec(ctx, qReplaceHead, id.String(), old, fresh.Name)
		if err != nil {
			return err
		}
		if n == 0 {
			return gateway.Errorf(gateway.CodeConflict, nil, "the package has another head by now, or none")
		}
		tx.provenBy(`SELECT 1 FROM objects WHERE name = $1`, fresh.Name)
		if n, err = tx.exec(ctx, qInsertHead, id.String(), old, fresh.Name, fresh.Size); err != nil {
			return err
		}
		if n != 1 {
			return fmt.Errorf("the head is %d of the package's objects", n)
		}
		if _, err := tx.exec(ctx, qDeleteObject, id.String(), old); err != nil {
			return err
		}
		_, err = tx.exec(ctx, qObjectToGarbage, old, micros(tx.now))
		return err
	})
}
