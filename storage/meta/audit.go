package meta

import (
	"context"
	"time"

	"sealpost/gateway"
)

const (
	auditColumns = `id, at, principal_kind, principal_id, action, package_id, delivery_id, agent_id, object, client, outcome, name, reason`

	qInsertAudit = `INSERT INTO audit_events (` + auditColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`
	qAudit       = `SELECT ` + auditColumns + ` FROM audit_events ORDER BY at DESC, id LIMIT $1`
	qAuditOf     = `SELECT ` + auditColumns + ` FROM audit_events WHERE package_id = $1 ORDER BY at DESC, id LIMIT $2`
)

// Audit writes an audit event. One without a time gets the database's.
func (s *Store) Audit(ctx context.Context, event gateway.AuditEvent) error {
	return s.update(ctx, "write an audit event", func(tx *transaction) error { return s.audit(ctx, tx, event) })
}

func (s *Store) audit(ctx context.Context, tx *transaction, e gateway.AuditEvent) error {
	id := newID()
	if e.At.IsZero() {
		e.At = tx.now
	}
	client, err := s.wrap("audit_events", "client", id, e.Client)
	if err != nil {
		return err
	}
	name, err := s.wrap("audit_events", "name", id, e.Principal.Name)
	if err != nil {
		return err
	}
	reason, err := s.wrap("audit_events", "reason", id, e.Reason)
	if err != nil {
		return err
	}
	var pkg any
	if e.Package != nil {
		pkg = e.Package.String()
	}
	_, err = tx.exec(ctx, qInsertAudit, id, micros(e.At), string(e.Principal.Kind), e.Principal.ID, string(e.Action),
		pkg, e.Delivery, e.Agent, e.Object, client, e.Outcome, name, reason)
	return err
}

// ListAudit returns up to limit audit events, the latest first: those of one package, or all if pkg is nil.
func (s *Store) ListAudit(ctx context.Context, pkg *gateway.PackageID, limit int) ([]gateway.AuditEvent, error) {
	query, args := qAudit, []any{limit}
	if pkg != nil {
		query, args = qAuditOf, []any{pkg.String(), limit}
	}
	rows, err := s.query(ctx, query, args...)
	all, err := collect(rows, err, s.scanAudit)
	return all, s.failure(ctx, "list audit events", err)
}

func (s *Store) scanAudit(row scanner) (gateway.AuditEvent, error) {
	var e gateway.AuditEvent
	var id string
	var at int64
	var pkg *string
	var client, name, reason []byte
	err := row.Scan(&id, &at, &e.Principal.Kind, &e.Principal.ID, &e.Action, &pkg, &e.Delivery, &e.Agent, &e.Object,
		&client, &e.Outcome, &name, &reason)
	if err != nil {
		return e, err
	}
	e.At = fromMicros(at)
	if pkg != nil {
		parsed, err := gateway.ParsePackageID(*pkg)
		if err != nil {
			return e, err
		}
		e.Package = &parsed
	}
	if e.Client, err = s.unwrap("audit_events", "client", id, client); err != nil {
		return e, err
	}
	if e.Principal.Name, err = s.unwrap("audit_events", "name", id, name); err != nil {
		return e, err
	}
	e.Reason, err = s.unwrap("audit_events", "reason", id, reason)
	return e, err
}

const (
	qCountFailures  = `SELECT COUNT(*) FROM login_failures WHERE lookup = $1 AND at >= $2`
	qInsertFailure  = `INSERT INTO login_failures (id, lookup, at) VALUES ($1, $2, $3)`
	qClearFailures  = `DELETE FROM login_failures WHERE lookup = $1`
	qForgetFailures = `DELETE FROM login_failures WHERE at < $1`

	// failureMemory is how long failed log-ins are kept at all.
	failureMemory = 24 * time.Hour
)

func (s *Store) failureLookup(key string) []byte { return s.keys.Lookup("login_failures.key", key) }

// CountLoginFailures returns the number of failed log-ins under a key, such as an account or a client, since
// the time; no more than a day is remembered. Keys are stored hashed only.
func (s *Store) CountLoginFailures(ctx context.Context, key string, since time.Time) (int, error) {
	var n int
	err := s.row(ctx, qCountFailures, s.failureLookup(key), micros(since)).Scan(&n)
	return n, s.failure(ctx, "count failed log-ins", err)
}

// AddLoginFailure records a failed log-in under a key.
func (s *Store) AddLoginFailure(ctx context.Context, key string) error {
	return s.update(ctx, "record a failed log-in", func(tx *transaction) error {
		if _, err := tx.exec(ctx, qForgetFailures, micros(tx.now.Add(-failureMemory))); err != nil {
			return err
		}
		_, err := tx.exec(ctx, qInsertFailure, newID(), s.failureLookup(key), micros(tx.now))
		return err
	})
}

// ClearLoginFailures forgets the failed log-ins under a key.
func (s *Store) ClearLoginFailures(ctx context.Context, key string) error {
	return s.update(ctx, "forget failed log-ins", func(tx *transaction) error {
		_, err := tx.exec(ctx, qClearFailures, s.failureLookup(key))
		return err
	})
}
