package meta

import (
	"fmt"
	"strconv"

	"sealpost/gateway"
)

// wrap encrypts a secret for its place. No value is NULL.
func (s *Store) wrap(table, column, rowID string, value gateway.Secret) ([]byte, error) {
	if value.IsZero() {
		return nil, nil
	}
	return s.wrapBytes(table, column, rowID, []byte(value.Reveal()))
}

func (s *Store) wrapBytes(table, column, rowID string, value []byte) ([]byte, error) {
	if err := s.mayWrap(); err != nil {
		return nil, err
	}
	wrapped, err := s.keys.Wrap(table, column, rowID, value)
	if err != nil {
		return nil, fmt.Errorf("wrap %s.%s: %w", table, column, err)
	}
	return wrapped, nil
}

// unwrap opens what wrap made.
func (s *Store) unwrap(table, column, rowID string, wrapped []byte) (gateway.Secret, error) {
	if wrapped == nil {
		return gateway.Secret{}, nil
	}
	value, err := s.unwrapBytes(table, column, rowID, wrapped)
	return gateway.NewSecret(string(value)), err
}

func (s *Store) unwrapBytes(table, column, rowID string, wrapped []byte) ([]byte, error) {
	value, err := s.keys.Unwrap(table, column, rowID, wrapped)
	if err != nil {
		return nil, fmt.Errorf("unwrap %s.%s: %w", table, column, err)
	}
	return value, nil
}

// The row IDs of tables whose key has several columns.

func addressRow(owner, role string, position int) string {
	return owner + "/" + role + "/" + strconv.Itoa(position)
}

func attemptRow(delivery string, number int) string {
	return delivery + "/" + strconv.Itoa(number)
}
