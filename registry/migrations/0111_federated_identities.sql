-- People who sign in at an OpenID Connect issuer. Who they are there is found by its blind index only.
CREATE TABLE federated_identities (
  identity bytea PRIMARY KEY,               -- HMAC-SHA-256 of issuer and subject under a key of the keystore
  user_id uuid NOT NULL UNIQUE REFERENCES users (id) ON DELETE CASCADE
);

ALTER TABLE users ALTER COLUMN password_hash DROP NOT NULL; -- null: has no password here
