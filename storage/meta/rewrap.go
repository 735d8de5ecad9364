package meta

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"sealpost/gateway"
)

// wrappedTable is a table with wrapped columns. The ID of a row, which its values are bound to, is its key's columns
// with slashes in between, bytes in hex.
type wrappedTable struct {
	name    string
	key     []string
	columns []string
}

// wrappedTables returns all of them. A test compares it with the schema.
func wrappedTables() []wrappedTable {
	id := []string{"id"}
	return []wrappedTable{
		{"packages", id, []string{"server_secret"}},
		{"addresses", []string{"owner_id", "role", "position"}, []string{"address"}},
		{"queue_keys", []string{"day"}, []string{"key"}},
		{"mails", id, []string{"message_id", "client", "mail_from", "copy", "hello", "envelope_id"}},
		{"deliveries", id, []string{"last_reply", "recipient", "original_recipient", "reason"}},
		{"attempts", []string{"delivery_id", "number"}, []string{"hop", "reply"}},
		{"agents", id, []string{"address", "password_hash"}},
		{"sessions", []string{"token_hash"}, []string{"data"}},
		{"audit_events", id, []string{"client", "name", "reason"}},
		{"refusals", id, []string{"mail"}},
	}
}

// pageRows bounds what a page holds: rows with at most 64 KiB of a mail's copy each.
const pageRows = 64

// RewrapProgress is called now and then with how many rows of all have been looked at.
type RewrapProgress func(done, total int64)

// Rewrap wraps anew what another key than the current one has wrapped, in many small transactions, and records when
// nothing is left. Others may go on working; none of them may wrap by another key (Laggards). It can be broken off and
// called again: what is done is not done again. It returns how many values it wrapped. One that cannot be unwrapped
// stays as it is, and makes it fail when all others are done.
func (s *Store) Rewrap(ctx context.Context, by gateway.Principal, progress RewrapProgress) (int, error) {
	n, unreadable := 0, 0
	var first error
	err := s.eachOld(ctx, progress, func(p *page) error {
		changes, err := s.rewrapped(p)
		if err != nil {
			return err
		}
		if unreadable += p.unreadable; first == nil {
			first = p.cause
		}
		done, err := s.apply(ctx, changes)
		n += done
		return err
	})
	if err == nil && unreadable > 0 {
		err = fmt.Errorf("%d values cannot be read, the first one: %w", unreadable, first)
	}
	if err != nil {
		return n, s.failure(ctx, "wrap values anew", err)
	}
	return n, s.update(ctx, "end the change of key", func(tx *transaction) error {
		current, _, err := currentKey(ctx, tx)
		if err != nil || current.Rewrapped {
			return err
		}
		if _, err := tx.exec(ctx, qFinishKey, current.ID, micros(tx.now)); err != nil {
			return err
		}
		return s.audit(ctx, tx, gateway.AuditEvent{Principal: by, Action: gateway.AuditRewrapped, Object: current.ID, Outcome: "ok"})
	})
}

// MayPrune returns nil if no value needs, and no process can still be using, another key than the current one.
// CodeConflict says why not.
func (s *Store) MayPrune(ctx context.Context, progress RewrapProgress) error {
	const doing = "look for what other keys have wrapped"
	current, err := s.CurrentKey(ctx)
	if err != nil {
		return err
	}
	now, err := s.Now(ctx)
	if err != nil {
		return err
	}
	late, err := s.Laggards(ctx, current.ID)
	switch {
	case err != nil:
		return err
	case !current.Rewrapped:
		return gateway.Errorf(gateway.CodeConflict, nil, "the change to key %s has not ended: run keyring rotate", current.ID)
	case late.Other > 0:
		return gateway.Errorf(gateway.CodeConflict, nil, "%d running gateways still wrap by another key than %s", late.Other, current.ID)
	case now.Sub(current.Since) < keyRest:
		return gateway.Errorf(gateway.CodeConflict, nil, "a process may still wrap by another key until %s",
			current.Since.Add(keyRest).Format("2006-01-02 15:04 MST"))
	}
	n := 0
	if err := s.eachOld(ctx, progress, func(p *page) error { n += len(p.values); return nil }); err != nil {
		return s.failure(ctx, doing, err)
	}
	if n > 0 {
		return gateway.Errorf(gateway.CodeConflict, nil, "%d values are wrapped by another key than %s: run keyring rotate", n, current.ID)
	}
	return nil
}

// page is some rows of a table, with the values in them that another key has wrapped.
type page struct {
	table  wrappedTable
	values []oldValue
	// unreadable is how many of them cannot be unwrapped, cause the first one's error.
	unreadable int
	cause      error
}

type oldValue struct {
	key     []any // of the row
	column  string
	wrapped []byte
}

// eachOld goes through all tables by their keys and hands on the pages that have values of another key.
func (s *Store) eachOld(ctx context.Context, progress RewrapProgress, do func(*page) error) error {
	ring, ok := s.keys.(Keyring)
	if !ok {
		return errors.New("there is no keyring of several keys")
	}
	mark, err := ring.Mark(ring.WrappingKey())
	if err != nil {
		return err
	}
	rows, total := map[string]int64{}, int64(0)
	for _, table := range wrappedTables() {
		var n int64
		if err := s.row(ctx, `SELECT COUNT(*) FROM `+table.name).Scan(&n); err != nil { // #nosec G202 -- a constant
			return err
		}
		rows[table.name], total = n, total+n
	}
	var before int64
	for _, table := range wrappedTables() {
		err := s.eachOldOf(ctx, table, mark, func(looked int64) {
			if progress != nil {
				progress(before+min(looked, rows[table.name]), total)
			}
		}, do)
		if err != nil {
			return err
		}
		before += rows[table.name]
	}
	return ctx.Err()
}

// eachOldOf goes through one table. It tells looked how many rows it has looked at, or somewhat more.
func (s *Store) eachOldOf(ctx context.Context, table wrappedTable, mark []byte, looked func(int64), do func(*page) error) error {
	var after []any
	for n := int64(pageRows); ; n += pageRows {
		last, err := s.pageEnd(ctx, table, after)
		if err != nil {
			return err
		}
		p, err := s.readPage(ctx, table, after, last, mark)
		if err != nil {
			return err
		}
		if len(p.values) > 0 {
			if err := do(p); err != nil {
				return err
			}
		}
		looked(n)
		if last == nil {
			return ctx.Err()
		}
		after = last
	}
}

// keyList returns the columns of the key, and as many placeholders from the n-th on.
func (t wrappedTable) keyList(n int) (columns, placeholders string) {
	marks := make([]string, len(t.key))
	for i := range marks {
		marks[i] = "$" + strconv.Itoa(n+i)
	}
	return strings.Join(t.key, ", "), strings.Join(marks, ", ")
}

// pageEnd returns the key of the last row of a full page after another one; nil if there is no full page.
func (s *Store) pageEnd(ctx context.Context, t wrappedTable, after []any) ([]any, error) {
	columns, placeholders := t.keyList(1)
	where := ""
	if after != nil {
		where = ` WHERE (` + columns + `) > (` + placeholders + `)`
	}
	query := `SELECT ` + columns + ` FROM ` + t.name + where + ` ORDER BY ` + columns + ` LIMIT 1 OFFSET ` + strconv.Itoa(pageRows-1)
	key, into := make([]any, len(t.key)), make([]any, len(t.key))
	for i := range key {
		into[i] = &key[i]
	}
	switch err := s.row(ctx, query, after...).Scan(into...); {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return key, nil
}

// readPage reads the values between two keys that do not begin with the mark. last is nil for the end of the table.
func (s *Store) readPage(ctx context.Context, t wrappedTable, after, last []any, mark []byte) (*page, error) {
	args := []any{mark}
	old := make([]string, len(t.columns))
	for i, column := range t.columns {
		old[i] = `substr(` + column + `, 1, ` + strconv.Itoa(len(mark)) + `) <> $1`
	}
	where := `(` + strings.Join(old, ` OR `) + `)`
	for _, bound := range []struct {
		key   []any
		order string
	}{{after, ">"}, {last, "<="}} {
		if bound.key != nil {
			columns, placeholders := t.keyList(len(args) + 1)
			where += ` AND (` + columns + `) ` + bound.order + ` (` + placeholders + `)`
			args = append(args, bound.key...)
		}
	}
	columns, _ := t.keyList(1)
	query := `SELECT ` + columns + `, ` + strings.Join(t.columns, ", ") + ` FROM ` + t.name + ` WHERE ` + where
	p := &page{table: t}
	rows, err := s.query(ctx, query, args...)
	_, err = collect(rows, err, func(row scanner) (struct{}, error) { return struct{}{}, p.scan(row, mark) })
	return p, err
}

func (p *page) scan(row scanner, mark []byte) error {
	key, values := make([]any, len(p.table.key)), make([][]byte, len(p.table.columns))
	into := make([]any, 0, len(key)+len(values))
	for i := range key {
		into = append(into, &key[i])
	}
	for i := range values {
		into = append(into, &values[i])
	}
	if err := row.Scan(into...); err != nil {
		return err
	}
	for i, value := range values {
		if value != nil && !strings.HasPrefix(string(value), string(mark)) {
			p.values = append(p.values, oldValue{key, p.table.columns[i], value})
		}
	}
	return nil
}

// rowID is what the values of a row are bound to.
func rowID(key []any) (string, error) {
	parts := make([]string, len(key))
	for i, value := range key {
		switch v := value.(type) {
		case string:
			parts[i] = v
		case int64:
			parts[i] = strconv.FormatInt(v, 10)
		case []byte:
			parts[i] = hex.EncodeToString(v)
		default:
			return "", fmt.Errorf("a key of type %T", value)
		}
	}
	return strings.Join(parts, "/"), nil
}

// rewrapped wraps the values of a page anew. The statements leave out those that somebody has changed meanwhile.
func (s *Store) rewrapped(p *page) ([]statement, error) {
	columns, _ := p.table.keyList(1)
	conditions := strings.Split(columns, ", ")
	for i := range conditions {
		conditions[i] += ` = $` + strconv.Itoa(i+3)
	}
	var changes []statement
	for _, old := range p.values {
		id, err := rowID(old.key)
		if err != nil {
			return nil, err
		}
		plain, err := s.unwrapBytes(p.table.name, old.column, id, old.wrapped)
		if err != nil {
			if p.unreadable++; p.cause == nil {
				p.cause = err
			}
			continue
		}
		fresh, err := s.wrapBytes(p.table.name, old.column, id, plain)
		if err != nil {
			return nil, err
		}
		query := `UPDATE ` + p.table.name + ` SET ` + old.column + ` = $1 WHERE ` + old.column + ` = $2 AND ` + strings.Join(conditions, ` AND `)
		changes = append(changes, statement{query, append([]any{fresh, old.wrapped}, old.key...)})
	}
	return changes, nil
}

// apply runs statements in one transaction and returns how many rows they changed.
func (s *Store) apply(ctx context.Context, changes []statement) (n int, err error) {
	err = s.update(ctx, "wrap a page anew", func(tx *transaction) error {
		n = 0
		for _, change := range changes {
			changed, err := tx.exec(ctx, change.query, change.args...)
			if err != nil {
				return err
			}
			n += int(changed)
		}
		return nil
	})
	return n, err
}
