-- An erased patient keeps a row: its slot is never used again, and its devices' past bindings name it.
ALTER TABLE patients ALTER COLUMN identity DROP NOT NULL;
ALTER TABLE patients ALTER COLUMN record_index DROP NOT NULL;
ALTER TABLE patients ADD COLUMN erased_us bigint;

-- requested -> approved -> begun -> punctured -> done, or requested -> withdrawn. The keystore's rename between begun and punctured
-- is the point of no return; a start finishes whatever is past `requested` (app/erasures.ts).
CREATE TABLE erasures (
  id uuid PRIMARY KEY,
  patient uuid NOT NULL REFERENCES patients (id),
  state text NOT NULL CHECK (state IN ('requested', 'approved', 'begun', 'punctured', 'done', 'withdrawn')),
  requested_by text NOT NULL,               -- JSON {kind, id, role} of the person
  requested_us bigint NOT NULL,
  approved_by text,
  approved_us bigint,
  version_before text,                      -- JSON {number, hash} of the keystore
  version_after text,
  destroyed text,                           -- JSON, counts
  certificate text,                         -- JWS; there only when it is true
  CHECK ((certificate IS NOT NULL) = (state = 'done'))
);
CREATE UNIQUE INDEX erasures_patient ON erasures (patient) WHERE state <> 'withdrawn';

CREATE TABLE legal_holds (
  id uuid PRIMARY KEY,
  patient uuid NOT NULL REFERENCES patients (id),
  reference text NOT NULL,
  placed_by text NOT NULL,
  placed_us bigint NOT NULL,
  released_by text,
  released_us bigint
);
CREATE INDEX legal_holds_open ON legal_holds (patient) WHERE released_us IS NULL;
