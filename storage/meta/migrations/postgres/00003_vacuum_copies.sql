-- +goose Up
-- A mail's copy in its row is erased once it is delivered: vacuum soon, or the table grows by what is dead.
ALTER TABLE mails SET (autovacuum_vacuum_scale_factor = 0.02, toast.autovacuum_vacuum_scale_factor = 0.02);
