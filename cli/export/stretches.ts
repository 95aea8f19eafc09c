import { SpamerError } from '../../core/errors.js';
import { sampleTimeUs } from '../../schemas/frames.js';
import { hzOf, samplesMax, type Channel } from './record.js';

/** Samples of one signal from one pause to the next. */
export interface Stretch {
  /** Of its first sample, µs since the Unix epoch. */
  readonly startUs: number;
  readonly samples: Int32Array;
}

export interface Stretched {
  readonly channel: Channel;
  readonly hz: number;
  /** By time. */
  readonly stretches: readonly Stretch[];
  /** How far a part inside a stretch is at most from its place by the rate, µs. */
  readonly offGridUs: number;
}

/** A channel as stretches at its rate. @throws SpamerError `too_large`; `conflict` when samples overlap. */
export function stretched(channel: Channel): Stretched {
  const hz = hzOf(channel.periodNs);
  if (channel.parts.reduce((sum, { samples }) => sum + samples.length, 0) > samplesMax) throw new SpamerError('too_large', 'the time range is too long for one file; ask for less at a time', { where: channel.name });
  const found: Array<{ startUs: number; length: number; parts: Int32Array[] }> = [];
  let offGridUs = 0;
  for (const { t0, first, samples } of channel.parts) {
    const startUs = sampleTimeUs(t0, channel.periodNs, first);
    const open = found.at(-1);
    const exact = open === undefined ? 0 : ((startUs - open.startUs) * hz) / 1e6;
    const place = Math.round(exact);
    if (open !== undefined && place < open.length) throw new SpamerError('conflict', 'samples overlap in time, so this format cannot hold them; csv can', { where: channel.name });
    if (open === undefined || place > open.length) {
      found.push({ startUs, length: samples.length, parts: [samples] });
      continue;
    }
    // A time is rounded to whole microseconds twice: here, and at the stretch's start.
    offGridUs = Math.max(offGridUs, (Math.abs(exact - place) * 1e6) / hz - 1);
    open.parts.push(samples);
    open.length += samples.length;
  }
  return { channel, hz, stretches: found.map(({ startUs, length, parts }) => ({ startUs, samples: joined(parts, length) })), offGridUs };
}

function joined(parts: readonly Int32Array[], length: number): Int32Array {
  const samples = new Int32Array(length);
  let at = 0;
  for (const part of parts) {
    samples.set(part, at);
    at += part.length;
  }
  return samples;
}

/** Signals that begin, pause and end together, in the order of their first; a pause is the same when it is so to the microsecond. */
export function pausingTogether(signals: readonly Stretched[]): Stretched[][] {
  const groups = new Map<string, Stretched[]>();
  for (const signal of signals) {
    const key = signal.stretches.map(({ startUs, samples }) => `${startUs}+${Math.round((samples.length / signal.hz) * 1e6)}`).join(' ');
    groups.set(key, [...(groups.get(key) ?? []), signal]);
  }
  return [...groups.values()];
}
