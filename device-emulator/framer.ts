import { limits } from '../core/limits.js';
import type { DecodedFrame, DecodedWaveform } from '../schemas/frames.js';
import type { DeviceEvent, Numeric } from '../schemas/types.js';
import { physical, sampleTimeUs, type Piece, type Source, type SourceSignal } from './source.js';

/** A frame before it has a number. */
export type FrameContent = Pick<DecodedFrame, 'waveforms' | 'numerics' | 'events'>;

export interface CutFrame {
  readonly content: FrameContent;
  /** End of its window, µs since the Unix epoch: a device can't send it earlier. */
  readonly endUs: number;
  readonly samples: number;
}

export interface FramerOptions {
  readonly source: Source;
  /** Time of the source's first moment, µs since the Unix epoch. */
  readonly startUs: number;
  readonly frameSeconds: number;
  /** What the device's clock makes of a true time; for clock faults. */
  readonly deviceTime?: (trueUs: number) => number;
}

/** Worst case 5 bytes a sample, so such a wave always fits a frame. */
const pieceSamplesMax = 8_000;
const frameBytesGoal = limits.frameBytesMax - 16 * 1024;
const wavesMax = limits.frameChannelsMax / 2;

/**
 * Cuts a source into frames. t0 is computed from the index of the sample, never added up, so a long run does not drift.
 * Missing samples are not sent; when a wave comes back, a GAP event says since when it was away.
 */
export async function* cutFrames({ source, startUs, frameSeconds, deviceTime = (us) => us }: FramerOptions): AsyncGenerator<CutFrame, void, undefined> {
  const windowUs = frameSeconds * 1e6;
  const gaps = new Gaps(source.signals);
  const timeOf = (signal: SourceSignal, index: number): number => Math.round(deviceTime(startUs + sampleTimeUs(signal, index)));
  for (let window = 0; ; window++) {
    const fromUs = window * windowUs;
    if (source.durationUs !== null && fromUs >= source.durationUs) break;
    const toUs = Math.min((window + 1) * windowUs, source.durationUs ?? Infinity);
    const packer = new Packer();
    for (const piece of await source.read(fromUs, toUs)) {
      const signal = source.signals[piece.signal];
      if (signal === undefined) continue;
      if (signal.kind === 'numeric') packer.numerics(piece, signal, timeOf);
      else {
        const gap = gaps.before(piece, signal, timeOf);
        if (gap !== null) packer.event(gap);
        packer.wave(piece, signal, timeOf);
      }
    }
    if (source.durationUs !== null && toUs >= source.durationUs) for (const gap of gaps.atEnd(source.durationUs, timeOf)) packer.event(gap);
    for (const content of packer.contents()) yield { content, endUs: startUs + toUs, samples: samplesIn(content) };
  }
}

export const samplesIn = (content: FrameContent): number => content.waveforms.reduce((sum, { samples }) => sum + samples.length, content.numerics.length);

type TimeOf = (signal: SourceSignal, index: number) => number;

class Gaps {
  readonly #signals: readonly SourceSignal[];
  readonly #next: number[];

  constructor(signals: readonly SourceSignal[]) {
    this.#signals = signals;
    this.#next = signals.map(() => 0);
  }

  before(piece: Piece, signal: SourceSignal, timeOf: TimeOf): DeviceEvent | null {
    const expected = this.#next[piece.signal] ?? 0;
    this.#next[piece.signal] = piece.index + piece.samples.length;
    return piece.index > expected ? gapEvent(signal, timeOf(signal, expected), timeOf(signal, piece.index)) : null;
  }

  atEnd(durationUs: number, timeOf: TimeOf): DeviceEvent[] {
    return this.#signals.flatMap((signal, at) => {
      const expected = this.#next[at] ?? 0;
      const end = Math.round((durationUs * signal.hz) / 1e6);
      return signal.kind === 'numeric' || expected >= end ? [] : [gapEvent(signal, timeOf(signal, expected), timeOf(signal, end))];
    });
  }
}

const gapEvent = (signal: SourceSignal, fromUs: number, toUs: number): DeviceEvent => ({ kind: 'GAP', code: signal.code, time: fromUs, durationUs: Math.max(0, toUs - fromUs), priority: 0 });

/** Fills frames up to the limits of `core/limits.ts` and begins the next when one is full. */
class Packer {
  readonly #done: FrameContent[] = [];
  #waves: DecodedWaveform[] = [];
  #numerics: Numeric[] = [];
  #events: DeviceEvent[] = [];
  #bytes = 0;

  wave(piece: Piece, signal: SourceSignal, timeOf: TimeOf): void {
    const { scale = signal.scale, offset = signal.offset } = piece;
    for (let at = 0; at < piece.samples.length; at += pieceSamplesMax) {
      const samples = piece.samples.subarray(at, at + pieceSamplesMax);
      const bytes = 64 + deltaBytes(samples);
      this.#room(bytes, this.#waves.length >= wavesMax);
      this.#waves.push({ code: signal.code, unit: signal.unit, t0: timeOf(signal, piece.index + at), periodNs: signal.periodNs, scale, offset, samples });
      this.#bytes += bytes;
    }
  }

  numerics(piece: Piece, signal: SourceSignal, timeOf: TimeOf): void {
    const { scale = signal.scale, offset = signal.offset } = piece;
    piece.samples.forEach((sample, at) => {
      this.#room(30, this.#numerics.length >= limits.frameNumericsMax);
      this.#numerics.push({ code: signal.code, unit: signal.unit, time: timeOf(signal, piece.index + at), value: physical(sample, scale, offset) });
      this.#bytes += 30;
    });
  }

  event(event: DeviceEvent): void {
    this.#room(40, this.#events.length >= limits.frameEventsMax);
    this.#events.push(event);
    this.#bytes += 40;
  }

  #room(bytes: number, full: boolean): void {
    if (full || (this.#bytes > 0 && this.#bytes + bytes > frameBytesGoal)) this.#close();
  }

  #close(): void {
    if (this.#bytes > 0) this.#done.push({ waveforms: this.#waves, numerics: this.#numerics, events: this.#events });
    [this.#waves, this.#numerics, this.#events, this.#bytes] = [[], [], [], 0];
  }

  contents(): readonly FrameContent[] {
    this.#close();
    return this.#done;
  }
}

function deltaBytes(samples: Int32Array): number {
  let bytes = 0;
  let before = 0;
  for (const sample of samples) {
    const size = Math.abs(sample - before);
    bytes += size < 64 ? 1 : size < 8192 ? 2 : size < 2 ** 20 ? 3 : 5;
    before = sample;
  }
  return bytes;
}
