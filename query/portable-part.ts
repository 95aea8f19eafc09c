import { decode } from '../schemas/codec.js';
import { limits } from '../core/limits.js';
import { sampleTimeUs } from '../schemas/frames.js';
import { unitOf, type Unit } from '../schemas/units.js';
import type { PatientId } from '../core/ids.js';
import type { ChunkQuery, Page, QueryPorts, SignalRow, StoredChunk } from './ports.js';
import { readingsOf, type Readings, type Span } from './record-page.js';
import { rfc3339 } from './times.js';

/** A pause of one wave of one device, between two readings that are there. */
interface Gap {
  readonly device: string;
  readonly code: number;
  readonly from: string;
  readonly to: string;
}

/** One part of a portable record, as docs/portable-record.md has it: a page of the record that explains itself. */
export interface PortablePart extends Readings {
  readonly format: 'spamer-record';
  readonly version: 1;
  readonly patient: PatientId;
  readonly made: string;
  /** First and last reading in this part; null: there is none. */
  readonly from: string | null;
  readonly to: string | null;
  /** The cursors of this part and of the one that follows: by them parts are put in order, and none is missing unnoticed. */
  readonly place: string | null;
  readonly next: string | null;
  readonly signals: ReadonlyArray<Pick<SignalRow, 'code' | 'name' | 'label' | 'loinc' | 'kind'>>;
  readonly units: ReadonlyArray<Pick<Unit, 'code' | 'name' | 'ucum'>>;
  readonly gaps: readonly Gap[];
}

/**
 * The part at `query.cursor`: chunks up to the bounds of `limits`, and one at least.
 * @throws SpamerError `key_missing` and what else the whole record concerns; a damaged chunk stands in `unreadable`
 */
export async function portablePart(query: ChunkQuery & { readonly patient: PatientId }, span: Span, ports: QueryPorts): Promise<PortablePart> {
  const page = await boundedPage(query, ports);
  const readings = await readingsOf(page.rows, query.patient, span, ports);
  const times = bounds(readings);
  return {
    format: 'spamer-record', version: 1, patient: query.patient, made: rfc3339(ports.now()),
    from: times === null ? null : rfc3339(times.firstUs), to: times === null ? null : rfc3339(times.lastUs),
    place: query.cursor ?? null, next: page.next,
    signals: signalsIn(readings, ports.signals), units: unitsIn(readings), ...readings, gaps: gapsOf(readings.waves),
  };
}

/** A page whose frames are within the bound once they are decompressed: how large they are is known when a page is here, so one too large is asked for again, shorter. */
async function boundedPage(query: ChunkQuery, ports: QueryPorts): Promise<Page<StoredChunk>> {
  const page = await ports.stores.chunks({ ...query, limit: limits.portableChunksMax });
  let bytes = 0;
  const beyond = page.rows.findIndex(({ message }) => (bytes += plainBytesOf(message)) > limits.portableBytesMax);
  return beyond < 0 ? page : ports.stores.chunks({ ...query, limit: Math.max(1, beyond) });
}

/** What a damaged chunk says is not believed: its place is told, and nothing of it is opened. */
function plainBytesOf(message: Uint8Array): number {
  try {
    return Math.max(0, decode('PmrChunk', message).plainBytes);
  } catch {
    return 0;
  }
}

const endUs = ({ t0Us, periodNs, samples }: Readings['waves'][number]): number => sampleTimeUs(t0Us, periodNs, samples.length);

function bounds({ waves, numerics, events }: Readings): { readonly firstUs: number; readonly lastUs: number } | null {
  let [firstUs, lastUs] = [Infinity, -Infinity];
  const take = (from: number, to: number): void => { firstUs = Math.min(firstUs, from); lastUs = Math.max(lastUs, to); };
  for (const { t0Us, periodNs, samples } of waves) take(t0Us, sampleTimeUs(t0Us, periodNs, samples.length - 1));
  for (const { tUs } of [...numerics, ...events]) take(tUs, tUs);
  return firstUs === Infinity ? null : { firstUs, lastUs };
}

/** By time; a distance of half a period more than the device said is one. */
export function gapsOf(waves: Readings['waves']): Gap[] {
  const gaps: Gap[] = [];
  const ends = new Map<string, number>();
  for (const wave of [...waves].sort((a, b) => a.t0Us - b.t0Us)) {
    const { device, code, t0Us, periodNs } = wave;
    const channel = `${device}/${code}`;
    const before = ends.get(channel);
    if (before !== undefined && t0Us - before > periodNs / 2000) gaps.push({ device, code, from: rfc3339(before), to: rfc3339(t0Us) });
    ends.set(channel, Math.max(before ?? -Infinity, endUs(wave)));
  }
  return gaps;
}

function signalsIn({ waves, numerics, events }: Readings, known: readonly SignalRow[]): PortablePart['signals'] {
  const codes = new Set([...waves, ...numerics, ...events].map(({ code }) => code));
  return known.filter(({ code }) => codes.has(code)).map(({ code, name, label, loinc, kind }) => ({ code, name, label, loinc, kind }));
}

function unitsIn({ waves, numerics }: Readings): PortablePart['units'] {
  const codes = new Set([...waves, ...numerics].map(({ unit }) => unit));
  return [...codes].map(unitOf).filter((unit) => unit !== undefined).map(({ code, name, ucum }) => ({ code, name, ucum }));
}
