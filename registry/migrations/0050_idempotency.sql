-- Answers to creating requests, kept a day so that a request which is sent again is done once.
CREATE TABLE idempotency (
  id bytea PRIMARY KEY,                     -- SHA-256 of caller and key
  fingerprint bytea NOT NULL,               -- HMAC of the request under a key that the caller's token gives; the token is not at rest
  attempt uuid NOT NULL,                    -- who claimed it: a process that has ended finishes nothing any more
  status integer,                           -- null until it is done
  answer bytea,                             -- sealed under a key that the caller's token gives
  expires_us bigint NOT NULL,
  CHECK ((status IS NULL) = (answer IS NULL))
);
CREATE INDEX idempotency_expires ON idempotency (expires_us);
