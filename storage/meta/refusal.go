package meta

import (
	"context"
	"encoding/json"
	"net/netip"
	"time"

	"sealpost/gateway"
)

const (
	refusalKeep = 30 * 24 * time.Hour
	maxRefusals = 10000

	qInsertRefusal  = `INSERT INTO refusals (id, at, message_id_lookup, mail) VALUES ($1, $2, $3, $4)`
	qFindRefusals   = `SELECT id, at, mail FROM refusals WHERE message_id_lookup = $1 ORDER BY at DESC, id LIMIT $2`
	oldRefusals     = `at < $1 OR at < (SELECT at FROM refusals ORDER BY at DESC LIMIT 1 OFFSET $2)`
	qForgetRefusals = `DELETE FROM refusals WHERE ` + oldRefusals
	qForgetRefused  = `DELETE FROM addresses WHERE owner_id IN (SELECT id FROM refusals WHERE ` + oldRefusals + `)`

	qClaimAlert = `INSERT INTO alerts (kind, told) VALUES ($1, $2)
		ON CONFLICT (kind) DO UPDATE SET told = excluded.told WHERE alerts.told <= $3`
	qCountDeadReturns = `SELECT COUNT(*) FROM deliveries WHERE state = 'dead' AND route = $1`
	qOldestPending    = `SELECT COALESCE(MIN(since), 0) FROM deliveries WHERE state = 'pending' AND route <> 'return'`
)

// refusedMail is a refusal as it is wrapped.
type refusedMail struct {
	MessageID                              string
	MailFrom, Client, Hello, Protocol, TLS string
	Recipients                             []refusedRecipient
	TrustedRelay                           bool
	Code, Reason                           string
	Temporary                              bool
	Scan                                   gateway.Scan
	Authentication                         gateway.Authentication
}

type refusedRecipient struct{ Address, Route string }

// RecordRefusal remembers a mail that was refused, for 30 days at most. Its correspondents have rows of their own,
// as those of an accepted mail.
func (s *Store) RecordRefusal(ctx context.Context, r gateway.Refusal) error {
	const doing = "record a refusal"
	e := r.Envelope
	m := refusedMail{
		MessageID: r.MessageID.Reveal(), MailFrom: e.MailFrom, Client: e.Client.String(), Hello: e.Hello, Protocol: e.Protocol, TLS: e.TLS, TrustedRelay: e.TrustedRelay,
		Code: string(r.Code), Reason: r.Reason, Temporary: r.Temporary, Scan: r.Scan, Authentication: r.Authentication,
	}
	for _, recipient := range e.Recipients {
		m.Recipients = append(m.Recipients, refusedRecipient{recipient.Address, recipient.Route.Address})
	}
	text, err := json.Marshal(m)
	if err != nil {
		return s.failure(ctx, doing, err)
	}
	id := newID()
	addresses, err := s.addressStatements(id, e)
	if err != nil {
		return s.failure(ctx, doing, err)
	}
	wrapped, err := s.wrapBytes("refusals", "mail", id, text)
	if err != nil {
		return s.failure(ctx, doing, err)
	}
	var lookup []byte
	if !r.MessageID.IsZero() {
		lookup = s.keys.Lookup("mails.message_id", r.MessageID.Reveal())
	}
	return s.update(ctx, doing, func(tx *transaction) error {
		if _, err := tx.exec(ctx, qInsertRefusal, id, micros(tx.now), lookup, wrapped); err != nil {
			return err
		}
		return tx.execAll(ctx, s.dialect, addresses)
	})
}

// FindRefusals returns up to limit refusals of mails with a Message-ID, with its angle brackets; the latest first. Of
// the routes of their recipients only the addresses are kept.
func (s *Store) FindRefusals(ctx context.Context, messageID gateway.Secret, limit int) ([]gateway.Refusal, error) {
	rows, err := s.query(ctx, qFindRefusals, s.keys.Lookup("mails.message_id", messageID.Reveal()), limit)
	all, err := collect(rows, err, s.scanRefusal)
	return all, s.failure(ctx, "find refusals", err)
}

func (s *Store) scanRefusal(row scanner) (gateway.Refusal, error) {
	var id string
	var at int64
	var wrapped []byte
	if err := row.Scan(&id, &at, &wrapped); err != nil {
		return gateway.Refusal{}, err
	}
	text, err := s.unwrapBytes("refusals", "mail", id, wrapped)
	if err != nil {
		return gateway.Refusal{}, err
	}
	var m refusedMail
	if err := json.Unmarshal(text, &m); err != nil {
		return gateway.Refusal{}, err
	}
	r := gateway.Refusal{
		At: fromMicros(at), MessageID: gateway.NewSecret(m.MessageID), Code: gateway.Code(m.Code), Reason: m.Reason, Temporary: m.Temporary, Scan: m.Scan, Authentication: m.Authentication,
		Envelope: gateway.Envelope{MailFrom: m.MailFrom, Hello: m.Hello, Protocol: m.Protocol, TLS: m.TLS, TrustedRelay: m.TrustedRelay},
	}
	for _, recipient := range m.Recipients {
		r.Envelope.Recipients = append(r.Envelope.Recipients,
			gateway.Recipient{Address: recipient.Address, Route: gateway.Route{Address: recipient.Route}})
	}
	if client, err := netip.ParseAddr(m.Client); err == nil {
		r.Envelope.Client = client
	}
	return r, nil
}

// ClaimAlert reports whether the caller may mail an alert of this kind: once in every, over all nodes.
func (s *Store) ClaimAlert(ctx context.Context, kind string, every time.Duration) (bool, error) {
	claimed := false
	err := s.update(ctx, "claim an alert", func(tx *transaction) error {
		n, err := tx.exec(ctx, qClaimAlert, kind, micros(tx.now), micros(tx.now.Add(-every)))
		claimed = n > 0
		return err
	})
	return claimed, err
}

// QueueFacts are what an admin must know of the queue.
type QueueFacts struct {
	// Counts are those of each state that has any. Dead ones that go back to senders are not among them: they wait
	// for no admin.
	Counts      map[gateway.DeliveryState]int64
	DeadReturns int64
	// OldestPending is since when the longest waiting delivery to a route waits; zero: none waits.
	OldestPending time.Time
}

// QueueFacts returns how the queue stands.
func (s *Store) QueueFacts(ctx context.Context) (QueueFacts, error) {
	counts, err := s.CountDeliveries(ctx)
	if err != nil {
		return QueueFacts{}, err
	}
	facts := QueueFacts{Counts: counts}
	if err := s.row(ctx, qCountDeadReturns, gateway.ReturnRoute).Scan(&facts.DeadReturns); err != nil {
		return facts, s.failure(ctx, "count dead deliveries back to senders", err)
	}
	if counts[gateway.Dead] -= facts.DeadReturns; counts[gateway.Dead] <= 0 { // below: one died between the counts
		delete(counts, gateway.Dead)
	}
	var oldest int64
	if err := s.row(ctx, qOldestPending).Scan(&oldest); err != nil {
		return facts, s.failure(ctx, "look for the oldest delivery", err)
	}
	if oldest > 0 {
		facts.OldestPending = fromMicros(oldest)
	}
	return facts, nil
}
