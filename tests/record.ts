import assert from 'node:assert/strict';
import { decodeFrameBodies, sampleTimeUs as frameSampleTimeUs, type DecodedFrame } from '../schemas/frames.js';
import { generateDeviceKey, type KeyFile } from '../device-emulator/key.js';
import { physical, sampleTimeUs, type Source } from '../device-emulator/source.js';
import type { Api } from './program.js';

/** One signal as time and value pairs, waves as the integers that were sampled. */
export type Series = ReadonlyMap<number, { readonly times: number[]; readonly values: number[] }>;

export interface Enrolled extends KeyFile {
  readonly patient: string;
}

let people = 0;

export async function enrolPatient(server: Api, studies: readonly string[] = [], from = '2000-01-01T00:00:00Z'): Promise<Enrolled> {
  people += 1;
  const attributes = { name: `Test Person ${people}`, recordNumber: `T-${process.pid}-${people}`, birthDate: '1950-05-05', sex: 'F', zip: '02139' };
  const { patient } = await server.post<{ patient: string }>('/v1/patients', { attributes });
  const key = generateDeviceKey();
  const { device } = await server.post<{ device: string }>('/v1/devices', { publicKey: key.publicKey });
  await server.post('/v1/bindings', { device, patient, from });
  for (const study of studies) await server.post(`/v1/studies/${study}/members`, { patient });
  return { device, patient, ...key };
}

export const openPolicy = (id: string, k: number, signals: readonly number[], onErasure: 'unlink' | 'delete' = 'unlink'): { readonly policy: string } => ({
  policy: JSON.stringify({ id, title: id, claim: 'expert', signals, waveforms: true, dates: { rule: 'relative' }, attributes: [{}], k, minCell: 1, onErasure }),
});

function add(series: Map<number, { times: number[]; values: number[] }>, code: number, time: number, value: number): void {
  let one = series.get(code);
  if (one === undefined) series.set(code, (one = { times: [], values: [] }));
  one.times.push(time);
  one.values.push(value);
}

function inTimeOrder(series: Map<number, { times: number[]; values: number[] }>): Series {
  for (const one of series.values()) {
    const order = one.times.map((_, index) => index).sort((a, b) => (one.times[a] ?? 0) - (one.times[b] ?? 0));
    const { times, values } = one;
    one.times = order.map((index) => times[index] ?? NaN);
    one.values = order.map((index) => values[index] ?? NaN);
  }
  return series;
}

/** What the source holds in [0, untilUs), sample by sample, at its own times. */
export async function seriesOfSource(source: Source, startUs: number, untilUs: number): Promise<Series> {
  const series = new Map<number, { times: number[]; values: number[] }>();
  for (let from = 0; from < untilUs; from += 60e6) {
    for (const piece of await source.read(from, Math.min(untilUs, from + 60e6))) {
      const signal = source.signals[piece.signal];
      assert.ok(signal);
      piece.samples.forEach((sample, at) => {
        const value = signal.kind === 'wave' ? sample : physical(sample, piece.scale ?? signal.scale, piece.offset ?? signal.offset);
        add(series, signal.code, startUs + sampleTimeUs(signal, piece.index + at), value);
      });
    }
  }
  return inTimeOrder(series);
}

export function seriesOfFrames(frames: readonly DecodedFrame[]): Series {
  const series = new Map<number, { times: number[]; values: number[] }>();
  for (const frame of frames) {
    for (const wave of frame.waveforms) wave.samples.forEach((sample, at) => add(series, wave.code, frameSampleTimeUs(wave.t0, wave.periodNs, at), sample));
    for (const numeric of frame.numerics) add(series, numeric.code, numeric.time, numeric.value);
  }
  return inTimeOrder(series);
}

/** One patient's whole record as the API gives it out of the PMR store. */
export async function readRecord(server: Api, patient: string): Promise<readonly DecodedFrame[]> {
  const { token } = await server.post<{ token: string }>('/v1/tokens', { role: 'clinician', subject: 'test', expiresInS: 600, patients: [patient] });
  const clinician = server.as(token);
  const frames: DecodedFrame[] = [];
  let cursor: string | null = null;
  do {
    const response = await clinician.raw(`/v1/patients/${patient}/record?format=avro${cursor === null ? '' : `&cursor=${encodeURIComponent(cursor)}`}`);
    const bytes = Buffer.from(await response.arrayBuffer());
    for (let at = 0; at < bytes.length;) {
      const length = bytes.readUInt32BE(at + 16);
      frames.push(...decodeFrameBodies(bytes.subarray(at + 20, at + 20 + length)));
      at += 20 + length;
    }
    cursor = response.headers.get('x-next-cursor');
  } while (cursor !== null);
  return frames;
}

/** Sample for sample: the same values in the same order, each within a microsecond and a half of its time (t0 is rounded to whole ones). */
export function assertSame(found: Series, wanted: Series, what: string): void {
  assert.deepEqual([...found.keys()].sort(), [...wanted.keys()].sort(), `${what}: the signals`);
  for (const [code, want] of wanted) {
    const have = found.get(code);
    assert.ok(have);
    assert.equal(have.values.length, want.values.length, `${what}: number of samples of ${code}`);
    for (let at = 0; at < want.values.length; at++) {
      if (have.values[at] !== want.values[at]) assert.fail(`${what}: signal ${code}, sample ${at} differs`);
      if (Math.abs((have.times[at] ?? NaN) - (want.times[at] ?? NaN)) > maxTimeErrorUs) assert.fail(`${what}: signal ${code}, sample ${at} is ${(have.times[at] ?? NaN) - (want.times[at] ?? NaN)} µs off`);
    }
  }
}

/** A frame's t0 is rounded to whole microseconds and its period to whole nanoseconds: 1 µs, and 0.5 ns a sample of one frame. */
const maxTimeErrorUs = 1.5;

export interface Reconciliation {
  readonly balanced: boolean;
  readonly channels: ReadonlyArray<{ readonly device: string; readonly code: number; readonly accepted: number; readonly stored: number; readonly rejected: number; readonly held: number; readonly inFlight: number; readonly rejectedByReason: Readonly<Record<string, number>>; readonly balanced: boolean }>;
  readonly studies: ReadonlyArray<{ readonly study: string; readonly emitted: number; readonly stored: number; readonly erased: number; readonly inFlight: number; readonly balanced: boolean }>;
}

export const reconcile = (server: Api): Promise<Reconciliation> => server.get<Reconciliation>('/v1/ledger/channels?full=true');

/** Plays until told to end; then says up to which whole second it went. */
export function endable(source: Source): { readonly source: Source; end(): void; untilUs(): number } {
  let readUntilUs = 0;
  let endUs: number | null = null;
  return {
    source: {
      ...source,
      get durationUs() { return endUs; },
      read: async (from, to) => {
        if (endUs !== null && from >= endUs) return [];
        readUntilUs = Math.max(readUntilUs, to);
        return source.read(from, to);
      },
    },
    end: () => { endUs = readUntilUs; },
    untilUs: () => readUntilUs,
  };
}
