import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { exportLines } from './export.js';
import { checkpointText, noteSigner, noteVerifier, signNote } from './note.js';
import { entryOf, MemoryStore, openTrail, signer } from './trail.fixture.js';
import { verifyExport, type Verdict } from './verify-export.js';

const verifier = noteVerifier(signer.verifierText);
/** Ways to tamper that are tried, in two tests; .ci/run asks for 10,000. */
const tamperings = Number(process.env['SPAMER_TAMPERINGS'] ?? 1500);
const nowUs = 1_700_000_100_000_000;

/** An audit of so many entries with a checkpoint after each seventh, and the checkpoints' notes. */
async function audit(entries: number, named = 'read'): Promise<{ readonly store: MemoryStore; readonly text: string }> {
  const store = new MemoryStore();
  const trail = await openTrail(store);
  for (let i = 0; i < entries; i += 1) {
    await trail.record(entryOf(`record.${named}`, { context: { reason: `r${i}` } }));
    if (i % 7 === 6) await trail.checkpoint();
  }
  const last = await trail.checkpoint();
  await trail.close();
  let text = '';
  for await (const piece of exportLines(store, signer, last, nowUs)) text += piece;
  return { store, text };
}

const check = (text: string, older: string | null = null): Promise<Verdict> => verifyExport([text], verifier, older);
const checkBytes = (bytes: Buffer): Promise<Verdict> => check(bytes.toString('utf8'));

/** The same numbers in each run, so that a failure can be looked at again. */
function numbers(seed: number): (below: number) => number {
  let count = 0;
  return (below) => createHash('sha256').update(`${seed}/${count++}`).digest().readUInt32BE() % below;
}

test('an export that nobody touched holds, in pieces of any size; so does one of no entry', async () => {
  const { text, store } = await audit(60);
  const whole = await check(text);
  assert.deepEqual([whole.holds, whole.entries, whole.checkpoints, whole.findings, whole.exportedAt], [true, 60, 9, [], '2023-11-14T22:15:00.000Z']);
  assert.equal(whole.origin, 'spamer/audit/test');
  for (const size of [1, 7, 4096]) {
    const pieces = Array.from({ length: Math.ceil(text.length / size) }, (_, i) => text.slice(i * size, (i + 1) * size));
    assert.deepEqual(await verifyExport(pieces, verifier), whole);
  }
  for (const { note, size } of store.signed) assert.deepEqual(await check(text, note), { ...whole, against: size });
  assert.equal((await check((await audit(0)).text)).holds, true);
});

test('one changed, removed or added byte anywhere is found', async () => {
  const bytes = Buffer.from((await audit(30)).text);
  const pick = numbers(1);
  const last = bytes.lastIndexOf('\n', bytes.length - 2);
  for (let i = 0; i < tamperings * 0.6; i += 1) {
    // A third in the last line: no digest covers it.
    const at = i % 3 === 0 ? last + 1 + pick(bytes.length - last - 1) : pick(bytes.length);
    const how = pick(3);
    const other = Buffer.of((bytes.readUInt8(at) + 1 + pick(255)) % 256);
    const middle = how === 0 ? other : how === 1 ? Buffer.alloc(0) : Buffer.concat([other, bytes.subarray(at, at + 1)]);
    const changed = Buffer.concat([bytes.subarray(0, at), middle, bytes.subarray(at + 1)]);
    const told = await checkBytes(changed);
    assert.equal(told.holds, changed.equals(bytes), `way ${how} at byte ${at} of ${bytes.length}, case ${i}`);
    assert.ok(told.findings.length > 0, `case ${i}`);
  }
});

test('lines that are removed, doubled, swapped or moved are found, and so is a file that was cut anywhere', async () => {
  const { text } = await audit(40);
  const lines = text.slice(0, -1).split('\n');
  const pick = numbers(2);
  for (let i = 0; i < tamperings * 0.3; i += 1) {
    const changed = [...lines];
    const at = pick(lines.length);
    const how = pick(4);
    if (how === 0) changed.splice(at, 1);
    else if (how === 1) changed.splice(at, 0, lines[at] ?? '');
    else if (how === 2) [changed[at], changed[(at + 1) % lines.length]] = [lines[(at + 1) % lines.length] ?? '', lines[at] ?? ''];
    else changed.splice(pick(lines.length), 0, ...changed.splice(at, 1 + pick(5)));
    const made = `${changed.join('\n')}\n`;
    assert.equal((await check(made)).holds, made === text, `way ${how} at line ${at}, case ${i}`);
  }
  for (let i = 0; i < tamperings * 0.1; i += 1) assert.equal((await check(text.slice(0, pick(text.length)))).holds, false, `cut ${i}`);
  for (let i = 1; i <= lines.length; i += 1) assert.equal((await check(`${lines.slice(0, lines.length - i).join('\n')}\n`)).holds, false, `without the last ${i} lines`);
});

test('a changed entry is told with its place: between two checkpoints', async () => {
  const { text } = await audit(60);
  const lines = text.split('\n');
  const at = lines.findIndex((line) => line.startsWith('{"entry":30,'));
  const { leaf } = JSON.parse(lines[at] ?? '') as { leaf: string };
  const bytes = Buffer.from(leaf, 'base64');
  bytes.writeUInt8(bytes.readUInt8(bytes.length - 1) ^ 1, bytes.length - 1);
  lines[at] = JSON.stringify({ entry: 30, leaf: bytes.toString('base64') });
  const { findings } = await check(lines.join('\n'));
  assert.ok(findings.some(({ what, from, to }) => what.startsWith('entries were changed') && from === 28 && to === 35), JSON.stringify(findings));
});

test('whoever has the key can write another history, but not one that goes on from a checkpoint that was kept', async () => {
  const kept = await audit(21);
  const other = await audit(60, 'export');
  assert.equal((await check(other.text)).holds, true, 'it is a good history by itself');
  const note = kept.store.signed.at(-1)?.note ?? '';
  assert.match((await check(other.text, note)).findings[0]?.what ?? '', /^a fork/);
  const newer = (await audit(60)).store.signed.at(-1)?.note ?? '';
  assert.match((await check(kept.text, newer)).findings[0]?.what ?? '', /fewer entries/);
  await assert.rejects(check(kept.text, 'no note'), { code: 'bad_request' });
});

test('nothing is good under another key, even one of the same name', async () => {
  const { text } = await audit(10);
  const stranger = noteSigner(signer.name, Buffer.alloc(32, 9));
  assert.equal((await verifyExport([text], noteVerifier(stranger.verifierText))).holds, false);
  const forged = signNote(checkpointText({ origin: signer.name, size: 10, root: Buffer.alloc(32) }), stranger);
  await assert.rejects(check(text, forged), { code: 'bad_request' });
});
