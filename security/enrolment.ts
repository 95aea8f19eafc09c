import { createHash, createHmac, hkdfSync, randomUUID } from 'node:crypto';
import type { Clock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import { micros, type DeviceId, type Micros, type PatientId } from '../core/ids.js';
import { limits } from '../core/limits.js';
import { Attempts } from './attempts.js';
import type { Auditor } from './audit.js';
import { strictObject } from './compact.js';
import { isJwt, openJws } from './jws.js';
import { oneTimeText } from './one-time.js';
import { publicDeviceKey, tokenDevice, verifyDeviceToken, type PublicDeviceKey } from './tokens.js';

/** What is kept of enrolment, declared by its consumer; `registry/enrolment.ts` has it. */
export interface EnrolmentStore {
  addCode(mac: Uint8Array, code: { readonly patient: PatientId; readonly from: Micros | null; readonly expiresAt: Micros }, now: Micros, openMax: number): Promise<void>;
  codeFor(mac: Uint8Array, now: Micros): Promise<PatientId | null>;
  useCode(mac: Uint8Array, device: DeviceId, publicKey: PublicDeviceKey, now: Micros): Promise<boolean>;
  replaceKey(device: DeviceId, before: PublicDeviceKey, publicKey: PublicDeviceKey): Promise<boolean>;
}

export interface EnrolmentOptions {
  readonly store: EnrolmentStore;
  readonly devices: { device(device: DeviceId): Promise<{ readonly publicKey: PublicDeviceKey; readonly state: string } | null> };
  /** 32 bytes of the keystore. */
  readonly secret: Uint8Array;
  readonly clock: Clock;
  /** The entry of an act that no administrator's request decides: durable before the act, or there is none [DENY]. */
  readonly audit: Auditor;
}

type Jwk = Readonly<Record<string, unknown>>;

export interface KeyReplacement {
  readonly token: string;
  readonly publicKey: Jwk;
  readonly proof: string;
}

const refused = (): SpamerError => new SpamerError('unauthenticated', 'the code or the proof is not valid');

/** Devices that enrol themselves by a one-time code, and replace their own keys. */
export class Enrolment {
  private readonly options: EnrolmentOptions;
  private readonly macKey: Buffer;
  private readonly attempts: Attempts;

  constructor(options: EnrolmentOptions) {
    this.options = options;
    this.macKey = Buffer.from(hkdfSync('sha256', options.secret, Buffer.alloc(0), 'spamer device code v1', 32));
    this.attempts = new Attempts(options.clock, { free: limits.signInsFree, firstWaitMs: 1000, waitMaxMs: limits.signInWaitMaxMs, keysMax: limits.attemptsKeptMax });
  }

  /** A code for one device of a patient, shown this once. @throws SpamerError `not_found`, `bad_request` */
  async code(input: { readonly patient: PatientId; readonly from: number | null; readonly expiresInS: number }): Promise<{ code: string; expiresAt: Micros }> {
    const { patient, from, expiresInS } = input;
    if (!Number.isInteger(expiresInS) || expiresInS < 1 || expiresInS > limits.deviceCodeSMax) throw new SpamerError('bad_request', 'a code lasts at least a second and at most a day', { where: 'expiresInS' });
    const now = this.options.clock.now();
    const expiresAt = micros(now + expiresInS * 1e6);
    // 12 of 31 letters are 59 bits: out of reach for who may try a few times a minute, for a day.
    const code = oneTimeText(12, 4);
    await this.options.store.addCode(this.mac(code), { patient, from: from === null ? null : micros(from), expiresAt }, now, limits.deviceCodesOpenMax);
    return { code, expiresAt };
  }

  /**
   * Registers a device by a code, once, if it proves that it holds the private key: `proof` is a JWS by that key over
   * {"aud": "spamer-enrol", "code"}. No times in it: a new device may not have the right one yet, and the code is good only once.
   * @throws SpamerError `unauthenticated` whatever is wrong, `too_many_attempts`, `bad_request` and `conflict` of the key
   */
  async enrol(input: { readonly code: string; readonly publicKey: Jwk; readonly proof: string; readonly source: string }): Promise<{ device: DeviceId }> {
    const publicKey = publicDeviceKey(input.publicKey);
    const key = `enrol/${input.source}`;
    this.attempts.begin(key);
    const code = input.code.trim().toLowerCase();
    if (!proves(input.proof, publicKey, { aud: 'spamer-enrol', code: input.code })) throw refused();
    const device = randomUUID() as DeviceId;
    const mac = this.mac(code);
    const patient = await this.options.store.codeFor(mac, this.options.clock.now());
    if (patient === null) throw refused();
    await this.note('device.enrol', device, patient);
    if (!(await this.options.store.useCode(mac, device, publicKey, this.options.clock.now()))) throw refused();
    this.attempts.succeeded(key);
    return { device };
  }

  /**
   * Puts a new key in the place of a device's own. `token` is a device token by the old key whose `aud` is "spamer-key" and whose
   * `jti` is the new key's thumbprint (RFC 7638), so that it is good for that key only; `proof` is a JWS by the new key over
   * {"aud": "spamer-key", "device"}. Sent again after an answer that was lost it says yes again: the new key is there.
   * @throws SpamerError `unauthenticated` whatever is wrong, `bad_request` and `conflict` of the key
   */
  async replaceKey(input: KeyReplacement): Promise<{ device: DeviceId }> {
    const { device, before, publicKey } = await this.replacement(input);
    if (thumbprint(before) === thumbprint(publicKey)) return { device };
    await this.note('device.replace-key', device, null);
    if (!(await this.options.store.replaceKey(device, before, publicKey))) throw refused();
    return { device };
  }

  /** Whose key a replacement is, if it is good; changes nothing. @throws SpamerError as `replaceKey` does */
  async checkKey(input: KeyReplacement): Promise<{ device: DeviceId }> {
    return { device: (await this.replacement(input)).device };
  }

  private async replacement(input: KeyReplacement): Promise<{ device: DeviceId; before: PublicDeviceKey; publicKey: PublicDeviceKey }> {
    const publicKey = publicDeviceKey(input.publicKey);
    const device = tokenDevice(input.token);
    const entry = await this.options.devices.device(device);
    if (entry === null || entry.state !== 'active' || !proves(input.proof, publicKey, { aud: 'spamer-key', device })) throw refused();
    const replaced = { device, before: entry.publicKey, publicKey };
    if (thumbprint(entry.publicKey) === thumbprint(publicKey)) return replaced;
    verifyDeviceToken(input.token, entry.publicKey, this.options.clock.now(), limits.clockSkewMaxS, { audience: 'spamer-key', jti: thumbprint(publicKey) });
    return replaced;
  }

  /** Only of what has proved itself: guesses and forgeries are refusals, which are summed up elsewhere. */
  private note(action: string, device: DeviceId, patient: PatientId | null): Promise<void> {
    return this.options.audit.record({ action, outcome: 'allow', actor: { kind: 'device', id: device }, resource: { kind: 'device', id: device }, patient, context: {} });
  }

  private mac(code: string): Buffer {
    return createHmac('sha256', this.macKey).update(code.replaceAll('-', '')).digest();
  }
}

/** RFC 7638: SHA-256 of the required members in their order. */
export function thumbprint(key: PublicDeviceKey): string {
  const required = key.kty === 'EC' ? { crv: key.crv, kty: key.kty, x: key.x, y: key.y } : { crv: key.crv, kty: key.kty, x: key.x };
  return createHash('sha256').update(JSON.stringify(required)).digest('base64url');
}

/** Whether a compact JWS by this key says exactly these claims. */
function proves(proof: string, publicKey: PublicDeviceKey, claims: Readonly<Record<string, string>>): boolean {
  const signed = openJws(proof, publicKey, { charsMax: proofCharsMax, names: proofNames });
  const said = signed === null || !isJwt(signed) ? null : strictObject(signed.payload);
  return said !== null && Object.keys(said).length === Object.keys(claims).length && Object.entries(claims).every(([name, value]) => said[name] === value);
}

const proofCharsMax = 2048;
const proofNames = new Set(['alg', 'typ']);
