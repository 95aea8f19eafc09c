import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { test } from 'node:test';
import { runDevice } from '../device-emulator/device.js';
import { generateDeviceKey } from '../device-emulator/key.js';
import type { Piece, Source, SourceSignal } from '../device-emulator/source.js';
import { signalOf } from '../schemas/signals.js';
import { api, freePort, type Api, spawnProgram, temporaryFolder, until } from './program.js';
import { enrolPatient, openPolicy, reconcile, type Enrolled } from './record.js';

const ecg = 131330;
const heartRate = 147842;
const waveScale = 0.0001;
const numericScale = 1e-6;

interface Needle { readonly what: string; readonly bytes: Buffer }

/** A run of six samples of a wave that repeats after six is one of six windows, wherever it begins. */
const windowsOf = (wave: readonly number[]): number[][] => wave.map((_, at) => [...wave.slice(at), ...wave.slice(0, at)]);

function numbers(values: readonly number[], width: number, write: (buffer: Buffer, value: number, at: number) => void): Buffer {
  const out = Buffer.alloc(values.length * width);
  values.forEach((value, at) => write(out, value, at * width));
  return out;
}

const widths: ReadonlyArray<readonly [string, number, (buffer: Buffer, value: number, at: number) => void]> = [
  ['int16le', 2, (b, v, at) => b.writeInt16LE(v, at)], ['int16be', 2, (b, v, at) => b.writeInt16BE(v, at)],
  ['int32le', 4, (b, v, at) => b.writeInt32LE(v, at)], ['int32be', 4, (b, v, at) => b.writeInt32BE(v, at)],
];
const floats: typeof widths = [
  ['float32le', 4, (b, v, at) => b.writeFloatLE(v, at)], ['float32be', 4, (b, v, at) => b.writeFloatBE(v, at)],
  ['float64le', 8, (b, v, at) => b.writeDoubleLE(v, at)], ['float64be', 8, (b, v, at) => b.writeDoubleBE(v, at)],
];

function zigZag(values: readonly number[]): Buffer {
  const out: number[] = [];
  for (const value of values) {
    let rest = value >= 0 ? value * 2 : -value * 2 - 1;
    for (; rest > 127; rest = Math.floor(rest / 128)) out.push((rest % 128) + 128);
    out.push(rest);
  }
  return Buffer.from(out);
}

const deltasOf = (values: readonly number[]): number[] => values.map((value, at) => value - (values.at(at - 1) ?? 0));

/** A base64 text holds its bytes at one of three alignments; the characters that neighbours share are cut off. */
function base64Needles(bytes: Buffer): Buffer[] {
  return [0, 1, 2].map((lead) => {
    const text = Buffer.concat([Buffer.alloc(lead), bytes]).toString('base64').replace(/=+$/, '');
    const last = (lead + bytes.length) % 3 === 0 ? 0 : 1;
    return Buffer.from(text.slice(lead === 0 ? 0 : lead + 1, text.length - last));
  });
}

function textNeedles(what: string, text: string): Needle[] {
  const utf8 = Buffer.from(text);
  const encodings: ReadonlyArray<readonly [string, Buffer]> = [
    ['utf8', utf8], ['utf16le', Buffer.from(text, 'utf16le')], ['utf16be', Buffer.from(text, 'utf16le').swap16()],
    ['hex', Buffer.from(utf8.toString('hex'))], ['HEX', Buffer.from(utf8.toString('hex').toUpperCase())],
    ...base64Needles(utf8).map((bytes, at) => [`base64/${at}`, bytes] as const),
  ];
  return encodings.map(([encoding, bytes]) => ({ what: `${what} as ${encoding}`, bytes }));
}

function waveNeedles(what: string, wave: readonly number[]): Needle[] {
  return windowsOf(wave).flatMap((window) => [
    ...[...widths, ...floats].map(([name, width, write]) => ({ what: `${what} as ${name}`, bytes: numbers(window, width, write) })),
    ...floats.map(([name, width, write]) => ({ what: `${what} in units as ${name}`, bytes: numbers(window.map((sample) => sample * waveScale), width, write) })),
    { what: `${what} as zig-zag deltas`, bytes: zigZag(deltasOf(window)) },
    { what: `${what} as text`, bytes: Buffer.from(window.join(',')) },
  ]);
}

/** Four bytes of a float32 stand somewhere in 60 MB by chance; eight of a float64 don't. */
function numericNeedles(what: string, micro: number): Needle[] {
  const value = Number((micro * numericScale).toFixed(6));
  return [
    ...floats.filter(([, width]) => width === 8).map(([name, width, write]) => ({ what: `${what} as ${name}`, bytes: numbers([value], width, write) })),
    ...textNeedles(what, String(value)),
  ];
}

/** Most files stay as they were between two searches; what the same bytes held is known. */
const known = new Map<string, readonly string[]>();

function foundInFile(bytes: Buffer, needles: readonly Needle[]): readonly string[] {
  const key = `${createHash('sha1').update(bytes).digest('hex')}/${needles.map(({ what }) => what).join()}`;
  const hits = known.get(key) ?? found(bytes, needles);
  known.set(key, hits);
  return hits;
}

const found = (bytes: Buffer, needles: readonly Needle[]): string[] => needles.filter((needle) => bytes.includes(needle.bytes)).map(({ what }) => what);

function filesUnder(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true, recursive: true }).filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

/** Every hit as `file: what`. A file that goes away while the program runs was not left behind. */
function hitsUnder(dir: string, needles: readonly Needle[], allowed: (file: string) => boolean = () => false): string[] {
  return filesUnder(dir).flatMap((file) => {
    const name = relative(dir, file);
    if (allowed(name)) return [];
    let bytes: Buffer;
    try {
      bytes = readFileSync(file);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
    return foundInFile(bytes, needles).map((what) => `${name}: ${what}`);
  });
}

const attributes = { name: 'Zebulon Quixotewright', recordNumber: 'MRN-ZQ-7731904', birthDate: '1931-07-23', sex: 'M', zip: '02139' };
const identity = [...textNeedles('name', attributes.name), ...textNeedles('family name', 'Quixotewright'), ...textNeedles('record number', attributes.recordNumber), ...textNeedles('birth date', attributes.birthDate), ...textNeedles('birth date', '19310723')];
const heldWave = [12_347, -9871, 4409, -15_013, 7727, -3301];
const releasedWave = [-11_213, 8089, -13_999, 5171, -2767, 14_563];
const [heldNumeric, releasedNumeric, rejectedNumeric] = [123_456_789, 117_654_321, 987_654_321];
const heldNeedles = [...waveNeedles('held wave', heldWave), ...numericNeedles('held numeric', heldNumeric), ...numericNeedles('rejected numeric', rejectedNumeric)];
const releasedNeedles = [...waveNeedles('released wave', releasedWave), ...numericNeedles('released numeric', releasedNumeric)];
/** Where samples may lie in the clear, under a pseudonym: the analytics store and the topic that fills it. */
const anonymous = (file: string): boolean => /^data\/(stores\/analytics\.duckdb|log\/anonymize\.mdb)/.test(file.replaceAll('\\', '/'));

/** The wave over and over, and one number each second; every fifth number is implausible when `rejected` is given. */
function canarySource(wave: readonly number[], numeric: number, rejected: number | null, seconds: number): Source {
  const hz = 120;
  const signal = (code: number, rate: number, scale: number, kind: 'wave' | 'numeric'): SourceSignal => ({ code, unit: signalOf(code)?.unit ?? 0, hz: rate, periodNs: Math.round(1e9 / rate), scale, offset: 0, label: String(code), kind });
  const piece = (at: number, rate: number, fromUs: number, toUs: number, value: (index: number) => number): Piece => {
    const first = Math.ceil((fromUs * rate) / 1e6);
    return { signal: at, index: first, samples: Int32Array.from({ length: Math.max(0, Math.ceil((toUs * rate) / 1e6) - first) }, (_, index) => value(first + index)) };
  };
  return {
    name: 'canary', origin: 'synthetic', startUs: null, durationUs: seconds * 1e6, warnings: [],
    signals: [signal(ecg, hz, waveScale, 'wave'), signal(heartRate, 1, numericScale, 'numeric')],
    read: async (fromUs, toUs) => [
      piece(0, hz, fromUs, toUs, (index) => wave[index % wave.length] ?? 0),
      piece(1, 1, fromUs, toUs, (index) => (rejected !== null && index % 5 === 4 ? rejected : numeric)),
    ].filter(({ samples }) => samples.length > 0),
  };
}

test('the searcher finds a planted canary in every encoding', () => {
  for (const needle of [...identity, ...heldNeedles, ...releasedNeedles]) {
    assert.ok(needle.bytes.length >= 7, `${needle.what} is long enough not to stand there by chance`);
    assert.ok(found(Buffer.concat([Buffer.alloc(5, 0x41), needle.bytes, Buffer.alloc(5, 0x41)]), [needle]).length === 1, needle.what);
  }
  for (let lead = 0; lead < 3; lead++) {
    const text = Buffer.from(Buffer.from(`${'x'.repeat(lead)}${attributes.name}yz`).toString('base64'));
    assert.ok(found(text, identity).some((what) => what.startsWith('name as base64')), `base64 after ${lead} bytes`);
  }
  const long = Array.from({ length: 11 }, (_, at) => heldWave[(at + 3) % 6] ?? 0);
  for (const [name, width, write] of [...widths, ...floats]) assert.ok(found(numbers(long, width, write), heldNeedles).includes(`held wave as ${name}`), name);
  assert.ok(found(zigZag(deltasOf(long)), heldNeedles).includes('held wave as zig-zag deltas'));
  assert.deepEqual(found(Buffer.alloc(4096, 7), [...identity, ...heldNeedles, ...releasedNeedles]), []);
});

test('the searcher finds what is planted in files: whichever, however deep, hidden, and at a file\'s very begin and end', (t) => {
  const folder = temporaryFolder('planted');
  t.after(() => folder.remove());
  const all = [...identity, ...heldNeedles, ...releasedNeedles];
  const places = ['data/log/ingest.mdb', 'data/stores/analytics.duckdb.wal', 'data/registry/base/1/1259', 'data/stores/analytics.duckdb', 'tmp/.hidden', 'tmp/core.1234'];
  for (const [at, place] of places.entries()) {
    mkdirSync(join(folder.dir, dirname(place)), { recursive: true });
    // Each begins with another one, so that each encoding stands at some file's begin and at some file's end.
    const turned = [...all.slice(at), ...all.slice(0, at)].map(({ bytes }) => bytes);
    writeFileSync(join(folder.dir, place), Buffer.concat(turned.flatMap((bytes, index) => (index === 0 ? [bytes] : [Buffer.alloc(3, 0x2e), bytes]))));
  }
  const wanted = places.flatMap((place) => all.map(({ what }) => `${place}: ${what}`));
  assert.deepEqual(new Set(hitsUnder(folder.dir, all)), new Set(wanted));
  assert.deepEqual(new Set(hitsUnder(folder.dir, all, anonymous)), new Set(wanted.filter((hit) => !/^data\/stores\/analytics\.duckdb/.test(hit))), 'where released samples may be is left out, and nothing else');
});

interface Operation {
  readonly parameters?: ReadonlyArray<{ readonly in: string; readonly name: string }>;
  readonly requestBody?: object;
}

/** Every route asked wrongly, with the canary in each part of the question: what is refused, and how much was. */
async function errorBodies(http: string, token: string): Promise<{ readonly text: string; readonly refusals: number }> {
  const { paths } = await (await fetch(new URL('/openapi.json', http))).json() as { paths: Record<string, Record<string, Operation>> };
  const { name, recordNumber, birthDate } = attributes;
  const bodies: readonly unknown[] = [
    { attributes: { ...attributes, birthDate: `${birthDate}T` } }, { attributes: { ...attributes, sex: name } }, { [name]: recordNumber }, [recordNumber],
    JSON.stringify({ attributes }).slice(0, -4), { patient: recordNumber, device: recordNumber, user: name, name, reason: 7, study: name, from: birthDate, attributes: name },
  ];
  const answers: string[] = [];
  const ask = async (method: string, path: string, body?: unknown): Promise<void> => {
    const headers = { authorization: `Bearer ${token}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) };
    const payload = body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) };
    const response = await fetch(new URL(path, http), { method: method.toUpperCase(), headers, ...payload, signal: AbortSignal.timeout(10_000) });
    if (response.status >= 400) answers.push(`${method} ${path.split('?')[0] ?? ''} `.replaceAll(recordNumber, '…') + (await response.text()));
    else await response.body?.cancel();
  };
  for (const [path, operations] of Object.entries(paths)) {
    for (const [method, { parameters = [], requestBody }] of Object.entries(operations)) {
      const query = new URLSearchParams(Object.fromEntries(parameters.filter((one) => one.in === 'query').map((one) => [one.name, name])));
      query.append(recordNumber, birthDate);
      const wrong = `${path.replace(/{\w+}/g, encodeURIComponent(recordNumber))}?${query.toString()}`;
      for (const body of requestBody === undefined ? [undefined] : bodies) await ask(method, wrong, body);
    }
  }
  return { text: answers.join('\n'), refusals: answers.length };
}

/** By two people. @returns the certificate */
async function erase(server: Api, patient: string): Promise<string> {
  const { password } = await server.post<{ password: string }>('/v1/users', { login: 'officer', role: 'compliance' });
  const { token } = await server.post<{ token: string }>('/v1/sign-in', { login: 'officer', password, newPassword: 'nine small ducks' });
  const { erasure } = await server.post<{ erasure: string }>('/v1/erasures', { patient });
  await server.as(token).post(`/v1/erasures/${erasure}/approve`, {});
  await until('the certificate', async () => (await server.get<{ state: string }>(`/v1/erasures/${erasure}`)).state === 'done', 60_000);
  return (await server.get<{ certificate: string }>(`/v1/erasures/${erasure}`)).certificate;
}

test('[SEALED] identity is nowhere, and samples only where a study released them: running, killed, erased, shut down', { timeout: 240_000 }, async (t) => {
  const folder = temporaryFolder('sealed');
  const [dataDir, scratch] = [join(folder.dir, 'data'), join(folder.dir, 'tmp')];
  mkdirSync(scratch);
  const options = { httpPort: await freePort(), ingestPort: await freePort(), env: { TMPDIR: scratch, SPAMER_CHUNK_SECONDS: '1' } };
  let program = spawnProgram(dataDir, options);
  const stop = new AbortController();
  t.after(async () => { stop.abort(); await program.kill(); folder.remove(); });
  const { http, ingest } = await program.ready;
  const server = api({ http }, dataDir);
  await server.post('/v1/studies', openPolicy('released', 2, [ecg, heartRate]));
  await server.post('/v1/studies', openPolicy('held', 5, [ecg, heartRate]));
  const enrolCanary = async (study: string, recordNumber: string): Promise<Enrolled> => {
    const key = generateDeviceKey();
    const { patient } = await server.post<{ patient: string }>('/v1/patients', { attributes: { ...attributes, recordNumber } });
    const { device } = await server.post<{ device: string }>('/v1/devices', { publicKey: key.publicKey });
    await server.post('/v1/bindings', { device, patient, from: '2000-01-01T00:00:00Z' });
    await server.post(`/v1/studies/${study}/members`, { patient });
    return { ...key, device, patient };
  };
  const held = await enrolCanary('held', attributes.recordNumber);
  const released = await enrolCanary('released', `${attributes.recordNumber}-2`);
  const other = await enrolPatient(server, ['released']);
  const play = (enrolled: Enrolled, source: Source) => runDevice({ url: ingest, deviceId: enrolled.device, privateKey: enrolled.privateKey, source, speed: 10, backoffMs: 50, signal: stop.signal });
  const running = [
    play(held, canarySource(heldWave, heldNumeric, rejectedNumeric, 50)),
    play(released, canarySource(releasedWave, releasedNumeric, null, 50)),
    play(other, canarySource([1000, 1003, 1010, 1002, 990, 995], 61_000_000, null, 50)),
  ];
  for (const one of running) one.catch(() => undefined);

  const search = (when: string): void => {
    assert.deepEqual(hitsUnder(folder.dir, [...identity, ...heldNeedles]), [], `${when}: identity and what is held or rejected`);
    assert.deepEqual(hitsUnder(folder.dir, releasedNeedles, anonymous), [], `${when}: released samples outside the analytics store and its topic`);
    assert.deepEqual(found(Buffer.from(program.stderr()), [...identity, ...heldNeedles, ...releasedNeedles]), [], `${when}: standard error`);
  };
  const searchAnswers = async (when: string): Promise<void> => {
    const { text, refusals } = await errorBodies(http, readFileSync(join(dataDir, 'admin.token'), 'utf8').trim());
    t.diagnostic(`${when}: ${refusals} refusals, ${text.length} characters`);
    assert.ok(refusals > 150, `${refusals} refusals`);
    assert.deepEqual(found(Buffer.from(`${text}\n${await (await server.raw('/metrics')).text()}`), [...identity, ...heldNeedles, ...releasedNeedles]), [], `${when}: errors and metrics`);
  };
  const accepted = async (): Promise<number> => (await reconcile(server)).channels.reduce((sum, row) => sum + row.accepted, 0);
  await until('samples of all three', async () => (await accepted()) > 3 * 1200);
  await searchAnswers('running');
  await program.kill();
  search('killed');

  program = spawnProgram(dataDir, options);
  await program.ready;
  for (const { waiting, refused } of await Promise.all(running)) assert.equal(waiting + refused, 0, 'every frame was acked');
  await until('books without anything in flight', async () => {
    const { balanced, channels } = await reconcile(server);
    return balanced && channels.every((row) => row.inFlight === 0);
  });
  const { channels } = await reconcile(server);
  const book = (device: string, code: number) => channels.find((row) => row.device === device && row.code === code);
  assert.deepEqual([book(held.device, ecg)?.held, book(held.device, heartRate)?.held, book(held.device, heartRate)?.rejected], [6000, 40, 10], 'held and rejected data was there to be found');
  await searchAnswers('restarted');
  await server.post(`/v1/patients/${held.patient}/keys/rotate`, {});
  const certificate = await erase(server, held.patient);
  assert.deepEqual(found(Buffer.from(`${certificate}\n${await (await server.raw('/v1/audit/export')).text()}`), [...identity, ...heldNeedles, ...releasedNeedles]), [], 'certificate and audit');
  search('running, after a rotation and an erasure');
  assert.equal(await program.stop(), 0);
  search('shut down');
  assert.notDeepEqual(hitsUnder(folder.dir, releasedNeedles.filter(({ what }) => what.includes('wave')), (file) => !anonymous(file)), [], 'the searcher sees what a study did release, where it may be');
});
