/** One signal of a source. `hz` is exact where it is a whole number; `periodNs` is what the wire carries. */
export interface SourceSignal {
  /** IEEE 11073-10101 code, partition × 65536 + term. */
  readonly code: number;
  /** IEEE 11073-10101 code of the unit. */
  readonly unit: number;
  readonly hz: number;
  readonly periodNs: number;
  /** physical = sample × scale + offset, unless a piece says otherwise. */
  readonly scale: number;
  readonly offset: number;
  /** The source's own name of the signal. */
  readonly label: string;
  /** Waves travel as runs of integers, numerics as single values with their time. */
  readonly kind: 'wave' | 'numeric';
}

/** Samples without a gap. A sample is placed by its index since the start of the source, so time can't drift. */
export interface Piece {
  /** Position in `Source.signals`. */
  readonly signal: number;
  readonly index: number;
  readonly samples: Int32Array;
  /** Where a part of a record has a gain of its own. */
  readonly scale?: number;
  readonly offset?: number;
}

/** Recorded or made signals. `read` is called with windows that follow each other; it leaves out what is missing. */
export interface Source {
  readonly name: string;
  readonly origin: 'recorded' | 'synthetic';
  readonly signals: readonly SourceSignal[];
  /** Start of the record where it names date and time; microseconds since the Unix epoch. */
  readonly startUs: number | null;
  /** null: endless. */
  readonly durationUs: number | null;
  /** What the reader had to leave out or round, for a person to see. */
  readonly warnings: readonly string[];
  /** All pieces of samples whose time lies in [fromUs, toUs) since the start of the source. */
  read(fromUs: number, toUs: number): Promise<readonly Piece[]>;
}

export const periodNsOf = (hz: number): number => Math.round(1e9 / hz);

/** Microseconds from the start of the source to a sample, not rounded. */
export function sampleTimeUs(signal: Pick<SourceSignal, 'hz' | 'periodNs'>, index: number): number {
  // Rates below 1 Hz are written as rounded decimals (0.0166666666667): there the period is the exact one.
  return signal.hz >= 1 ? (index * 1e6) / signal.hz : (index * signal.periodNs) / 1000;
}

/** Index of the first sample at or after `timeUs`. */
export function firstIndexAt(signal: Pick<SourceSignal, 'hz' | 'periodNs'>, timeUs: number): number {
  const exact = signal.hz >= 1 ? (timeUs * signal.hz) / 1e6 : (timeUs * 1000) / signal.periodNs;
  // A sample whose time is a hair before the border, by rounding only, belongs after it.
  return Math.max(0, Math.ceil(exact - 1e-6));
}

/** The physical value with the fewest digits: 975 × 0.1 is 97.5, not 97.50000000000001. */
export function physical(sample: number, scale: number, offset: number): number {
  const gain = Math.round(1 / scale);
  if (gain < 1 || Math.abs(gain * scale - 1) > 1e-12) return sample * scale + offset;
  const shift = Math.round(offset * gain);
  return Math.abs(shift - offset * gain) < 1e-6 ? (sample + shift) / gain : sample * scale + offset;
}

/** Cuts an array at its missing samples. `from` is the index of samples[0]. */
export function contiguous(signal: number, from: number, samples: Int32Array, missing: number | null): Piece[] {
  if (missing === null || !samples.includes(missing)) return samples.length === 0 ? [] : [{ signal, index: from, samples }];
  const pieces: Piece[] = [];
  let start = -1;
  for (let at = 0; at <= samples.length; at++) {
    const gap = at === samples.length || samples[at] === missing;
    if (!gap && start < 0) start = at;
    if (gap && start >= 0) {
      pieces.push({ signal, index: from + start, samples: samples.subarray(start, at) });
      start = -1;
    }
  }
  return pieces;
}

/** A column that is held in memory, with `missing` where there is none. */
export interface Column extends SourceSignal {
  readonly samples: Int32Array;
}
/** Marks a missing sample in a column; no format but 32 can hold it, and there it means the same. */
export const missingSample = -(2 ** 31);

export interface ColumnsOptions {
  readonly name: string;
  readonly columns: readonly Column[];
  readonly startUs?: number | null;
  readonly warnings?: readonly string[];
}

/** A source over columns in memory. */
export function columnsSource({ name, columns, startUs = null, warnings = [] }: ColumnsOptions): Source {
  const durationUs = Math.ceil(columns.reduce((most, column) => Math.max(most, sampleTimeUs(column, column.samples.length)), 0));
  return {
    name, origin: 'recorded', signals: columns, startUs, durationUs, warnings,
    read: (fromUs, toUs) => Promise.resolve(columns.flatMap((column, signal) => {
      const from = firstIndexAt(column, fromUs);
      const to = Math.min(column.samples.length, firstIndexAt(column, toUs));
      return from >= to ? [] : contiguous(signal, from, column.samples.subarray(from, to), missingSample);
    })),
  };
}

/** Plays a source for ever. Its length must be a whole number of samples of each signal, or a seam would shift time. */
export function looped(source: Source): Source {
  const lap = source.durationUs;
  if (lap === null) return source;
  return {
    ...source, durationUs: null,
    read: async (fromUs, toUs) => {
      const pieces: Piece[] = [];
      for (let at = fromUs; at < toUs;) {
        const round = Math.floor(at / lap);
        const end = Math.min(toUs, (round + 1) * lap);
        for (const piece of await source.read(at - round * lap, end - round * lap)) pieces.push(shifted(source, piece, round * lap));
        at = end;
      }
      return joined(pieces);
    },
  };
}

function shifted(source: Source, piece: Piece, byUs: number): Piece {
  const signal = source.signals[piece.signal];
  return signal === undefined ? piece : { ...piece, index: piece.index + firstIndexAt(signal, byUs) };
}

function joined(pieces: readonly Piece[]): Piece[] {
  const bySignal = new Map<number, Piece[]>();
  for (const piece of pieces) {
    const list = bySignal.get(piece.signal) ?? [];
    const last = list.at(-1);
    if (last !== undefined && last.index + last.samples.length === piece.index && last.scale === piece.scale && last.offset === piece.offset) {
      const samples = new Int32Array(last.samples.length + piece.samples.length);
      samples.set(last.samples);
      samples.set(piece.samples, last.samples.length);
      list[list.length - 1] = { ...last, samples };
    } else list.push(piece);
    bySignal.set(piece.signal, list);
  }
  return [...bySignal.values()].flat();
}
