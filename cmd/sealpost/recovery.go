package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"sealpost/gateway"
	"sealpost/gateway/config"
	"sealpost/storage/meta"
)

// recoveryStateName is the file in the data directory in which init says where it wrote the private recovery key. That
// somebody has confirmed that the key is offline is in the database, for all nodes; older ones have it in the file.
const recoveryStateName = "recovery-state.json"

// recoveryConfirmed is the setting that says when, as in RFC 3339.
const recoveryConfirmed = "recovery_confirmed"

type recoveryState struct {
	KeyFile   string    `json:"key_file"`
	Confirmed time.Time `json:"confirmed,omitzero"`
}

func (s recoveryState) encode(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(s)
}

// readRecoveryState returns a zero state when there is no file, as on a node that `init` did not make.
func readRecoveryState(data string) (recoveryState, error) {
	var state recoveryState
	text, err := os.ReadFile(filepath.Join(data, recoveryStateName))
	if errors.Is(err, os.ErrNotExist) {
		return state, nil
	}
	if err != nil {
		return state, fmt.Errorf("read the state of the recovery key: %w", err)
	}
	if err := json.Unmarshal(text, &state); err != nil {
		return state, fmt.Errorf("read %s: %w", recoveryStateName, err)
	}
	return state, nil
}

// privateKeyOnHost reports whether the private recovery key can still be read where it was written.
func (s recoveryState) privateKeyOnHost() bool {
	if s.KeyFile == "" {
		return false
	}
	f, err := os.Open(s.KeyFile)
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // it was only read
	start := make([]byte, 256)
	n, _ := io.ReadFull(f, start)
	return bytes.Contains(start[:n], []byte("PGP PRIVATE KEY"))
}

type recoveryCommand struct {
	Confirm recoveryConfirmCommand `cmd:"" help:"Say that the private recovery key is offline."`
	Rotate  recoveryRotateCommand  `cmd:"" help:"Seal the heads of all packages to the recovery keys that the configuration names, by an old private key. Run it off the gateway, or again after it was broken off."`
}

type recoveryConfirmCommand struct{ configFlag }

// Run records the confirmation; from then on `check` takes a private key on this host for an error.
func (c *recoveryConfirmCommand) Run(ctx context.Context, std streams) error {
	return c.withStores(ctx, func(cfg *config.Config, s *stores) error {
		state, err := readRecoveryState(cfg.Data)
		if err != nil {
			return err
		}
		if state.privateKeyOnHost() {
			return fmt.Errorf("the private recovery key is still readable at %s; move it off this host first", state.KeyFile)
		}
		now, err := s.meta.Now(ctx)
		if err != nil {
			return err
		}
		if err := s.meta.SetSetting(ctx, recoveryConfirmed, now.Format(time.RFC3339)); err != nil {
			return err
		}
		if err := s.meta.Audit(ctx, gateway.AuditEvent{Principal: byAdmin(), Action: gateway.AuditConfirmed, Outcome: "ok"}); err != nil {
			return err
		}
		_, err = fmt.Fprintln(std.out, "Confirmed: the private recovery key is offline.")
		return err
	})
}

// confirmedInDatabase returns the zero time if nobody has confirmed it there.
func confirmedInDatabase(ctx context.Context, database *meta.Store) (time.Time, error) {
	text, err := database.Setting(ctx, recoveryConfirmed)
	if err != nil || text == "" {
		return time.Time{}, err
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, fmt.Errorf("read when the recovery key was confirmed to be offline: %w", err)
	}
	return at, nil
}

// replaceFile writes a file anew, so that a crash leaves the old one or the new one.
func replaceFile(path string, write func(io.Writer) error) error {
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove a left-over file: %w", err)
	}
	if err := createFile(fresh, write); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("replace the file: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("open the directory of the file: %w", err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("make the new file durable: %w", err)
	}
	return nil
}
