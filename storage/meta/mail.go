package meta

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"time"

	"sealpost/gateway"
)

// maxIntake is how long after its beginning a mail may commit. The sweep spares objects for much longer.
const maxIntake = time.Hour

const (
	qReadQueueKey   = `SELECT key FROM queue_keys WHERE day = $1`
	qInsertQueueKey = `INSERT INTO queue_keys (day, key) VALUES ($1, $2) ON CONFLICT (day) DO NOTHING`
	qInsertMail     = `INSERT INTO mails (id, created, expires, message_id_lookup, message_id, client, size, eight_bit, utf8,
		queue_day, mail_from, copy, copy_object) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`
	qInsertAddress  = `INSERT INTO addresses (owner_id, role, position, lookup, address) VALUES ($1, $2, $3, $4, $5)`
	qInsertDelivery = `INSERT INTO deliveries (id, mail_id, state, route, forward_to, created, since, next_attempt)
		VALUES ($1, $2, $3, $4, $5, $6, $6, $7)`
	qInsertPackage = `INSERT INTO packages (id, source, state, created, expires, server_secret, proof_hash, head)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`
	qInsertItem      = `INSERT INTO items (package_id, ordinal, size, segments) VALUES ($1, $2, $3, $4)`
	qInsertObject    = `INSERT INTO objects (name, package_id, position, item, size) VALUES ($1, $2, $3, $4, $5)`
	qInsertPlacement = `INSERT INTO placements (package_id, position, kind, place, case_ref, expires)
		VALUES ($1, $2, $3, $4, $5, $6)`
)

// The roles of an address.
const (
	roleSender    = "sender"
	roleRecipient = "recipient"
)

// QueueKey returns the key of now's UTC day, and makes it if there is none. All nodes get the same.
func (s *Store) QueueKey(ctx context.Context, now time.Time) (gateway.QueueKey, error) {
	const doing = "get the queue key"
	day := now.UTC().Format("20060102")
	key, err := s.readQueueKey(ctx, s, day)
	if !errors.Is(err, sql.ErrNoRows) {
		return key, s.failure(ctx, doing, err)
	}
	fresh := make([]byte, 32)
	_, _ = rand.Read(fresh) // never fails (crypto/rand)
	wrapped, err := s.wrapBytes("queue_keys", "key", day, fresh)
	if err != nil {
		return gateway.QueueKey{}, s.failure(ctx, doing, err)
	}
	err = s.update(ctx, doing, func(tx *transaction) error {
		if _, err := tx.exec(ctx, qInsertQueueKey, day, wrapped); err != nil {
			return err
		}
		key, err = s.readQueueKey(ctx, tx, day) // another node's, if that was first
		return err
	})
	return key, err
}

func (s *Store) readQueueKey(ctx context.Context, q querier, day string) (gateway.QueueKey, error) {
	var wrapped []byte
	if err := q.row(ctx, qReadQueueKey, day).Scan(&wrapped); err != nil {
		return gateway.QueueKey{}, err
	}
	key, err := s.unwrap("queue_keys", "key", day, wrapped)
	return gateway.QueueKey{Day: day, Key: key}, err
}

// CommitMail makes a mail safe in one transaction: its package if it has one, its copy, and a pending delivery
// for each route, due at once. After nil the mail may be answered with 250; after CodeStorageFull nothing of it is
// there; after any other error that may be unknown. CodeUnavailable if its intake began over an hour ago, or if its queue key is gone.
func (s *Store) CommitMail(ctx context.Context, m gateway.AcceptedMail) error {
	const doing = "commit a mail"
	now, err := s.Now(ctx)
	if err != nil {
		return err
	}
	statements, err := s.mailStatements(m, now)
	if err != nil {
		return s.failure(ctx, doing, err)
	}
	err = s.update(ctx, doing, func(tx *transaction) error {
		if tx.now.Sub(m.Started) > maxIntake {
			return gateway.Errorf(gateway.CodeUnavailable, nil, "the mail took too long to take in")
		}
		for _, st := range statements {
			if _, err := tx.exec(ctx, st.query, st.args...); err != nil {
				if s.dialect.missingParent(err) {
					return gateway.Errorf(gateway.CodeUnavailable, err, "the queue key of the mail is gone")
				}
				return err
			}
		}
		return nil
	})
	if err == nil {
		s.signal()
	}
	return err
}

// statement is one statement of a transaction that was worked out before it began.
type statement struct {
	query string
	args  []any
}

// mailStatements wraps what is to be stored, so that the transaction has nothing to do but store it.
func (s *Store) mailStatements(m gateway.AcceptedMail, now time.Time) ([]statement, error) {
	if len(m.Routes) == 0 || (m.Copy.Inline == nil) == (m.Copy.Object == "") {
		return nil, errors.New("a mail needs a route, and a copy in one place")
	}
	statements, err := s.packageStatements(m.Package)
	if err != nil {
		return nil, err
	}
	mail, err := s.mailStatement(m, now)
	if err != nil {
		return nil, err
	}
	addresses, err := s.addressStatements(m)
	if err != nil {
		return nil, err
	}
	statements = append(append(statements, mail), addresses...)
	id, due := m.ID.String(), micros(now)
	for _, route := range m.Routes {
		statements = append(statements, statement{qInsertDelivery,
			[]any{newID(), id, string(gateway.Pending), route.Address, route.ForwardTo, due, due}})
	}
	return statements, nil
}

func (s *Store) mailStatement(m gateway.AcceptedMail, now time.Time) (statement, error) {
	id := m.ID.String()
	messageID, err := s.wrap("mails", "message_id", id, m.MessageID)
	if err != nil {
		return statement{}, err
	}
	var lookup []byte
	if !m.MessageID.IsZero() {
		lookup = s.keys.Lookup("mails.message_id", m.MessageID.Reveal())
	}
	client := gateway.Secret{}
	if m.Envelope.Client.IsValid() {
		client = gateway.NewSecret(m.Envelope.Client.String())
	}
	wrappedClient, err := s.wrap("mails", "client", id, client)
	if err != nil {
		return statement{}, err
	}
	mailFrom, err := s.wrap("mails", "mail_from", id, m.Copy.MailFrom)
	if err != nil {
		return statement{}, err
	}
	var inline []byte
	var object any
	if m.Copy.Inline != nil {
		inline, err = s.wrapBytes("mails", "copy", id, m.Copy.Inline)
	} else {
		object = m.Copy.Object
	}
	return statement{qInsertMail, []any{id, micros(now), micros(mailExpiry(m, now)), lookup, messageID, wrappedClient,
		m.Copy.Size, bit(m.Copy.EightBit), bit(m.Copy.UTF8), m.Copy.Key.Day, mailFrom, inline, object}}, err
}

// mailExpiry is that of the package, or the latest of the routes'.
func mailExpiry(m gateway.AcceptedMail, now time.Time) time.Time {
	if m.Package != nil {
		return m.Package.Expires
	}
	var longest time.Duration
	for _, route := range m.Routes {
		longest = max(longest, route.ExpireAfter)
	}
	return now.Add(longest)
}

func (s *Store) addressStatements(m gateway.AcceptedMail) ([]statement, error) {
	type entry struct{ role, address string }
	var entries []entry
	if m.Envelope.MailFrom != "" {
		entries = append(entries, entry{roleSender, m.Envelope.MailFrom})
	}
	for _, recipient := range m.Envelope.Recipients {
		entries = append(entries, entry{roleRecipient, recipient.Address})
	}
	var statements []statement
	seen := map[string]bool{}
	owner := m.ID.String()
	for i, e := range entries {
		lookup := s.keys.LookupAddress("addresses.address", e.address)
		if seen[e.role+string(lookup)] {
			continue
		}
		seen[e.role+string(lookup)] = true
		wrapped, err := s.wrap("addresses", "address", addressRow(owner, e.role, i), gateway.NewSecret(e.address))
		if err != nil {
			return nil, err
		}
		statements = append(statements, statement{qInsertAddress, []any{owner, e.role, i, lookup, wrapped}})
	}
	return statements, nil
}

func (s *Store) packageStatements(p *gateway.Package) ([]statement, error) {
	if p == nil {
		return nil, nil
	}
	id := p.ID.String()
	secret, err := s.wrap("packages", "server_secret", id, p.ServerSecret)
	if err != nil {
		return nil, err
	}
	statements := []statement{{qInsertPackage, []any{id, string(p.Source), string(p.State), micros(p.Created),
		micros(p.Expires), secret, p.ProofHash[:], p.Head}}}
	for _, item := range p.Items {
		statements = append(statements, statement{qInsertItem, []any{id, item.Ordinal, item.Size, item.Segments}})
	}
	for i, object := range p.Objects {
		statements = append(statements, statement{qInsertObject, []any{object.Name, id, i, object.Item, object.Size}})
	}
	for i, placement := range p.Placements {
		statements = append(statements, statement{qInsertPlacement,
			[]any{id, i, string(placement.Kind), placement.Place, placement.CaseRef, micros(placement.Expires)}})
	}
	return statements, nil
}
