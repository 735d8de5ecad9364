package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealpost/crypto"
	"sealpost/gateway/config"
	"sealpost/gateway/intake"
	"sealpost/gateway/relay"
	"sealpost/gateway/telemetry"
	"sealpost/storage/blob"
	"sealpost/storage/meta"
)

// stores are what an installation keeps, opened. intake and queue are the parts of meta that a mail goes
// through on its way in and out.
type stores struct {
	keyring *crypto.Keyring
	blobs   blob.Store
	meta    *meta.Store
	intake  intake.Store
	queue   relay.Queue
	// registry has the metrics of the stores, and of whatever is built upon them.
	registry *prometheus.Registry
}

// openStores opens keyring, blob store and database. The caller closes it.
func openStores(ctx context.Context, c *config.Config) (*stores, error) {
	keyring, err := readKeyring(c.Keyring)
	if err != nil {
		return nil, err
	}
	registry := telemetry.NewRegistry()
	blobs, err := openBlobs(ctx, c, registry)
	if err != nil {
		return nil, err
	}
	database, err := openDatabase(ctx, c, keyring)
	if err != nil {
		return nil, err
	}
	return &stores{keyring: keyring, blobs: blobs, meta: database, intake: database, queue: database, registry: registry}, nil
}

// databaseName is the file of the embedded database.
const databaseName = "sealpost.db"

func databaseFile(c *config.Config) string { return filepath.Join(c.Data, databaseName) }

func blobsDir(c *config.Config) string { return filepath.Join(c.Data, "blobs") }

// openDatabase refuses one that an installation is being carried over into.
func openDatabase(ctx context.Context, c *config.Config, keyring *crypto.Keyring) (*meta.Store, error) {
	database, err := openAnyDatabase(ctx, c, keyring)
	if err != nil {
		return nil, err
	}
	if err := database.CheckMove(ctx); err != nil {
		return nil, errors.Join(err, database.Close())
	}
	return database, nil
}

func openAnyDatabase(ctx context.Context, c *config.Config, keyring meta.Wrapper) (*meta.Store, error) {
	if c.Database == config.DatabaseSQLite {
		return meta.OpenSQLite(ctx, databaseFile(c), keyring)
	}
	return meta.OpenPostgres(ctx, c.Database, keyring)
}

func (s *stores) Close() error {
	if err := s.meta.Close(); err != nil {
		return err
	}
	return nil
}

func openBlobs(ctx context.Context, c *config.Config, registry prometheus.Registerer) (blob.Store, error) {
	if c.Blobs == config.BlobsDir {
		blobs, err := blob.NewDir(blobsDir(c))
		if err != nil {
			return nil, fmt.Errorf("open the blob store: %w", err)
		}
		return blobs, nil
	}
	options, err := blob.ParseS3(c.Blobs)
	if err != nil {
		return nil, fmt.Errorf("blobs: %w", err)
	}
	options.Registerer = registry
	bucket, err := blob.OpenS3(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("open the blob store: %w", err)
	}
	return bucket, nil
}

// readKeyring reads the keyring of the configuration. A running gateway reads a file anew when a key is added to it.
func readKeyring(place string) (*crypto.Keyring, error) {
	source := func() (io.ReadCloser, error) { return openKeyringFile(place) }
	if name, is := strings.CutPrefix(place, config.KeyringEnv); is {
		source = func() (io.ReadCloser, error) { return openKeyringVariable(name) }
	}
	keyring, err := crypto.OpenKeyring(source)
	var missing missingKeyring
	if errors.As(err, &missing) {
		return nil, missing
	}
	if err != nil {
		return nil, fmt.Errorf("read the keyring %s: %w", place, err)
	}
	return keyring, nil
}

// missingKeyring is a keyring file that is not there.
type missingKeyring struct{ path string }

// Error says what to do.
func (e missingKeyring) Error() string {
	return fmt.Sprintf("there is no keyring at %s; restore it from its backup, since without it the database cannot be read", e.path)
}

func openKeyringFile(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, missingKeyring{path}
	}
	if err != nil {
		return nil, fmt.Errorf("%w; it must be readable by the user that runs sealpost", err)
	}
	return f, nil
}

func openKeyringVariable(name string) (io.ReadCloser, error) {
	text, ok := os.LookupEnv(name)
	if !ok {
		return nil, fmt.Errorf("the variable %s is not set; without the keyring the database cannot be read", name)
	}
	return io.NopCloser(strings.NewReader(text)), nil
}

// newSealer refuses recovery keys that cannot be used, before any mail is taken.
func newSealer(c *config.Config, keyring *crypto.Keyring) (*crypto.Sealer, error) {
	var recovery []*crypto.RecoveryPublicKey
	for _, path := range c.RecoveryKeys {
		keys, err := readRecoveryKeys(path)
		if err != nil {
			return nil, err
		}
		recovery = append(recovery, keys...)
	}
	sealer, err := crypto.NewSealer(recovery, keyring.SigningKey(), time.Now())
	if err != nil {
		return nil, fmt.Errorf("use the recovery keys %v: %w", c.RecoveryKeys, err)
	}
	return sealer, nil
}

func readRecoveryKeys(path string) ([]*crypto.RecoveryPublicKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the recovery key: %w", err)
	}
	keys, err := crypto.ReadRecoveryPublicKeys(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read the recovery key %s: %w", path, err)
	}
	return keys, nil
}
