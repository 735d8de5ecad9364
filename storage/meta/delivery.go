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

const (
	deliveryColumns = `id, mail_id, state, route, forward_to, created, since, attempts, next_attempt, last_code, last_reply,
		recipient, notify, original_recipient, told, untold, reason`

	qGetDelivery  = `SELECT ` + deliveryColumns + ` FROM deliveries WHERE id = $1`
	qListAttempts = `SELECT number, started, ended, hop, event, code, reply, tls FROM attempts
		WHERE delivery_id = $1 ORDER BY number`
	qCount       = `SELECT state, COUNT(*) FROM deliveries GROUP BY state`
	qEventTarget = `SELECT d.mail_id, d.state, d.await_case, m.queue_day IS NOT NULL
		FROM deliveries d JOIN mails m ON m.id = d.mail_id WHERE d.id = $1`
	qMove = `UPDATE deliveries SET state = $2, next_attempt = $3, since = $3, reason = $4, dead_at = NULL WHERE id = $1`
	// qTellAnew forgets what the sender was told of the attempts so far.
	qTellAnew    = `UPDATE deliveries SET told = '', untold = '' WHERE id = $1`
	qWindowsOver = `SELECT id, mail_id FROM deliveries
		WHERE state = 'sent' AND await_case = 1 AND sent_at < $1 ORDER BY sent_at LIMIT $2`
	qAddresses = `SELECT role, position, address FROM addresses WHERE owner_id = $1 ORDER BY position`
)

const (
	defaultLimit = 1000
	// windowBatch bounds the transactions of EndReplayWindows.
	windowBatch = 200
)

// wrappedDelivery is a delivery as it is in the database.
type wrappedDelivery struct {
	gateway.Delivery
	lastReply, recipient, original, reason []byte
}

// scanDelivery scans the deliveryColumns, and what follows them.
func scanDelivery(row scanner, more ...any) (wrappedDelivery, error) {
	var d wrappedDelivery
	var mail string
	var created, since, next int64
	into := []any{&d.ID, &mail, &d.State, &d.Route, &d.ForwardTo, &created, &since, &d.Attempts, &next, &d.LastCode, &d.lastReply,
		&d.recipient, &d.DSN.Notify, &d.original, &d.Told, &d.Untold, &d.reason}
	if err := row.Scan(append(into, more...)...); err != nil {
		return d, err
	}
	var err error
	d.Mail, err = gateway.ParsePackageID(mail)
	d.Created, d.Since, d.NextAttempt = fromMicros(created), fromMicros(since), fromMicros(next)
	return d, err
}

// openDelivery unwraps what a delivery holds.
func (s *Store) openDelivery(d wrappedDelivery) (gateway.Delivery, error) {
	var recipient gateway.Secret
	for _, field := range []struct {
		column  string
		wrapped []byte
		into    *gateway.Secret
	}{
		{"last_reply", d.lastReply, &d.LastReply},
		{"recipient", d.recipient, &recipient},
		{"original_recipient", d.original, &d.DSN.OriginalRecipient},
		{"reason", d.reason, &d.Reason},
	} {
		var err error
		if *field.into, err = s.unwrap("deliveries", field.column, d.ID, field.wrapped); err != nil {
			return d.Delivery, err
		}
	}
	if !recipient.IsZero() {
		d.ForwardTo = recipient.Reveal()
	}
	return d.Delivery, nil
}

func (s *Store) scanOpenDelivery(row scanner) (gateway.Delivery, error) {
	d, err := scanDelivery(row)
	if err != nil {
		return d.Delivery, err
	}
	return s.openDelivery(d)
}

// DeliveryFilter says which deliveries to list. Zero fields do not restrict.
type DeliveryFilter struct {
	State     gateway.DeliveryState
	Mail      gateway.PackageID
	MessageID gateway.Secret // with its angle brackets
	Limit     int            // 0 means 1,000
}

// ListDeliveries returns the deliveries that pass the filter, the oldest first.
func (s *Store) ListDeliveries(ctx context.Context, filter DeliveryFilter) ([]gateway.Delivery, error) {
	var conditions []string
	var args []any
	restrict := func(condition string, arg any) {
		args = append(args, arg)
		conditions = append(conditions, fmt.Sprintf(condition, len(args)))
	}
	if filter.State != "" {
		restrict("state = $%d", string(filter.State))
	}
	if filter.Mail != (gateway.PackageID{}) {
		restrict("mail_id = $%d", filter.Mail.String())
	}
	if !filter.MessageID.IsZero() {
		restrict("mail_id IN (SELECT id FROM mails WHERE message_id_lookup = $%d)",
			s.keys.Lookup("mails.message_id", filter.MessageID.Reveal()))
	}
	query := `SELECT ` + deliveryColumns + ` FROM deliveries`
	if len(conditions) > 0 {
		query += ` WHERE ` + strings.Join(conditions, ` AND `)
	}
	if filter.Limit <= 0 {
		filter.Limit = defaultLimit
	}
	args = append(args, filter.Limit)
	query += fmt.Sprintf(` ORDER BY created, id LIMIT $%d`, len(args))
	rows, err := s.query(ctx, query, args...)
	all, err := collect(rows, err, s.scanOpenDelivery)
	return all, s.failure(ctx, "list deliveries", err)
}

// GetDelivery returns a delivery and its attempts, the first first. CodeNotFound.
func (s *Store) GetDelivery(ctx context.Context, id string) (gateway.Delivery, []gateway.Attempt, error) {
	d, err := s.scanOpenDelivery(s.row(ctx, qGetDelivery, id))
	if err != nil {
		return d, nil, s.failure(ctx, "read a delivery", orNotFound(err, "delivery"))
	}
	rows, err := s.query(ctx, qListAttempts, id)
	attempts, err := collect(rows, err, func(row scanner) (gateway.Attempt, error) {
		var a gateway.Attempt
		var started, ended int64
		var hop, reply []byte
		if err := row.Scan(&a.Number, &started, &ended, &hop, &a.Event, &a.Code, &reply, &a.TLS); err != nil {
			return a, err
		}
		a.Started, a.Ended = fromMicros(started), fromMicros(ended)
		opened, err := s.unwrap("attempts", "hop", attemptRow(id, a.Number), hop)
		if err != nil {
			return a, err
		}
		a.Hop = opened.Reveal()
		a.Reply, err = s.unwrap("attempts", "reply", attemptRow(id, a.Number), reply)
		return a, err
	})
	return d, attempts, s.failure(ctx, "read the attempts of a delivery", err)
}

// CountDeliveries returns the number of deliveries in each state that has any.
func (s *Store) CountDeliveries(ctx context.Context) (map[gateway.DeliveryState]int64, error) {
	type count struct {
		state gateway.DeliveryState
		n     int64
	}
	rows, err := s.query(ctx, qCount)
	all, err := collect(rows, err, func(row scanner) (c count, err error) { return c, row.Scan(&c.state, &c.n) })
	counts := make(map[gateway.DeliveryState]int64, len(all))
	for _, c := range all {
		counts[c.state] = c.n
	}
	return counts, s.failure(ctx, "count deliveries", err)
}

// appliable reports whether an event may come from outside of an attempt.
func appliable(event gateway.DeliveryEvent) bool {
	switch event {
	case gateway.EventHold, gateway.EventRelease, gateway.EventDrop, gateway.EventRetry, gateway.EventReplay,
		gateway.EventCaseFound, gateway.EventWindowOver:
		return true
	}
	return false
}

// ApplyEvent moves a delivery by an event that does not come from an attempt, and writes the audit event of the
// same name; if it is pending then, it is due at once. reason is kept with a delivery that is held or dropped. What
// the sender was told of a delivery before a retry or a replay counts no more: of the new course it is told anew.
//
// Only an admin may drop: CodeForbidden; and says who and why: CodeInvalid. CodeNotFound if there is no such delivery;
// CodeConflict if the event means nothing in its state, or if it would have to be sent but its copy is gone.
func (s *Store) ApplyEvent(ctx context.Context, delivery string, event gateway.DeliveryEvent, by gateway.Principal, reason gateway.Secret) error {
	if !appliable(event) {
		return gateway.Errorf(gateway.CodeConflict, nil, "%q is not to be applied by hand", event)
	}
	if event == gateway.EventDrop && by.Kind != gateway.PrincipalAdmin {
		return gateway.Errorf(gateway.CodeForbidden, nil, "only an admin may drop a delivery")
	}
	if event == gateway.EventDrop && (by.Name.IsZero() || reason.IsZero()) {
		return gateway.Errorf(gateway.CodeInvalid, nil, "who drops a delivery must say their name and why")
	}
	var state gateway.DeliveryState
	err := s.update(ctx, "apply an event to a delivery", func(tx *transaction) error {
		mail, next, err := s.moved(ctx, tx, delivery, event, reason)
		if err != nil {
			return err
		}
		state = next
		return s.audit(ctx, tx, gateway.AuditEvent{
			Principal: by, Action: gateway.AuditAction(event), Package: &mail, Delivery: delivery, Reason: reason, Outcome: "ok",
		})
	})
	if err == nil && state == gateway.Pending {
		s.signal()
	}
	return err
}

// moved moves a delivery by an event. It returns its mail and its new state.
func (s *Store) moved(ctx context.Context, tx *transaction, delivery string, event gateway.DeliveryEvent, reason gateway.Secret) (
	mail gateway.PackageID, state gateway.DeliveryState, err error,
) {
	var mailID string
	var awaitCase, hasCopy bool
	err = tx.row(ctx, qEventTarget+s.dialect.forUpdate, delivery).Scan(&mailID, &state, &awaitCase, &hasCopy)
	if errors.Is(err, sql.ErrNoRows) {
		return mail, state, notFound("delivery")
	}
	if err != nil {
		return mail, state, err
	}
	if mail, err = gateway.ParsePackageID(mailID); err != nil {
		return mail, state, err
	}
	if state, err = state.Next(event); err != nil {
		return mail, state, err
	}
	keeps := state.KeepsCopy(awaitCase)
	if keeps && !hasCopy {
		return mail, state, gateway.Errorf(gateway.CodeConflict, nil, "the mail's copy has been erased")
	}
	if state != gateway.Held && state != gateway.Dropped {
		reason = gateway.Secret{}
	}
	wrapped, err := s.wrap("deliveries", "reason", delivery, reason)
	if err != nil {
		return mail, state, err
	}
	if _, err := tx.exec(ctx, qMove, delivery, string(state), micros(tx.now), wrapped); err != nil {
		return mail, state, err
	}
	if event == gateway.EventRetry || event == gateway.EventReplay {
		if _, err := tx.exec(ctx, qTellAnew, delivery); err != nil {
			return mail, state, err
		}
	}
	if keeps {
		return mail, state, nil
	}
	return mail, state, tx.eraseCopyUnlessKept(ctx, mailID)
}

// EndReplayWindows makes unconfirmed what was sent before the time and still waits for its Case, erases the
// copies that are not needed then, and returns the number of deliveries.
func (s *Store) EndReplayWindows(ctx context.Context, before time.Time) (int, error) {
	total := 0
	for {
		n := 0
		err := s.update(ctx, "end replay windows", func(tx *transaction) error {
			rows, err := tx.query(ctx, qWindowsOver+s.dialect.skipLocked, micros(before), windowBatch)
			over, err := collect(rows, err, func(row scanner) (pair [2]string, err error) {
				return pair, row.Scan(&pair[0], &pair[1])
			})
			if err != nil {
				return err
			}
			slices.SortFunc(over, func(a, b [2]string) int { return strings.Compare(a[1], b[1]) }) // as all lock mails
			for _, pair := range over {
				if _, _, err := s.moved(ctx, tx, pair[0], gateway.EventWindowOver, gateway.Secret{}); err != nil {
					return err
				}
			}
			n = len(over)
			return nil
		})
		if err != nil {
			return total, err
		}
		total += n
		if n < windowBatch {
			return total, nil
		}
	}
}
