package meta

import (
	"context"
	"time"

	"sealpost/gateway"
)

const (
	qMail = `SELECT created, size, message_id, mail_from, queue_day IS NOT NULL,
		EXISTS (SELECT 1 FROM packages p WHERE p.id = mails.id), (SELECT COUNT(*) FROM items i WHERE i.package_id = mails.id),
		COALESCE((SELECT repeats FROM fingerprints f WHERE f.mail_id = mails.id), 0),
		client, hello, envelope_id, protocol, tls, trusted_relay, dsn_return, silence, spf, dkim, dmarc, dmarc_policy,
		auth_by_relay, scan, scan_signature FROM mails WHERE id = $1`
	qFindMails = `SELECT id FROM mails WHERE message_id_lookup = $1 ORDER BY created DESC, id LIMIT $2`
)

// Mail is what is known of an accepted mail, apart from its package.
type Mail struct {
	ID         gateway.PackageID
	Created    time.Time
	Size       int64 // of the mail as it is delivered, in bytes
	MessageID  gateway.Secret
	Sender     gateway.Secret // zero for the null sender
	Recipients []gateway.Secret
	HasPackage bool
	Items      int  // how many files its package holds
	HasCopy    bool // it could be delivered (again)

	Client, Hello, EnvelopeID gateway.Secret
	Protocol, TLS             string
	TrustedRelay              bool
	Return                    string
	Silence                   string
	Authentication            gateway.Authentication
	Scan                      gateway.Scan
	// Repeats is how often the mail came again since its 250 had been lost.
	Repeats int
}

// Mail returns what is known of a mail. CodeNotFound.
func (s *Store) Mail(ctx context.Context, id gateway.PackageID) (Mail, error) {
	const doing = "read a mail"
	m := Mail{ID: id}
	var created int64
	var messageID, mailFrom, client, hello, envelopeID []byte
	a := &m.Authentication
	err := s.row(ctx, qMail, id.String()).Scan(&created, &m.Size, &messageID, &mailFrom, &m.HasCopy, &m.HasPackage, &m.Items, &m.Repeats,
		&client, &hello, &envelopeID, &m.Protocol, &m.TLS, &m.TrustedRelay, &m.Return, &m.Silence, &a.SPF, &a.DKIM, &a.DMARC, &a.DMARCPolicy,
		&a.ByRelay, &m.Scan.Verdict, &m.Scan.Signature)
	if err != nil {
		return m, s.failure(ctx, doing, orNotFound(err, "mail"))
	}
	m.Created = fromMicros(created)
	for _, field := range []struct {
		column  string
		wrapped []byte
		into    *gateway.Secret
	}{
		{"message_id", messageID, &m.MessageID}, {"client", client, &m.Client}, {"hello", hello, &m.Hello},
		{"envelope_id", envelopeID, &m.EnvelopeID},
	} {
		if *field.into, err = s.unwrap("mails", field.column, id.String(), field.wrapped); err != nil {
			return m, s.failure(ctx, doing, err)
		}
	}
	return m, s.failure(ctx, "read the correspondents of a mail", s.readAddresses(ctx, &m))
}

func (s *Store) readAddresses(ctx context.Context, m *Mail) error {
	rows, err := s.query(ctx, qAddresses, m.ID.String())
	_, err = collect(rows, err, func(row scanner) (struct{}, error) {
		var role string
		var position int
		var wrapped []byte
		if err := row.Scan(&role, &position, &wrapped); err != nil {
			return struct{}{}, err
		}
		address, err := s.unwrap("addresses", "address", addressRow(m.ID.String(), role, position), wrapped)
		if role == roleSender {
			m.Sender = address
		} else {
			m.Recipients = append(m.Recipients, address)
		}
		return struct{}{}, err
	})
	return err
}

// FindMails returns up to limit mails with a Message-ID, with its angle brackets; the newest first.
func (s *Store) FindMails(ctx context.Context, messageID gateway.Secret, limit int) ([]gateway.PackageID, error) {
	rows, err := s.query(ctx, qFindMails, s.keys.Lookup("mails.message_id", messageID.Reveal()), limit)
	ids, err := collect(rows, err, func(row scanner) (gateway.PackageID, error) {
		var id string
		if err := row.Scan(&id); err != nil {
			return gateway.PackageID{}, err
		}
		return gateway.ParsePackageID(id)
	})
	return ids, s.failure(ctx, "find mails", err)
}
