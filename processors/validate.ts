import type { DecodedFrame } from '../schemas/frames.js';
import { signalOf, units, type Signal } from '../schemas/signals.js';
import type { RejectReason } from '../schemas/types.js';
import { addCount, addReject, type Counts, type RejectCounts } from './ledger.js';
import { outOfOrder, pressureRoleOf } from './pressures.js';

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

type DecodedWaveform = DecodedFrame['waveforms'][number];
type DecodedNumeric = DecodedFrame['numerics'][number];

export type RejectCode =
  | 'unknown_signal'
  | 'unknown_unit'
  | 'out_of_range'
  | 'pressure_order'
  | 'bad_period'
  | 'bad_scale'
  | 'overlap'
  | 'outside_binding'
  | 'skewed'
  | 'too_old'
  | 'block_unreadable'
  | 'key_missing';

/** What the block says about its frames; all of it comes from the server, none from the device. Microseconds. */
export interface BlockContext {
  readonly boundFrom: number;
  readonly boundUntil: number | null;
  readonly receivedAt: number;
}

export interface ValidateSettings {
  /** How far a device clock may be off, both at the ends of a binding and against the time of receipt. */
  readonly skewMaxUs: number;
  /** Data older than this at receipt is rejected; null: devices may have buffered for any time. */
  readonly ageMaxUs: number | null;
}

/**
 * Per code of one device, where the time after its last valid reading begins: for a waveform the end of its last sample's
 * period, for a numeric the time of the last reading. Microseconds, with fractions. An epoch has no part in it: a device that
 * lost its counter did not go back in time.
 */
export type ChannelEnds = ReadonlyMap<number, number>;

export interface Validated {
  /** Frames with their good channels and all their events; a frame of bad channels only is absent. */
  readonly valid: readonly DecodedFrame[];
  /** Frames with their bad channels only. */
  readonly rejected: readonly DecodedFrame[];
  readonly reasons: readonly RejectReason[];
  readonly validCounts: Counts;
  readonly rejectCounts: RejectCounts;
  /** Earliest and latest valid reading or event; null when there is none. Microseconds. */
  readonly times: { readonly first: number; readonly last: number } | null;
  readonly ends: ChannelEnds;
}

interface Fault {
  readonly code: RejectCode;
  /** Index of the first bad sample, where one sample is to blame. */
  readonly index?: number;
}

const periodNsMin = 1_000;
const periodNsMax = 86_400 * 1e9;

/**
 * Judges every channel of every frame of a block. Pure and without a wall clock: the same frames, context and ends give
 * the same verdicts, in whichever stage and however often [REPLAY].
 */
export function validate(frames: readonly DecodedFrame[], context: BlockContext, ends: Iterable<readonly [number, number]>, settings: ValidateSettings): Validated {
  const judge = new Judge(context, new Map(ends), settings);
  for (const frame of frames) judge.frame(frame);
  return judge;
}

/** Time after the last sample's period, microseconds. */
export function waveformEnd(wave: { readonly t0: number; readonly periodNs: number; readonly samples: { readonly length: number } }): number {
  return wave.t0 + (wave.samples.length * wave.periodNs) / 1000;
}

function lastSampleTime(wave: DecodedWaveform): number {
  return wave.t0 + (Math.max(0, wave.samples.length - 1) * wave.periodNs) / 1000;
}

/** How many of a signal's expected unit one of these units is. */
const factors: ReadonlyMap<number, number> = new Map([
  [units.microvolt.code, 1e-3],
  [units.volt.code, 1e3],
  [units.kilopascal.code, 7.500_616_8],
  [units.second.code, 1e3],
]);
const expectedOfFactors: ReadonlySet<number> = new Set([units.millivolt.code, units.mmHg.code, units.millisecond.code]);
const anyValue = { min: -Infinity, max: Infinity };

/** The table's range in a unit. Counts of a converter and other units without a fixed factor have none. */
function rangeIn(signal: Signal, unit: number): { readonly min: number; readonly max: number } {
  if (unit === signal.unit) return signal;
  const factor = factors.get(unit);
  return factor === undefined || !expectedOfFactors.has(signal.unit) ? anyValue : { min: signal.min / factor, max: signal.max / factor };
}

class Judge implements Validated {
  readonly valid: DecodedFrame[] = [];
  readonly rejected: DecodedFrame[] = [];
  readonly reasons: RejectReason[] = [];
  readonly validCounts: Counts = new Map();
  readonly rejectCounts: RejectCounts = new Map();
  readonly ends: Map<number, number>;
  #first = Infinity;
  #last = -Infinity;
  readonly #context: BlockContext;
  readonly #settings: ValidateSettings;

  constructor(context: BlockContext, ends: Map<number, number>, settings: ValidateSettings) {
    this.#context = context;
    this.#settings = settings;
    this.ends = ends;
  }

  get times(): { first: number; last: number } | null {
    return this.#first === Infinity ? null : { first: this.#first, last: this.#last };
  }

  frame(frame: DecodedFrame): void {
    const badWaves = this.#waveforms(frame);
    const badNumerics = this.#numerics(frame);
    for (const event of frame.events) this.#seen(event.time, event.time);
    if (badWaves === null && badNumerics === null) {
      this.valid.push(frame);
      return;
    }
    const good = {
      ...frame,
      waveforms: frame.waveforms.filter((_, index) => badWaves?.has(index) !== true),
      numerics: frame.numerics.filter((_, index) => badNumerics?.has(index) !== true),
    };
    if (good.waveforms.length + good.numerics.length + good.events.length > 0) this.valid.push(good);
    this.rejected.push({
      ...frame,
      waveforms: frame.waveforms.filter((_, index) => badWaves?.has(index) === true),
      numerics: frame.numerics.filter((_, index) => badNumerics?.has(index) === true),
      events: [],
    });
  }

  #waveforms(frame: DecodedFrame): Set<number> | null {
    let bad: Set<number> | null = null;
    for (let index = 0; index < frame.waveforms.length; index++) {
      const wave = frame.waveforms[index]!;
      const samples = wave.samples.length;
      const fault = this.#judgeWaveform(wave);
      if (fault === null) {
        addCount(this.validCounts, wave.code, samples);
        if (samples === 0) continue;
        this.ends.set(wave.code, waveformEnd(wave));
        this.#seen(wave.t0, lastSampleTime(wave));
        continue;
      }
      (bad ??= new Set()).add(index);
      addReject(this.rejectCounts, wave.code, fault.code, samples);
      const path = fault.index === undefined ? `waveforms[${index}]` : `waveforms[${index}].deltas[${fault.index}]`;
      this.reasons.push({ epoch: frame.epoch, seq: frame.seq, path, code: fault.code, signal: wave.code, samples });
    }
    return bad;
  }

  #numerics(frame: DecodedFrame): Set<number> | null {
    let bad: Set<number> | null = null;
    // One reason per (signal, code) of a frame, with the path of its first reading, bounds the reasons of a bad frame.
    let told: Map<string, Mutable<RejectReason>> | null = null;
    const pressures = new Pressures(frame.numerics, (other) => this.#judgeNumeric(other) === null);
    for (let index = 0; index < frame.numerics.length; index++) {
      const numeric = frame.numerics[index]!;
      // Which one of a moment's pressures is wrong nobody can tell, so they go together.
      const code = this.#judgeNumeric(numeric) ?? (pressures.outOfOrder(numeric) ? 'pressure_order' : null);
      if (code === null) {
        addCount(this.validCounts, numeric.code, 1);
        this.ends.set(numeric.code, numeric.time);
        this.#seen(numeric.time, numeric.time);
        continue;
      }
      (bad ??= new Set()).add(index);
      addReject(this.rejectCounts, numeric.code, code, 1);
      const key = `${numeric.code}/${code}`;
      const reason = (told ??= new Map<string, Mutable<RejectReason>>()).get(key);
      if (reason !== undefined) reason.samples += 1;
      else told.set(key, { epoch: frame.epoch, seq: frame.seq, path: `numerics[${index}]`, code, signal: numeric.code, samples: 1 });
    }
    if (told !== null) this.reasons.push(...told.values());
    return bad;
  }

  #judgeWaveform(wave: DecodedWaveform): Fault | null {
    const signal = signalOf(wave.code);
    if (signal?.kind !== 'wave') return { code: 'unknown_signal' };
    if (!signal.units.includes(wave.unit)) return { code: 'unknown_unit' };
    if (!Number.isSafeInteger(wave.periodNs) || wave.periodNs < periodNsMin || wave.periodNs > periodNsMax) return { code: 'bad_period' };
    if (!Number.isFinite(wave.scale) || wave.scale === 0 || !Number.isFinite(wave.offset)) return { code: 'bad_scale' };
    const time = this.#judgeTime(wave.t0, lastSampleTime(wave));
    if (time !== null) return { code: time };
    const end = this.ends.get(wave.code);
    if (end !== undefined && wave.t0 < end - wave.periodNs / 2000) return { code: 'overlap' };
    const { min, max } = rangeIn(signal, wave.unit);
    const index = firstOutside(wave, min, max);
    return index < 0 ? null : { code: 'out_of_range', index };
  }

  #judgeNumeric(numeric: DecodedNumeric): RejectCode | null {
    const signal = signalOf(numeric.code);
    if (signal?.kind !== 'numeric') return 'unknown_signal';
    if (!signal.units.includes(numeric.unit)) return 'unknown_unit';
    const time = this.#judgeTime(numeric.time, numeric.time);
    if (time !== null) return time;
    const end = this.ends.get(numeric.code);
    if (end !== undefined && numeric.time <= end) return 'overlap';
    const { value } = numeric;
    // Infinities are no reading even where the table has no range.
    const { min, max } = rangeIn(signal, numeric.unit);
    return Number.isFinite(value) && value >= min && value <= max ? null : 'out_of_range';
  }

  #judgeTime(first: number, last: number): RejectCode | null {
    const { boundFrom, boundUntil, receivedAt } = this.#context;
    const { skewMaxUs, ageMaxUs } = this.#settings;
    if (last > receivedAt + skewMaxUs) return 'skewed';
    if (first < boundFrom - skewMaxUs || (boundUntil !== null && last > boundUntil + skewMaxUs)) return 'outside_binding';
    return ageMaxUs !== null && first < receivedAt - ageMaxUs ? 'too_old' : null;
  }

  #seen(first: number, last: number): void {
    if (first < this.#first) this.#first = first;
    if (last > this.#last) this.#last = last;
  }
}

/** The blood pressures of one frame, by site and moment. */
class Pressures {
  readonly #numerics: readonly DecodedNumeric[];
  readonly #good: (numeric: DecodedNumeric) => boolean;
  #moments: Map<string, DecodedNumeric[]> | null = null;
  readonly #verdicts = new Map<string, boolean>();

  /** @param good whether a reading is sound by itself, as the channels stand when it is asked. */
  constructor(numerics: readonly DecodedNumeric[], good: (numeric: DecodedNumeric) => boolean) {
    this.#numerics = numerics;
    this.#good = good;
  }

  /**
   * Whether diastolic < mean < systolic fails among the sound readings of this one's site and moment. Decided when the first of them
   * is judged, and the same for all: time only goes on, so what is sound later was sound then.
   */
  outOfOrder(numeric: DecodedNumeric): boolean {
    const key = momentOf(numeric);
    if (key === null) return false;
    let verdict = this.#verdicts.get(key);
    if (verdict === undefined) this.#verdicts.set(key, (verdict = this.#judge(key)));
    return verdict;
  }

  #judge(key: string): boolean {
    this.#moments ??= this.#byMoment();
    const values: [number[], number[], number[]] = [[], [], []];
    for (const numeric of this.#moments.get(key) ?? []) {
      const role = pressureRoleOf(numeric.code);
      if (role !== undefined && this.#good(numeric)) values[role.rank]?.push(numeric.value * (factors.get(numeric.unit) ?? 1));
    }
    return outOfOrder(values);
  }

  #byMoment(): Map<string, DecodedNumeric[]> {
    const moments = new Map<string, DecodedNumeric[]>();
    for (const numeric of this.#numerics) {
      const key = momentOf(numeric);
      if (key === null) continue;
      const list = moments.get(key);
      if (list === undefined) moments.set(key, [numeric]);
      else list.push(numeric);
    }
    return moments;
  }
}

function momentOf({ code, time }: DecodedNumeric): string | null {
  const role = pressureRoleOf(code);
  return role === undefined ? null : `${role.site}/${time}`;
}

/** Index of the first sample whose physical value is outside, or -1. Compares whole numbers only; physical values once per bound. */
function firstOutside(wave: DecodedWaveform, min: number, max: number): number {
  if (min === -Infinity && max === Infinity) return -1;
  const { samples, scale, offset } = wave;
  let low = Infinity;
  let high = -Infinity;
  for (let index = 0; index < samples.length; index++) {
    const sample = samples[index]!;
    if (sample < low) low = sample;
    if (sample > high) high = sample;
  }
  const inside = (sample: number): boolean => sample * scale + offset >= min && sample * scale + offset <= max;
  // Scaling is monotone, so the extremes speak for all.
  return samples.length === 0 || (inside(low) && inside(high)) ? -1 : samples.findIndex((sample) => !inside(sample));
}
