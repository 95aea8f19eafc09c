import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { appendFileSync, mkdirSync, rmSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { runDevice } from '../device-emulator/device.js';
import { firstIndexAt, periodNsOf, type Source } from '../device-emulator/source.js';
import { signalNamed } from '../schemas/signals.js';
import { api, startProgram, temporaryFolder, until, type Api, type Started } from './program.js';
import { assertSame, endable, enrolPatient, readRecord, reconcile, seriesOfFrames, seriesOfSource } from './record.js';

/** A data folder with a file system of its own for `part` ('' for all of it), given back after the test; where mounting is refused the test is skipped, and null. */
function dataOnOwnDisk(t: TestContext, part: string, megabytes: number): { readonly data: string; readonly disk: string } | null {
  const folder = temporaryFolder('full-disk');
  const data = join(folder.dir, 'data');
  const disk = join(data, part);
  mkdirSync(disk, { recursive: true });
  const { status, error, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m,mode=700`, 'tmpfs', disk], { encoding: 'utf8' });
  t.after(() => {
    if (status === 0) spawnSync('umount', ['-l', disk]);
    folder.remove();
  });
  if (status === 0) return { data, disk };
  t.skip(`a tmpfs can't be mounted here (it needs root): ${error?.message ?? stderr.trim()}; ingest/lmdb.test.ts fills the log to log_bytes_max`);
  return null;
}

function freeBytes(disk: string): number {
  const { bavail, bsize } = statfsSync(disk);
  return bavail * bsize;
}

/** Takes all room but `leave` bytes, and again what others give back, until told to give it back. */
function fillDisk(disk: string, leave: number): () => void {
  const filler = join(disk, 'filler');
  const fill = (): void => {
    try {
      const bytes = freeBytes(disk) - leave;
      if (bytes > 0) appendFileSync(filler, Buffer.alloc(bytes, 1));
    } catch (error) {
      // Others write too: what was free a moment ago may be theirs now.
      assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
    }
  };
  fill();
  const timer = setInterval(fill, 20);
  return () => {
    clearInterval(timer);
    rmSync(filler, { force: true });
  };
}

/** An endless wave that costs little to make and does not compress: 500 samples of 24 bits a second. */
function noise(seed: number): Source {
  const { code, unit, label, kind } = signalNamed('MDC_ECG_ELEC_POTL_II') ?? assert.fail();
  const signal = { code, unit, label, kind, hz: 500, periodNs: periodNsOf(500), scale: 1e-6, offset: 0 };
  const sample = (index: number): number => {
    const mixed = Math.imul(index + seed * 1_000_003, 0x9e3779b1);
    return Math.imul(mixed ^ (mixed >>> 15), 0x85ebca6b) >> 8;
  };
  return {
    name: 'noise', origin: 'synthetic', signals: [signal], startUs: null, durationUs: null, warnings: [],
    read: (fromUs, toUs) => {
      const index = firstIndexAt(signal, fromUs);
      const samples = Int32Array.from({ length: firstIndexAt(signal, toUs) - index }, (_, at) => sample(index + at));
      return Promise.resolve([{ signal: 0, index, samples }]);
    },
  };
}

const partsOf = async (program: Started): Promise<Readonly<Record<string, boolean>>> =>
  ((await (await fetch(new URL('/readyz', program.http), { signal: AbortSignal.timeout(10_000) })).json()) as { parts: Record<string, boolean> }).parts;

/** What tells why a program does not go on: room, its parts, what its consumers lag behind, the journal's end. */
async function stateOf(program: Started, server: Api, disk: string): Promise<string> {
  const asked = async (what: string, ask: () => Promise<unknown>): Promise<string> => `${what}: ${await ask().then(JSON.stringify, String)}`;
  const lagging = async (): Promise<readonly string[]> => (await (await server.raw('/metrics')).text()).split('\n').filter((line) => /^spamer_lag.* [^0]/.test(line));
  const inFlight = async (): Promise<readonly string[]> => (await reconcile(server)).channels.filter((row) => row.inFlight !== 0).map((row) => `${row.code}: ${row.inFlight} of ${row.accepted}`);
  const told = await Promise.all([asked('parts', () => partsOf(program)), asked('lag', lagging), asked('in flight', inFlight)]);
  return [`free: ${freeBytes(disk)}`, ...told, `exit code: ${program.process.exitCode}`, `journal: ${program.stderr().split('\n').slice(-15).join('\n')}`].join('\n');
}

interface FastDevice {
  readonly patient: string;
  readonly nacks: ReadonlyArray<{ readonly code: string; readonly resend: boolean }>;
  readonly acked: () => number;
  readonly played: ReturnType<typeof endable>;
  readonly startUs: number;
  readonly playing: ReturnType<typeof runDevice>;
}

/** A new patient's device that sends as fast as it is acked, until what it plays is ended. */
async function fastDevice(program: Started, server: Api, seed: number, signal: AbortSignal): Promise<FastDevice> {
  const { patient, device, privateKey } = await enrolPatient(server);
  const nacks: Array<{ readonly code: string; readonly resend: boolean }> = [];
  let acked = 0;
  const startUs = (Date.now() - 20 * 24 * 3600_000) * 1000;
  const played = endable(noise(seed));
  const playing = runDevice({
    url: program.ingest, deviceId: device, privateKey, source: played.source, speed: 'max', startUs, backoffMs: 50, signal,
    onEvent: (note) => {
      if (note.kind === 'nacked') nacks.push({ code: note.code, resend: note.resend });
      if (note.kind === 'acked') acked += note.frames;
    },
  });
  playing.catch(() => undefined);
  return { patient, nacks, acked: () => acked, played, startUs, playing };
}

// Half a minute where nothing else runs. Each wait inside has a bound and a name of its own; the one around them must not cut in before them.
test('[DURABLE] [ONCE] [LEDGER] a disk that is filled three times: acks stop, devices are told to send again, and all goes on when there is room', { timeout: 360_000 }, async (t) => {
  const own = dataOnOwnDisk(t, '', 256);
  if (own === null) return;
  const { data, disk } = own;
  const program = await startProgram(data, { env: { SPAMER_CHUNK_SECONDS: '1' } });
  const stop = new AbortController();
  let makeRoom = (): void => undefined;
  t.after(async () => { makeRoom(); stop.abort(); await program.kill(); });
  const server = api(program, data);
  const explained = async <Result>(what: Promise<Result>): Promise<Result> => what.catch(async (error: unknown) => assert.fail(`${String(error)}\n${await stateOf(program, server, disk)}`));
  const told = (code: string, what: string): boolean => program.stderr().split('\n').some((line) => line.includes(`"code":"${code}"`) && line.includes(what));

  /** One patient's device sends as fast as it is acked, the disk is filled to `leave` bytes at `when`, refused for a while, and given back. */
  const round = async (seed: number, leave: number, when: (acked: () => number) => Promise<void>): Promise<void> => {
    const { patient, nacks, acked, played, startUs, playing } = await fastDevice(program, server, seed, stop.signal);
    await when(acked);
    makeRoom = fillDisk(disk, leave);
    await explained(until('a refusal for want of room', async () => nacks.some(({ code }) => code === 'disk_full')));
    // What is made by now is to be stored, and the disk is not to be filled by us.
    played.end();
    assert.ok(nacks.every(({ code, resend }) => code !== 'disk_full' || resend), 'every refused frame is to be sent again');
    const then = acked();
    assert.equal((await partsOf(program))['ingest'], false, 'readiness says that frames are refused');
    await new Promise((resolve) => setTimeout(resolve, 1000));
    t.diagnostic(`seed ${seed}: ${then} frames acked when the disk was full, ${acked() - then} in the second after; ${played.untilUs() / 1e6} made`);
    assert.equal(acked(), then, 'acks stop');
    makeRoom();
    makeRoom = () => undefined;
    const tooLong = setTimeout(() => stop.abort(), 20_000);
    const { waiting, dropped, refused } = await explained(playing.finally(() => clearTimeout(tooLong)));
    if (waiting > 0) assert.fail(`${waiting} frames still wait 20 s after there was room\n${await stateOf(program, server, disk)}`);
    assert.deepEqual([dropped, refused], [0, 0]);
    await explained(until('books without anything in flight', async () => {
      const { balanced, channels } = await reconcile(server);
      return balanced && channels.length > 0 && channels.every((row) => row.inFlight === 0);
    }));
    assert.ok(freeBytes(disk) > 32 * 1024 * 1024, 'this test is of a disk that others fill: the records have room');
    assertSame(seriesOfFrames(await readRecord(server, patient)), await seriesOfSource(played.source, startUs, played.untilUs()), 'the record');
  };

  const inFullSwing = (acked: () => number): Promise<void> => explained(until('acks', async () => acked() > 500));
  await round(11, 64 * 1024, async () => undefined);
  // To the last byte, in the middle of the work of stages and stores.
  await round(12, 0, inFullSwing);
  await round(13, 0, inFullSwing);
  assert.ok(told('disk_full', 'nothing is acked'), 'the journal says that the log is full');
  await explained(until('every part ready', async () => Object.values(await partsOf(program)).every(Boolean)));
});

test('[DURABLE] [ONCE] [LEDGER] a disk of the stores alone that is full stops no acks: the store says so, and has everything once there is room', { timeout: 240_000 }, async (t) => {
  const own = dataOnOwnDisk(t, 'stores', 128);
  if (own === null) return;
  const { data, disk } = own;
  const program = await startProgram(data, { env: { SPAMER_CHUNK_SECONDS: '1' } });
  const stop = new AbortController();
  let makeRoom = (): void => undefined;
  t.after(async () => { makeRoom(); stop.abort(); await program.kill(); });
  const server = api(program, data);
  const explained = async <Result>(what: Promise<Result>): Promise<Result> => what.catch(async (error: unknown) => assert.fail(`${String(error)}\n${await stateOf(program, server, disk)}`));
  const { patient, nacks, acked, played, startUs, playing } = await fastDevice(program, server, 21, stop.signal);
  await explained(until('acks', async () => acked() > 100));
  makeRoom = fillDisk(disk, 0);
  const then = acked();
  await explained(until('a store that says it', async () => program.stderr().split('\n').some((line) => line.includes('"code":"disk_full"') && line.includes('"stage":"pmr"'))));
  const told = acked();
  await explained(until('acks all the same', async () => acked() > told));
  played.end();
  const { waiting, dropped, refused } = await explained(playing);
  assert.deepEqual([waiting, dropped, refused, nacks.length], [0, 0, 0, 0]);
  t.diagnostic(`${acked()} frames acked, ${acked() - then} of them while the stores had no room`);
  assert.deepEqual(await partsOf(program).then(({ ingest, pmr }) => ({ ingest, pmr })), { ingest: true, pmr: false });
  makeRoom();
  makeRoom = () => undefined;
  await explained(until('every part ready', async () => Object.values(await partsOf(program)).every(Boolean)));
  await explained(until('books without anything in flight', async () => {
    const { balanced, channels } = await reconcile(server);
    return balanced && channels.length > 0 && channels.every((row) => row.inFlight === 0);
  }));
  assertSame(seriesOfFrames(await readRecord(server, patient)), await seriesOfSource(played.source, startUs, played.untilUs()), 'the record');
});
