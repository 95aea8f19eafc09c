-- Service accounts: programs that prove themselves by a key pair. A name is a short word that an administrator chose; it names no person.
CREATE TABLE services (
  id uuid PRIMARY KEY,
  name text NOT NULL UNIQUE,
  role text NOT NULL,
  scope text NOT NULL,
  state text NOT NULL CHECK (state IN ('active', 'disabled')),
  public_jwk text NOT NULL UNIQUE,
  issuer text,                              -- who gave the key in force, as `user:<id>`; null: the operator of the machine
  created_us bigint NOT NULL
);

-- Public keys that an account had before: none may come back.
CREATE TABLE retired_service_keys (
  public_jwk text PRIMARY KEY,
  service uuid NOT NULL REFERENCES services (id)
);

-- Assertions that were taken, until they would be refused for their age: each is good once, over restarts too.
CREATE TABLE service_assertions (
  service uuid NOT NULL REFERENCES services (id) ON DELETE CASCADE,
  jti_hash bytea NOT NULL,                  -- SHA-256 of the jti
  expires_us bigint NOT NULL,
  PRIMARY KEY (service, jti_hash)
);

ALTER TABLE tokens ADD COLUMN service uuid REFERENCES services (id) ON DELETE CASCADE;
CREATE INDEX tokens_service ON tokens (service) WHERE service IS NOT NULL;
-- A user who is disabled takes along what that user made.
CREATE INDEX tokens_issuer ON tokens (issuer) WHERE issuer IS NOT NULL;
