import type { Pseudonym, StudyId } from '../core/ids.js';
import { uuidBytes } from '../core/ids.js';
import { limits } from '../core/limits.js';
import type { DecodedFrame, DecodedWaveform } from '../schemas/frames.js';
import { encodeShared } from '../schemas/runs.js';
import type { AnonymizedNumeric, AnonymizedRun } from '../schemas/types.js';
import { addCount, type Counts } from './ledger.js';
import type { StudyPolicy } from './policy.js';
import { waveformEnd } from './validate.js';

/** One patient's part in one study, ready to apply. It has no field for who the patient is [ANON]. */
export interface Disguise {
  readonly study: StudyId;
  readonly policy: StudyPolicy;
  readonly policyHash: Buffer;
  readonly pseudonym: Pseudonym;
  readonly shiftUs: number;
  readonly group: Readonly<Record<string, string>>;
  /** Time of the patient's first reading in the study, microseconds. */
  readonly anchorUs: number;
}

export interface Anonymized {
  readonly runs: readonly AnonymizedRun[];
  readonly numerics: readonly AnonymizedNumeric[];
  /** Samples given out, by code. */
  readonly counts: Counts;
}

/** Joining further apart than this would move samples in time. */
const joinUs = 1;

export function takesWaveform(policy: StudyPolicy, code: number): boolean {
  return policy.waveforms && (policy.signals === null || policy.signals.has(code));
}

export function takesNumeric(policy: StudyPolicy, code: number): boolean {
  return policy.signals === null || policy.signals.has(code);
}

/** Samples that a study takes of these frames, by code. */
export function takenCounts(frames: readonly DecodedFrame[], policy: StudyPolicy): Counts {
  const counts: Counts = new Map();
  for (const frame of frames) {
    for (const wave of frame.waveforms) if (takesWaveform(policy, wave.code)) addCount(counts, wave.code, wave.samples.length);
    for (const numeric of frame.numerics) if (takesNumeric(policy, numeric.code)) addCount(counts, numeric.code, 1);
  }
  return counts;
}

/** Earliest reading that a study takes of the frames, microseconds; null when it takes none. */
export function firstReading(frames: readonly DecodedFrame[], policy: StudyPolicy): number | null {
  let first = Infinity;
  for (const frame of frames) {
    for (const wave of frame.waveforms) if (takesWaveform(policy, wave.code)) first = Math.min(first, wave.t0);
    for (const numeric of frame.numerics) if (takesNumeric(policy, numeric.code)) first = Math.min(first, numeric.time);
  }
  return first === Infinity ? null : first;
}

/**
 * The frames of one block as one study may see them. Events, device, positions and exact dates are not carried over. Runs are
 * joined only where one waveform starts exactly where the one before it ended: a gap, or a clock correction, starts a new run.
 */
export function anonymize(frames: readonly DecodedFrame[], disguise: Disguise): Anonymized {
  const runs: AnonymizedRun[] = [];
  const shared = sharedOf(disguise);
  for (const piece of pieces(frames, disguise.policy)) cut(runOf(piece, disguise, shared), runs);
  return { runs, numerics: numericsOf(frames, disguise, shared), counts: takenCounts(frames, disguise.policy) };
}

/** What all records of a patient in a study begin with, in bytes; by year, where that goes along. */
export class SharedBytes {
  readonly #byYear = new Map<number | null, Buffer>();

  of(record: AnonymizedRun | AnonymizedNumeric): Buffer {
    let bytes = this.#byYear.get(record.year);
    if (bytes === undefined) this.#byYear.set(record.year, (bytes = encodeShared(record)));
    return bytes;
  }
}

interface Piece {
  readonly first: DecodedWaveform;
  readonly parts: DecodedWaveform[];
  length: number;
}

function pieces(frames: readonly DecodedFrame[], policy: StudyPolicy): Piece[] {
  const done: Piece[] = [];
  const open = new Map<number, Piece>();
  for (const frame of frames) {
    for (const wave of frame.waveforms) {
      if (wave.samples.length === 0 || !takesWaveform(policy, wave.code)) continue;
      const before = open.get(wave.code);
      if (before !== undefined && continues(before, wave) && sameYear(before.first.t0, wave.t0, policy)) {
        before.parts.push(wave);
        before.length += wave.samples.length;
        continue;
      }
      const piece = { first: wave, parts: [wave], length: wave.samples.length };
      open.set(wave.code, piece);
      done.push(piece);
    }
  }
  return done;
}

function continues({ first, length }: Piece, next: DecodedWaveform): boolean {
  if (next.periodNs !== first.periodNs || next.scale !== first.scale || next.offset !== first.offset || next.unit !== first.unit) return false;
  return Math.abs(next.t0 - waveformEnd({ t0: first.t0, periodNs: first.periodNs, samples: { length } })) <= joinUs;
}

function sameYear(a: number, b: number, policy: StudyPolicy): boolean {
  return !policy.year || yearOf(a) === yearOf(b);
}

/**
 * Records are written out field by field: of an object that begins as a copy of another and is then added to, V8 makes a class of its own each time, which cost
 * a fifth of the stage.
 */
function runOf({ first, parts, length }: Piece, disguise: Disguise, { study, policy, pseudonym, group, timeBasis }: Shared): AnonymizedRun {
  return {
    study,
    policy,
    pseudonym,
    group,
    timeBasis,
    year: yearGiven(first.t0, disguise.policy),
    code: first.code,
    unit: first.unit,
    t0: disguised(first.t0, disguise),
    periodNs: first.periodNs,
    scale: first.scale,
    offset: first.offset,
    deltas: joinedDeltas(parts, length),
  };
}

/**
 * A store holds the samples of some thousand runs in memory at once, so a run is short however much a device hands in at once. A thousand
 * periods are whole microseconds, so every piece begins exactly where the one before it ended.
 */
function cut(run: AnonymizedRun, runs: AnonymizedRun[]): void {
  const { study, policy, pseudonym, group, timeBasis, year, code, unit, t0, periodNs, scale, offset, deltas } = run;
  if (deltas.length <= limits.runSamplesMax) {
    runs.push(run);
    return;
  }
  for (let from = 0, before = 0; from < deltas.length; from += limits.runSamplesMax) {
    const piece = deltas.slice(from, from + limits.runSamplesMax);
    const first = before + (piece[0] ?? 0);
    before = piece.reduce((sum, delta) => sum + delta, before);
    piece[0] = first;
    runs.push({ study, policy, pseudonym, group, timeBasis, year, code, unit, t0: t0 + (from * periodNs) / 1000, periodNs, scale, offset, deltas: piece });
  }
}

function joinedDeltas(parts: readonly DecodedWaveform[], length: number): number[] {
  const deltas = new Array<number>(length);
  let at = 0;
  let before = 0;
  for (const { samples } of parts) {
    for (let index = 0; index < samples.length; index++) {
      const sample = samples[index] as number;
      deltas[at++] = sample - before;
      before = sample;
    }
  }
  return deltas;
}

function numericsOf(frames: readonly DecodedFrame[], disguise: Disguise, shared: Shared): AnonymizedNumeric[] {
  const byKey = new Map<string, { first: number; last: number; code: number; unit: number; times: number[]; values: number[] }>();
  for (const frame of frames) {
    for (const { code, unit, time, value } of frame.numerics) {
      if (!takesNumeric(disguise.policy, code)) continue;
      const key = disguise.policy.year ? `${code}/${yearOf(time)}` : `${code}`;
      const series = byKey.get(key);
      if (series === undefined) {
        byKey.set(key, { first: time, last: time, code, unit, times: [disguised(time, disguise)], values: [value] });
        continue;
      }
      series.times.push(time - series.last);
      series.values.push(value);
      series.last = time;
    }
  }
  const { study, policy, pseudonym, group, timeBasis } = shared;
  return [...byKey.values()].map(({ first, code, unit, times, values }) => ({ study, policy, pseudonym, group, timeBasis, year: yearGiven(first, disguise.policy), code, unit, times, values }));
}

type Shared = Pick<AnonymizedRun, 'study' | 'policy' | 'pseudonym' | 'group' | 'timeBasis'>;

function sharedOf({ study, policy, policyHash, pseudonym, group }: Disguise): Shared {
  return { study, policy: policyHash, pseudonym: uuidBytes(pseudonym), group, timeBasis: policy.timeBasis };
}

function yearGiven(time: number, policy: StudyPolicy): number | null {
  return policy.year ? yearOf(time) : null;
}

function disguised(time: number, { policy, anchorUs, shiftUs }: Disguise): number {
  return policy.timeBasis === 'RELATIVE' ? time - anchorUs : time + shiftUs;
}

function yearOf(time: number): number {
  return new Date(time / 1000).getUTCFullYear();
}
