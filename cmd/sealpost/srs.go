package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"sealpost/gateway/config"
	"sealpost/gateway/srs"
)

type srsCommand struct {
	Rotate srsRotateCommand `cmd:"" help:"Add a new key to the file of keys, and drop those that no bounce can need any more."`
}

type srsRotateCommand struct{ configFlag }

// Run writes the file of keys anew. A running gateway takes it up when it is started again.
func (c *srsRotateCommand) Run(std streams) error {
	cfg, err := config.Load(c.Config)
	if err != nil {
		return err
	}
	if cfg.SRS.Keys == "" {
		return usageError{"srs.keys: name the file of keys first, and srs.domain"}
	}
	keys, err := readSRSKeys(cfg.SRS.Keys)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	keys = srs.AddKey(keys, time.Now())
	if err := replaceFile(cfg.SRS.Keys, func(w io.Writer) error { return srs.WriteKeys(w, keys) }); err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "%s holds %d keys; restart the gateway to use the new one.\n", cfg.SRS.Keys, len(keys))
	return err
}

func readSRSKeys(path string) ([]srs.Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the SRS keys: %w", err)
	}
	keys, err := srs.ReadKeys(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read the SRS keys %s: %w", path, err)
	}
	return keys, nil
}

// newSRS returns nil when bounces are not to come back by us.
func newSRS(cfg *config.Config) (*srs.Rewriter, error) {
	if cfg.SRS.Domain == "" {
		return nil, nil //nolint:nilnil // not configured
	}
	keys, err := readSRSKeys(cfg.SRS.Keys)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("srs.keys: there is no file %s; `sealpost srs rotate` makes it", cfg.SRS.Keys)
	}
	if err != nil {
		return nil, err
	}
	return srs.New(srs.Options{Domain: cfg.SRS.Domain, Keys: keys})
}
