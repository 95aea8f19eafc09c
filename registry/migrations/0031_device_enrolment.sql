-- One-time codes by which devices enrol themselves. At rest an HMAC under a key of the keystore: a code is short enough to be guessed from a plain hash.
CREATE TABLE device_codes (
  code_mac bytea PRIMARY KEY,
  patient uuid NOT NULL REFERENCES patients (id) ON DELETE CASCADE,
  from_us bigint,                           -- null: from the moment of enrolment
  expires_us bigint NOT NULL
);

-- Public keys that a device had before: none may come back.
CREATE TABLE retired_keys (
  public_jwk text PRIMARY KEY,
  device uuid NOT NULL REFERENCES devices (id)
);
