import { SpamerError } from '../../core/errors.js';
import { shortNameOf } from '../../device-emulator/signal-names.js';
import { firstIndexAt, sampleTimeUs, type DecodedFrame } from '../../schemas/frames.js';
import type { DeviceEvent, Numeric } from '../../schemas/types.js';

/** Samples that follow each other. */
export interface Part {
  /** Of sample 0 of the run that the device sent, µs since the Unix epoch. */
  readonly t0: number;
  /** Index in that run of the first of `samples`: a run that is cut keeps the times of its samples to the microsecond. */
  readonly first: number;
  readonly samples: Int32Array;
}

/** A frame, and whose it is where a patient has several devices. */
export type DeviceFrame = DecodedFrame & { readonly device?: string };

export interface Span {
  readonly fromUs: number;
  readonly toUs: number;
}

export type DeviceNumeric = Numeric & { readonly device: string };

/** One wave of one device, with one period, scale and offset. A signal whose gain changed is several channels. */
export interface Channel {
  /** Empty where there is one only. */
  readonly device: string;
  readonly code: number;
  readonly unit: number;
  readonly periodNs: number;
  readonly scale: number;
  readonly offset: number;
  readonly name: string;
  /** By time. */
  readonly parts: readonly Part[];
}

/** One patient's record, ready to be written to files. */
export interface PatientRecord {
  readonly channels: readonly Channel[];
  /** By time. */
  readonly numerics: readonly DeviceNumeric[];
  readonly events: ReadonlyArray<DeviceEvent & { readonly device: string }>;
}

export interface Exported {
  readonly files: readonly string[];
  /** What the format could not take as it was, for a person to read; no vital value. */
  readonly notes: readonly string[];
}

export interface ExportPlace {
  /** Exists already. */
  readonly folder: string;
  /** Begins every file name: letters, digits, `-`, `_`. */
  readonly name: string;
}

/** What of the frames stands within [fromUs, toUs), by device and signal. */
export function collect(frames: Iterable<DeviceFrame>, span: Span = { fromUs: -Infinity, toUs: Infinity }): PatientRecord {
  const channels = new Map<string, { channel: Omit<Channel, 'parts'>; parts: Part[] }>();
  const numerics: DeviceNumeric[] = [];
  const events: Array<DeviceEvent & { device: string }> = [];
  const inside = ({ time }: { time: number }): boolean => time >= span.fromUs && time < span.toUs;
  for (const { device = '', ...frame } of frames) {
    for (const wave of frame.waveforms) {
      const first = firstIndexAt(wave, span.fromUs);
      const samples = wave.samples.subarray(first, firstIndexAt(wave, span.toUs));
      if (samples.length === 0) continue;
      const { code, unit, periodNs, scale, offset, t0 } = wave;
      const key = [device, code, unit, periodNs, scale, offset].join('/');
      let found = channels.get(key);
      if (found === undefined) channels.set(key, found = { channel: { device, code, unit, periodNs, scale, offset, name: shortNameOf(code) }, parts: [] });
      found.parts.push({ t0, first, samples });
    }
    for (const numeric of frame.numerics) if (inside(numeric)) numerics.push({ ...numeric, device });
    for (const event of frame.events) if (inside(event)) events.push({ ...event, device });
  }
  return {
    channels: [...channels.values()].map(({ channel, parts }) => ({ ...channel, parts: parts.sort((a, b) => a.t0 - b.t0) })),
    numerics: numerics.sort((a, b) => a.time - b.time),
    events: events.sort((a, b) => a.time - b.time),
  };
}

/** Samples a second: a whole number when the period is that number's, rounded to nanoseconds. */
export function hzOf(periodNs: number): number {
  const whole = Math.round(1e9 / periodNs);
  return whole > 0 && Math.round(1e9 / whole) === periodNs ? whole : 1e9 / periodNs;
}

const startOf = ({ periodNs }: Channel, { t0, first }: Part): number => sampleTimeUs(t0, periodNs, first);

export const firstTime = (channels: readonly Channel[]): number => channels.reduce((earliest, channel) => Math.min(earliest, ...channel.parts.slice(0, 1).map((part) => startOf(channel, part))), Infinity);

/** Of one signal in one file. */
export const samplesMax = 200_000_000;

/** A channel laid out on the grid of its rate from `baseUs` on, with holes. */
export interface Laid {
  /** `null` in `present` would cost too much: a second array says what is there. */
  readonly samples: Int32Array;
  readonly present: Uint8Array;
  /** Largest distance of a part from the grid, µs. */
  readonly offGridUs: number;
}

/** @throws SpamerError `too_large`; `conflict` when two parts want the same place. */
export function layOut(channel: Channel, baseUs: number): Laid {
  const hz = hzOf(channel.periodNs);
  let offGridUs = 0;
  const places = channel.parts.map((part) => {
    const exact = ((startOf(channel, part) - baseUs) * hz) / 1e6;
    const place = Math.round(exact);
    // A time is rounded to whole microseconds twice: where it was measured, and at the base.
    offGridUs = Math.max(offGridUs, (Math.abs(exact - place) * 1e6) / hz - 1);
    return place;
  });
  const length = channel.parts.reduce((most, { samples }, at) => Math.max(most, (places[at] ?? 0) + samples.length), 0);
  if (length > samplesMax) throw new SpamerError('too_large', 'the time range is too long for one file; ask for less at a time', { where: channel.name });
  const laid = { samples: new Int32Array(length), present: new Uint8Array(length), offGridUs: Math.max(0, offGridUs) };
  channel.parts.forEach(({ samples }, at) => {
    const place = places[at] ?? 0;
    if (laid.present[place] === 1) throw new SpamerError('conflict', 'samples overlap in time, so this format cannot hold them; csv can', { where: channel.name });
    laid.samples.set(samples, place);
    laid.present.fill(1, place, place + samples.length);
  });
  return laid;
}

/** The shortest decimal that reads back as the same gain: 1 / gain is the scale again. */
export function gainText(scale: number): string {
  for (let digits = 1; digits <= 17; digits++) {
    const text = String(Number((1 / scale).toPrecision(digits)));
    if (1 / Number(text) === scale) return text;
  }
  return String(1 / scale);
}
