package meta

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"sealpost/gateway"
)

// maxIntake is how long after its beginning a mail may commit. The sweep spares objects for much longer.
const maxIntake = time.Hour

const (
	qReadQueueKey   = `SELECT key FROM queue_keys WHERE day = $1`
	qInsertQueueKey = `INSERT INTO queue_keys (day, key) VALUES ($1, $2) ON CONFLICT (day) DO NOTHING`
	qInsertMail     = `INSERT INTO mails (id, created, expires, message_id_lookup, message_id, client, size, eight_bit, utf8,
		queue_day, mail_from, copy, copy_object, hello, envelope_id, protocol, tls, trusted_relay, dsn_return, silence,
		spf, dkim, dmarc, dmarc_policy, auth_by_relay, scan, scan_signature)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
		$25, $26, $27)`
	qMailIsThere    = `SELECT 1 FROM mails WHERE id = $1`
	qInsertAddress  = `INSERT INTO addresses (owner_id, role, position, lookup, address) VALUES ($1, $2, $3, $4, $5)`
	qInsertDelivery = `INSERT INTO deliveries (id, mail_id, state, route, forward_to, created, since, next_attempt, recipient,
		notify, original_recipient, reason, lane) VALUES ($1, $2, $3, $4, $5, $6, $6, $6, $7, $8, $9, $10, $11)`
	qInsertPackage = `INSERT INTO packages (id, source, state, created, expires, server_secret, proof_hash, head, scan,
		scan_signature) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`
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

// queueKeyFor is how long a queue key is not read again, where that takes a round trip. A mail may commit with the key that
// it got when its intake began, so a key is not destroyed before that would do harm.
const queueKeyFor = 10 * time.Second

// knownQueueKey is one that was read.
type knownQueueKey struct {
	gateway.QueueKey
	read time.Time // by this host's clock
}

// QueueKey returns the key of now's UTC day, and makes it if there is none. All nodes get the same.
func (s *Store) QueueKey(ctx context.Context, now time.Time) (gateway.QueueKey, error) {
	const doing = "get the queue key"
	day := now.UTC().Format("20060102")
	if known := s.queueKey.Load(); known != nil && known.Day == day && s.since(known.read) < queueKeyFor {
		return known.QueueKey, nil
	}
	read := s.local()
	key, err := s.readQueueKey(ctx, s, day)
	if err == nil && s.mails != nil {
		s.queueKey.Store(&knownQueueKey{key, read})
	}
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

// CommitMail makes a mail safe in one transaction: its package if it has one, its copy, and its deliveries, pending
// and due at once, but for those that are to be held. After nil the mail may be answered with 250; after CodeStorageFull nothing of it is
// there; after any other error that may be unknown. CodeUnavailable if its intake began over an hour ago, or if its queue key is gone.
func (s *Store) CommitMail(ctx context.Context, m gateway.AcceptedMail) error {
	const doing = "commit a mail"
	statements, err := s.mailStatements(m)
	if err != nil {
		return s.failure(ctx, doing, err)
	}
	if err := s.commitMail(ctx, doing, incoming{m.ID.String(), m.Started, m.Copy.Key, statements}); err != nil {
		return err
	}
	s.signal()
	return nil
}

// incoming is a mail that is to be committed.
type incoming struct {
	id         string
	started    time.Time
	key        gateway.QueueKey // under which its copy is
	statements []statement
}

func (s *Store) commitMail(ctx context.Context, doing string, m incoming) error {
	if s.mails != nil {
		return s.together(ctx, doing, func() error { return s.mails.do(ctx, m) })
	}
	return s.update(ctx, doing, func(tx *transaction) error {
		if err := m.mayCommit(tx.now); err != nil {
			return err
		}
		return tx.execAll(ctx, s.dialect, m.statements)
	})
}

// mayCommit refuses a mail whose objects a sweep may have taken for lost.
func (m incoming) mayCommit(now time.Time) error {
	if now.Sub(m.started) > maxIntake {
		return gateway.Errorf(gateway.CodeUnavailable, nil, "the mail took too long to take in")
	}
	return nil
}

// statement is one statement of a transaction that was worked out before it began.
type statement struct {
	query string
	args  []any // a moment stands for the time that it is by then
}

// moment is a time, in microseconds, so long after the transaction's.
type moment time.Duration

// at returns statements with their moments filled in.
func at(now time.Time, statements []statement) []statement {
	filled := make([]statement, len(statements))
	for i, st := range statements {
		filled[i] = statement{st.query, slices.Clone(st.args)}
		for j, arg := range st.args {
			if after, is := arg.(moment); is {
				filled[i].args[j] = micros(now.Add(time.Duration(after)))
			}
		}
	}
	return filled
}

// execAll stores what makes a mail.
func (tx *transaction) execAll(ctx context.Context, d dialect, statements []statement) error {
	err := tx.run(ctx, at(tx.now, statements))
	if err != nil && d.missingParent(err) {
		return gateway.Errorf(gateway.CodeUnavailable, err, "the queue key of the mail is gone")
	}
	return err
}

// run runs statements of which no result is needed.
func (tx *transaction) run(ctx context.Context, statements []statement) error {
	if tx.own != nil {
		return tx.own.run(ctx, statements)
	}
	for _, st := range statements {
		if _, err := tx.exec(ctx, st.query, st.args...); err != nil {
			return err
		}
	}
	return nil
}

// mailStatements wraps what is to be stored, so that the transaction has nothing to do but store it.
func (s *Store) mailStatements(m gateway.AcceptedMail) ([]statement, error) {
	if len(m.Deliveries) == 0 || (m.Copy.Inline == nil) == (m.Copy.Object == "") {
		return nil, errors.New("a mail needs a route, and a copy in one place")
	}
	statements, err := s.packageStatements(m.Package)
	if err != nil {
		return nil, err
	}
	mail, err := s.mailStatement(m)
	if err != nil {
		return nil, err
	}
	addresses, err := s.addressStatements(m.ID.String(), m.Envelope)
	if err != nil {
		return nil, err
	}
	statements = append(append(statements, mail), addresses...)
	for _, d := range m.Deliveries {
		delivery, err := s.deliveryStatement(m.ID.String(), d)
		if err != nil {
			return nil, err
		}
		statements = append(statements, delivery)
	}
	if m.Fingerprint != nil {
		statements = append(statements, statement{qInsertFingerprint, []any{m.ID.String(), m.Fingerprint, moment(0), s.process}})
	}
	return statements, nil
}

// deliveryStatement makes a delivery, due at once or held.
func (s *Store) deliveryStatement(mail string, d gateway.NewDelivery) (statement, error) {
	id, state, forwardTo := newID(), gateway.Pending, d.Route.ForwardTo
	if d.Hold != "" {
		state = gateway.Held
	}
	var recipient gateway.Secret
	if d.Route.IsReturn() {
		recipient = gateway.NewSecret(forwardTo)
		forwardTo = hex.EncodeToString(s.keys.LookupAddress("deliveries.recipient", forwardTo))
	}
	wrappedRecipient, err := s.wrap("deliveries", "recipient", id, recipient)
	if err != nil {
		return statement{}, err
	}
	original, err := s.wrap("deliveries", "original_recipient", id, d.DSN.OriginalRecipient)
	if err != nil {
		return statement{}, err
	}
	reason, err := s.wrap("deliveries", "reason", id, gateway.NewSecret(d.Hold))
	return statement{qInsertDelivery, []any{id, mail, string(state), d.Route.Address, forwardTo, moment(0), wrappedRecipient,
		d.DSN.Notify, original, reason, s.laneOf(d.Route)}}, err
}

func (s *Store) mailStatement(m gateway.AcceptedMail) (statement, error) {
	id := m.ID.String()
	var lookup []byte
	if !m.MessageID.IsZero() {
		lookup = s.keys.Lookup("mails.message_id", m.MessageID.Reveal())
	}
	client := gateway.Secret{}
	if m.Envelope.Client.IsValid() {
		client = gateway.NewSecret(m.Envelope.Client.String())
	}
	wrapped := map[string][]byte{}
	for column, value := range map[string]gateway.Secret{
		"message_id": m.MessageID, "client": client, "mail_from": m.Copy.MailFrom,
		"hello": gateway.NewSecret(m.Envelope.Hello), "envelope_id": m.Envelope.EnvelopeID,
	} {
		var err error
		if wrapped[column], err = s.wrap("mails", column, id, value); err != nil {
			return statement{}, err
		}
	}
	var inline []byte
	var object any
	var err error
	if m.Copy.Inline != nil {
		inline, err = s.wrapBytes("mails", "copy", id, m.Copy.Inline)
	} else {
		object = m.Copy.Object
	}
	a := m.Authentication
	return statement{qInsertMail, []any{id, moment(0), mailExpiry(m), lookup, wrapped["message_id"], wrapped["client"],
		m.Copy.Size, bit(m.Copy.EightBit), bit(m.Copy.UTF8), m.Copy.Key.Day, wrapped["mail_from"], inline, object,
		wrapped["hello"], wrapped["envelope_id"], m.Envelope.Protocol, m.Envelope.TLS, bit(m.Envelope.TrustedRelay), m.Envelope.Return,
		m.Silence, string(a.SPF), string(a.DKIM), string(a.DMARC), a.DMARCPolicy, bit(a.ByRelay),
		string(m.Scan.Verdict), m.Scan.Signature}}, err
}

// mailExpiry is that of the package, or the latest of the routes'.
func mailExpiry(m gateway.AcceptedMail) any {
	if m.Package != nil {
		return micros(m.Package.Expires)
	}
	var longest time.Duration
	for _, d := range m.Deliveries {
		longest = max(longest, d.Route.ExpireAfter)
	}
	return moment(longest)
}

// addressStatements make a row for each correspondent of a mail.
func (s *Store) addressStatements(owner string, envelope gateway.Envelope) ([]statement, error) {
	type entry struct{ role, address string }
	var entries []entry
	if envelope.MailFrom != "" {
		entries = append(entries, entry{roleSender, envelope.MailFrom})
	}
	for _, recipient := range envelope.Recipients {
		entries = append(entries, entry{roleRecipient, recipient.Address})
	}
	var statements []statement
	seen := map[string]bool{}
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
		micros(p.Expires), secret, p.ProofHash[:], p.Head, string(p.Scan.Verdict), p.Scan.Signature}}}
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
