import { randomBytes, randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Custodian } from '../app/custodian.js';
import type { PatientId } from '../core/ids.js';
import { generateDeviceKey, type KeyFile } from '../device-emulator/key.js';
import { openPglite } from '../registry/postgres.js';
import { openPostgres } from '../registry/postgres-pool.js';
import type { SqlDatabase } from '../registry/sql.js';
import { Sealer } from '../security/envelope.js';
import { wrapKey } from '../security/jose.js';
import { Keystore } from '../security/keystore.js';
import { publicDeviceKey } from '../security/tokens.js';

/**
 * `node enrol.bench.js DIR COUNT FILE [URL]`: a data folder in which COUNT patients with a device each are registered (its registry is the PostgreSQL
 * database of URL where that is given), and the devices' keys in FILE.
 * The API takes about 9 ms of CPU for each, most of it statements of their own; here a thousand share one. The rows, the wrapped keys and the
 * sealed identities are those of the program, which is started on them; only the audit has no entries of it.
 */
const rowsPerStatement = 1000;
const [dir = '', count = '', file = '', url] = process.argv.slice(2);
const postgres = url === undefined ? undefined : { url, connectionsMax: 1, statementTimeoutMs: 60_000 };

// Makes keystore and registry, as a first start does.
await (await Custodian.open({ dir, postgres, audit: { record: () => Promise.resolve() } })).close();
const keystore = await Keystore.open(dir, { mayCreate: false });
const database = postgres === undefined ? await openPglite(join(dir, 'registry')) : await openPostgres(postgres);
const devices: KeyFile[] = [];
for (let left = Number(count); left > 0; left -= rowsPerStatement) devices.push(...(await enrolled(database, Math.min(left, rowsPerStatement))));
await database.close();
writeFileSync(file, JSON.stringify(devices), { mode: 0o600 });

async function enrolled(db: SqlDatabase, many: number): Promise<KeyFile[]> {
  const slots = await db.query<{ slot: number }>(`SELECT nextval('patient_slots')::float8 AS slot FROM generate_series(1, $1)`, [many]);
  const rows: Array<Readonly<Record<string, string | number>>> = [];
  const keys: KeyFile[] = [];
  for (const { slot } of slots) {
    const patient = randomUUID() as PatientId;
    const wrapWith = keystore.wrapKey(slot);
    if (wrapWith === null) throw new RangeError('a new slot has a key');
    const key = { patient, epoch: 1, secret: randomBytes(32) };
    const identity = new Sealer(key).seal(Buffer.from(JSON.stringify({ name: 'Bench', recordNumber: patient, birthDate: '1970-01-01', sex: 'F', zip: '02139' })), Buffer.from(`spamer identity v1 ${patient}`));
    const device = { device: randomUUID(), ...generateDeviceKey() };
    rows.push({ patient, slot, identity: identity.toString('hex'), jwe: await wrapKey(key.secret, wrapWith, `${patient}.1`), device: device.device, jwk: JSON.stringify(publicDeviceKey(device.publicKey)) });
    keys.push(device);
  }
  const from = Date.parse('2000-01-01T00:00:00Z') * 1000;
  const given = `json_to_recordset($1::json) AS given (patient uuid, slot bigint, identity text, jwe text, device uuid, jwk text)`;
  await db.transaction(async (tx) => {
    const text = [JSON.stringify(rows)];
    await tx.query(`INSERT INTO patients (id, slot, identity, record_index, demo, created_us) SELECT patient, slot, decode(identity, 'hex'), sha256(patient::text::bytea), false, ${from} FROM ${given}`, text);
    await tx.query(`INSERT INTO data_keys (patient, epoch, jwe, seals, created_us) SELECT patient, 1, jwe, 1, ${from} FROM ${given}`, text);
    await tx.query(`INSERT INTO devices (id, public_jwk, state) SELECT device, jwk, 'active' FROM ${given}`, text);
    await tx.query(`INSERT INTO bindings (device, patient, from_us) SELECT device, patient, ${from} FROM ${given}`, text);
  });
  return keys;
}
