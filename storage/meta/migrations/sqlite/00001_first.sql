-- Times are microseconds since 1970 in UTC. IDs are lower-case hex. "wrapped" columns hold what the keyring
-- has encrypted for this table, column and row; "lookup" columns hold its keyed hash.

-- +goose Up
CREATE TABLE packages (
    id            TEXT PRIMARY KEY,
    source        TEXT NOT NULL,
    state         TEXT NOT NULL,
    created       INTEGER NOT NULL,
    expires       INTEGER NOT NULL,
    server_secret BLOB, -- wrapped; gone once erased
    proof_hash    BLOB NOT NULL, -- stays when the package is erased, so that who has the link learns that it has expired
    head          TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX packages_expires ON packages (expires) WHERE state <> 'erased';

CREATE TABLE items (
    package_id TEXT NOT NULL REFERENCES packages (id) ON DELETE CASCADE,
    ordinal    INTEGER NOT NULL,
    size       INTEGER NOT NULL,
    segments   INTEGER NOT NULL,
    PRIMARY KEY (package_id, ordinal)
) STRICT, WITHOUT ROWID;

CREATE TABLE objects (
    name       TEXT PRIMARY KEY,
    package_id TEXT NOT NULL REFERENCES packages (id) ON DELETE CASCADE,
    position   INTEGER NOT NULL,
    item       INTEGER NOT NULL,
    size       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX objects_package ON objects (package_id, position);

CREATE TABLE placements (
    package_id TEXT NOT NULL REFERENCES packages (id) ON DELETE CASCADE,
    position   INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    place      TEXT NOT NULL,
    case_ref   TEXT NOT NULL,
    expires    INTEGER NOT NULL,
    PRIMARY KEY (package_id, position)
) STRICT, WITHOUT ROWID;

-- One row for each correspondent of a mail or package, so that one person can be found and erased.
CREATE TABLE addresses (
    owner_id TEXT NOT NULL,
    role     TEXT NOT NULL,
    position INTEGER NOT NULL,
    lookup   BLOB NOT NULL,
    address  BLOB NOT NULL, -- wrapped
    PRIMARY KEY (owner_id, role, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX addresses_lookup ON addresses (lookup);

CREATE TABLE queue_keys (
    day TEXT PRIMARY KEY,
    key BLOB NOT NULL -- wrapped
) STRICT;

-- A mail as accepted. Its copy is kept while queue_day is not null, and then it is in copy or in copy_object.
CREATE TABLE mails (
    id                TEXT PRIMARY KEY,
    created           INTEGER NOT NULL,
    expires           INTEGER NOT NULL,
    message_id_lookup BLOB,
    message_id        BLOB, -- wrapped
    client            BLOB, -- wrapped
    size              INTEGER NOT NULL,
    eight_bit         INTEGER NOT NULL,
    utf8              INTEGER NOT NULL,
    queue_day         TEXT REFERENCES queue_keys (day),
    mail_from         BLOB, -- wrapped; erased with the copy
    copy              BLOB, -- wrapped
    copy_object       TEXT
) STRICT;
CREATE INDEX mails_message_id ON mails (message_id_lookup) WHERE message_id_lookup IS NOT NULL;
CREATE INDEX mails_queue_day ON mails (queue_day) WHERE queue_day IS NOT NULL;
CREATE INDEX mails_copy_object ON mails (copy_object) WHERE copy_object IS NOT NULL;
CREATE INDEX mails_expires ON mails (expires) WHERE queue_day IS NULL;

CREATE TABLE deliveries (
    id           TEXT PRIMARY KEY,
    mail_id      TEXT NOT NULL REFERENCES mails (id) ON DELETE CASCADE,
    state        TEXT NOT NULL,
    route        TEXT NOT NULL,
    forward_to   TEXT NOT NULL,
    created      INTEGER NOT NULL,
    since        INTEGER NOT NULL, -- created, or the last event by hand: from here the five days count
    attempts     INTEGER NOT NULL DEFAULT 0,
    next_attempt INTEGER NOT NULL,
    last_code    INTEGER NOT NULL DEFAULT 0,
    last_reply   BLOB, -- wrapped
    await_case   INTEGER NOT NULL DEFAULT 1,
    sent_at      INTEGER,
    owner        TEXT,
    fence        INTEGER NOT NULL DEFAULT 0,
    leased_at    INTEGER,
    lease_until  INTEGER,
    UNIQUE (mail_id, forward_to)
) STRICT;
CREATE INDEX deliveries_due ON deliveries (next_attempt, id) WHERE state = 'pending';
CREATE INDEX deliveries_leased ON deliveries (lease_until) WHERE state = 'sending';
CREATE INDEX deliveries_sent ON deliveries (sent_at) WHERE state = 'sent';
CREATE INDEX deliveries_state ON deliveries (state, created);

CREATE TABLE attempts (
    delivery_id TEXT NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    started     INTEGER NOT NULL,
    ended       INTEGER NOT NULL,
    hop         TEXT NOT NULL,
    event       TEXT NOT NULL,
    code        INTEGER NOT NULL,
    reply       BLOB, -- wrapped
    tls         TEXT NOT NULL,
    PRIMARY KEY (delivery_id, number)
) STRICT, WITHOUT ROWID;

-- Objects that no row refers to any more, to be deleted from the blob store.
CREATE TABLE garbage (
    name  TEXT PRIMARY KEY,
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX garbage_since ON garbage (since);

CREATE TABLE agents (
    id             TEXT PRIMARY KEY,
    address_lookup BLOB NOT NULL UNIQUE,
    address        BLOB NOT NULL, -- wrapped
    password_hash  BLOB NOT NULL, -- wrapped
    created        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- An ended session stays as a row without data until it expires, so that a request that was under way when
-- it ended cannot bring it back.
CREATE TABLE sessions (
    token_hash BLOB PRIMARY KEY,
    data       BLOB, -- wrapped; null once ended
    expires    INTEGER NOT NULL,
    agent_id   TEXT REFERENCES agents (id)
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_expires ON sessions (expires);
CREATE INDEX sessions_agent ON sessions (agent_id) WHERE agent_id IS NOT NULL;

CREATE TABLE grants (
    token_hash   BLOB PRIMARY KEY,
    session_hash BLOB NOT NULL,
    package_id   TEXT NOT NULL,
    expires      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX grants_session ON grants (session_hash);
CREATE INDEX grants_expires ON grants (expires);

CREATE TABLE login_failures (
    id     TEXT PRIMARY KEY,
    lookup BLOB NOT NULL,
    at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX login_failures_lookup ON login_failures (lookup, at);
CREATE INDEX login_failures_at ON login_failures (at);

CREATE TABLE audit_events (
    id             TEXT PRIMARY KEY,
    at             INTEGER NOT NULL,
    principal_kind TEXT NOT NULL,
    principal_id   TEXT NOT NULL,
    action         TEXT NOT NULL,
    package_id     TEXT,
    delivery_id    TEXT NOT NULL,
    agent_id       TEXT NOT NULL,
    object         TEXT NOT NULL,
    client         BLOB, -- wrapped
    outcome        TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_events_at ON audit_events (at);
CREATE INDEX audit_events_package ON audit_events (package_id, at) WHERE package_id IS NOT NULL;

-- When a gateway last ran with this database: one row. Objects stored in a span of time that no gateway watched
-- cannot be known here, so they are never swept: the database may be new or come from a backup.
CREATE TABLE watch (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    last INTEGER NOT NULL
) STRICT;

CREATE TABLE unwatched (
    since INTEGER PRIMARY KEY,
    until INTEGER NOT NULL
) STRICT;
