import { createCipheriv } from 'node:crypto';
import { promisify } from 'node:util';
import { deflateRaw } from 'node:zlib';

/**
 * Fixed work of the kinds that the hot paths are made of, to hold them against: how fast a machine is falls out of the ratio. Nothing of the
 * program is used here, and nothing here may change: a reference that changes makes every ratio of `hot-paths.json` mean something else.
 */
export const references = { varints, objects, cipher, deflate };
export type ReferenceName = keyof typeof references;

/** A saw and a spike: most differences take one byte, some two. */
const wave = Int32Array.from({ length: 2000 }, (_, at) => ((at * 37) % 97) + (at % 125 < 4 ? 900 : 0));
const written = new Uint8Array(wave.length * 3);
const readAgain = new Int32Array(wave.length);

/** Differences of 2,000 samples as zig-zag varints, and back. */
function varints(): number {
  let pos = 0;
  let before = 0;
  for (let at = 0; at < wave.length; at++) {
    const sample = wave[at] as number;
    let bits = ((sample - before) << 1) ^ ((sample - before) >> 31);
    before = sample;
    for (; bits >= 0x80; bits >>>= 7) written[pos++] = (bits & 0x7f) | 0x80;
    written[pos++] = bits;
  }
  let sum = 0;
  for (let at = 0, from = 0; from < pos; at++) {
    let byte = written[from++] as number;
    let bits = byte & 0x7f;
    for (let shift = 7; byte >= 0x80; shift += 7) {
      byte = written[from++] as number;
      bits |= (byte & 0x7f) << shift;
    }
    readAgain[at] = sum += (bits >>> 1) ^ -(bits & 1);
  }
  return sum;
}

interface Thing { readonly code: number; readonly unit: number; readonly time: number; readonly parts: number[] }

/** 200 small objects, some gathered by a number and some by a text. */
function objects(): number {
  const things: Thing[] = [];
  const counts = new Map<number, number>();
  const named = new Map<string, number>();
  for (let at = 0; at < 200; at++) {
    const code = 1000 + (at % 7);
    things.push({ code, unit: at % 3, time: 1e15 + at * 4000, parts: [at, at + 1, at + 2] });
    counts.set(code, (counts.get(code) ?? 0) + 1);
    if (at % 4 === 0) named.set(`${code}/${at % 8}`, at);
  }
  return things.reduce((sum, { time, parts }) => sum + (time % 1000) + parts.length, counts.size + named.size);
}

const key = Buffer.alloc(32, 7);
const nonce = Buffer.alloc(12, 9);
const beside = Buffer.alloc(160, 3);
const plain = Buffer.alloc(4096, 5);

/** 4 KiB copied, sealed by AES-256-GCM beside a context, and put together. */
function cipher(): number {
  const copied = Buffer.allocUnsafeSlow(plain.length);
  plain.copy(copied);
  const sealing = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: 16 });
  sealing.setAAD(beside);
  const body = sealing.update(copied);
  sealing.final();
  return Buffer.concat([beside, body, sealing.getAuthTag()]).length;
}

/** 32 KiB that compress to about a half, as frames do: a byte of a signal, with noise of four bits. */
const samples = Buffer.alloc(32 * 1024);
for (let at = 0, state = 1; at < samples.length; at++) {
  state = (Math.imul(state, 1_103_515_245) + 12_345) | 0;
  samples[at] = Math.round(40 * Math.sin(at / 9)) + (state >>> 28);
}

const pack = promisify(deflateRaw);

/** In a thread of zlib's, as a chunk is. */
async function deflate(): Promise<number> {
  return (await pack(samples, { level: 3 })).length;
}

/** So many steps of arithmetic, to make something dearer by a known part. */
export function burn(steps: number): number {
  let state = 1;
  for (let at = 0; at < steps; at++) state = (Math.imul(state, 1_103_515_245) + 12_345) | 0;
  return state;
}
