/** `node dist/schemas/scan.bench.js`: nanoseconds a frame, best of 7 rounds, for the ingest path and its neighbours. */
import { limits } from '../core/limits.js';
import { typeOf } from './codec.js';
import { decodeFrameBodies, encodeFrameBody, frameMessage, type DecodedFrame } from './frames.js';
import { scanFrames } from './scan.js';

const t = 1_767_225_600_000_000;
const base: DecodedFrame = { epoch: 1, seq: 100_000, sentAt: t, waveforms: [], numerics: [], events: [] };
const samples = Int32Array.from({ length: 250 }, (_, i) => Math.round(40 * Math.sin(i / 8) + (i % 125 === 0 ? 900 : 0)));
const single: DecodedFrame = { ...base, numerics: [{ code: 147842, unit: 264864, time: t, value: 72 }] };
const wave: DecodedFrame = { ...base, waveforms: [{ code: 131330, unit: 266418, t0: t, periodNs: 4_000_000, scale: 0.005, offset: 0, samples }] };

function nanoseconds(work: () => void, times: number, frames: number): number {
  let best = Infinity;
  for (let round = 0; round < 7; round++) {
    const from = process.hrtime.bigint();
    for (let i = 0; i < times; i++) work();
    best = Math.min(best, Number(process.hrtime.bigint() - from) / times / frames);
  }
  return Math.round(best);
}

let sink = 0;
function report(name: string, frame: DecodedFrame): void {
  const body = encodeFrameBody(frame);
  const copies = Array.from({ length: 50 }, () => body);
  const message = frameMessage(copies);
  const visit = ({ seq }: { readonly seq: number }): void => {
    sink += seq;
  };
  const rows = {
    'scan, one frame a message': nanoseconds(() => void (sink += scanFrames(body, 0, limits, visit)), 50_000, 1),
    'scan, 50 frames a message': nanoseconds(() => void (sink += scanFrames(message, 5, limits, visit)), 2000, 50),
    'decode': nanoseconds(() => void (sink += decodeFrameBodies(body).length), 20_000, 1),
    'encode': nanoseconds(() => void (sink += encodeFrameBody(frame).length), 20_000, 1),
    'avsc decode': nanoseconds(() => void (sink += (typeOf('Frame').fromBuffer(body) as { seq: number }).seq), 20_000, 1),
  };
  for (const [what, ns] of Object.entries(rows)) process.stdout.write(`${name} (${body.length} bytes), ${what}: ${ns} ns\n`);
}

report('single numeric', single);
report('250 samples', wave);
if (sink < 0) process.stdout.write('unreachable\n');
