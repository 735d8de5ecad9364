package meta

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"path/filepath"

	"sealpost/gateway"
)

// BackupTo writes a copy of an SQLite database, as it is at one moment, into a new file at path, with mode 0600. It is
// durable when BackupTo returns. Gateways may run meanwhile. It has no record of when a gateway ran last: whoever restores
// it has objects that were stored since, and must sweep none of them. A database of PostgreSQL is refused: it has tools of its own.
func (s *Source) BackupTo(ctx context.Context, path string) error {
	const doing = "back up the database"
	if s.s.isServer() {
		return s.s.failure(ctx, doing, gateway.Errorf(gateway.CodeInvalid, nil, "a database of PostgreSQL is backed up by pg_dump"))
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return s.s.failure(ctx, doing, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // SQLite takes an empty file, and keeps its mode
	if err != nil {
		return s.s.failure(ctx, doing, err)
	}
	_, err = s.s.read.ExecContext(ctx, `VACUUM INTO $1`, path)
	if err == nil {
		err = unwatch(ctx, path)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = syncDirectory(filepath.Dir(path))
	}
	if err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return s.s.failure(ctx, doing, err)
}

// unwatch has a copy forget when a gateway ran last, so that the next one takes all time before for unwatched.
func unwatch(ctx context.Context, path string) (err error) {
	u := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"_pragma": {"journal_mode(MEMORY)"}}.Encode()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.ExecContext(ctx, `DELETE FROM watch`)
	return err
}

func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
