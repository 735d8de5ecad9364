package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sealpost/crypto"
	"sealpost/gateway/config"
	"sealpost/storage/blob"
)

type recoverCommand struct {
	configFlag
	Key     string `help:"The private recovery key; its passphrase comes from SEALPOST_RECOVERY_PASSPHRASE or the terminal." required:"" type:"path" placeholder:"PRIVATE.asc"`
	Out     string `help:"The directory for the files: one below it for each package." type:"path" placeholder:"DIR"`
	Date    string `help:"Only packages of this day (UTC)." placeholder:"YYYY-MM-DD"`
	All     bool   `help:"Recover every package."`
	Package string `arg:"" optional:"" help:"Recover this package. Without it and without --all, packages are only listed."`
}

// Run needs the blob store and the key; the database is not opened. With the keyring at hand it verifies
// who sealed each package.
func (c *recoverCommand) Run(ctx context.Context, std streams) error {
	cfg, err := config.Load(c.Config)
	if err != nil {
		return err
	}
	only, err := c.selection()
	if err != nil {
		return err
	}
	key, err := c.readKey(std)
	if err != nil {
		return err
	}
	r := &recovery{std: std, key: key, out: c.Out, save: c.All || c.Package != ""}
	if r.blobs, err = openBlobs(ctx, cfg, nil); err != nil {
		return err
	}
	if keyring, err := readKeyring(cfg.Keyring); err == nil {
		r.signer = keyring.VerifyKey()
	} else if _, err := fmt.Fprintf(std.err, "%v\nPackages will be UNVERIFIED: who sealed them cannot be checked.\n", err); err != nil {
		return err
	}
	return r.run(ctx, only)
}

// selection reads what was asked for.
func (c *recoverCommand) selection() (selection, error) {
	var only selection
	if c.Package != "" && c.All {
		return only, usageError{"name one PACKAGE or give --all, not both"}
	}
	if (c.Package != "" || c.All) && c.Out == "" {
		return only, usageError{"say with --out DIR where the files shall go"}
	}
	if c.Package != "" {
		id, err := crypto.ParseID(c.Package)
		if err != nil {
			return only, usageError{err.Error()}
		}
		only.id = &id
	}
	if c.Date != "" {
		day, err := time.Parse(time.DateOnly, c.Date)
		if err != nil {
			return only, usageError{fmt.Sprintf("--date %s: write it like 2026-11-24", c.Date)}
		}
		only.day = day.Format("20060102")
	}
	return only, nil
}

func (c *recoverCommand) readKey(std streams) (*crypto.RecoveryPrivateKey, error) {
	f, err := os.Open(c.Key)
	if err != nil {
		return nil, fmt.Errorf("read the recovery key: %w", err)
	}
	defer f.Close() //nolint:errcheck // it is only read
	passphrase, err := std.secret(recoveryVariable, "The passphrase of the recovery key", false)
	if err != nil {
		return nil, err
	}
	key, err := crypto.ReadRecoveryPrivateKey(f, []byte(passphrase.Reveal()))
	if err != nil {
		return nil, fmt.Errorf("read the recovery key %s: %w", c.Key, err)
	}
	return key, nil
}

// selection is which packages are wanted; its zero value means all.
type selection struct {
	day string // YYYYMMDD
	id  *crypto.ID
}

type recovery struct {
	std    streams
	blobs  blob.Store
	key    *crypto.RecoveryPrivateKey
	signer *crypto.VerifyKey // nil: packages are unverified
	out    string
	save   bool
	failed int
	found  int
}

func (r *recovery) run(ctx context.Context, only selection) error {
	days, err := r.blobs.Days(ctx)
	if err != nil {
		return fmt.Errorf("list the days of the blob store: %w", err)
	}
	for _, day := range days {
		if only.day != "" && day != only.day {
			continue
		}
		if err := r.day(ctx, day, only.id); err != nil {
			return err
		}
	}
	switch {
	case r.failed > 0:
		return fmt.Errorf("%d of %d packages could not be recovered", r.failed, r.found)
	case r.found == 0:
		return errors.New("no such package in the blob store")
	}
	return nil
}

// day recovers the packages of one day. One that fails does not stop the others.
func (r *recovery) day(ctx context.Context, day string, only *crypto.ID) error {
	heads := map[crypto.ID][]string{}
	for info, err := range r.blobs.List(ctx, day) {
		if err != nil {
			return fmt.Errorf("list the objects of %s: %w", day, err)
		}
		name, err := crypto.ParseObjectName(info.Name)
		if err != nil || name.Kind != crypto.KindHead || only != nil && name.ID != *only {
			continue
		}
		heads[name.ID] = append(heads[name.ID], info.Name)
	}
	ids := make([]crypto.ID, 0, len(heads))
	for id := range heads {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b crypto.ID) int { return slices.Compare(a[:], b[:]) })
	for _, id := range ids {
		r.found++
		if err := r.pack(ctx, id, heads[id]); err != nil {
			r.failed++
			if _, err := fmt.Fprintf(r.std.err, "%s: %v\n", id, err); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// pack recovers one package by its latest head.
func (r *recovery) pack(ctx context.Context, id crypto.ID, heads []string) error {
	name, ok := crypto.LatestHead(id, heads)
	if !ok {
		return errors.New("has no head")
	}
	head, err := r.blobs.Get(ctx, name, 0, -1)
	if err != nil {
		return fmt.Errorf("read its head: %w", err)
	}
	opened, err := crypto.OpenHeadWithRecoveryKey(head, id, r.key, r.signer)
	if err = errors.Join(err, head.Close()); err != nil {
		return fmt.Errorf("open its head: %w", err)
	}
	manifest := opened.Manifest()
	mark := "verified"
	if opened.Signature() != crypto.Verified {
		mark = "UNVERIFIED"
	}
	if _, err := fmt.Fprintf(r.std.out, "%s  %s  %s  %d files\n", id, manifest.Created.Format("2006-01-02 15:04:05"), mark, len(manifest.Items)); err != nil {
		return err
	}
	if !r.save {
		return nil
	}
	return saveItems(ctx, r.std, opened, r.blobs, filepath.Join(r.out, id.String()))
}
