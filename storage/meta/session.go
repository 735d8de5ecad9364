package meta

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"time"

	"github.com/alexedwards/scs/v2"

	"sealpost/gateway"
)

const (
	qFindSession   = `SELECT data FROM sessions WHERE token_hash = $1 AND expires > $2 AND data IS NOT NULL`
	qCommitSession = `INSERT INTO sessions (token_hash, data, expires) VALUES ($1, $2, $3)
		ON CONFLICT (token_hash) DO UPDATE SET data = excluded.data, expires = excluded.expires
		WHERE sessions.data IS NOT NULL`
	qDeleteSession        = `DELETE FROM sessions WHERE token_hash = $1`
	qDeleteSessionGrants  = `DELETE FROM grants WHERE session_hash = $1`
	qBindSession          = `UPDATE sessions SET agent_id = $2 WHERE token_hash = $1 AND data IS NOT NULL`
	qDeleteExpiredGrants  = `DELETE FROM grants WHERE expires <= $1`
	qDeleteExpiredSession = `DELETE FROM sessions WHERE expires <= $1`
)

// Sessions is the store of an scs.SessionManager whose HashTokenInStore is true: it sees hashed tokens only.
type Sessions struct{ s *Store }

var _ scs.CtxStore = Sessions{}

// Sessions returns the store for web sessions.
func (s *Store) Sessions() Sessions { return Sessions{s} }

// SessionHash returns what a session's token is stored as: its SHA-256, as scs hashes it. Grants name their
// session by it.
func SessionHash(token string) [32]byte { return sha256.Sum256([]byte(token)) }

// sessionKey reads a token as scs has hashed it.
func sessionKey(hashed string) ([]byte, bool) {
	key, err := base64.RawURLEncoding.DecodeString(hashed)
	return key, err == nil && len(key) == sha256.Size
}

// FindCtx implements scs.CtxStore. A session that has ended is not found.
func (v Sessions) FindCtx(ctx context.Context, hashed string) ([]byte, bool, error) {
	key, ok := sessionKey(hashed)
	if !ok {
		return nil, false, nil
	}
	now, err := v.s.Now(ctx)
	if err != nil {
		return nil, false, err
	}
	var wrapped []byte
	err = v.s.row(ctx, qFindSession, key, micros(now)).Scan(&wrapped)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, v.s.failure(ctx, "find a session", err)
	}
	data, err := v.s.unwrapBytes("sessions", "data", hex.EncodeToString(key), wrapped)
	return data, err == nil, v.s.failure(ctx, "find a session", err)
}

// CommitCtx implements scs.CtxStore. A session that Store ended stays ended, whatever a request that began
// before commits; a session keeps its agent.
func (v Sessions) CommitCtx(ctx context.Context, hashed string, data []byte, expires time.Time) error {
	const doing = "store a session"
	key, ok := sessionKey(hashed)
	if !ok {
		return v.s.failure(ctx, doing, errors.New("the token is not hashed: HashTokenInStore must be set"))
	}
	wrapped, err := v.s.wrapBytes("sessions", "data", hex.EncodeToString(key), data)
	if err != nil {
		return v.s.failure(ctx, doing, err)
	}
	return v.s.update(ctx, doing, func(tx *transaction) error {
		_, err := tx.exec(ctx, qCommitSession, key, wrapped, micros(expires))
		return err
	})
}

// DeleteCtx implements scs.CtxStore. The session's grants go with it.
func (v Sessions) DeleteCtx(ctx context.Context, hashed string) error {
	key, ok := sessionKey(hashed)
	if !ok {
		return nil
	}
	return v.s.update(ctx, "delete a session", func(tx *transaction) error {
		if _, err := tx.exec(ctx, qDeleteSessionGrants, key); err != nil {
			return err
		}
		_, err := tx.exec(ctx, qDeleteSession, key)
		return err
	})
}

// Find implements scs.Store.
func (v Sessions) Find(hashed string) ([]byte, bool, error) {
	return v.FindCtx(context.Background(), hashed)
}

// Commit implements scs.Store.
func (v Sessions) Commit(hashed string, data []byte, expires time.Time) error {
	return v.CommitCtx(context.Background(), hashed, data, expires)
}

// Delete implements scs.Store.
func (v Sessions) Delete(hashed string) error { return v.DeleteCtx(context.Background(), hashed) }

// BindSession ties a committed session to its agent, so that removing the agent or setting a new password ends
// it. token is the session's own, as SessionManager.Commit returns it, not its hash. A renewed token is a new
// session and must be bound again. CodeNotFound if there is no such session or agent.
func (s *Store) BindSession(ctx context.Context, token, agentID string) error {
	hash := SessionHash(token)
	return s.update(ctx, "bind a session", func(tx *transaction) error {
		n, err := tx.exec(ctx, qBindSession, hash[:], agentID)
		switch {
		case err != nil && s.dialect.missingParent(err):
			return notFound("agent")
		case err == nil && n == 0:
			return notFound("session")
		}
		return err
	})
}

// DeleteExpiredSessions deletes the sessions and grants that have expired, and returns the number of sessions.
func (s *Store) DeleteExpiredSessions(ctx context.Context) (int, error) {
	var n int64
	err := s.update(ctx, "delete expired sessions", func(tx *transaction) error {
		if _, err := tx.exec(ctx, qDeleteExpiredGrants, micros(tx.now)); err != nil {
			return err
		}
		var err error
		n, err = tx.exec(ctx, qDeleteExpiredSession, micros(tx.now))
		return err
	})
	return int(n), err
}

const (
	qInsertGrant = `INSERT INTO grants (token_hash, session_hash, package_id, expires) VALUES ($1, $2, $3, $4)`
	qGrant       = `SELECT session_hash, package_id, expires FROM grants WHERE token_hash = $1 AND expires > $2`
)

// AddGrant stores the right of a session to fetch a package's objects, and deletes those that have expired.
// sessionHash is that of SessionHash: so the grant ends with its session.
func (s *Store) AddGrant(ctx context.Context, tokenHash, sessionHash [32]byte, pkg gateway.PackageID, expires time.Time) error {
	return s.update(ctx, "add a grant", func(tx *transaction) error {
		if _, err := tx.exec(ctx, qDeleteExpiredGrants, micros(tx.now)); err != nil {
			return err
		}
		_, err := tx.exec(ctx, qInsertGrant, tokenHash[:], sessionHash[:], pkg.String(), micros(expires))
		return err
	})
}

// Grant returns a grant. CodeNotFound if there is none or it has expired.
func (s *Store) Grant(ctx context.Context, tokenHash [32]byte) (gateway.Grant, error) {
	g := gateway.Grant{TokenHash: tokenHash}
	now, err := s.Now(ctx)
	if err != nil {
		return g, err
	}
	var session []byte
	var pkg string
	var expires int64
	err = s.row(ctx, qGrant, tokenHash[:], micros(now)).Scan(&session, &pkg, &expires)
	if err != nil {
		return g, s.failure(ctx, "read a grant", orNotFound(err, "grant"))
	}
	copy(g.SessionHash[:], session)
	g.Expires = fromMicros(expires)
	g.Package, err = gateway.ParsePackageID(pkg)
	return g, s.failure(ctx, "read a grant", err)
}
