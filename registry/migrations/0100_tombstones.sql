-- Pseudonyms of erased patients in studies whose policy has an erased patient's rows deleted: what stores hold of them goes, and never
-- comes back. Nothing here leads to a patient.
CREATE TABLE tombstones (
  study text NOT NULL REFERENCES studies (id),
  pseudonym uuid NOT NULL,
  PRIMARY KEY (study, pseudonym)
);

-- JSON per study; null until the stores hold nothing more. An erasure that was past that point has nothing to delete.
ALTER TABLE erasures ADD COLUMN deleted text;
UPDATE erasures SET deleted = '[]' WHERE state IN ('punctured', 'done');
