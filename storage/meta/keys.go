package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sealpost/gateway"
)

// Keyring is a Wrapper of several keys, which have IDs. crypto.Keyring is one.
//
// Values are wrapped by the key that the database names last. A process asks for it when it opens the database, at each
// beat, and at least every ten minutes; one that could not ask for an hour wraps nothing. So two hours after
// another key was named no process wraps by the former, and once all is re-wrapped the former may be removed.
type Keyring interface {
	Wrapper
	// KeyIDs returns the IDs of all keys; ActiveKey that of the one that a new database is to be wrapped by.
	KeyIDs() []string
	ActiveKey() string
	// WrappingKey returns the ID of the key that Wrap uses, and Use changes it.
	WrappingKey() string
	Use(id string) error
	// Refresh takes over the keys that the keyring's source has by then.
	Refresh() error
	// Mark returns what each value begins with that a key has wrapped, and no other value.
	Mark(id string) ([]byte, error)
}

const (
	// confirmEvery is how often to ask at least which key to wrap by, confirmLimit after what time not to wrap any more.
	confirmEvery = 10 * time.Minute
	confirmLimit = time.Hour
	// keyRest is how long another key must have been in use before the former may go.
	keyRest = 2 * confirmLimit
)

const (
	qCurrentKey = `SELECT position, id, since, finished FROM wrapping_keys ORDER BY position DESC LIMIT 1`
	qIsKey      = `SELECT EXISTS (SELECT 1 FROM wrapping_keys WHERE id = $1)`
	qFirstKey   = `INSERT INTO wrapping_keys (position, id, since, finished) VALUES (1, $1, $2, $2) ON CONFLICT DO NOTHING`
	qNextKey    = `INSERT INTO wrapping_keys (position, id, since) VALUES ($1, $2, $3)`
	qFinishKey  = `UPDATE wrapping_keys SET finished = $2 WHERE id = $1`
	qKeysHeld   = `SELECT keys, wraps FROM nodes WHERE seen > $1`
)

// WrappingKey is the key that the database names.
type WrappingKey struct {
	ID    string
	Since time.Time // when it was named
	// Rewrapped tells whether all that another one had wrapped has been re-wrapped.
	Rewrapped bool
}

// CurrentKey returns the key that values are wrapped by. In a database that names none it names the keyring's active one.
func (s *Store) CurrentKey(ctx context.Context) (WrappingKey, error) {
	if err := s.nameFirstKey(ctx); err != nil {
		return WrappingKey{}, s.failure(ctx, "name the first key", err)
	}
	key, _, err := currentKey(ctx, s)
	return key, s.failure(ctx, "ask which key wraps", err)
}

func currentKey(ctx context.Context, from querier) (key WrappingKey, position int64, err error) {
	var since int64
	var finished *int64
	err = from.row(ctx, qCurrentKey).Scan(&position, &key.ID, &since, &finished)
	key.Since, key.Rewrapped = fromMicros(since), finished != nil
	return key, position, err
}

// IsKnownKey reports whether values are or were wrapped by the key with this ID.
func (s *Store) IsKnownKey(ctx context.Context, id string) (known bool, err error) {
	err = s.row(ctx, qIsKey, id).Scan(&known)
	return known, s.failure(ctx, "look for a key", err)
}

// nameFirstKey names the keyring's active key in a database that names none.
func (s *Store) nameFirstKey(ctx context.Context) error {
	ring, ok := s.keys.(Keyring)
	if !ok {
		return nil
	}
	if _, _, err := currentKey(ctx, s); !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	return s.update(ctx, "name the first key", func(tx *transaction) error {
		_, err := tx.exec(ctx, qFirstKey, ring.ActiveKey(), micros(tx.now))
		return err
	})
}

// confirmKey asks the database which key to wrap by. Until the first gateway runs with it, it names none.
func (s *Store) confirmKey(ctx context.Context) error {
	ring, ok := s.keys.(Keyring)
	if !ok {
		return nil
	}
	asked := s.local()
	key, _, err := currentKey(ctx, s)
	if errors.Is(err, sql.ErrNoRows) {
		s.confirmed.Store(&asked)
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask which key wraps: %w", err)
	}
	if err := ring.Use(key.ID); err != nil {
		return gateway.Errorf(gateway.CodeConflict, err,
			"the database is wrapped by key %s, which this keyring does not have: give this node the newest keyring", key.ID)
	}
	s.confirmed.Store(&asked)
	return nil
}

// confirmAgain is confirmKey if that was long ago.
func (s *Store) confirmAgain(ctx context.Context) error {
	if confirmed := s.confirmed.Load(); confirmed == nil || s.since(*confirmed) < confirmEvery {
		return nil
	}
	return s.confirmKey(ctx)
}

// mayWrap keeps a process from wrapping by a key that may have been removed elsewhere.
func (s *Store) mayWrap() error {
	if confirmed := s.confirmed.Load(); confirmed != nil && s.since(*confirmed) > confirmLimit {
		return gateway.Errorf(gateway.CodeUnavailable, nil, "the database could not be asked for an hour which key wraps")
	}
	return nil
}

// since counts the time for which the host was suspended, which the monotonic clock leaves out.
func (s *Store) since(t time.Time) time.Duration {
	now := s.local()
	return max(now.Sub(t), now.Round(0).Sub(t.Round(0)))
}

// refreshKeys takes over the keys of the keyring's source and the choice of the database.
func (s *Store) refreshKeys(ctx context.Context) error {
	ring, ok := s.keys.(Keyring)
	if !ok {
		return nil
	}
	failed := ring.Refresh()
	if failed != nil {
		failed = fmt.Errorf("read the keyring anew: %w", failed)
	}
	return errors.Join(failed, s.nameFirstKey(ctx), s.confirmKey(ctx))
}

// keysHeld returns the IDs of the keys that this process has, with blanks in between, and of the one it wraps by.
func (s *Store) keysHeld() (held, wraps string) {
	ring, ok := s.keys.(Keyring)
	if !ok {
		return "", ""
	}
	return strings.Join(ring.KeyIDs(), " "), ring.WrappingKey()
}

// Laggards are the gateways that run and are not ready for a key.
type Laggards struct {
	Without int // do not have it
	Other   int // wrap by another one
}

// Laggards counts them, as of their last beats.
func (s *Store) Laggards(ctx context.Context, id string) (Laggards, error) {
	now, err := s.Now(ctx)
	if err != nil {
		return Laggards{}, err
	}
	l, err := laggards(ctx, s, id, now)
	return l, s.failure(ctx, "ask which keys the nodes have", err)
}

func laggards(ctx context.Context, from querier, id string, now time.Time) (l Laggards, err error) {
	type node struct{ keys, wraps string }
	rows, err := from.query(ctx, qKeysHeld, micros(now.Add(-aliveFor)))
	nodes, err := collect(rows, err, func(row scanner) (n node, err error) { return n, row.Scan(&n.keys, &n.wraps) })
	for _, n := range nodes {
		if !slices.Contains(strings.Fields(n.keys), id) {
			l.Without++
		}
		if n.wraps != id {
			l.Other++
		}
	}
	return l, err
}

// UseKey names the key that values are wrapped by from here on; it must be in the keyring. CodeConflict if it was used
// before, if what the one before has wrapped is not yet re-wrapped, or if a gateway runs that does not have it.
func (s *Store) UseKey(ctx context.Context, id string, by gateway.Principal) error {
	held, _ := s.keysHeld()
	err := s.update(ctx, "use another key", func(tx *transaction) error {
		current, position, err := currentKey(ctx, tx)
		if err != nil {
			return err
		}
		for _, needed := range []string{id, current.ID} {
			if !slices.Contains(strings.Fields(held), needed) {
				return gateway.Errorf(gateway.CodeConflict, nil, "this keyring does not have key %s", needed)
			}
		}
		var known bool
		if err := tx.row(ctx, qIsKey, id).Scan(&known); err != nil {
			return err
		}
		late, err := laggards(ctx, tx, id, tx.now)
		switch {
		case err != nil:
			return err
		case known:
			return gateway.Errorf(gateway.CodeConflict, nil, "key %s was used before", id)
		case !current.Rewrapped:
			return gateway.Errorf(gateway.CodeConflict, nil, "the change to key %s has not ended", current.ID)
		case late.Without > 0:
			return gateway.Errorf(gateway.CodeConflict, nil, "%d running gateways do not have key %s", late.Without, id)
		}
		if _, err := tx.exec(ctx, qNextKey, position+1, id, micros(tx.now)); err != nil {
			return err
		}
		tx.provenBy(`SELECT 1 FROM wrapping_keys WHERE id = $1`, id)
		return s.audit(ctx, tx, gateway.AuditEvent{Principal: by, Action: gateway.AuditKeyUsed, Object: id, Outcome: "ok"})
	})
	if err != nil {
		return err
	}
	return s.failure(ctx, "use another key", s.confirmKey(ctx))
}

const (
	qSetting    = `SELECT value FROM settings WHERE name = $1`
	qSetSetting = `INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`
)

// Setting returns what is known of the installation under a name; empty if nothing is.
func (s *Store) Setting(ctx context.Context, name string) (value string, err error) {
	err = s.row(ctx, qSetting, name).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return value, s.failure(ctx, "read a setting", err)
}

// SetSetting keeps it; it is stored as it is.
func (s *Store) SetSetting(ctx context.Context, name, value string) error {
	return s.update(ctx, "keep a setting", func(tx *transaction) error {
		_, err := tx.exec(ctx, qSetSetting, name, value)
		return err
	})
}
