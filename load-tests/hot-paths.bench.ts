/**
 * `node dist/load-tests/hot-paths.bench.js NAME` measures one of the paths that every frame takes, in a process of its own: what a path costs depends
 * on what the compiler saw before. Prints one line of JSON; without a name, the names. `hot-paths.ts` runs it.
 */
import { join } from 'node:path';
import { systemClock } from '../core/clock.js';
import { uuidBytes, type DeviceId, type PatientId, type Pseudonym, type StudyId } from '../core/ids.js';
import { silentJournal } from '../core/journal.js';
import { limits } from '../core/limits.js';
import { csvMappings, openCsv } from '../device-emulator/csv.js';
import { cutFrames } from '../device-emulator/framer.js';
import { demoFolder, together } from '../device-emulator/ward.js';
import type { Binding } from '../ingest/bindings.js';
import { Commands } from '../ingest/commands.js';
import { Connection } from '../ingest/connection.js';
import { Counters } from '../ingest/counters.js';
import { GroupCommit } from '../ingest/group-commit.js';
import { UsedTokens } from '../ingest/handshake.js';
import { Lane } from '../ingest/lanes.js';
import { MemoryWriter } from '../ingest/ingest.fixture.js';
import { Rate } from '../ingest/rate.js';
import { Receiver } from '../ingest/receive.js';
import { Session } from '../ingest/sessions.js';
import type { Transaction } from '../log/log.js';
import { anonymize, SharedBytes, type Disguise } from '../processors/anonymize.js';
import { openBlock, readBlock } from '../processors/block.js';
import { addToDraft, newDraft, sealChunk, validBodies } from '../processors/encrypt.js';
import { readPolicy } from '../processors/policy.js';
import { FakeCustodian, fakeId, newVault, sealBlock, validateSettings } from '../processors/testing.js';
import { validate } from '../processors/validate.js';
import { headerBytes } from '../schemas/codec.js';
import { decodeFrameBodies, encodeFrameBody, frameMessage, type DecodedFrame } from '../schemas/frames.js';
import { encodeRun } from '../schemas/runs.js';
import { scanFrames } from '../schemas/scan.js';
import { Sealer } from '../security/envelope.js';
import { AnalyticsReader } from '../sinks/analytics-reader.js';
import { burn, references, type ReferenceName } from './reference.js';
import { planted, type PathCost } from './hot-paths.js';
import { inTurns, type Operation } from './turns.js';

/** A path that every frame takes, and how many of which fixed operations are like one of its own. */
interface HotPath {
  readonly name: string;
  readonly run: Operation;
  readonly like: Readonly<Partial<Record<ReferenceName, number>>>;
}

const startUs = Date.UTC(2026, 0, 2) * 1000;
const framesPerBlock = 16;
const blocks = 4;
const blocksPerChunk = 16;
const batchMs = 4;
const burnSteps = 10_000;

function recordsOf(runs: ReturnType<typeof anonymize>['runs']): Buffer[] {
  const shared = new SharedBytes();
  return runs.map((run) => encodeRun(run, shared.of(run)));
}

/** A bedside monitor's seconds, of recordings: ECG, pleth and breath at 100 Hz (NeuroKit), saturation, pulse and more (oximetry). */
async function recorded(): Promise<DecodedFrame[]> {
  const source = together('bedside', [
    await openCsv(join(demoFolder, 'neurokit-rest.csv'), csvMappings.neurokit),
    await openCsv(join(demoFolder, 'oximetry-100001.csv'), csvMappings['oximetry-hypoxia']),
  ]);
  const frames: DecodedFrame[] = [];
  for await (const { content, endUs } of cutFrames({ source, startUs, frameSeconds: 1 })) {
    frames.push({ epoch: 1, seq: frames.length + 1, sentAt: endUs, ...content });
    if (frames.length === framesPerBlock * blocks) break;
  }
  return frames;
}

/** Frames of a single reading of the same recording. */
function singles(frames: readonly DecodedFrame[]): DecodedFrame[] {
  return frames.flatMap(({ numerics }) => numerics.slice(0, 2)).map((numeric, at) => ({ epoch: 1, seq: at + 1, sentAt: numeric.time, waveforms: [], numerics: [numeric], events: [] }));
}

const messagesOf = (frames: readonly DecodedFrame[], each: number): Buffer[] =>
  Array.from({ length: Math.ceil(frames.length / each) }, (_, at) => frameMessage(frames.slice(at * each, (at + 1) * each).map(encodeFrameBody)));

/** Takes all at once and keeps nothing. */
class NoLog extends MemoryWriter {
  override commit({ records }: Transaction): Promise<readonly number[]> {
    return Promise.resolve(records.map((_, at) => at));
  }
}

/** From the message in the socket's buffer to the sealed block in the log's hands and the ack: a device's first messages, again and again. */
function ingest(messages: readonly Buffer[], frames: number): () => Promise<void> {
  const patient = fakeId<PatientId>('patient');
  const sealer = new Sealer({ patient, epoch: 1, secret: Buffer.alloc(32, 1) });
  const binding: Binding = { patient, patientBytes: uuidBytes(patient), from: 0, until: null, seal: (plain, context) => sealer.seal(plain, context) };
  const device = fakeId<DeviceId>('device');
  const counters = new Counters();
  const connection = new Connection(startUs, counters);
  const writer = new NoLog();
  const commit = new GroupCommit({
    writer, topic: 'vitals.raw', clock: systemClock, counters, journal: silentJournal, coalesceMs: 60_000,
    onDurable: (session, state) => {
      session.endFlush(state);
      connection.ack(session.durable);
    },
    onFailed: () => { throw new RangeError('the log refuses'); },
  });
  const receiver = new Receiver({ clock: systemClock, counters, commit: { enqueue: (session) => session.lane.commit.enqueue(session) }, commands: new Commands(), limits, retryAfterMs: 100, malformedMax: 1 });
  const lane = new Lane(0, writer, new UsedTokens(systemClock), commit);
  return async () => {
    const session = new Session(device, null, 4, lane, new Rate(1e9, 1e12, 0));
    session.bindings = [binding];
    for (const message of messages) receiver.message(session, connection, message, true);
    await commit.drain();
    if (session.durable.seq !== frames) throw new RangeError(`durable up to ${session.durable.seq} of ${frames}`);
    counters.pendingBytes = counters.pendingFrames = 0;
  };
}

async function hotPaths(): Promise<HotPath[]> {
  const frames = await recorded();
  const readings = singles(frames);
  const custodian = new FakeCustodian();
  const patient = custodian.patient('patient');
  const device = fakeId<DeviceId>('device');
  const vault = newVault(custodian);
  const blockFrames = frames.slice(0, framesPerBlock);
  const receivedAt = startUs + frames.length * 1e6;
  const stored = await sealBlock(vault, { device, patient, frames: blockFrames, receivedAt });
  const record = { offset: 0, key: uuidBytes(device), timeUs: receivedAt, value: stored };
  const open = async () => {
    const block = readBlock(record);
    if (block === null) throw new RangeError('a block without header');
    return openBlock(vault, block, 0);
  };
  const opened = await open();
  const judge = () => validate(opened.frames, opened.block, new Map(), validateSettings);
  const judged = judge();
  const disguise: Disguise = {
    study: 'study' as StudyId, policy: readPolicy('{"signals":"all","waveforms":true}'), policyHash: Buffer.alloc(32), pseudonym: fakeId<Pseudonym>('pseudonym'),
    shiftUs: 0, group: { sex: 'F' }, anchorUs: startUs,
  };
  const { runs } = anonymize(judged.valid, disguise);
  const reader = new AnalyticsReader();
  const runRecords = runs.map((run, offset) => ({ offset, key: record.key, timeUs: receivedAt, value: encodeRun(run) }));
  if (opened.fault !== null || judged.valid.length !== framesPerBlock || runs.length < 3) throw new RangeError('the recording is not as it was');
  const bodies = Buffer.concat(blockFrames.map(encodeFrameBody));
  const message = frameMessage([bodies]);
  const sealer = new Sealer({ patient, epoch: 1, secret: Buffer.alloc(32, 1) });
  const context = Buffer.alloc(160);
  const draftOf = () => {
    const draft = newDraft(opened);
    for (let at = 0; at < blocksPerChunk; at++) addToDraft(draft, validBodies(opened, judged), judged);
    return draft;
  };
  return [
    { name: 'ingest, a recorded second a frame', run: ingest(messagesOf(frames, framesPerBlock), frames.length), like: { varints: 10, objects: 1, cipher: 6 } },
    { name: 'ingest, a reading a frame', run: ingest(messagesOf(readings, 10), readings.length), like: { varints: 1, objects: 1, cipher: 1 } },
    { name: 'scan frames', run: () => scanFrames(message, headerBytes, limits), like: { varints: 1 } },
    { name: 'decode frames', run: () => decodeFrameBodies(bodies), like: { varints: 2, objects: 1 } },
    { name: 'encode frames', run: () => blockFrames.map(encodeFrameBody), like: { varints: 2, objects: 1 } },
    { name: 'seal', run: () => sealer.seal(bodies, context), like: { cipher: 1 } },
    { name: 'open a block', run: open, like: { varints: 2, objects: 1, cipher: 1 } },
    { name: 'validate', run: judge, like: { varints: 2 } },
    { name: 'anonymize', run: () => anonymize(judged.valid, disguise), like: { varints: 1, objects: 1 } },
    { name: 'encode runs', run: () => recordsOf(runs), like: { varints: 1, objects: 1 } },
    { name: 'read runs', run: () => runRecords.map((one) => reader.read(one, 0)), like: { varints: 1, objects: 1 } },
    { name: 'seal a chunk', run: () => sealChunk(draftOf(), (of, plain, beside) => vault.seal(of, plain, beside)), like: { deflate: 1 } },
  ];
}

/** The fixed work that a path is held against. */
function referenceOf({ like }: HotPath): Operation {
  const parts = Object.entries(like).flatMap(([name, times]) => Array.from({ length: times }, () => references[name as ReferenceName]));
  if (parts.includes(references.deflate)) return async () => { for (const part of parts) await part(); };
  return () => { for (const part of parts) void part(); };
}

/** The same path with work behind it that makes it dearer by `planted`. */
function slowed(run: Operation, steps: number): Operation {
  return () => {
    const answer = run();
    return answer instanceof Promise ? answer.then(() => burn(steps)) : burn(steps);
  };
}

async function measure(path: HotPath): Promise<PathCost> {
  const reference = referenceOf(path);
  await inTurns([path.run], { rounds: 1, batchMs, warmUpMs: 350 });
  const [trialUs = NaN, burnUs = NaN] = await inTurns([path.run, () => burn(burnSteps)], { rounds: 11, batchMs, warmUpMs: 40 });
  const steps = Math.round((planted * trialUs * burnSteps) / burnUs);
  const [us = NaN, referenceUs = NaN, slowedUs = NaN] = await inTurns([path.run, reference, slowed(path.run, steps)], { rounds: 31, batchMs, warmUpMs: 40 });
  return { us, ratio: us / referenceUs, slowed: slowedUs / referenceUs };
}

const paths = await hotPaths();
const asked = process.argv[2];
const found = paths.find(({ name }) => name === asked);
if (asked !== undefined && found === undefined) throw new RangeError('no such path');
process.stdout.write(`${JSON.stringify(found === undefined ? paths.map(({ name }) => name) : await measure(found))}\n`);
