-- Encryptions under a data key, reserved before they are done: never fewer than were.
ALTER TABLE data_keys ADD COLUMN seals bigint NOT NULL DEFAULT 0;
ALTER TABLE data_keys ADD COLUMN created_us bigint;
-- How often older keys were used nobody counted: each is replaced at its next use (limits.sealsPerDataKeyMax).
UPDATE data_keys SET seals = 268435456;

-- Many reservations in one statement, as JSON [{patient, epoch, count}]. A function, since what is kept of the registry in memory
-- is good until a statement that writes, and nothing of it depends on these counts (registry/postgres.ts).
CREATE FUNCTION reserve_seals(asked json) RETURNS TABLE (patient uuid, epoch bigint, seals bigint) LANGUAGE sql AS $$
  UPDATE data_keys AS k SET seals = k.seals + a.count
  FROM (SELECT r.patient, r.epoch, sum(r.count)::bigint AS count FROM json_to_recordset(asked) AS r(patient uuid, epoch bigint, count bigint) GROUP BY r.patient, r.epoch) AS a
  WHERE k.patient = a.patient AND k.epoch = a.epoch
  RETURNING k.patient, k.epoch, k.seals
$$;
