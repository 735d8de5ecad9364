package meta

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"sealpost/gateway"
)

//go:embed migrations/postgres/*.sql
var postgresMigrations embed.FS

// forUpdate ends a SELECT whose row PostgreSQL is to lock.
const forUpdate = ` FOR UPDATE`

const (
	// oldestPostgres is the first version that numbers transactions by xid8.
	oldestPostgres = 130000
	// applicationName is what the server knows our connections by.
	applicationName = "sealpost"
)

// serverLimits bound what a database of several nodes may cost.
type serverLimits struct {
	connections int           // of the pool; one more listens
	connect     time.Duration // for one connection
	statement   time.Duration // what the server allows one
	idle        time.Duration // what the server allows a transaction between two statements; less than outcome
	silence     time.Duration // after which an answer is not waited for any more
	outcome     time.Duration // for finding out what became of a COMMIT that was not answered
}

func defaultLimits() serverLimits {
	return serverLimits{
		connections: 20, connect: 5 * time.Second, statement: 20 * time.Second, idle: 5 * time.Second,
		silence: 25 * time.Second, outcome: 10 * time.Second,
	}
}

// WithMaxConnections changes how many connections a Store may have to PostgreSQL, apart from the one that listens.
// 20 is the default.
func WithMaxConnections(n int) Option { return func(d *dialect) { d.limits.connections = n } }

// OpenPostgres opens a database of PostgreSQL 13 or later, brings its schema up to date, and refuses one whose schema is
// newer than this program. url is as libpq takes it, and so are PGPASSWORD and the other variables. Any number of
// processes may have it open, and open it at once.
//
// A server that answers a commit before it is on its disk (synchronous_commit or fsync off) is refused, and one that is
// a standby is passed over for the next host that url names.
func OpenPostgres(ctx context.Context, url string, keys Wrapper, options ...Option) (*Store, error) {
	s := &Store{keys: keys, dialect: postgresDialect(), wake: make(chan struct{}, 1), process: newID()}
	s.mails, s.attempts = newGroup(maxTogether, patience, s.commitMails), newGroup(maxTogether, patience, s.finishAttempts)
	for _, option := range options {
		option(&s.dialect)
	}
	config, err := postgresConfig(url, s.dialect.limits)
	if err != nil {
		return nil, err
	}
	if err := s.openPostgres(ctx, config); err != nil {
		return nil, errors.Join(s.failure(ctx, "open the database", err), s.Close())
	}
	return s, nil
}

func (s *Store) openPostgres(ctx context.Context, config *pgx.ConnConfig) error {
	if err := migratePostgres(ctx, config); err != nil {
		return err
	}
	limits := s.dialect.limits
	pooled := config.Copy()
	pooled.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
		return &impatient{Conn: conn, limit: limits.silence}, nil
	}
	s.write = stdlib.OpenDB(*pooled)
	s.write.SetMaxOpenConns(limits.connections)
	s.write.SetMaxIdleConns(limits.connections)
	s.write.SetConnMaxIdleTime(5 * time.Minute)
	s.write.SetConnMaxLifetime(time.Hour)
	s.read = s.write
	server, err := startServer(ctx, config, s)
	s.server = server
	if err != nil {
		return err
	}
	return s.confirmKey(ctx)
}

// postgresConfig reads a URL. Its errors tell nothing of what is secret in it.
func postgresConfig(url string, limits serverLimits) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, gateway.Errorf(gateway.CodeInvalid, nil, "the database's URL cannot be read: it must be as in "+
			"postgres://user@host:5432/name?sslmode=verify-full, with known parameters, certificates that can be read, "+
			"and what is special in a password written as %%40")
	}
	if config.ConnectTimeout == 0 || config.ConnectTimeout > time.Minute {
		config.ConnectTimeout = limits.connect
	}
	defaults := map[string]string{
		"application_name":                    applicationName,
		"statement_timeout":                   milliseconds(limits.statement),
		"idle_in_transaction_session_timeout": milliseconds(limits.idle),
		// Each statement is planned once, along indexes, whatever the tables hold by then: they are short when a queue is
		// new, and to read them whole is right no more a second later.
		"plan_cache_mode": "force_generic_plan",
		"enable_seqscan":  "off",
		"jit":             "off", // it would take what must be read whole for costly
	}
	maps.Copy(defaults, config.RuntimeParams)
	defaults["default_transaction_isolation"] = "read committed" // what the statements are written for
	defaults["client_min_messages"] = "warning"                  // see noteWarning
	config.RuntimeParams = defaults
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
	config.DialFunc = dialer.DialContext
	config.ValidateConnect = suitable(config.ValidateConnect)
	config.OnNotice = noteWarning
	return config, nil
}

func milliseconds(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }

// suitable refuses servers that cannot keep our promises; first is what else was to be asked of them.
func suitable(first pgconn.ValidateConnectFunc) pgconn.ValidateConnectFunc {
	return func(ctx context.Context, conn *pgconn.PgConn) error {
		if first != nil {
			if err := first(ctx, conn); err != nil {
				return err
			}
		}
		results, err := conn.Exec(ctx, `SELECT current_setting('synchronous_commit') = 'off' OR current_setting('fsync') = 'off',
			pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on',
			current_setting('server_version_num')::int < `+fmt.Sprint(oldestPostgres)).ReadAll()
		switch {
		case err != nil:
			return fmt.Errorf("ask the server for its settings: %w", err)
		case string(results[0].Rows[0][0]) == "t":
			return gateway.Errorf(gateway.CodeUnavailable, nil,
				"the database server answers before a commit is on its disk: synchronous_commit and fsync must not be off")
		case string(results[0].Rows[0][1]) == "t":
			return gateway.Errorf(gateway.CodeUnavailable, nil, "the database server is a standby: it only reads")
		case string(results[0].Rows[0][2]) == "t":
			return gateway.Errorf(gateway.CodeUnavailable, nil, "the database server is older than PostgreSQL 13")
		}
		return nil
	}
}

func postgresDialect() dialect {
	return dialect{
		forUpdate:     forUpdate,
		skipLocked:    forUpdate + ` SKIP LOCKED`,
		look:          time.Minute,
		now:           postgresNow,
		classify:      classifyPostgres,
		missingParent: func(err error) bool { return pgCode(err) == "23503" },
		limits:        defaultLimits(),
		inserts:       mergedInserts(),
	}
}

func postgresNow(ctx context.Context, db *sql.DB) (now time.Time, err error) {
	return now, db.QueryRowContext(ctx, `SELECT clock_timestamp()`).Scan(&now)
}

// migratePostgres brings the schema up to date, on connections of its own: a statement of a migration may take long.
// One process does it at a time.
func migratePostgres(ctx context.Context, config *pgx.ConnConfig) (err error) {
	patient := config.Copy()
	patient.RuntimeParams["statement_timeout"] = "0"
	patient.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
	db := stdlib.OpenDB(*patient)
	defer func() { err = errors.Join(err, db.Close()) }()
	files, err := fs.Sub(postgresMigrations, "migrations/postgres")
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 600)) // every second, for ten minutes
	if err != nil {
		return fmt.Errorf("make the lock of the schema: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker),
		goose.WithLogger(goose.NopLogger()), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	sources := provider.ListSources()
	target := sources[len(sources)-1].Version
	current, err := schemaVersion(ctx, db)
	if err != nil {
		return fmt.Errorf("read the version of the schema: %w", err)
	}
	switch {
	case current > target:
		return newerSchema(current, target)
	case current == target:
		return nil
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate the schema: %w", err)
	}
	return nil
}

// schemaVersion returns 0 for an empty database.
func schemaVersion(ctx context.Context, db *sql.DB) (version int64, err error) {
	err = db.QueryRowContext(ctx, `SELECT COALESCE(MAX(version_id), 0) FROM `+goose.DefaultTablename).Scan(&version)
	if pgCode(err) == "42P01" { // there is no such table
		return 0, nil
	}
	return version, err
}
