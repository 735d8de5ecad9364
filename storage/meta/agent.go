package meta

import (
	"context"

	"sealpost/gateway"
)

const (
	agentColumns = `id, address, password_hash, created`

	qInsertAgent = `INSERT INTO agents (id, address_lookup, address, password_hash, created)
		VALUES ($1, $2, $3, $4, $5) ON CONFLICT (address_lookup) DO NOTHING`
	qAgent          = `SELECT ` + agentColumns + ` FROM agents WHERE id = $1`
	qAgentByAddress = `SELECT ` + agentColumns + ` FROM agents WHERE address_lookup = $1`
	qAgents         = `SELECT ` + agentColumns + ` FROM agents ORDER BY created, id`
	qAgentIsThere   = `SELECT 1 FROM agents WHERE id = $1`
	qReplaceHash    = `UPDATE agents SET password_hash = $2 WHERE id = $1`
	qDeleteAgent    = `DELETE FROM agents WHERE id = $1`
	qEndGrants      = `DELETE FROM grants
		WHERE session_hash IN (SELECT token_hash FROM sessions WHERE agent_id = $1)`
	qEndSessions = `UPDATE sessions SET data = NULL, agent_id = NULL WHERE agent_id = $1`
)

func (s *Store) scanAgent(row scanner) (gateway.Agent, error) {
	var a gateway.Agent
	var address, hash []byte
	var created int64
	if err := row.Scan(&a.ID, &address, &hash, &created); err != nil {
		return a, err
	}
	a.Created = fromMicros(created)
	plain, err := s.unwrap("agents", "address", a.ID, address)
	if err != nil {
		return a, err
	}
	a.Address = plain.Reveal()
	a.PasswordHash, err = s.unwrap("agents", "password_hash", a.ID, hash)
	return a, err
}

// AddAgent adds an agent, audited; the new ID and the time are the database's. CodeConflict if there is one of
// that address, in whatever spelling.
func (s *Store) AddAgent(ctx context.Context, address string, passwordHash gateway.Secret, by gateway.Principal) (gateway.Agent, error) {
	const doing = "add an agent"
	a := gateway.Agent{ID: newID(), Address: address, PasswordHash: passwordHash}
	wrapped, err := s.wrap("agents", "address", a.ID, gateway.NewSecret(address))
	if err != nil {
		return a, s.failure(ctx, doing, err)
	}
	hash, err := s.wrap("agents", "password_hash", a.ID, passwordHash)
	if err != nil {
		return a, s.failure(ctx, doing, err)
	}
	lookup := s.keys.LookupAddress("agents.address", address)
	err = s.update(ctx, doing, func(tx *transaction) error {
		a.Created = tx.now
		n, err := tx.exec(ctx, qInsertAgent, a.ID, lookup, wrapped, hash, micros(tx.now))
		if err == nil && n == 0 {
			return gateway.Errorf(gateway.CodeConflict, nil, "there is an agent of that address already")
		}
		if err != nil {
			return err
		}
		return s.audit(ctx, tx, gateway.AuditEvent{Principal: by, Action: gateway.AuditAgentAdded, Agent: a.ID, Outcome: "ok"})
	})
	return a, err
}

// Agent returns an agent. CodeNotFound.
func (s *Store) Agent(ctx context.Context, id string) (gateway.Agent, error) {
	a, err := s.scanAgent(s.row(ctx, qAgent, id))
	return a, s.failure(ctx, "read an agent", orNotFound(err, "agent"))
}

// AgentByAddress returns the agent of an address, in whatever spelling. CodeNotFound.
func (s *Store) AgentByAddress(ctx context.Context, address string) (gateway.Agent, error) {
	a, err := s.scanAgent(s.row(ctx, qAgentByAddress, s.keys.LookupAddress("agents.address", address)))
	return a, s.failure(ctx, "read an agent", orNotFound(err, "agent"))
}

// ListAgents returns all agents, in the order in which they were added.
func (s *Store) ListAgents(ctx context.Context) ([]gateway.Agent, error) {
	rows, err := s.query(ctx, qAgents)
	all, err := collect(rows, err, s.scanAgent)
	return all, s.failure(ctx, "list agents", err)
}

// SetAgentPassword replaces an agent's password hash and ends the agent's sessions and grants, audited.
// CodeNotFound.
func (s *Store) SetAgentPassword(ctx context.Context, id string, passwordHash gateway.Secret, by gateway.Principal) error {
	hash, err := s.wrap("agents", "password_hash", id, passwordHash)
	if err != nil {
		return s.failure(ctx, "set a password", err)
	}
	return s.changeAgent(ctx, "set a password", id, gateway.AuditPassword, by, statement{qReplaceHash, []any{id, hash}})
}

// RemoveAgent removes an agent, with the agent's sessions and grants, audited. CodeNotFound.
func (s *Store) RemoveAgent(ctx context.Context, id string, by gateway.Principal) error {
	return s.changeAgent(ctx, "remove an agent", id, gateway.AuditAgentRemoved, by, statement{qDeleteAgent, []any{id}})
}

func (s *Store) changeAgent(ctx context.Context, doing, id string, action gateway.AuditAction, by gateway.Principal, change statement) error {
	return s.update(ctx, doing, func(tx *transaction) error {
		if err := tx.lock(ctx, qAgentIsThere, id); err != nil { // no session is bound meanwhile
			return err
		}
		for _, query := range []string{qEndGrants, qEndSessions} {
			if _, err := tx.exec(ctx, query, id); err != nil {
				return err
			}
		}
		n, err := tx.exec(ctx, change.query, change.args...)
		if err == nil && n == 0 {
			return notFound("agent")
		}
		if err != nil {
			return err
		}
		return s.audit(ctx, tx, gateway.AuditEvent{Principal: by, Action: action, Agent: id, Outcome: "ok"})
	})
}
