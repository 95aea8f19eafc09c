-- Facts about this registry itself: the keystore it belongs to, the generation of cohort releases.
CREATE TABLE facts (name text PRIMARY KEY, value text NOT NULL);
INSERT INTO facts VALUES ('release_generation', '0');

-- A patient's slot is a leaf of the key tree (security/tree.ts); a slot is never used twice.
CREATE SEQUENCE patient_slots AS bigint MINVALUE 1 MAXVALUE 4294967295 NO CYCLE;

CREATE TABLE patients (
  id uuid PRIMARY KEY,
  slot bigint NOT NULL UNIQUE CHECK (slot BETWEEN 1 AND 4294967295),
  identity bytea NOT NULL,                  -- envelope of the identity's JSON
  record_index bytea NOT NULL UNIQUE,       -- HMAC-SHA-256 of the record number under the blind index key
  demo boolean NOT NULL,
  created_us bigint NOT NULL
);

CREATE TABLE data_keys (
  patient uuid NOT NULL REFERENCES patients (id),
  epoch bigint NOT NULL CHECK (epoch BETWEEN 1 AND 4294967295),
  jwe text NOT NULL,
  PRIMARY KEY (patient, epoch)
);

CREATE TABLE devices (
  id uuid PRIMARY KEY,
  public_jwk text NOT NULL UNIQUE,
  state text NOT NULL CHECK (state IN ('active', 'suspended', 'revoked'))
);

CREATE TABLE bindings (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  device uuid NOT NULL REFERENCES devices (id),
  patient uuid NOT NULL REFERENCES patients (id),
  from_us bigint NOT NULL,
  until_us bigint CHECK (until_us IS NULL OR until_us > from_us)
);
CREATE INDEX bindings_device ON bindings (device, from_us);
CREATE INDEX bindings_patient ON bindings (patient);
-- At most one open binding a device; the transaction that binds checks the closed ones.
CREATE UNIQUE INDEX bindings_open ON bindings (device) WHERE until_us IS NULL;

CREATE TABLE studies (
  id text PRIMARY KEY,
  policy text NOT NULL,                     -- canonical JSON; its SHA-256 stands on every record
  policy_hash text NOT NULL,
  k integer NOT NULL CHECK (k >= 1)
);

-- Pseudonym, shift and attributes are sealed under the patient's key: without that key nothing joins a pseudonym to a patient.
CREATE TABLE cohort (
  study text NOT NULL REFERENCES studies (id),
  patient uuid NOT NULL REFERENCES patients (id),
  sealed bytea NOT NULL,
  contributed_us bigint,
  group_level integer,                      -- null until the group is released
  release_generation bigint,
  PRIMARY KEY (study, patient),
  CHECK ((group_level IS NULL) = (release_generation IS NULL)),
  CHECK (group_level IS NULL OR contributed_us IS NOT NULL)
);
CREATE INDEX cohort_patient ON cohort (patient);
CREATE INDEX cohort_generation ON cohort (release_generation) WHERE release_generation IS NOT NULL;

CREATE TABLE tokens (
  hash bytea PRIMARY KEY,                   -- SHA-256 of the token; the token itself is nowhere
  role text NOT NULL,
  subject text NOT NULL,
  scope text NOT NULL,
  expires_us bigint NOT NULL,
  created_us bigint NOT NULL
);
