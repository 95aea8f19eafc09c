import { Type, type Static } from 'typebox';
import { SpamerError, type ErrorCode } from '../core/errors.js';
import type { PatientId } from '../core/ids.js';
import { firstIndexAt, sampleTimeUs, type DecodedFrame, type DecodedWaveform } from '../schemas/frames.js';
import { openChunk } from './opened.js';
import type { QueryPorts, StoredChunk } from './ports.js';
import { rfc3339 } from './times.js';

const Place = { device: Type.String(), code: Type.Integer() };
const Wave = Type.Object({ ...Place, unit: Type.Integer(), t0Us: Type.Integer(), time: Type.String(), periodNs: Type.Integer(), scale: Type.Number(), offset: Type.Number(), samples: Type.Array(Type.Integer()) });
const Reading = Type.Object({ ...Place, unit: Type.Integer(), tUs: Type.Integer(), time: Type.String(), value: Type.Number() });
const Event = Type.Object({ ...Place, kind: Type.String(), tUs: Type.Integer(), time: Type.String(), durationUs: Type.Integer(), priority: Type.Integer() });
const Unreadable = Type.Object({ topic: Type.Literal('pmr.chunks'), partition: Type.Integer(), offset: Type.Integer(), device: Type.String(), from: Type.String(), to: Type.String(), code: Type.String() }, { description: 'A stored chunk that does not open, by its position and the time that it spans; the rest of the record goes on.' });

/** What some stored chunks of one patient hold, in the clear. */
export const Readings = Type.Object({ waves: Type.Array(Wave), numerics: Type.Array(Reading), events: Type.Array(Event), unreadable: Type.Array(Unreadable) });
export type Readings = Static<typeof Readings>;

export interface Span {
  readonly fromUs: number;
  readonly toUs: number;
}

/** What of the chunks stands within the span; opened here, and kept nowhere [SEALED]. */
export async function readingsOf(chunks: readonly StoredChunk[], patient: PatientId, span: Span, ports: QueryPorts): Promise<Readings> {
  const readings: Readings = { waves: [], numerics: [], events: [], unreadable: [] };
  for (const chunk of chunks) {
    const opened = await framesOf(chunk, patient, ports);
    if (opened.fault !== null) readings.unreadable.push({ topic: 'pmr.chunks', ...chunk.source, device: chunk.device, from: rfc3339(chunk.timeFirstUs), to: rfc3339(chunk.timeLastUs), code: opened.fault });
    for (const frame of opened.frames) addFrame(readings, chunk.device, frame, span);
  }
  return readings;
}

export interface OpenedChunk {
  readonly frames: readonly DecodedFrame[];
  readonly fault: ErrorCode | null;
}

/** Damage is the chunk's own: it is set aside and told. What concerns the whole record, such as a key that is gone, is thrown. */
export async function framesOf(chunk: StoredChunk, patient: PatientId, ports: QueryPorts): Promise<OpenedChunk> {
  try {
    return { frames: await openChunk(chunk.message, patient, ports.opener), fault: null };
  } catch (error) {
    const fault = error instanceof SpamerError ? error.code : 'block_unreadable';
    if (error instanceof SpamerError && !damage.has(error.code)) throw error;
    ports.journal.warn('a stored chunk does not open', { topic: 'pmr.chunks', ...chunk.source, code: fault });
    return { frames: [], fault };
  }
}

const damage: ReadonlySet<ErrorCode> = new Set(['decryption_failed', 'block_unreadable', 'frame_malformed', 'frame_too_large', 'schema_unknown', 'schema_unexpected']);

function addFrame(readings: Readings, device: string, frame: DecodedFrame, span: Span): void {
  const within = (us: number): boolean => us >= span.fromUs && us < span.toUs;
  for (const wave of frame.waveforms) {
    const cut = cutWave(wave, span);
    if (cut !== null) readings.waves.push({ device, ...cut, time: rfc3339(cut.t0Us) });
  }
  for (const { code, unit, time, value } of frame.numerics) {
    if (within(time)) readings.numerics.push({ device, code, unit, tUs: time, time: rfc3339(time), value });
  }
  for (const { kind, code, time, durationUs, priority } of frame.events) {
    if (within(time)) readings.events.push({ device, kind, code, tUs: time, time: rfc3339(time), durationUs, priority });
  }
}

/** The samples within the span; null when none is. */
function cutWave(wave: DecodedWaveform, span: Span): Omit<Static<typeof Wave>, 'device' | 'time'> | null {
  const { code, unit, t0, periodNs, scale, offset, samples } = wave;
  const first = firstIndexAt(wave, span.fromUs);
  const end = firstIndexAt(wave, span.toUs);
  if (first >= end) return null;
  return { code, unit, t0Us: sampleTimeUs(t0, periodNs, first), periodNs, scale, offset, samples: [...samples.subarray(first, end)] };
}
