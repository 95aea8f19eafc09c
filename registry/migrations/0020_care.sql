-- Who takes care of whom: a person (kind:id of a principal), a care team, an organisation; from and until.
CREATE TABLE relations (
  id uuid PRIMARY KEY,
  patient uuid NOT NULL REFERENCES patients (id),
  kind text NOT NULL CHECK (kind IN ('person', 'team', 'organisation')),
  holder text NOT NULL,
  from_us bigint NOT NULL,
  until_us bigint CHECK (until_us IS NULL OR until_us >= from_us)
);
CREATE INDEX relations_patient ON relations (patient);
CREATE INDEX relations_holder ON relations (kind, holder);

-- What a patient agreed to, for which time of events; a withdrawal ends it and stays on record.
CREATE TABLE consents (
  id uuid PRIMARY KEY,
  patient uuid NOT NULL REFERENCES patients (id),
  purpose text NOT NULL CHECK (purpose IN ('study', 'treatment', 'research')),
  study text REFERENCES studies (id),
  from_us bigint NOT NULL,
  until_us bigint CHECK (until_us IS NULL OR until_us >= from_us),
  given_us bigint NOT NULL,                 -- when it was put on record
  withdrawn_us bigint,                      -- when its withdrawal was
  CHECK ((purpose = 'study') = (study IS NOT NULL))
);
CREATE INDEX consents_patient ON consents (patient);

-- Who is in a study already agreed when enrolled, for all that was output then.
INSERT INTO consents SELECT gen_random_uuid(), patient, 'study', study, 0, NULL, 0, NULL FROM cohort;

-- Emergency access: time-boxed, and open until somebody has reviewed it.
CREATE TABLE break_glass (
  id uuid PRIMARY KEY,
  patient uuid NOT NULL REFERENCES patients (id),
  who text NOT NULL,                        -- kind:id of the principal
  reason bytea NOT NULL,                    -- envelope under the patient's key: it is free text about a patient
  from_us bigint NOT NULL,
  until_us bigint NOT NULL CHECK (until_us > from_us),
  reviewed_us bigint,
  reviewer text,
  CHECK ((reviewed_us IS NULL) = (reviewer IS NULL))
);
CREATE INDEX break_glass_who ON break_glass (who, patient);
CREATE INDEX break_glass_open ON break_glass (from_us) WHERE reviewed_us IS NULL;
