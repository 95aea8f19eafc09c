-- People who sign in. Login and name only sealed; the login is found by its blind index, the password only by its argon2id hash.
CREATE TABLE users (
  id uuid PRIMARY KEY,
  login_index bytea NOT NULL UNIQUE,        -- HMAC-SHA-256 of the login under a key of the keystore
  sealed bytea NOT NULL,                    -- envelope of {login, name}
  role text NOT NULL,
  scope text NOT NULL,
  state text NOT NULL CHECK (state IN ('active', 'disabled')),
  password_hash text NOT NULL,              -- PHC string; computed with a secret of the keystore besides the salt
  password_once boolean NOT NULL,           -- a one-time password opens nothing but its own replacement
  password_expires_us bigint,
  created_us bigint NOT NULL
);

-- A session is the family of the tokens that follow from one sign-in: they live and die together.
CREATE TABLE sessions (
  id uuid PRIMARY KEY,
  user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  created_us bigint NOT NULL,
  expires_us bigint NOT NULL
);
CREATE INDEX sessions_user ON sessions (user_id, created_us);

-- A used token is kept until the session ends: whoever shows it again has a copy, or was copied from.
CREATE TABLE refresh_tokens (
  hash bytea PRIMARY KEY,                   -- SHA-256 of the token; the token itself is nowhere
  session uuid NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  used boolean NOT NULL,
  expires_us bigint NOT NULL
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session);

ALTER TABLE tokens ADD COLUMN session uuid REFERENCES sessions (id) ON DELETE CASCADE;
CREATE INDEX tokens_session ON tokens (session) WHERE session IS NOT NULL;
