package config

import (
	"net/url"

	"sealpost/storage/blob"
)

// KeyringEnv begins a keyring that is not the path of a file but the name of an environment variable.
const KeyringEnv = "env:"

// validateStorage checks where mails and files are kept.
func (d *document) validateStorage(c *Config) {
	if c.Database != DatabaseSQLite {
		d.postgres(c.Database)
	}
	if c.Blobs != BlobsDir {
		if _, err := blob.ParseS3(c.Blobs); err != nil {
			d.report("blobs", "%v; write %s, or s3://bucket/prefix?region=eu-central-1", err, BlobsDir)
		}
	}
	if c.Portal.DirectDownloads && c.Blobs == BlobsDir {
		d.report("portal.direct_downloads", "needs blobs on S3: a directory is only reached through us")
	}
}

func (d *document) postgres(text string) {
	const want = "write sqlite, or postgres://user@host/database?sslmode=verify-full"
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		d.report("database", "is neither sqlite nor the URL of a PostgreSQL database; %s", want) // it may hold a password
		return
	}
	if _, given := u.User.Password(); given || u.Query().Has("password") {
		d.report("database", "must not hold the password: set PGPASSWORD, or PGPASSFILE to a file of the form that libpq reads")
	}
	if len(u.Path) < 2 {
		d.report("database", "names no database; %s", want)
	}
}
