-- +goose Up
-- A copy that fits in the row's page stays there. In the table for long values it costs rows and index entries of its
-- own, twice: when the mail comes, and when its copy is erased soon after.
ALTER TABLE mails SET (toast_tuple_target = 8160);
