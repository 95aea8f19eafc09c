import assert from 'node:assert/strict';
import { createHmac, hkdfSync, randomBytes, randomUUID } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { SpamerError } from '../core/errors.js';
import { micros, type PatientId } from '../core/ids.js';
import { decode } from '../schemas/codec.js';
import type { AuditEntry } from './audit.js';
import { openSeed, sealSeed } from './audit-seed.js';
import { actorCommitment, auditKey, checkEntry, openEntry, patientAuditSecret, patientCommitment, sealEntry, staffAuditSecret } from './commitments.js';

const staff = auditKey(staffAuditSecret(Buffer.alloc(32, 1)));
const patient = randomUUID() as PatientId;
const patientKey = auditKey(patientAuditSecret(Buffer.alloc(32, 2), patient));
const keys = { staff, patient: patientKey };
const entry: AuditEntry = {
  action: 'record.read', outcome: 'allow', actor: { kind: 'user', id: 'Dr. Canary-Actor' }, resource: { kind: 'patient', id: patient }, patient,
  context: { purpose: 'treatment', reason: 'Canary-Reason: found unconscious', policy: 'care-1' },
};
const time = micros(1_767_225_600_000_000);

test('an entry comes back whole for who has the keys', () => {
  const { leaf, detail } = sealEntry(entry, time, keys);
  assert.deepEqual(openEntry(leaf, detail, keys), { actor: entry.actor, resource: entry.resource, patient, context: entry.context });
  const record = decode('AuditRecord', leaf);
  assert.deepEqual(record.context, { purpose: 'treatment', policy: 'care-1' });
  assert.ok(record.actor.equals(actorCommitment(staff, record.nonce, entry.actor)));
  assert.ok(record.patient?.equals(patientCommitment(patientKey, record.nonce, patient)));
});

test('[SEALED] neither the leaf nor what is kept beside it holds a name, an id or a free text', () => {
  const { leaf, detail } = sealEntry(entry, time, keys);
  for (const bytes of [leaf, detail]) {
    for (const canary of ['Canary', patient, patient.replaceAll('-', '')]) assert.ok(!bytes.includes(canary));
    assert.ok(!bytes.includes(Buffer.from(patient.replaceAll('-', ''), 'hex')));
  }
});

test("[ERASED] without the patient's key only who did what, when, is left", () => {
  const { leaf, detail } = sealEntry(entry, time, keys);
  const { nonce, ...left } = decode('AuditRecord', leaf);
  assert.equal(nonce.length, 16);
  assert.deepEqual(openEntry(leaf, detail, { staff, patient: null }), { actor: entry.actor, resource: { kind: 'patient', id: null }, patient: null, context: { purpose: 'treatment', policy: 'care-1' } });
  // Nor does a guess at the patient help whoever has every other key.
  for (const guess of [staff, auditKey(patientAuditSecret(Buffer.alloc(32, 3), patient))]) assert.ok(left.patient?.equals(patientCommitment(guess, nonce, patient)) === false);
});

test('[ERASED] an entry about a patient without a key looks like any other', () => {
  const [known, unknown] = [sealEntry(entry, time, keys), sealEntry(entry, time, { staff, patient: null })];
  assert.equal(unknown.leaf.length, known.leaf.length);
  assert.equal(unknown.detail.length, known.detail.length);
  assert.equal(openEntry(unknown.leaf, unknown.detail, keys).patient, null);
});

test("a patient's id counts as such also where only the resource says so", () => {
  const { leaf } = sealEntry({ ...entry, patient: null }, time, keys);
  const record = decode('AuditRecord', leaf);
  assert.ok(record.patient?.equals(patientCommitment(patientKey, record.nonce, patient)));
});

test('equal entries have no commitment in common, and nothing else that tells that they are of one person', () => {
  const [a, b] = [sealEntry(entry, time, keys), sealEntry(entry, time, keys)].map(({ leaf }) => decode('AuditRecord', leaf));
  assert.ok(a !== undefined && b !== undefined);
  for (const field of ['actor', 'patient', 'resource', 'nonce'] as const) assert.ok(!Buffer.from(a[field] ?? []).equals(Buffer.from(b[field] ?? [])), field);
});

test('what stands beside the tree is shown only as far as the tree bears it out', () => {
  const one = sealEntry(entry, time, keys);
  const other = sealEntry({ ...entry, actor: { kind: 'user', id: 'another' } }, time, keys);
  assert.deepEqual(openEntry(one.leaf, other.detail, keys), { actor: null, resource: { kind: 'patient', id: null }, patient: null, context: { purpose: 'treatment', policy: 'care-1' } });
  for (let at = 0; at < one.detail.length; at++) {
    const changed = Buffer.from(one.detail);
    changed[at] = (changed[at] ?? 0) ^ 1;
    let opened: ReturnType<typeof openEntry> | null = null;
    try {
      opened = openEntry(one.leaf, changed, keys);
    } catch (error) {
      assert.ok(error instanceof SpamerError);
    }
    assert.ok(opened === null || opened.actor === null || opened.patient === null, `byte ${at}`);
  }
});

test('a value under a clear name that does not look like a code is hidden, so a slip in the caller leaks nothing', () => {
  for (const purpose of ['für Frau Müller', 'x'.repeat(300), 'a\nb', '“quoted”']) {
    const record = decode('AuditRecord', sealEntry({ ...entry, context: { purpose } }, time, keys).leaf);
    assert.deepEqual(record.context, {});
    assert.deepEqual(Object.keys(record.hidden), ['purpose']);
  }
});

test('commitments and keys are those that docs/security.md describes', () => {
  const secret = randomBytes(32);
  const bytes = Buffer.from(hkdfSync('sha512', secret, Buffer.alloc(0), 'spamer audit keys v1', 64));
  const nonce = randomBytes(16);
  const expected = createHmac('sha256', bytes.subarray(0, 32)).update(Buffer.concat([Buffer.from('spamer audit v1\0patient\0'), nonce, Buffer.from(patient)])).digest();
  assert.ok(patientCommitment(auditKey(secret), nonce, patient).equals(expected));
});

test('an entry that is not well formed is refused with the place, never the value', () => {
  const bad: ReadonlyArray<readonly [string, Partial<AuditEntry>]> = [
    ['action', { action: 'Read Record' }], ['action', { action: '' }], ['actor', { actor: { kind: 'system', id: 'not a part' } }], ['actor', { actor: { kind: 'user', id: 'x'.repeat(5000) } }],
    ['resource', { resource: { kind: 'A', id: 'x' } }], ['context', { context: Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`n${i}`, 'x'])) }], ['context', { context: { 'Upper': 'x' } }],
  ];
  for (const [where, change] of bad) {
    assert.throws(() => checkEntry({ ...entry, ...change }), (error: unknown) => error instanceof SpamerError && error.code === 'audit_failed' && error.where === where);
  }
});

test('any text of a person, a resource or a context comes back as it was', () => {
  const text = fc.string({ unit: 'binary', maxLength: 40 });
  fc.assert(fc.property(text, text, fc.dictionary(fc.stringMatching(/^[a-z]{1,8}$/), text, { maxKeys: 6 }), (person, id, context) => {
    const given: AuditEntry = { ...entry, actor: { kind: 'user', id: person }, resource: { kind: 'device', id }, context: { ...context } };
    const { leaf, detail } = sealEntry(given, time, keys);
    assert.deepEqual(openEntry(leaf, detail, keys), { actor: given.actor, resource: given.resource, patient, context: given.context });
  }), { numRuns: 300 });
});

test('the seed that signs opens under its keystore only', () => {
  const seed = randomBytes(32);
  const sealed = sealSeed(Buffer.alloc(32, 1), seed);
  assert.ok(openSeed(Buffer.alloc(32, 1), sealed).equals(seed));
  for (const wrong of [() => openSeed(Buffer.alloc(32, 2), sealed), () => openSeed(Buffer.alloc(32, 1), sealed.slice(1)), () => openSeed(Buffer.alloc(32, 1), '')]) {
    assert.throws(wrong, (error: unknown) => error instanceof SpamerError && error.code === 'data_damaged');
  }
});
