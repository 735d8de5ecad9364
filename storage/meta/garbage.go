package meta

import (
	"context"

	"sealpost/gateway"
)

const (
	qReferenced = `SELECT EXISTS (SELECT 1 FROM objects WHERE name = $1)
		OR EXISTS (SELECT 1 FROM mails WHERE copy_object = $1)`
	qGarbage       = `SELECT name FROM garbage ORDER BY since, name LIMIT $1`
	qForgetGarbage = `DELETE FROM garbage WHERE name = $1`
)

// Referenced tells which of the objects a package or a waiting mail refers to. An object that no row refers to
// may still be on its way to one: a sweep asks about old objects only.
func (s *Store) Referenced(ctx context.Context, names []string) (map[string]bool, error) {
	referenced := make(map[string]bool, len(names))
	for _, name := range names {
		var is bool
		if err := s.row(ctx, qReferenced, name).Scan(&is); err != nil {
			return nil, s.failure(ctx, "look for what refers to objects", err)
		}
		referenced[name] = is
	}
	return referenced, nil
}

// Garbage returns up to limit names of objects that have lost their row, the longest ago first. Delete them
// from the blob store, then call ForgetGarbage.
func (s *Store) Garbage(ctx context.Context, limit int) ([]string, error) {
	rows, err := s.query(ctx, qGarbage, limit)
	names, err := collect(rows, err, scanString)
	return names, s.failure(ctx, "list garbage", err)
}

// ForgetGarbage removes the names of objects that have been deleted.
func (s *Store) ForgetGarbage(ctx context.Context, names []string) error {
	return s.update(ctx, "forget garbage", func(tx *transaction) error {
		for _, name := range names {
			if _, err := tx.exec(ctx, qForgetGarbage, name); err != nil {
				return err
			}
		}
		return nil
	})
}

// Checkpoint removes from the database's log what has been erased since; until then the log may still hold it,
// wrapped. Call it after expiry and now and then. CodeUnavailable if a reader was in the way. PostgreSQL does that by
// itself, some time after.
func (s *Store) Checkpoint(ctx context.Context) error {
	const doing = "empty the database's log"
	if s.dialect.checkpoint == "" {
		return nil
	}
	var busy, inLog, moved int64
	if err := s.write.QueryRowContext(ctx, s.dialect.checkpoint).Scan(&busy, &inLog, &moved); err != nil {
		return s.failure(ctx, doing, err)
	}
	if busy != 0 {
		return s.failure(ctx, doing, gateway.Errorf(gateway.CodeUnavailable, nil, "the database is in use"))
	}
	return nil
}
