/** WFDB records as a source. Missing samples are left out; a missing segment file is a gap and a warning. */
import { open, readFile, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { SpamerError } from '../core/errors.js';
import { codesOf } from './signal-names.js';
import { contiguous, firstIndexAt, missingSample, periodNsOf, type Piece, type Source, type SourceSignal } from './source.js';
import { formatOf } from './wfdb-formats.js';
import { parseHeader, type Header, type HeaderSignal } from './wfdb-header.js';

export interface WfdbOptions {
  /** Compare each signal with the header's checksum. A difference is an error; for files that were cut on purpose, set false. */
  readonly verify?: boolean;
}

/** The samples of one segment, a column for each signal of its header. */
interface Loaded {
  readonly columns: readonly Int32Array[];
}

interface Part {
  /** First frame within the record. */
  readonly from: number;
  readonly frames: number;
  /** null: a gap. */
  readonly header: Header | null;
  readonly folder: string;
  /** For each signal of the source its place in the segment; -1 where the segment has none. */
  readonly places: readonly number[];
}

/**
 * @param path of the record, with or without `.hea`
 * @throws SpamerError `not_found`, `bad_request` (header, format), `data_damaged` (checksum, short file); always naming the file.
 */
export async function openWfdb(path: string, options: WfdbOptions = {}): Promise<Source> {
  const record = path.replace(/\.hea$/, '');
  const folder = dirname(record);
  const header = await readHeader(record);
  const warnings: string[] = [];
  const { signals, parts } = await layOut(header, folder, warnings);
  const sourceSignals = describe(signals, header.hz);
  const last = parts.at(-1);
  const frames = last === undefined ? 0 : last.from + last.frames;
  const recent = new Map<Part, Promise<Loaded>>();
  const load = (part: Part, segment: Header): Promise<Loaded> => {
    let loaded = recent.get(part);
    // One segment at a time: a record may be larger than memory.
    if (loaded === undefined) recent.clear();
    loaded ??= loadSegment(segment, part, options.verify ?? true);
    recent.set(part, loaded);
    return loaded;
  };
  return {
    name: basename(record), origin: 'recorded', signals: sourceSignals, startUs: header.startUs, warnings,
    durationUs: Math.ceil((frames * 1e6) / header.hz),
    read: async (fromUs, toUs) => {
      const pieces: Piece[] = [];
      for (const part of parts) {
        if (part.header === null || (part.from * 1e6) / header.hz >= toUs || ((part.from + part.frames) * 1e6) / header.hz <= fromUs) continue;
        const loaded = await load(part, part.header);
        pieces.push(...cut(part, part.header, loaded, sourceSignals, signals, fromUs, toUs));
      }
      return pieces;
    },
  };
}

async function readHeader(record: string): Promise<Header> {
  const file = `${record}.hea`;
  try {
    return parseHeader(await readFile(file, 'utf8'), file);
  } catch (cause) {
    if (cause instanceof SpamerError) throw cause;
    throw new SpamerError('not_found', 'no such WFDB header', { where: file, cause });
  }
}

function describe(signals: readonly HeaderSignal[], hz: number): SourceSignal[] {
  const rates = signals.map((signal) => hz * signal.samplesPerFrame);
  const codes = codesOf(signals.map((signal, at) => ({ label: signal.label, unit: signal.units, hz: rates[at] ?? hz })));
  return signals.flatMap((signal, at) => {
    const code = codes[at];
    const rate = rates[at] ?? hz;
    return code === undefined ? [] : [{ ...code, hz: rate, periodNs: periodNsOf(rate), ...scaling(signal), label: signal.label }];
  });
}

const scaling = ({ gain, baseline }: HeaderSignal): { scale: number; offset: number } => ({ scale: 1 / gain, offset: baseline === 0 ? 0 : -baseline / gain });

async function layOut(header: Header, folder: string, warnings: string[]): Promise<{ signals: readonly HeaderSignal[]; parts: Part[] }> {
  if (header.segments === null) {
    const frames = header.frames > 0 ? header.frames : await framesOf(header, folder);
    return { signals: header.signals, parts: [{ from: 0, frames, header, folder, places: header.signals.map((_, at) => at) }] };
  }
  const headers = new Map<string, Header | null>();
  for (const { name } of header.segments) {
    if (name !== '~' && !headers.has(name)) headers.set(name, await segmentHeader(join(folder, name), warnings));
  }
  // A first segment of length 0 is a layout: it names the signals that the others pick from.
  const variable = header.segments[0]?.frames === 0;
  const signals = (variable ? headers.get(header.segments[0]?.name ?? '') : [...headers.values()].find((found) => found !== null))?.signals;
  if (signals === undefined) throw new SpamerError('not_found', 'no segment of the record has a header', { where: header.name });
  const parts: Part[] = [];
  let from = 0;
  for (const { name, frames } of header.segments) {
    const segment = headers.get(name) ?? null;
    if (frames > 0) parts.push({ from, frames, header: segment, folder, places: placesOf(signals, segment, variable) });
    from += frames;
  }
  return { signals, parts };
}

function placesOf(signals: readonly HeaderSignal[], segment: Header | null, variable: boolean): number[] {
  return signals.map((signal, at) => (variable ? (segment?.signals.findIndex(({ label }) => label === signal.label) ?? -1) : at));
}

/** null where header or samples are absent: then the segment is a gap. */
async function segmentHeader(record: string, warnings: string[]): Promise<Header | null> {
  try {
    const header = await readHeader(record);
    for (const { file } of header.signals) if (file !== '~') await stat(join(dirname(record), file));
    return header;
  } catch (error) {
    if (error instanceof SpamerError && error.code !== 'not_found') throw error;
    warnings.push(`segment ${basename(record)}: a file is missing; played as a gap`);
    return null;
  }
}

async function framesOf(header: Header, folder: string): Promise<number> {
  const [first] = header.signals;
  if (first === undefined) return 0;
  const perFrame = header.signals.filter(({ file }) => file === first.file).reduce((sum, { samplesPerFrame }) => sum + samplesPerFrame, 0);
  const { size } = await stat(join(folder, first.file)).catch((cause: unknown) => { throw new SpamerError('not_found', 'no such signal file', { where: first.file, cause }); });
  const bytes = formatOf(first.format, first.file).bytes(perFrame * 6) / 6;
  return Math.floor((size - first.byteOffset) / bytes);
}

/** Reads the files of a segment: signals that share a file are interleaved frame by frame. */
async function loadSegment(header: Header, part: Part, verify: boolean): Promise<Loaded> {
  const columns: Int32Array[] = new Array<Int32Array>(header.signals.length);
  const files = new Map<string, number[]>();
  header.signals.forEach(({ file }, at) => files.set(file, [...(files.get(file) ?? []), at]));
  for (const [file, places] of files) {
    if (file === '~') {
      for (const at of places) columns[at] = new Int32Array(0);
      continue;
    }
    const group = places.flatMap((at) => header.signals[at] ?? []);
    const raw = await readFileSamples(join(part.folder, file), group, part.frames);
    separate(raw, group, part.frames).forEach((column, order) => {
      const signal = group[order];
      const at = places[order];
      if (signal === undefined || at === undefined) return;
      if (signal.format === 8) accumulate(column, signal.initial);
      if (verify) checkSum(column, signal, join(part.folder, file), at);
      columns[at] = withoutSkew(column, signal);
    });
  }
  return { columns };
}

async function readFileSamples(file: string, group: readonly HeaderSignal[], frames: number): Promise<Int32Array> {
  const [first] = group;
  if (first === undefined) return new Int32Array(0);
  const format = formatOf(first.format, file);
  const count = group.reduce((sum, { samplesPerFrame }) => sum + samplesPerFrame, 0) * frames;
  const bytes = Buffer.alloc(format.bytes(count));
  const handle = await open(file, 'r').catch((cause: unknown) => { throw new SpamerError('not_found', 'no such signal file', { where: file, cause }); });
  try {
    const { bytesRead } = await handle.read(bytes, 0, bytes.length, first.byteOffset);
    if (bytesRead < bytes.length) throw new SpamerError('data_damaged', 'the signal file is shorter than its header says', { where: file });
  } finally {
    await handle.close();
  }
  return format.read(bytes, count);
}

function separate(raw: Int32Array, group: readonly HeaderSignal[], frames: number): Int32Array[] {
  const columns = group.map(({ samplesPerFrame }) => new Int32Array(samplesPerFrame * frames));
  let at = 0;
  for (let frame = 0; frame < frames; frame++) {
    for (let order = 0; order < group.length; order++) {
      const per = group[order]?.samplesPerFrame ?? 0;
      const column = columns[order];
      if (column === undefined) continue;
      for (let sample = 0; sample < per; sample++) column[frame * per + sample] = raw[at++] ?? 0;
    }
  }
  return columns;
}

function accumulate(column: Int32Array, initial: number): void {
  let value = initial;
  for (let at = 0; at < column.length; at++) column[at] = value += column[at] ?? 0;
}

/** The header's checksum is the sum of all samples in 16 bits. */
function checkSum(column: Int32Array, signal: HeaderSignal, file: string, at: number): void {
  if (signal.checksum === null) return;
  let sum = 0;
  for (const sample of column) sum = (sum + sample) | 0;
  if (((sum - signal.checksum) & 0xffff) !== 0) throw new SpamerError('data_damaged', 'the samples do not match the checksum of the header', { where: `${file} signal ${at}` });
}

/** A skewed signal was written late: its sample of frame t stands in frame t + skew. Missing values get one mark for all formats. */
function withoutSkew(column: Int32Array, signal: HeaderSignal): Int32Array {
  const { missing } = formatOf(signal.format, signal.file);
  const skew = Math.max(0, signal.skewFrames * signal.samplesPerFrame);
  const out = new Int32Array(column.length).fill(missingSample);
  out.set(column.subarray(skew));
  if (missing !== null && missing !== missingSample) {
    for (let at = 0; at < out.length; at++) if (out[at] === missing) out[at] = missingSample;
  }
  return out;
}

function cut(part: Part, header: Header, loaded: Loaded, sourceSignals: readonly SourceSignal[], signals: readonly HeaderSignal[], fromUs: number, toUs: number): Piece[] {
  return sourceSignals.flatMap((signal, at) => {
    const place = part.places[at] ?? -1;
    const column = loaded.columns[place];
    const own = header.signals[place];
    const usual = signals[at];
    if (column === undefined || own === undefined || usual === undefined) return [];
    const start = part.from * usual.samplesPerFrame;
    const from = Math.max(start, firstIndexAt(signal, fromUs));
    const to = Math.min(start + column.length, firstIndexAt(signal, toUs));
    if (from >= to) return [];
    const pieces = contiguous(at, from, column.subarray(from - start, to - start), missingSample);
    if (own.gain === usual.gain && own.baseline === usual.baseline) return pieces;
    return pieces.map((piece) => ({ ...piece, ...scaling(own) }));
  });
}
