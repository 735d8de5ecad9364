-- +goose Up
-- How a mail came, and what was judged of it.
ALTER TABLE mails ADD COLUMN hello BLOB; -- wrapped
ALTER TABLE mails ADD COLUMN envelope_id BLOB; -- wrapped
ALTER TABLE mails ADD COLUMN protocol TEXT NOT NULL DEFAULT '';
ALTER TABLE mails ADD COLUMN tls TEXT NOT NULL DEFAULT '';
ALTER TABLE mails ADD COLUMN trusted_relay INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mails ADD COLUMN dsn_return TEXT NOT NULL DEFAULT '';
ALTER TABLE mails ADD COLUMN silence TEXT NOT NULL DEFAULT 'it came before notices were sent';
ALTER TABLE mails ADD COLUMN spf TEXT NOT NULL DEFAULT '';
ALTER TABLE mails ADD COLUMN dkim TEXT NOT NULL DEFAULT '';
ALTER TABLE mails ADD COLUMN dmarc TEXT NOT NULL DEFAULT '';
ALTER TABLE mails ADD COLUMN dmarc_policy TEXT NOT NULL DEFAULT '';
ALTER TABLE mails ADD COLUMN auth_by_relay INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mails ADD COLUMN scan TEXT NOT NULL DEFAULT '';
ALTER TABLE mails ADD COLUMN scan_signature TEXT NOT NULL DEFAULT '';

ALTER TABLE packages ADD COLUMN scan TEXT NOT NULL DEFAULT '';
ALTER TABLE packages ADD COLUMN scan_signature TEXT NOT NULL DEFAULT '';

-- On the way back to a sender, forward_to is a keyed hash and recipient the address.
ALTER TABLE deliveries ADD COLUMN recipient BLOB; -- wrapped
ALTER TABLE deliveries ADD COLUMN notify TEXT NOT NULL DEFAULT '';
ALTER TABLE deliveries ADD COLUMN original_recipient BLOB; -- wrapped
ALTER TABLE deliveries ADD COLUMN told TEXT NOT NULL DEFAULT '';
ALTER TABLE deliveries ADD COLUMN untold TEXT NOT NULL DEFAULT '';
ALTER TABLE deliveries ADD COLUMN reason BLOB; -- wrapped
CREATE INDEX deliveries_route_due ON deliveries (route, next_attempt, id) WHERE state = 'pending';
DROP INDEX deliveries_due;

ALTER TABLE audit_events ADD COLUMN name BLOB; -- wrapped
ALTER TABLE audit_events ADD COLUMN reason BLOB; -- wrapped

-- Mails whose 250 nobody is known to have heard. owner is the process that has the session.
CREATE TABLE fingerprints (
    mail_id     TEXT PRIMARY KEY REFERENCES mails (id) ON DELETE CASCADE,
    fingerprint BLOB NOT NULL,
    at          INTEGER NOT NULL,
    owner       TEXT NOT NULL,
    ended       INTEGER NOT NULL DEFAULT 0,
    repeats     INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX fingerprints_lookup ON fingerprints (fingerprint);
CREATE INDEX fingerprints_at ON fingerprints (at);

-- Mails that were refused after their text had come.
CREATE TABLE refusals (
    id                TEXT PRIMARY KEY,
    at                INTEGER NOT NULL,
    message_id_lookup BLOB,
    mail              BLOB NOT NULL -- wrapped
) STRICT, WITHOUT ROWID;
CREATE INDEX refusals_message_id ON refusals (message_id_lookup) WHERE message_id_lookup IS NOT NULL;
CREATE INDEX refusals_at ON refusals (at);

-- When the postmaster was last mailed of each kind of alert.
CREATE TABLE alerts (
    kind TEXT PRIMARY KEY,
    told INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
