package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sealpost/gateway/config"
	"sealpost/storage/meta"
)

type backupCommand struct {
	configFlag
	Out string `help:"The directory for the copy, made if need be." required:"" type:"path" placeholder:"DIR"`
}

// Run copies the embedded database as it is at one moment. Gateways may run meanwhile.
func (c *backupCommand) Run(ctx context.Context, std streams) (err error) {
	cfg, err := config.Load(c.Config)
	if err != nil {
		return err
	}
	if cfg.Database != config.DatabaseSQLite {
		return usageError{"the database is PostgreSQL: back it up by pg_dump, and the bucket after it"}
	}
	source, err := meta.OpenSQLiteSource(ctx, databaseFile(cfg))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	if err := os.MkdirAll(c.Out, 0o700); err != nil {
		return fmt.Errorf("make the directory for the backup: %w", err)
	}
	path := filepath.Join(c.Out, databaseName)
	if err := source.BackupTo(ctx, path); err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "The database is in %s.\nNow copy the objects (%s): after it, never before, and the keyring to another place.\n",
		path, objectsPlace(cfg))
	return err
}

func objectsPlace(cfg *config.Config) string {
	if cfg.Blobs == config.BlobsDir {
		return blobsDir(cfg)
	}
	return "the bucket"
}
