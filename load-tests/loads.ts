import { schemaIds } from '../schemas/ids.js';
import { encodeFrameBody } from '../schemas/frames.js';
import type { Load } from './generator.js';
import { framed } from './wire.js';

export const heartRate = 147842;
export const ecgLeadII = 131329;
export const perMinute = 264864;
const millivolt = 266418;
const header = Buffer.from([0, 0, 0, 0, schemaIds.Frame]);

/** A frame of one numeric reading. */
export const reading = (seq: number, time: number, value: number): Buffer =>
  encodeFrameBody({ epoch: 1, seq, sentAt: time, waveforms: [], numerics: [{ code: heartRate, unit: perMinute, time, value }], events: [] });

export const message = (...bodies: readonly Buffer[]): Buffer => framed(Buffer.concat([header, ...bodies]));

/** Frames of one numeric reading each, a millisecond apart, the last one a minute ago. */
export function readings(count: number, framesPerMessage: number): Load {
  const t0 = (Date.now() - count - 60_000) * 1000;
  return framesLoad(count, framesPerMessage, (seq) => reading(seq, t0 + seq * 1000, 60 + (seq % 40)));
}

/** Frames of `samples` ECG samples at 250 Hz, one after the other, the last one a minute ago. */
export function waves(count: number, samples: number, framesPerMessage: number): Load {
  const spanUs = samples * 4000;
  const t0 = (Date.now() - 60_000) * 1000 - count * spanUs;
  const wave = Int32Array.from({ length: samples }, (_, index) => Math.round(40 * Math.sin(index / 9) + 300 * Math.exp(-(((index % 200) - 100) ** 2) / 30)));
  const frame = (seq: number): Buffer => encodeFrameBody({ epoch: 1, seq, sentAt: t0 + seq * spanUs, waveforms: [{ code: ecgLeadII, unit: millivolt, t0: t0 + (seq - 1) * spanUs, periodNs: 4_000_000, scale: 0.005, offset: 0, samples: wave }], numerics: [], events: [] });
  return framesLoad(count, framesPerMessage, frame);
}

/** A load of frames whose bodies `body` gives by seq, from 1. */
export function framesLoad(count: number, framesPerMessage: number, body: (seq: number) => Buffer): Load {
  if (count % framesPerMessage !== 0) throw new RangeError('a load is of whole messages');
  const messages: Buffer[] = [];
  const starts = new Float64Array(count / framesPerMessage + 1);
  let bytesPerMessage = 0;
  for (let at = 0; at < starts.length - 1; at++) {
    const bytes = message(...Array.from({ length: framesPerMessage }, (_, index) => body(at * framesPerMessage + index + 1)));
    bytesPerMessage = Math.max(bytesPerMessage, bytes.length);
    starts[at + 1] = (starts[at] ?? 0) + bytes.length;
    messages.push(bytes);
  }
  return { bytes: Buffer.concat(messages), starts, framesPerMessage, bytesPerMessage };
}
