package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"sealpost/gateway/config"
)

// recoveryStateName is the file in the data directory that remembers where the private recovery key was
// written and whether somebody has confirmed that it is offline.
const recoveryStateName = "recovery-state.json"

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
}

type recoveryConfirmCommand struct{ configFlag }

// Run records the confirmation; from then on `check` takes a private key on this host for an error.
func (c *recoveryConfirmCommand) Run(std streams) error {
	cfg, err := config.Load(c.Config)
	if err != nil {
		return err
	}
	state, err := readRecoveryState(cfg.Data)
	if err != nil {
		return err
	}
	if state.privateKeyOnHost() {
		return fmt.Errorf("the private recovery key is still readable at %s; move it off this host first", state.KeyFile)
	}
	state.Confirmed = time.Now().UTC().Truncate(time.Second)
	if err := replaceFile(filepath.Join(cfg.Data, recoveryStateName), state.encode); err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.out, "Confirmed: the private recovery key is offline.")
	return err
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
	return nil
}
