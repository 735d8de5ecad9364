-- Times are microseconds since 1970 in UTC. IDs are lower-case hex. "wrapped" columns hold what the keyring
-- has encrypted for this table, column and row; "lookup" columns hold its keyed hash. Flags are 0 or 1.
--
-- Text is compared by its bytes: an index does not depend on what the system's C library thinks of an order.

-- +goose Up
CREATE TABLE packages (
    id             TEXT COLLATE "C" PRIMARY KEY,
    source         TEXT COLLATE "C" NOT NULL,
    state          TEXT COLLATE "C" NOT NULL,
    created        BIGINT NOT NULL,
    expires        BIGINT NOT NULL,
    server_secret  BYTEA, -- wrapped; gone once erased
    proof_hash     BYTEA NOT NULL, -- stays when the package is erased, so that who has the link learns that it has expired
    head           TEXT COLLATE "C" NOT NULL,
    scan           TEXT COLLATE "C" NOT NULL DEFAULT '',
    scan_signature TEXT COLLATE "C" NOT NULL DEFAULT ''
);
CREATE INDEX packages_expires ON packages (expires) WHERE state <> 'erased';

CREATE TABLE items (
    package_id TEXT COLLATE "C" NOT NULL REFERENCES packages (id) ON DELETE CASCADE,
    ordinal    BIGINT NOT NULL,
    size       BIGINT NOT NULL,
    segments   BIGINT NOT NULL,
    PRIMARY KEY (package_id, ordinal)
);

CREATE TABLE objects (
    name       TEXT COLLATE "C" PRIMARY KEY,
    package_id TEXT COLLATE "C" NOT NULL REFERENCES packages (id) ON DELETE CASCADE,
    position   BIGINT NOT NULL,
    item       BIGINT NOT NULL,
    size       BIGINT NOT NULL
);
CREATE INDEX objects_package ON objects (package_id, position);

CREATE TABLE placements (
    package_id TEXT COLLATE "C" NOT NULL REFERENCES packages (id) ON DELETE CASCADE,
    position   BIGINT NOT NULL,
    kind       TEXT COLLATE "C" NOT NULL,
    place      TEXT COLLATE "C" NOT NULL,
    case_ref   TEXT COLLATE "C" NOT NULL,
    expires    BIGINT NOT NULL,
    PRIMARY KEY (package_id, position)
);

-- One row for each correspondent of a mail or package, so that one person can be found and erased.
CREATE TABLE addresses (
    owner_id TEXT COLLATE "C" NOT NULL,
    role     TEXT COLLATE "C" NOT NULL,
    position BIGINT NOT NULL,
    lookup   BYTEA NOT NULL,
    address  BYTEA NOT NULL, -- wrapped
    PRIMARY KEY (owner_id, role, position)
);
CREATE INDEX addresses_lookup ON addresses (lookup);

CREATE TABLE queue_keys (
    day TEXT COLLATE "C" PRIMARY KEY,
    key BYTEA NOT NULL -- wrapped
);

-- A mail as accepted. Its copy is kept while queue_day is not null, and then it is in copy or in copy_object.
CREATE TABLE mails (
    id                TEXT COLLATE "C" PRIMARY KEY,
    created           BIGINT NOT NULL,
    expires           BIGINT NOT NULL,
    message_id_lookup BYTEA,
    message_id        BYTEA, -- wrapped
    client            BYTEA, -- wrapped
    size              BIGINT NOT NULL,
    eight_bit         BIGINT NOT NULL,
    utf8              BIGINT NOT NULL,
    queue_day         TEXT COLLATE "C" REFERENCES queue_keys (day),
    mail_from         BYTEA, -- wrapped; erased with the copy
    copy              BYTEA, -- wrapped
    copy_object       TEXT COLLATE "C",
    hello             BYTEA, -- wrapped
    envelope_id       BYTEA, -- wrapped
    protocol          TEXT COLLATE "C" NOT NULL DEFAULT '',
    tls               TEXT COLLATE "C" NOT NULL DEFAULT '',
    trusted_relay     BIGINT NOT NULL DEFAULT 0,
    dsn_return        TEXT COLLATE "C" NOT NULL DEFAULT '',
    silence           TEXT COLLATE "C" NOT NULL DEFAULT '',
    spf               TEXT COLLATE "C" NOT NULL DEFAULT '',
    dkim              TEXT COLLATE "C" NOT NULL DEFAULT '',
    dmarc             TEXT COLLATE "C" NOT NULL DEFAULT '',
    dmarc_policy      TEXT COLLATE "C" NOT NULL DEFAULT '',
    auth_by_relay     BIGINT NOT NULL DEFAULT 0,
    scan              TEXT COLLATE "C" NOT NULL DEFAULT '',
    scan_signature    TEXT COLLATE "C" NOT NULL DEFAULT ''
);
ALTER TABLE mails ALTER COLUMN copy SET STORAGE EXTERNAL; -- ciphertext does not become shorter
CREATE INDEX mails_message_id ON mails (message_id_lookup) WHERE message_id_lookup IS NOT NULL;
CREATE INDEX mails_queue_day ON mails (queue_day) WHERE queue_day IS NOT NULL;
CREATE INDEX mails_copy_object ON mails (copy_object) WHERE copy_object IS NOT NULL;
CREATE INDEX mails_expires ON mails (expires) WHERE queue_day IS NULL;

-- On the way back to a sender, forward_to is a keyed hash and recipient the address. lane is what deliveries are
-- leased by: the route, or "return " and the keyed hash of the organisational domain that they go back to.
CREATE TABLE deliveries (
    id                 TEXT COLLATE "C" PRIMARY KEY,
    mail_id            TEXT COLLATE "C" NOT NULL REFERENCES mails (id) ON DELETE CASCADE,
    state              TEXT COLLATE "C" NOT NULL,
    route              TEXT COLLATE "C" NOT NULL,
    lane               TEXT COLLATE "C" NOT NULL,
    forward_to         TEXT COLLATE "C" NOT NULL,
    created            BIGINT NOT NULL,
    since              BIGINT NOT NULL, -- created, or the last event by hand: from here the five days count
    attempts           BIGINT NOT NULL DEFAULT 0,
    next_attempt       BIGINT NOT NULL,
    last_code          BIGINT NOT NULL DEFAULT 0,
    last_reply         BYTEA, -- wrapped
    await_case         BIGINT NOT NULL DEFAULT 1,
    sent_at            BIGINT,
    dead_at            BIGINT,
    owner              TEXT COLLATE "C",
    fence              BIGINT NOT NULL DEFAULT 0,
    leased_at          BIGINT,
    lease_until        BIGINT,
    recipient          BYTEA, -- wrapped
    notify             TEXT COLLATE "C" NOT NULL DEFAULT '',
    original_recipient BYTEA, -- wrapped
    told               TEXT COLLATE "C" NOT NULL DEFAULT '',
    untold             TEXT COLLATE "C" NOT NULL DEFAULT '',
    reason             BYTEA, -- wrapped
    UNIQUE (mail_id, forward_to)
);
-- A queue's rows live short: vacuum soon, or every look at what is due reads over the dead.
ALTER TABLE deliveries SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);
CREATE INDEX deliveries_lane_due ON deliveries (lane, next_attempt, id) WHERE state = 'pending';
CREATE INDEX deliveries_returning ON deliveries (next_attempt, lane) WHERE state = 'pending' AND route = 'return';
CREATE INDEX deliveries_waiting ON deliveries (since) WHERE state = 'pending' AND route <> 'return';
CREATE INDEX deliveries_leased ON deliveries (lease_until) WHERE state = 'sending';
CREATE INDEX deliveries_sent ON deliveries (sent_at) WHERE state = 'sent' AND await_case = 1;
CREATE INDEX deliveries_dead ON deliveries (route, dead_at) WHERE state = 'dead';
CREATE INDEX deliveries_state ON deliveries (state, created);

CREATE TABLE attempts (
    delivery_id TEXT COLLATE "C" NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE,
    number      BIGINT NOT NULL,
    started     BIGINT NOT NULL,
    ended       BIGINT NOT NULL,
    hop         BYTEA, -- wrapped
    event       TEXT COLLATE "C" NOT NULL,
    code        BIGINT NOT NULL,
    reply       BYTEA, -- wrapped
    tls         TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (delivery_id, number)
);

-- Objects that no row refers to any more, to be deleted from the blob store.
CREATE TABLE garbage (
    name  TEXT COLLATE "C" PRIMARY KEY,
    since BIGINT NOT NULL
);
CREATE INDEX garbage_since ON garbage (since);

CREATE TABLE agents (
    id             TEXT COLLATE "C" PRIMARY KEY,
    address_lookup BYTEA NOT NULL UNIQUE,
    address        BYTEA NOT NULL, -- wrapped
    password_hash  BYTEA NOT NULL, -- wrapped
    created        BIGINT NOT NULL
);

-- An ended session stays as a row without data until it expires, so that a request that was under way when
-- it ended cannot bring it back.
CREATE TABLE sessions (
    token_hash BYTEA PRIMARY KEY,
    data       BYTEA, -- wrapped; null once ended
    expires    BIGINT NOT NULL,
    agent_id   TEXT COLLATE "C" REFERENCES agents (id)
);
CREATE INDEX sessions_expires ON sessions (expires);
CREATE INDEX sessions_agent ON sessions (agent_id) WHERE agent_id IS NOT NULL;

CREATE TABLE grants (
    token_hash   BYTEA PRIMARY KEY,
    session_hash BYTEA NOT NULL,
    package_id   TEXT COLLATE "C" NOT NULL,
    expires      BIGINT NOT NULL
);
CREATE INDEX grants_session ON grants (session_hash);
CREATE INDEX grants_package ON grants (package_id);
CREATE INDEX grants_expires ON grants (expires);

CREATE TABLE login_failures (
    id     TEXT COLLATE "C" PRIMARY KEY,
    lookup BYTEA NOT NULL,
    at     BIGINT NOT NULL
);
CREATE INDEX login_failures_lookup ON login_failures (lookup, at);
CREATE INDEX login_failures_at ON login_failures (at);

CREATE TABLE audit_events (
    id             TEXT COLLATE "C" PRIMARY KEY,
    at             BIGINT NOT NULL,
    principal_kind TEXT COLLATE "C" NOT NULL,
    principal_id   TEXT COLLATE "C" NOT NULL,
    action         TEXT COLLATE "C" NOT NULL,
    package_id     TEXT COLLATE "C",
    delivery_id    TEXT COLLATE "C" NOT NULL,
    agent_id       TEXT COLLATE "C" NOT NULL,
    object         TEXT COLLATE "C" NOT NULL,
    client         BYTEA, -- wrapped
    outcome        TEXT COLLATE "C" NOT NULL,
    name           BYTEA, -- wrapped
    reason         BYTEA  -- wrapped
);
CREATE INDEX audit_events_at ON audit_events (at);
CREATE INDEX audit_events_package ON audit_events (package_id, at) WHERE package_id IS NOT NULL;

-- When a gateway last ran with this database: one row. Objects stored in a span of time that no gateway watched
-- cannot be known here, so they are never swept: the database may be new or come from a backup.
CREATE TABLE watch (
    id   BIGINT PRIMARY KEY CHECK (id = 1),
    last BIGINT NOT NULL
);

CREATE TABLE unwatched (
    since BIGINT PRIMARY KEY,
    until BIGINT NOT NULL
);

-- Mails whose 250 nobody is known to have heard. owner is the process that has the session.
CREATE TABLE fingerprints (
    mail_id     TEXT COLLATE "C" PRIMARY KEY REFERENCES mails (id) ON DELETE CASCADE,
    fingerprint BYTEA NOT NULL,
    at          BIGINT NOT NULL,
    owner       TEXT COLLATE "C" NOT NULL,
    ended       BIGINT NOT NULL DEFAULT 0,
    repeats     BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX fingerprints_lookup ON fingerprints (fingerprint);
CREATE INDEX fingerprints_at ON fingerprints (at);

-- Mails that were refused after their text had come.
CREATE TABLE refusals (
    id                TEXT COLLATE "C" PRIMARY KEY,
    at                BIGINT NOT NULL,
    message_id_lookup BYTEA,
    mail              BYTEA NOT NULL -- wrapped
);
CREATE INDEX refusals_message_id ON refusals (message_id_lookup) WHERE message_id_lookup IS NOT NULL;
CREATE INDEX refusals_at ON refusals (at);

-- When the postmaster was last mailed of each kind of alert.
CREATE TABLE alerts (
    kind TEXT COLLATE "C" PRIMARY KEY,
    told BIGINT NOT NULL
);

-- The processes that run with this database, when each was last seen, and the IDs of the wrapping keys that it has and
-- that it wraps by.
CREATE TABLE nodes (
    id    TEXT COLLATE "C" PRIMARY KEY,
    seen  BIGINT NOT NULL,
    keys  TEXT COLLATE "C" NOT NULL DEFAULT '',
    wraps TEXT COLLATE "C" NOT NULL DEFAULT ''
);

-- Which process does the work that one of them does for all, and until when that is its own.
CREATE TABLE work (
    kind  TEXT COLLATE "C" PRIMARY KEY,
    owner TEXT COLLATE "C" NOT NULL,
    until BIGINT NOT NULL
);

-- The wrapping keys by their IDs; the last one is in use. finished is when nothing was wrapped by another any more.
CREATE TABLE wrapping_keys (
    position BIGINT PRIMARY KEY,
    id       TEXT COLLATE "C" NOT NULL UNIQUE,
    since    BIGINT NOT NULL,
    finished BIGINT
);

-- What is known of the installation as a whole, whatever node says it.
CREATE TABLE settings (
    name  TEXT COLLATE "C" PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL
);
