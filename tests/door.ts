import { createPrivateKey, randomBytes, randomUUID, sign, type KeyObject } from 'node:crypto';
import { startIngest, type SealerSource } from '../app/ingest.js';
import type { HeldKey } from '../app/keyring.js';
import { Sealers } from '../app/sealers.js';
import { topics } from '../app/topics.js';
import { loadConfig, type SettingName } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import { micros, uuidText, type DeviceId, type PatientId } from '../core/ids.js';
import { silentJournal } from '../core/journal.js';
import { generateJwkPair } from '../core/key-pair.js';
import { limits } from '../core/limits.js';
import type { IngestServer } from '../ingest/server.js';
import { openLmdbLog, type LmdbLog } from '../log/lmdb.js';
import type { Writer } from '../log/log.js';
import type { DeviceEntry } from '../registry/records.js';
import { decode, encodeBody } from '../schemas/codec.js';
import { decodeFrameBodies, type DecodedFrame } from '../schemas/frames.js';
import { Opener } from '../security/envelope.js';
import { publicDeviceKey } from '../security/tokens.js';
import { PolicyEngine } from '../security/policy.js';
import { readPolicyFiles } from '../security/policy-files.js';

export interface EnrolledDevice {
  readonly id: DeviceId;
  readonly key: KeyObject;
}

export interface StoredFrame {
  readonly device: DeviceId;
  readonly frame: DecodedFrame;
}

const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A JWT of whatever header and claims, truly signed. */
export function signToken(header: object, claims: object, key: KeyObject): string {
  const text = `${part(header)}.${part(claims)}`;
  const algorithm = key.asymmetricKeyType === 'ec' ? 'sha256' : null;
  return `${text}.${sign(algorithm, Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}

export const goodHeader = ({ id, key }: EnrolledDevice): Record<string, unknown> => ({ alg: key.asymmetricKeyType === 'ec' ? 'ES256' : 'EdDSA', kid: id, typ: 'JWT' });

export function goodClaims({ id }: EnrolledDevice): Record<string, unknown> {
  const iat = Math.floor(Date.now() / 1000);
  return { iss: id, sub: id, aud: 'spamer-ingest', iat, exp: iat + 300, jti: randomUUID() };
}

export const tokenOf = (device: EnrolledDevice): string => signToken(goodHeader(device), goodClaims(device), device.key);

/**
 * The devices' door as the program wires it: the LMDB log, device tokens, sealing and default limits are the real ones. Only
 * the registry and the keys are kept in memory, so that ten thousand devices are enrolled in a second.
 */
export class Door {
  readonly #dir: string;
  readonly #settings: Partial<Record<SettingName, unknown>>;
  readonly #entries = new Map<DeviceId, DeviceEntry>();
  readonly #secrets = new Map<PatientId, Buffer>();
  #log: LmdbLog | null = null;
  #writer: Writer | null = null;
  #server: IngestServer | null = null;

  constructor(dir: string, settings: Partial<Record<SettingName, unknown>> = {}) {
    this.#dir = dir;
    this.#settings = settings;
  }

  get server(): IngestServer {
    if (this.#server === null) throw new SpamerError('internal', 'the door is shut');
    return this.#server;
  }

  /** @param seal in place of what seals; for measuring what that costs. */
  async open(seal?: SealerSource): Promise<IngestServer> {
    const config = loadConfig({ environment: {}, cwd: this.#dir, overrides: { data_dir: this.#dir, ingest_port: 0, ...this.#settings } });
    const log = (this.#log = await openLmdbLog({ dir: this.#dir, topics: topics(config), logBytesMax: 2 ** 31, journal: silentJournal }));
    this.#writer = await log.writer('ingest', { thread: true });
    const policy = new PolicyEngine(readPolicyFiles());
    const keyOf = (patient: PatientId): HeldKey => ({ patient, epoch: 1, secret: this.#secrets.get(patient) ?? Buffer.alloc(0) });
    const custodian = {
      deviceEntry: (device: DeviceId) => Promise.resolve(this.#entries.get(device) ?? null),
      current: (patient: PatientId) => Promise.resolve(keyOf(patient)),
      sealing: (patient: PatientId) => Promise.resolve({ key: keyOf(patient), seals: limits.sealsReserved }),
    };
    return (this.#server = await startIngest(config, new Map([[0, this.#writer]]), custodian, seal ?? new Sealers(custodian), policy, silentJournal, { admitted: () => Promise.resolve(), refused: () => undefined }));
  }

  async shut(): Promise<void> {
    const [server, writer, log] = [this.#server, this.#writer, this.#log];
    this.#server = this.#writer = this.#log = null;
    await server?.stop();
    await writer?.close();
    await log?.close();
  }

  enrol(kind: 'ES256' | 'EdDSA' = 'EdDSA', state: DeviceEntry['state'] = 'active'): EnrolledDevice {
    const { publicKey, privateKey } = generateJwkPair(kind);
    const [id, patient] = [randomUUID() as DeviceId, randomUUID() as PatientId];
    this.#secrets.set(patient, randomBytes(32));
    this.#entries.set(id, { device: id, publicKey: publicDeviceKey({ ...publicKey }), state, bindings: [{ patient, from: micros(0), until: null }] });
    return { id, key: createPrivateKey({ key: privateKey, format: 'jwk' }) };
  }

  /** Every frame of the log in stored order, opened under its patient's key. */
  async stored(): Promise<StoredFrame[]> {
    const frames: StoredFrame[] = [];
    for (let partition = 0; partition < 4; partition++) {
      for (let offset = 0; ;) {
        const records = (await this.#log?.read('vitals.raw', partition, offset, { maxRecords: 10_000, maxBytes: 2 ** 25 })) ?? [];
        for (const { value } of records) frames.push(...this.#opened(value));
        const last = records.at(-1);
        if (last === undefined) break;
        offset = last.offset + 1;
      }
    }
    return frames;
  }

  #opened(value: Uint8Array): StoredFrame[] {
    const block = decode('Block', value);
    const patient = uuidText<PatientId>(Buffer.from(block.patient));
    const opener = new Opener({ patient, epoch: 1, secret: this.#secrets.get(patient) ?? Buffer.alloc(0) });
    const plain = opener.open(block.sealed, encodeBody('Block', { ...block, sealed: Buffer.alloc(0) }));
    const device = uuidText<DeviceId>(Buffer.from(block.device));
    return decodeFrameBodies(plain).map((frame) => ({ device, frame }));
  }
}
