import { createHmac, hkdfSync, randomBytes } from 'node:crypto';
import { SpamerError } from '../core/errors.js';
import { patientId, type Micros, type PatientId } from '../core/ids.js';
import { limits } from '../core/limits.js';
import { decode, encode } from '../schemas/codec.js';
import type { AuditDetail, AuditRecord } from '../schemas/types.js';
import type { AuditActor, AuditEntry } from './audit.js';
import { gcmNonceBytes, gcmOpen, gcmSeal } from './gcm.js';
import { leafHash } from './merkle.js';

/**
 * An entry as it is stored: what may be personal is replaced by commitments, and what they stand for is sealed beside.
 *
 *   commitment = HMAC-SHA-256(commit key, "spamer audit v1" 0x00 field 0x00 nonce (16) value)
 *   box        = nonce (12) || AES-256-GCM(detail key, value, additional data = field 0x00 leaf hash) || tag (16)
 *   commit key (32) || detail key (32) = HKDF-SHA-512(secret, info "spamer audit keys v1")
 *
 * Whoever acted is committed under the keystore's secret; everything else of an entry that concerns a patient under the
 * patient's, which falls with the patient's wrap key [ERASED]. An entry about a patient who has no key commits under a key
 * that nobody keeps, so it looks like any other.
 */
export interface AuditKey {
  readonly commit: Buffer;
  readonly detail: Buffer;
}

const noSalt = Buffer.alloc(0);
const derive = (secret: Uint8Array, info: string, bytes: number): Buffer => Buffer.from(hkdfSync('sha512', secret, noSalt, info, bytes));

/** @param wrapKey of the patient's slot: nothing is stored, so puncturing the slot is all that it takes to destroy it */
export const patientAuditSecret = (wrapKey: Uint8Array, patient: PatientId): Buffer => derive(wrapKey, `spamer audit patient v1 ${patient}`, 32);
/** @param keystoreKey a secret of the keystore that no rotation changes */
export const staffAuditSecret = (keystoreKey: Uint8Array): Buffer => derive(keystoreKey, 'spamer audit staff v1', 32);

export function auditKey(secret: Uint8Array): AuditKey {
  const bytes = derive(secret, 'spamer audit keys v1', 64);
  return { commit: bytes.subarray(0, 32), detail: bytes.subarray(32) };
}

export interface EntryKeys {
  readonly staff: AuditKey;
  /** null: nobody is concerned, or the patient has no key. */
  readonly patient: AuditKey | null;
}

/** What an entry says, for who has the keys; null where there is none or it does not open. */
export interface OpenedEntry {
  readonly actor: AuditActor | null;
  readonly resource: { readonly kind: string; readonly id: string | null } | null;
  readonly patient: PatientId | null;
  readonly context: Readonly<Record<string, string>>;
}

/** Names that stand in the clear, as long as their value looks like a code: everything else in a context is committed to. */
const clearContext = new Set(['checkpoint', 'code', 'count', 'determining', 'epoch', 'method', 'policies', 'policy', 'purpose', 'reason_code', 'role', 'route', 'size', 'state', 'version']);
/** Kinds of which the program gives the ids itself. Studies and topics are not among them: whoever asks for one may have typed anything. */
const clearResources = new Set(['api', 'audit', 'export', 'keystore', 'policy', 'program', 'route']);
const clearShape = /^[A-Za-z0-9 ._:,/#+-]{1,256}$/;
const actionShape = /^[a-z0-9._-]{1,64}$/;
const nameShape = /^[a-z0-9._-]{1,64}$/;

const malformed = (where: string): SpamerError => new SpamerError('audit_failed', 'an entry of the audit is not well formed', { where });

/** @throws SpamerError `audit_failed` that names the part which does not fit; a wrong entry must not pass for none. */
export function checkEntry({ action, actor, resource, context }: AuditEntry): void {
  const text = (value: string): boolean => value.length <= limits.auditTextCharsMax;
  if (!actionShape.test(action)) throw malformed('action');
  if (!text(actor.id) || (actor.kind === 'system' && !nameShape.test(actor.id))) throw malformed('actor');
  if (resource !== null && !(nameShape.test(resource.kind) && text(resource.id))) throw malformed('resource');
  const pairs = Object.entries(context);
  if (pairs.length > limits.auditContextMax || !pairs.every(([name, value]) => nameShape.test(name) && text(value))) throw malformed('context');
}

/** Whom an entry concerns: an id of a patient that stands as the resource counts, whatever its author thought. */
export function patientOf({ patient, resource }: AuditEntry): PatientId | null {
  return patient ?? (resource?.kind === 'patient' ? patientId(resource.id) : null);
}

export function commitment(key: AuditKey, field: string, nonce: Uint8Array, value: string): Buffer {
  return createHmac('sha256', key.commit).update('spamer audit v1\0').update(field).update('\0').update(nonce).update(value).digest();
}

export const actorCommitment = (staff: AuditKey, nonce: Uint8Array, { kind, id }: AuditActor): Buffer => commitment(staff, 'actor', nonce, `${kind}\0${id}`);
export const patientCommitment = (key: AuditKey, nonce: Uint8Array, patient: PatientId): Buffer => commitment(key, 'patient', nonce, patient);

/** The entry's two forms, as they are stored: a leaf of the tree, and what its commitments stand for, sealed. */
export function sealEntry(entry: AuditEntry, time: Micros, keys: EntryKeys): { leaf: Buffer; detail: Buffer } {
  const nonce = randomBytes(16);
  const patient = patientOf(entry);
  const own = patient === null ? keys.staff : keys.patient;
  const under = own ?? auditKey(randomBytes(32));
  const { resource, actor } = entry;
  const shown = resource !== null && clearResources.has(resource.kind) && clearShape.test(resource.id);
  const clear = Object.entries(entry.context).filter(([name, value]) => clearContext.has(name) && clearShape.test(value));
  const hidden = Object.entries(entry.context).filter(([name, value]) => !(clearContext.has(name) && clearShape.test(value)));
  const record: AuditRecord = {
    time,
    nonce,
    action: entry.action,
    outcome: upper[entry.outcome],
    actorKind: upperKind[actor.kind],
    actor: actorCommitment(keys.staff, nonce, actor),
    part: actor.kind === 'system' ? actor.id : null,
    resourceKind: resource?.kind ?? null,
    resourceName: shown ? resource.id : null,
    resource: resource === null || shown ? null : commitment(under, 'resource', nonce, `${resource.kind}\0${resource.id}`),
    patient: patient === null ? null : patientCommitment(under, nonce, patient),
    context: Object.fromEntries(clear),
    hidden: Object.fromEntries(hidden.map(([name, value]) => [name, commitment(under, `context ${name}`, nonce, value)])),
  };
  const leaf = encode('AuditRecord', record);
  const what: What = { ...(record.resource === null || resource === null ? {} : { resource: resource.id }), ...(patient === null ? {} : { patient }), ...(hidden.length === 0 ? {} : { context: Object.fromEntries(hidden) }) };
  const hash = leafHash(leaf);
  // Sealed for nobody, too, so that an entry about an unknown patient takes as long and looks the same.
  const boxed = Object.keys(what).length === 0 ? Buffer.alloc(0) : box(under, 'what', hash, JSON.stringify(what));
  return { leaf, detail: encode('AuditDetail', { who: box(keys.staff, 'who', hash, actor.id), what: boxed }) };
}

interface What {
  readonly resource?: string;
  readonly patient?: PatientId;
  readonly context?: Readonly<Record<string, string>>;
}

const upper = { allow: 'ALLOW', deny: 'DENY', done: 'DONE', failed: 'FAILED' } as const;
const upperKind = { user: 'USER', token: 'TOKEN', device: 'DEVICE', system: 'SYSTEM' } as const;
const lowerKind = { USER: 'user', TOKEN: 'token', DEVICE: 'device', SYSTEM: 'system' } as const;

/** What the boxes hold, as far as the keys open them and the entry's commitments bear them out: the boxes stand outside the tree. */
export function openEntry(leaf: Uint8Array, detail: Uint8Array, keys: EntryKeys): OpenedEntry {
  const record = decode('AuditRecord', leaf);
  const { who, what } = decode('AuditDetail', detail);
  const hash = leafHash(leaf);
  return { actor: openActor(record, who, hash, keys.staff), ...openRest(record, what, hash, record.patient === null ? keys.staff : keys.patient) };
}

function openActor(record: AuditRecord, who: AuditDetail['who'], hash: Buffer, staff: AuditKey): AuditActor | null {
  const id = unbox(staff, 'who', hash, who);
  const actor = id === null ? null : { kind: lowerKind[record.actorKind], id };
  return actor !== null && actorCommitment(staff, record.nonce, actor).equals(record.actor) ? actor : null;
}

function openRest(record: AuditRecord, boxed: Uint8Array, hash: Buffer, key: AuditKey | null): Omit<OpenedEntry, 'actor'> {
  const { nonce, resourceKind: kind, resourceName } = record;
  const text = key === null || boxed.length === 0 ? null : unbox(key, 'what', hash, boxed);
  const what = text === null ? {} : (JSON.parse(text) as What);
  const bornOut = (expected: Buffer | null | undefined, field: string, value: string): boolean => expected !== null && expected !== undefined && key !== null && commitment(key, field, nonce, value).equals(expected);
  const resource = what.resource !== undefined && bornOut(record.resource, 'resource', `${kind ?? ''}\0${what.resource}`) ? what.resource : resourceName;
  const patient = what.patient !== undefined && bornOut(record.patient, 'patient', what.patient) ? what.patient : null;
  const hidden = Object.entries(what.context ?? {}).filter(([name, value]) => bornOut(record.hidden[name], `context ${name}`, value));
  return { resource: kind === null ? null : { kind, id: resource }, patient, context: { ...record.context, ...Object.fromEntries(hidden) } };
}

function box(key: AuditKey, field: string, hash: Uint8Array, value: string): Buffer {
  const nonce = randomBytes(gcmNonceBytes);
  return gcmSeal(key.detail, nonce, [Buffer.from(`${field}\0`), hash], Buffer.from(value), nonce);
}

/** null: it does not open, whatever the reason. */
function unbox(key: AuditKey, field: string, hash: Uint8Array, boxed: Uint8Array): string | null {
  return gcmOpen(key.detail, boxed.subarray(0, gcmNonceBytes), [Buffer.from(`${field}\0`), hash], boxed.subarray(gcmNonceBytes))?.toString('utf8') ?? null;
}
