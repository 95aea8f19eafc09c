import assert from 'node:assert/strict';
import { inflateRawSync } from 'node:zlib';
import { test, type TestContext } from 'node:test';
import { SpamerError } from '../core/errors.js';
import { micros, uuidBytes, uuidText, type DeviceId, type PatientId } from '../core/ids.js';
import { silentJournal } from '../core/journal.js';
import { decode, encodeBody } from '../schemas/codec.js';
import { decodeChunkContent, decodeFrameBodies, samplesOf, type DecodedFrame } from '../schemas/frames.js';
import type { ChunkedLedger, SettledLedger } from './ledger.js';
import { recordDefaults, RecordWork } from './record-stage.js';
import { ecg, FakeCustodian, fakeId, frame, heartRate, MemoryLog, newVault, perMinute, rig, sealBlock, start, validateSettings, wave, type Rig } from './testing.js';

const partitions = 3;
const openPolicy = { signals: 'all', waveforms: true };

interface Ward {
  readonly log: MemoryLog;
  readonly custodian: FakeCustodian;
  readonly beds: Array<{ readonly device: DeviceId; readonly patient: PatientId; readonly partition: number; readonly sent: DecodedFrame[] }>;
}

function ward(devices: number, patients = devices): Ward {
  const custodian = new FakeCustodian();
  const people = Array.from({ length: patients }, () => custodian.patient());
  const beds = Array.from({ length: devices }, (_, index) => ({ device: fakeId<DeviceId>(), patient: people[index % patients]!, partition: index % partitions, sent: [] }));
  return { log: new MemoryLog(), custodian, beds };
}

/** One block of a bed: `count` frames of 5 samples and a reading, 20 ms each, gapless. */
async function send({ log, custodian }: Ward, bed: Ward['beds'][number], count: number, change: Partial<DecodedFrame> = {}): Promise<void> {
  const frames = Array.from({ length: count }, (_, index) => {
    const seq = bed.sent.length + index + 1;
    const t0 = start + seq * 20_000;
    return frame(seq, { waveforms: [wave(t0, [seq, -seq, seq * 2, 0, 7])], numerics: [{ code: heartRate, unit: perMinute, time: t0, value: 60 + (seq % 40) }], ...change });
  });
  bed.sent.push(...frames);
  const receivedAt = Math.max(start + bed.sent.length * 20_000, log.rows('vitals.raw', bed.partition).at(-1)?.timeUs ?? 0);
  append(log, bed, await sealBlock(newVault(custodian), { device: bed.device, patient: bed.patient, frames, receivedAt }), receivedAt);
}

function append(log: MemoryLog, bed: Ward['beds'][number], value: Buffer, timeUs: number): void {
  const rows = log.rows('vitals.raw', bed.partition);
  rows.push({ offset: rows.length, key: uuidBytes(bed.device), timeUs, value });
  log.wake();
}

function begin(t: TestContext, { log, custodian }: Ward, change: { maxRecords?: number } = {}): Rig {
  const made = rig(log, { anonymize: log.writerOf('anonymize'), record: log.writerOf('record') }, custodian, partitions, change);
  for (const stage of made.stages) stage.start();
  t.after(() => Promise.all(made.stages.map((stage) => stage.stop())));
  return made;
}

const stop = async ({ stages }: Rig): Promise<void> => void (await Promise.all(stages.map((stage) => stage.stop())));

async function until(what: string, holds: () => boolean): Promise<void> {
  for (let tries = 0; !holds(); tries++) {
    if (tries > 2000) assert.fail(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function drained({ log }: Ward): boolean {
  return ['anonymize', 'record'].every((writer) =>
    [0, 1, 2].every((partition) => (log.writerOf(writer).offsets.get(`vitals.raw/${partition}`) ?? 0) === log.rows('vitals.raw', partition).length),
  );
}

async function recorded({ log, custodian }: Ward, device: DeviceId): Promise<DecodedFrame[]> {
  const frames: DecodedFrame[] = [];
  for (const record of log.all('pmr.chunks')) {
    const chunk = decode('PmrChunk', record.value);
    if (uuidText(chunk.device) !== device) continue;
    const packed = await newVault(custodian).open(uuidText(chunk.patient), chunk.sealed, encodeBody('PmrChunk', { ...chunk, sealed: Buffer.alloc(0) }));
    const plain = inflateRawSync(packed);
    assert.equal(plain.length, chunk.plainBytes);
    frames.push(...decodeChunkContent(plain));
  }
  return frames;
}

/** Values given out of one patient, with their times, for each study's pseudonym. */
function givenOut({ log, custodian }: Ward, study: string, patient: PatientId): Array<[number, number]> {
  const key = uuidBytes([...custodian.studies].find(([name]) => name === study)![1].members.get(patient)!);
  const values: Array<[number, number]> = [];
  for (const record of log.all('vitals.anonymized')) {
    if (!key.equals(record.key) || record.value[4] !== 19) continue;
    const run = decode('AnonymizedRun', record.value);
    assert.equal(run.study, study);
    samplesOf(run.deltas).forEach((sample, index) => values.push([run.t0 + (index * run.periodNs) / 1000, sample]));
  }
  return values;
}

function samplesSent(bed: Ward['beds'][number]): Array<[number, number]> {
  const anchor = bed.sent[0]!.waveforms[0]!.t0;
  return bed.sent.flatMap(({ waveforms }) => waveforms.flatMap(({ t0, samples }) => [...samples].map((sample, index): [number, number] => [t0 - anchor + index * 4000, sample])));
}

function ledger<L>({ log }: Ward, writer: string, device: DeviceId): L {
  const bytes = log.writerOf(writer).tables.get(`ledger\n${device}`);
  return JSON.parse(Buffer.from(bytes ?? '{}').toString()) as L;
}

async function exact(w: Ward): Promise<void> {
  for (const bed of w.beds) {
    const samples = bed.sent.length * 5;
    assert.deepEqual(await recorded(w, bed.device), bed.sent);
    assert.deepEqual(ledger<ChunkedLedger>(w, 'record', bed.device)[ecg], { valid: samples, rejected: 0, chunked: samples });
    assert.deepEqual(ledger<SettledLedger>(w, 'anonymize', bed.device)[ecg], { valid: samples, rejected: 0, settled: samples, held: 0, rejectedByReason: {} });
  }
}

test('[ONCE] commits that fail before or after they are written, and restarts at random, lose nothing and double nothing', async (t) => {
  const w = ward(9);
  const people = w.beds.slice(0, 7).map(({ patient }) => patient);
  w.custodian.study('icu', openPolicy, 3, people);
  w.custodian.study('night', openPolicy, 7, people);
  // This device goes from patient to patient, so its chunks end early, while older ones of its neighbours are still open.
  const [roaming, other] = w.beds.slice(7) as [Ward['beds'][number], Ward['beds'][number]];
  for (const name of ['anonymize', 'record']) {
    const writer = w.log.writerOf(name);
    writer.before = () => { if (Math.random() < 0.15) throw new SpamerError('disk_full', 'the disk is full'); };
    writer.after = () => { if (Math.random() < 0.15) throw new SpamerError('log_failed', 'the log did not answer'); };
  }
  let running = begin(t, w, { maxRecords: 5 });
  for (let round = 0; round < 40; round++) {
    for (const bed of w.beds) if (Math.random() < 0.7) await send(w, bed, 1 + Math.floor(Math.random() * 4));
    await send(w, { ...roaming, patient: round % 2 === 0 ? roaming.patient : other.patient }, 1);
    if (Math.random() < 0.5) continue;
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 10));
    await stop(running);
    running = begin(t, w, { maxRecords: 5 });
  }
  await until('drained', () => drained(w));
  await until('released', () => ![...w.log.writerOf('anonymize').tables.keys()].some((key) => key.startsWith('holds')));
  await stop(running);
  await exact(w);
  for (const bed of w.beds.slice(0, 7)) {
    for (const study of ['icu', 'night']) assert.deepEqual(givenOut(w, study, bed.patient).sort(([a], [b]) => a - b), samplesSent(bed));
  }
});

test('[ONCE] a device that moves to another patient ends the chunk, and each keeps what is theirs', async (t) => {
  const w = ward(2, 2);
  const [bed, other] = w.beds as [Ward['beds'][number], Ward['beds'][number]];
  await send(w, bed, 3);
  await send(w, { ...bed, patient: other.patient }, 2);
  await send(w, bed, 1);
  begin(t, w);
  await until('drained', () => drained(w));
  const owners = w.log.all('pmr.chunks').map(({ value }) => uuidText(decode('PmrChunk', value).patient));
  assert.deepEqual(owners, [bed.patient, other.patient, bed.patient]);
  assert.deepEqual(await recorded(w, bed.device), bed.sent);
});

test('[ONCE] of what waited a step makes one chunk of a device; of what comes in time, each bucket is one', async (t) => {
  const w = ward(1);
  for (let block = 0; block < 20; block++) await send(w, w.beds[0]!, 3);
  const inTime: Ward = { ...w, log: new MemoryLog() };
  inTime.log.rows('vitals.raw', w.beds[0]!.partition).push(...w.log.rows('vitals.raw', w.beds[0]!.partition));
  begin(t, w);
  begin(t, inTime, { maxRecords: 1 });
  await until('drained', () => drained(w) && drained(inTime));
  // Blocks are 60 ms apart, buckets are 50 ms long.
  assert.deepEqual([w, inTime].map(({ log }) => log.all('pmr.chunks').length), [1, 20]);
  assert.deepEqual(await recorded(w, w.beds[0]!.device), await recorded(inTime, w.beds[0]!.device));
  await exact(w);
});

test('a chunk is closed when its bucket ends, or sooner when nothing has come for a while, and not while blocks come', async () => {
  const w = ward(1);
  const [bed] = w.beds as [Ward['beds'][number]];
  for (let block = 0; block < 4; block++) await send(w, bed, 1);
  const time = { us: w.log.rows('vitals.raw', bed.partition)[0]!.timeUs, ms: 1000 };
  const clock = { now: () => micros(time.us), elapsedMs: () => time.ms };
  const work = new RecordWork(w.log.writerOf('record'), newVault(w.custodian), clock, { ...recordDefaults, validate: validateSettings }, silentJournal);
  const pass = async (ms: number): Promise<number | null> => {
    time.ms += ms;
    time.us += ms * 1000;
    const outcome = await work.idle(bed.partition);
    outcome?.committed([]);
    return outcome?.transaction.records.length ?? null;
  };
  const take = (from: number, to: number): Promise<unknown> => work.process(bed.partition, w.log.rows('vitals.raw', bed.partition).slice(from, to), new AbortController().signal);
  await take(0, 1);
  assert.equal(await pass(1400), null);
  await take(1, 2);
  assert.equal(await pass(1499), null, 'less than the quiet since the last block');
  assert.equal(await pass(1), 1, 'one chunk of both blocks');
  assert.equal(work.stats.blocks, 2);
  assert.equal(await pass(60_000), null, 'nothing is open');
  // Whatever the wall clock says: the quiet is told by the clock that only grows.
  time.us = w.log.rows('vitals.raw', bed.partition)[0]!.timeUs - 3_600_000_000;
  await take(2, 4);
  assert.deepEqual([await pass(1499), await pass(1)], [null, 1]);
  assert.equal(work.openBlocks, 0);
});

test('[ANON] nothing leaves before the group reaches k; then everything does, once, in both studies', async (t) => {
  const w = ward(3);
  const people = w.beds.map(({ patient }) => patient);
  w.custodian.study('icu', openPolicy, 2, people);
  w.custodian.study('night', openPolicy, 3, people);
  const running = begin(t, w, { maxRecords: 2 });
  const [a, b, c] = w.beds as [Ward['beds'][number], Ward['beds'][number], Ward['beds'][number]];
  for (let block = 0; block < 5; block++) await send(w, a, 2);
  await until('first held', () => drained(w));
  assert.equal(w.log.all('vitals.anonymized').length, 0);
  assert.equal(ledger<SettledLedger>(w, 'anonymize', a.device)[ecg]?.held, 50);
  await send(w, b, 1);
  await until('icu has its two', () => givenOut(w, 'icu', a.patient).length === 50 && givenOut(w, 'icu', b.patient).length === 5);
  assert.equal(ledger<SettledLedger>(w, 'anonymize', a.device)[ecg]?.held, 50, 'night still holds them');
  assert.equal(givenOut(w, 'night', a.patient).length, 0);
  await send(w, c, 1);
  await until('night has its three', () => givenOut(w, 'night', a.patient).length === 50 && givenOut(w, 'night', b.patient).length === 5);
  await until('drained', () => drained(w));
  await stop(running);
  await exact(w);
  assert.deepEqual(givenOut(w, 'icu', a.patient), samplesSent(a));
  const released = [...w.log.writerOf('anonymize').tables].filter(([key]) => key.startsWith('released') && key.endsWith(`/${ecg}`)).map(([, value]) => Number(Buffer.from(value).toString()));
  assert.equal(released.reduce((sum, samples) => sum + samples, 0), 2 * (50 + 5 + 5));
  assert.equal(running.anonymize.stats.released > 0, true);
});

test('[ANON] a custodian that does not answer stops the stage, and it goes on when there is an answer', async (t) => {
  const w = ward(1);
  w.custodian.study('icu', openPolicy, 1, w.beds.map(({ patient }) => patient));
  await send(w, w.beds[0]!, 2);
  w.custodian.broken = true;
  const running = begin(t, w);
  await until('it has failed', () => running.stages[0]!.stats.failures > 2);
  assert.equal(w.log.all('vitals.anonymized').length + w.log.all('vitals.held').length, 0);
  w.custodian.broken = false;
  await until('drained', () => drained(w));
  await exact(w);
});

test('an unreadable block is set aside and counted, and the stream goes on', async (t) => {
  const w = ward(1);
  const bed = w.beds[0]!;
  await send(w, bed, 1);
  await send(w, bed, 1);
  const rows = w.log.rows('vitals.raw', bed.partition);
  const spoiled = Buffer.from(rows[1]!.value);
  spoiled[spoiled.length - 1]! ^= 1;
  rows[1] = { ...rows[1]!, value: spoiled };
  append(w.log, bed, Buffer.from('no block'), rows[1].timeUs);
  await send(w, bed, 1);
  const running = begin(t, w);
  await until('drained', () => drained(w));
  const rejected = w.log.all('vitals.rejected').map(({ value }) => decode('Rejected', value));
  assert.deepEqual(rejected.map(({ offset, device, reasons }) => [offset, uuidText(device), reasons.map(({ code, samples }) => `${code} ${samples}`)]), [
    [1, bed.device, ['block_unreadable 5', 'block_unreadable 1']],
    [2, '00000000-0000-0000-0000-000000000000', ['block_unreadable 0']],
  ]);
  assert.deepEqual(ledger<SettledLedger>(w, 'anonymize', bed.device)[ecg], { valid: 10, rejected: 5, settled: 10, held: 0, rejectedByReason: { block_unreadable: 5 } });
  assert.deepEqual(ledger<ChunkedLedger>(w, 'record', bed.device)[ecg], { valid: 10, rejected: 5, chunked: 10 });
  assert.equal(running.anonymize.stats.unreadable, 2);
  assert.deepEqual((await recorded(w, bed.device)).map(({ seq }) => seq), [1, 3]);
});

test('[ERASED] an erased patient stalls nobody', async (t) => {
  const w = ward(2, 2);
  w.custodian.study('icu', openPolicy, 2, w.beds.map(({ patient }) => patient));
  await send(w, w.beds[0]!, 1);
  const first = begin(t, w);
  await until('held', () => drained(w));
  await stop(first);
  await send(w, w.beds[0]!, 1);
  w.custodian.erase(w.beds[0]!.patient);
  for (const bed of w.beds.slice(1)) await send(w, bed, 2);
  begin(t, w);
  await until('drained', () => drained(w));
  await until('the hold is over', () => ![...w.log.writerOf('anonymize').tables.keys()].some((key) => key.startsWith(`holds\n${w.beds[0]!.patient}`)));
  assert.equal(ledger<SettledLedger>(w, 'anonymize', w.beds[0]!.device)[ecg]?.erased, 5);
  assert.equal(givenOut(w, 'icu', w.beds[1]!.patient).length, 10);
});

test('[SEALED] rejected channels are sealed; reasons say where, and the good channels go on', async (t) => {
  const w = ward(1);
  const bed = w.beds[0]!;
  await send(w, bed, 1);
  await send(w, bed, 1, { numerics: [{ code: heartRate, unit: perMinute, time: start + 50_000, value: 777 }] });
  begin(t, w);
  await until('drained', () => drained(w));
  const rejected = decode('Rejected', w.log.all('vitals.rejected')[0]!.value);
  assert.deepEqual(rejected.reasons.map((reason) => ({ ...reason })), [{ epoch: 1, seq: 2, path: 'numerics[0]', code: 'out_of_range', signal: heartRate, samples: 1 }]);
  const plain = await newVault(w.custodian).open(bed.patient, rejected.sealed, encodeBody('Rejected', { ...rejected, sealed: Buffer.alloc(0) }));
  assert.equal(decodeFrameBodies(plain)[0]?.numerics[0]?.value, 777);
  assert.deepEqual((await recorded(w, bed.device)).map(({ waveforms, numerics }) => [waveforms.length, numerics.length]), [[1, 1], [1, 0]]);
});

test('[REPLAY] the same blocks and anchors give the same bytes', async (t) => {
  const w = ward(1);
  w.custodian.study('icu', openPolicy, 1, [w.beds[0]!.patient]);
  for (let block = 0; block < 10; block++) await send(w, w.beds[0]!, 3);
  const again: Ward = { ...w, log: new MemoryLog() };
  again.log.rows('vitals.raw', w.beds[0]!.partition).push(...w.log.rows('vitals.raw', w.beds[0]!.partition));
  begin(t, w);
  begin(t, again, { maxRecords: 3 });
  await until('drained', () => drained(w) && drained(again));
  const values = (one: Ward) => one.log.all('vitals.anonymized').map(({ value }) => Buffer.from(value).toString('hex'));
  assert.deepEqual(values(again), values(w));
  assert.ok(values(w).length > 0);
});

test('a stage stops within a second, in the middle of work and of backing off', async (t) => {
  const w = ward(3);
  for (let block = 0; block < 200; block++) await send(w, w.beds[block % 3]!, 5);
  w.log.writerOf('record').before = () => { throw new SpamerError('disk_full', 'the disk is full'); };
  const running = begin(t, w);
  await new Promise((resolve) => setTimeout(resolve, 20));
  const since = performance.now();
  await stop(running);
  assert.ok(performance.now() - since < 1000);
});

test('[ANON] [LEDGER] what is measured after a withdrawal goes to that study no more, is in the record, and is counted', async (t) => {
  const w = ward(1);
  const bed = w.beds[0]!;
  w.custodian.study('icu', openPolicy, 1, [bed.patient]);
  w.custodian.study('night', openPolicy, 1, [bed.patient]);
  begin(t, w);
  await send(w, bed, 3);
  await until('the first are through', () => drained(w));
  const before = samplesSent(bed);
  // Between the second and the third sample of the sixth frame; two more frames lie before it.
  const withdrawnAt = start + 6 * 20_000 + 2 * 4000;
  w.custodian.consents.set(`icu/${bed.patient}`, [{ from: 0, until: withdrawnAt }]);
  w.custodian.generations += 1;
  await send(w, bed, 5);
  await until('all are through', () => drained(w));
  const all = samplesSent(bed);
  assert.ok(all.length > before.length);
  const icu = givenOut(w, 'icu', bed.patient);
  assert.deepEqual(icu, all.slice(0, 5 * 5 + 2));
  assert.deepEqual(givenOut(w, 'night', bed.patient), all, 'another study goes on');
  assert.deepEqual(await recorded(w, bed.device), bed.sent, 'and so does the record');
  const missed = all.length - icu.length;
  assert.deepEqual(ledger<SettledLedger>(w, 'anonymize', bed.device)[ecg], { valid: all.length, rejected: 0, settled: all.length, held: 0, rejectedByReason: {}, notConsented: missed });
});

test('a ward that is new is asked for and told by the step, not by the patient', async (t) => {
  const w = ward(120);
  const { custodian } = w;
  custodian.study('icu', openPolicy, 5, w.beds.map(({ patient }) => patient));
  for (const bed of w.beds) await send(w, bed, 1);
  let [waiting, most] = [0, 0];
  const slowly = <Args extends unknown[], Result>(ask: (...args: Args) => Promise<Result>) => async (...args: Args): Promise<Result> => {
    most = Math.max(most, ++waiting);
    await new Promise((resolve) => setTimeout(resolve, 2));
    waiting -= 1;
    return ask(...args);
  };
  custodian.current = slowly(custodian.current.bind(custodian));
  custodian.get = slowly(custodian.get.bind(custodian));
  begin(t, w);
  await until('all are through', () => drained(w));
  assert.equal(new Set(w.log.all('vitals.anonymized').map(({ key }) => uuidText(key))).size, 120, 'pseudonyms');
  // Of each of three partitions: what is known at first, who contributes, what is known then; and once more where another partition's release ended the generation.
  assert.ok(custodian.questions <= 5 * partitions, `${custodian.questions} questions for 120 patients`);
  assert.ok(most >= 40, `keys were asked for ${most} at once`);
  await exact(w);
});

test('[ANON] a withdrawal that comes while data is held ends what the release gives out', async (t) => {
  const w = ward(2);
  const [bed, other] = w.beds as [Ward['beds'][number], Ward['beds'][number]];
  w.custodian.study('icu', openPolicy, 2, [bed.patient, other.patient]);
  begin(t, w);
  await send(w, bed, 4);
  await until('they are held', () => drained(w));
  assert.deepEqual(givenOut(w, 'icu', bed.patient), []);
  w.custodian.consents.set(`icu/${bed.patient}`, [{ from: 0, until: start + 3 * 20_000 }]);
  w.custodian.generations += 1;
  await send(w, other, 1);
  await until('the group is out', () => givenOut(w, 'icu', other.patient).length > 0 && ledger<SettledLedger>(w, 'anonymize', bed.device)[ecg]?.held === 0);
  assert.deepEqual(givenOut(w, 'icu', bed.patient), samplesSent(bed).slice(0, 2 * 5));
  assert.equal(ledger<SettledLedger>(w, 'anonymize', bed.device)[ecg]?.settled, 20);
});
