import { SpamerError } from '../core/errors.js';
import { micros, type DeviceId, type Micros, type PatientId } from '../core/ids.js';
import type { DeviceJwk } from './records.js';
import type { SqlClient, SqlDatabase } from './sql.js';

/** What a code stands for. */
export interface DeviceCode {
  readonly patient: PatientId;
  /** When the binding begins; null: when the device enrols. */
  readonly from: Micros | null;
  readonly expiresAt: Micros;
}

/** Tables of one-time codes, and of the keys that devices had. */
export class EnrolmentTables {
  private readonly db: SqlDatabase;

  constructor(db: SqlDatabase) {
    this.db = db;
  }

  /** @throws SpamerError `not_found` when there is no such patient, `conflict` when too many codes are open */
  addCode(mac: Uint8Array, code: DeviceCode, now: Micros, openMax: number): Promise<void> {
    return this.db.transaction(async (tx) => {
      await tx.query('DELETE FROM device_codes WHERE expires_us <= $1', [now]);
      const [patient] = await tx.query('SELECT id FROM patients WHERE id = $1', [code.patient]);
      if (patient === undefined) throw new SpamerError('not_found', 'no such patient');
      const [open] = await tx.query<{ count: number }>('SELECT count(*)::float8 AS count FROM device_codes');
      if ((open?.count ?? 0) >= openMax) throw new SpamerError('conflict', 'too many codes are open; they expire by themselves');
      await tx.query('INSERT INTO device_codes VALUES ($1, $2, $3, $4)', [mac, code.patient, code.from, code.expiresAt]);
    });
  }

  /** Whom a code that is still good is for; null: there is no such code. */
  async codeFor(mac: Uint8Array, now: Micros): Promise<PatientId | null> {
    return (await this.db.query<{ patient: PatientId }>('SELECT patient FROM device_codes WHERE code_mac = $1 AND expires_us > $2', [mac, now]))[0]?.patient ?? null;
  }

  /** Uses a code up and adds its device, bound, all or nothing. False when there is no such code. @throws SpamerError `conflict` when the key is or was registered */
  useCode(mac: Uint8Array, device: DeviceId, publicKey: DeviceJwk, now: Micros): Promise<boolean> {
    return this.db.transaction(async (tx) => {
      const [code] = await tx.query<{ patient: PatientId; from: number | null }>('DELETE FROM device_codes WHERE code_mac = $1 AND expires_us > $2 RETURNING patient, from_us::float8 AS "from"', [mac, now]);
      if (code === undefined) return false;
      await refuseRetired(tx, publicKey);
      await tx.query(`INSERT INTO devices VALUES ($1, $2, 'active')`, [device, JSON.stringify(publicKey)]);
      await tx.query('INSERT INTO bindings (device, patient, from_us) VALUES ($1, $2, $3)', [device, code.patient, code.from === null ? now : micros(code.from)]);
      return true;
    });
  }

  /** Puts a key in the place of another, which is retired. False when the device has that key no longer, or is not active. */
  replaceKey(device: DeviceId, before: DeviceJwk, publicKey: DeviceJwk): Promise<boolean> {
    return this.db.transaction(async (tx) => {
      await refuseRetired(tx, publicKey);
      const changed = await tx.query(`UPDATE devices SET public_jwk = $3 WHERE id = $1 AND public_jwk = $2 AND state = 'active' RETURNING id`, [device, JSON.stringify(before), JSON.stringify(publicKey)]);
      if (changed.length === 0) return false;
      await tx.query('INSERT INTO retired_keys VALUES ($1, $2)', [JSON.stringify(before), device]);
      return true;
    });
  }
}

async function refuseRetired(tx: SqlClient, publicKey: DeviceJwk): Promise<void> {
  const [retired] = await tx.query('SELECT device FROM retired_keys WHERE public_jwk = $1', [JSON.stringify(publicKey)]);
  if (retired !== undefined) throw new SpamerError('conflict', 'this key was replaced once; make a new pair', { where: 'publicKey' });
}
