-- Second factors of people who sign in: one-time passwords by time. In force once it is confirmed.
CREATE TABLE second_factors (
  user_id uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
  sealed bytea NOT NULL,                    -- envelope of the secret
  confirmed boolean NOT NULL,
  last_step bigint NOT NULL                 -- the newest time step whose code was used: none is good twice
);

-- Each is good once, and goes with that.
CREATE TABLE recovery_codes (
  user_id uuid NOT NULL REFERENCES second_factors (user_id) ON DELETE CASCADE,
  place integer NOT NULL,                   -- the code's first sign names it, so that one hash is tried and not all
  hash text NOT NULL,                       -- PHC string of argon2id, as of passwords
  PRIMARY KEY (user_id, place)
);
