import { hkdfSync, randomBytes, timingSafeEqual } from 'node:crypto';
import { SpamerError } from '../core/errors.js';
import { uuidBytes, uuidText, type PatientId } from '../core/ids.js';
import { limits } from '../core/limits.js';
import { gcmOpen, gcmSeal, gcmTagBytes } from './gcm.js';
import { Lru } from './lru.js';

/**
 * The sealed envelope, version 1, suite 1 [SEALED]. Integers are big-endian.
 *
 *   offset  bytes
 *        0      1  version = 1
 *        1      1  suite = 1: HKDF-SHA-512, AES-256-GCM, key commitment
 *        2     16  patient (UUID)
 *       18      4  key epoch (u32)
 *       22     16  session salt (random)
 *       38     12  nonce: counter (u32, 0, 1, 2 … within a session) + random (8, per session)
 *       50     32  key commitment
 *       82      n  ciphertext
 *     82+n     16  GCM tag
 *
 * encryption key (32) || commitment (32) = HKDF-SHA-512(secret, salt = session salt, info = "spamer envelope v1" || bytes 0..21).
 * Additional data = bytes 0..81 || context, where the context is whatever the caller stores beside the envelope in the clear.
 * GCM alone doesn't commit to its key: the commitment is compared, in constant time, before anything is decrypted.
 */
const headerBytes = 82;
const keyIdEnd = 22;
const saltEnd = 38;
const nonceEnd = 50;
const info = Buffer.from('spamer envelope v1');

/** What sealing adds to the plain bytes. */
export const envelopeOverheadBytes = headerBytes + gcmTagBytes;

/** One patient's data key of one epoch. `secret` is 32 random bytes; a structured clone to another thread makes of a Buffer a Uint8Array. */
export interface DataKey {
  readonly patient: PatientId;
  readonly epoch: number;
  readonly secret: Uint8Array;
}

/** Where data keys come from; null means that the key was erased or never was. */
export interface DataKeys {
  current(patient: PatientId): Promise<DataKey | null>;
  get(patient: PatientId, epoch: number): Promise<DataKey | null>;
}

interface SessionKey {
  readonly encryption: Buffer;
  readonly commitment: Buffer;
}

function deriveSession(secret: Uint8Array, keyId: Buffer, salt: Buffer): SessionKey {
  const bytes = Buffer.from(hkdfSync('sha512', secret, salt, Buffer.concat([info, keyId]), 64));
  return { encryption: bytes.subarray(0, 32), commitment: bytes.subarray(32) };
}

function keyIdOf(key: DataKey): Buffer {
  const bytes = Buffer.alloc(keyIdEnd);
  bytes[0] = 1;
  bytes[1] = 1;
  uuidBytes(key.patient).copy(bytes, 2);
  bytes.writeUInt32BE(key.epoch, 18);
  return bytes;
}

/**
 * Seals under one data key. One instance is one session: its own salt, hence its own key, and a counter as nonce, so that
 * nonces cannot repeat whatever the number of processes that seal for a patient. At the bound it starts another session.
 */
export class Sealer {
  private readonly key: DataKey;
  private readonly sealsMax: number;
  private readonly header = Buffer.alloc(headerBytes);
  private encryption: Buffer = Buffer.alloc(0);
  private seals = 0;

  constructor(key: DataKey, sealsMax: number = limits.sealsPerSessionMax) {
    this.key = key;
    this.sealsMax = sealsMax;
    this.startSession();
  }

  private startSession(): void {
    const keyId = keyIdOf(this.key);
    const random = randomBytes(24);
    const session = deriveSession(this.key.secret, keyId, random.subarray(0, 16));
    keyId.copy(this.header);
    random.copy(this.header, keyIdEnd, 0, 16);
    random.copy(this.header, saltEnd + 4, 16, 24);
    session.commitment.copy(this.header, nonceEnd);
    this.encryption = session.encryption;
    this.seals = 0;
  }

  /** The envelope of `plain`, which opens only beside the same `context`. */
  seal(plain: Uint8Array, context: Uint8Array): Buffer {
    if (this.seals >= this.sealsMax) this.startSession();
    this.header.writeUInt32BE(this.seals++, saltEnd);
    return gcmSeal(this.encryption, this.header.subarray(saltEnd, nonceEnd), [this.header, context], plain, this.header);
  }
}

/** One error for all causes, so that it tells an attacker nothing [SEALED]. */
function failed(): SpamerError {
  return new SpamerError('decryption_failed', 'the envelope does not open');
}

/** Opens what was sealed under one data key; keeps the sessions last seen, since deriving one costs more than a decryption. */
export class Opener {
  private readonly secret: Uint8Array;
  private readonly keyId: Buffer;
  private readonly sessions: Lru<string, SessionKey>;

  constructor(key: DataKey, sessionsMax = 64) {
    this.secret = key.secret;
    this.keyId = keyIdOf(key);
    this.sessions = new Lru(sessionsMax);
  }

  /** @throws SpamerError `decryption_failed`, the same whatever is wrong. */
  open(envelope: Uint8Array, context: Uint8Array): Buffer {
    const bytes = Buffer.from(envelope.buffer, envelope.byteOffset, envelope.byteLength);
    if (bytes.length < envelopeOverheadBytes || !this.keyId.equals(bytes.subarray(0, keyIdEnd))) throw failed();
    const session = this.session(bytes.subarray(keyIdEnd, saltEnd));
    if (!timingSafeEqual(session.commitment, bytes.subarray(nonceEnd, headerBytes))) throw failed();
    const plain = gcmOpen(session.encryption, bytes.subarray(saltEnd, nonceEnd), [bytes.subarray(0, headerBytes), context], bytes.subarray(headerBytes));
    if (plain === null) throw failed();
    return plain;
  }

  private session(salt: Buffer): SessionKey {
    const name = salt.toString('latin1');
    const known = this.sessions.get(name);
    if (known !== undefined) return known;
    const session = deriveSession(this.secret, this.keyId, salt);
    this.sessions.set(name, session);
    return session;
  }
}

/** Whose key an envelope asks for, read from its clear header; says nothing about whether it opens. */
export function envelopeKey(envelope: Uint8Array): { readonly patient: PatientId; readonly epoch: number } {
  if (envelope.length < envelopeOverheadBytes || envelope[0] !== 1 || envelope[1] !== 1) throw failed();
  const view = Buffer.from(envelope.buffer, envelope.byteOffset, keyIdEnd);
  return { patient: uuidText<PatientId>(view.subarray(2, 18)), epoch: view.readUInt32BE(18) };
}
