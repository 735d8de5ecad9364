package meta

import (
	"context"
	"maps"
	"slices"
	"strings"

	"sealpost/gateway"
)

// Where mail has been forwarded to is kept among the settings, for as long as the database: so it is read at once, however
// many deliveries there are, and is known still when they have expired. What they say is read once, of a database in which
// nothing has been kept yet.
const (
	forwardedTo     = "forwarded to " // and an address, to the public one
	forwardedToEnd  = "forwarded to!" // comes after all of them
	forwardedToKept = "forwarded"     // is there once the deliveries have been read

	qForwardedTo   = `SELECT name, value FROM settings WHERE name >= $1 AND name < $2`
	qDeliveredTo   = `SELECT forward_to, MIN(route) FROM deliveries WHERE route <> $1 GROUP BY forward_to`
	qKeepForwarded = `INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`
)

// ForwardedTo returns each address that mail has been forwarded to, as KeepForwardedTo was told, with the public address
// that stands for it.
func (s *Store) ForwardedTo(ctx context.Context) (map[string]string, error) {
	const doing = "list where mail has been forwarded to"
	kept, err := s.Setting(ctx, forwardedToKept)
	if err == nil && kept == "" {
		err = s.keepDelivered(ctx)
	}
	if err != nil {
		return nil, err
	}
	rows, err := s.query(ctx, qForwardedTo, forwardedTo, forwardedToEnd)
	pairs, err := collect(rows, err, scanPair)
	if err != nil {
		return nil, s.failure(ctx, doing, err)
	}
	all := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		all[strings.TrimPrefix(pair[0], forwardedTo)] = pair[1]
	}
	return all, nil
}

// KeepForwardedTo keeps addresses that mail is forwarded to from now on, each with its public address.
func (s *Store) KeepForwardedTo(ctx context.Context, addresses map[string]string) error {
	return s.update(ctx, "keep where mail is forwarded to", func(tx *transaction) error {
		for _, address := range slices.Sorted(maps.Keys(addresses)) { // all in one order: they meet at the same rows
			if _, err := tx.exec(ctx, qSetSetting, forwardedTo+address, addresses[address]); err != nil {
				return err
			}
		}
		return nil
	})
}

// keepDelivered keeps where the deliveries went.
func (s *Store) keepDelivered(ctx context.Context) error {
	const doing = "read where mail was delivered to"
	rows, err := s.query(ctx, qDeliveredTo, gateway.ReturnRoute)
	pairs, err := collect(rows, err, scanPair)
	if err != nil {
		return s.failure(ctx, doing, err)
	}
	slices.SortFunc(pairs, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return s.update(ctx, doing, func(tx *transaction) error {
		for _, pair := range pairs {
			if _, err := tx.exec(ctx, qKeepForwarded, forwardedTo+pair[0], pair[1]); err != nil {
				return err
			}
		}
		_, err := tx.exec(ctx, qKeepForwarded, forwardedToKept, "1")
		return err
	})
}

func scanPair(row scanner) (pair [2]string, err error) { return pair, row.Scan(&pair[0], &pair[1]) }
