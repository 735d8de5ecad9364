-- +goose Up
-- What deliveries are leased by: the route, or "return " and the keyed hash of the organisational domain that they
-- go back to.
ALTER TABLE deliveries ADD COLUMN lane TEXT NOT NULL DEFAULT '';
UPDATE deliveries SET lane = route;

-- Each begins with the state that it is limited to: SQLite prefers an index in which a column has one value, be it that
-- of most rows, and would read all that wait along any index that does.
DROP INDEX deliveries_route_due;
CREATE INDEX deliveries_lane_due ON deliveries (state, lane, next_attempt, id) WHERE state = 'pending';
CREATE INDEX deliveries_returning ON deliveries (state, next_attempt, lane) WHERE state = 'pending' AND route = 'return';
CREATE INDEX deliveries_waiting ON deliveries (state, since) WHERE state = 'pending' AND route <> 'return';
DROP INDEX deliveries_leased;
CREATE INDEX deliveries_leased ON deliveries (state, lease_until) WHERE state = 'sending';
DROP INDEX deliveries_sent;
CREATE INDEX deliveries_sent ON deliveries (state, sent_at) WHERE state = 'sent' AND await_case = 1;

-- The hop of an attempt on the way back names a correspondent's domain. Those of before are of no use any more.
ALTER TABLE attempts DROP COLUMN hop;
ALTER TABLE attempts ADD COLUMN hop BLOB; -- wrapped

-- Since when a delivery is dead.
ALTER TABLE deliveries ADD COLUMN dead_at INTEGER;
UPDATE deliveries SET dead_at = COALESCE((SELECT MAX(ended) FROM attempts WHERE delivery_id = deliveries.id), since)
    WHERE state = 'dead';
CREATE INDEX deliveries_dead ON deliveries (state, route, dead_at) WHERE state = 'dead';

-- The processes that run with this database, when each was last seen, and the IDs of the wrapping keys that it has and
-- that it wraps by.
CREATE TABLE nodes (
    id    TEXT PRIMARY KEY,
    seen  INTEGER NOT NULL,
    keys  TEXT NOT NULL DEFAULT '',
    wraps TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;

-- Which process does the work that one of them does for all, and until when that is its own.
CREATE TABLE work (
    kind  TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The wrapping keys by their IDs; the last one is in use. finished is when nothing was wrapped by another any more.
CREATE TABLE wrapping_keys (
    position INTEGER PRIMARY KEY,
    id       TEXT NOT NULL UNIQUE,
    since    INTEGER NOT NULL,
    finished INTEGER
) STRICT;

-- What is known of the installation as a whole, whatever node says it.
CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
