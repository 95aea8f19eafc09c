import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import { anyFrame, anyMutation, mutate } from './arbitrary.js';
import { decodeBody, encodeBody, typeOf } from './codec.js';
import { asSchemaFrame, decodeChunkContent, decodeFrameBodies, deltasOf, encodeChunkContent, encodeFrameBody, frameMessage, messageFrames, samplesOf, sampleTimeUs, type DecodedFrame } from './frames.js';
import { scanFrames } from './scan.js';
import type { Frame } from './types.js';

const runs = Number(process.env['SPAMER_PROPERTY_RUNS'] ?? 1000);
const frame: DecodedFrame = { epoch: 1, seq: 1, sentAt: 0, waveforms: [], numerics: [], events: [] };
const wave = { code: 131330, unit: 266418, t0: 1000, periodNs: 4_000_000, scale: 1, offset: 0, samples: Int32Array.of(1, 2, 3) };

test('the fast encoder writes the bytes that avsc writes, and the fast decoder reads them back', () => {
  fc.assert(fc.property(anyFrame, (value) => {
    const bytes = encodeFrameBody(value);
    assert.ok(bytes.equals(encodeBody('Frame', asSchemaFrame(value))));
    const [read] = decodeFrameBodies(bytes);
    assert.deepEqual(read, value);
  }), { numRuns: runs });
});

test('several frames of one message are read in order', () => {
  fc.assert(fc.property(fc.array(anyFrame, { minLength: 1, maxLength: 5 }), (values) => {
    assert.deepEqual(messageFrames(frameMessage(values.map(encodeFrameBody))), values);
  }), { numRuns: Math.ceil(runs / 5) });
});

/** null when it throws a SpamerError; anything else thrown fails the test. */
function attempt<T>(work: () => T): T | null {
  try {
    return work();
  } catch (error) {
    assert.ok(error instanceof SpamerError, String(error));
    assert.match(error.where ?? '', /^frames\[\d+\]/);
    return null;
  }
}

test('of mutated bytes the scan accepts exactly what the decoder decodes, and that is what avsc reads', () => {
  let accepted = 0;
  fc.assert(fc.property(anyFrame, fc.array(anyMutation, { minLength: 1, maxLength: 3 }), (value, mutations) => {
    const bytes = mutations.reduce(mutate, encodeFrameBody(value));
    const scanned = bytes.length === 0 ? 0 : attempt(() => scanFrames(bytes, 0));
    const decoded = attempt(() => decodeFrameBodies(bytes, limits));
    assert.equal(decoded?.length ?? null, scanned);
    if (decoded !== null && decoded.length > 0) {
      accepted += 1;
      assert.deepEqual(decoded.map(asSchemaFrame), withAvsc(bytes));
    }
  }), { numRuns: runs * 5 });
  assert.ok(accepted > runs / 20, `only ${accepted} mutants were sound`);
});

function withAvsc(bytes: Buffer): readonly Frame[] {
  const frames: Frame[] = [];
  for (let pos = 0; pos < bytes.length; ) {
    const read: { readonly value: unknown; readonly offset: number } = typeOf('Frame').decode(bytes, pos);
    frames.push(JSON.parse(JSON.stringify(read.value, keepNegativeZero), restoreNegativeZero) as Frame);
    pos = read.offset;
  }
  return frames;
}
const keepNegativeZero = (_: string, value: unknown): unknown => (Object.is(value, -0) ? '-0' : value);
const restoreNegativeZero = (_: string, value: unknown): unknown => (value === '-0' ? -0 : value);

test('random bytes never throw anything but a named error', () => {
  fc.assert(fc.property(fc.uint8Array({ minLength: 1, maxLength: 200 }), (bytes) => {
    assert.equal(attempt(() => decodeFrameBodies(bytes, limits))?.length ?? null, attempt(() => scanFrames(bytes, 0)));
  }), { numRuns: runs * 5 });
});

test('the scan tells position, times with the end of waveforms, and samples by channel', () => {
  fc.assert(fc.property(fc.array(anyFrame, { minLength: 1, maxLength: 3 }), (values) => {
    const bodies = values.map(encodeFrameBody);
    let index = 0;
    let start = 5;
    scanFrames(frameMessage(bodies), 5, limits, (scan) => {
      const value = values[index] as DecodedFrame;
      assert.deepEqual([scan.start, scan.end, scan.epoch, scan.seq, scan.sentAt], [start, start + (bodies[index]?.length ?? 0), value.epoch, value.seq, value.sentAt]);
      assert.deepEqual([scan.timeFirstUs, scan.timeLastUs], spanOf(value));
      const counts = Array.from({ length: scan.channels }, (_, i) => [scan.codes[i], scan.samples[i]]);
      assert.deepEqual(Object.fromEntries(counts), countsOf(value));
      start = scan.end;
      index += 1;
    });
    assert.equal(index, values.length);
  }), { numRuns: Math.ceil(runs / 2) });
});

function spanOf({ waveforms, numerics, events, sentAt }: DecodedFrame): readonly [number, number] {
  const times = waveforms.flatMap(({ t0, periodNs, samples }) => [t0, sampleTimeUs(t0, periodNs, samples.length - 1)]);
  for (const { time } of [...numerics, ...events]) times.push(time);
  return times.length === 0 ? [sentAt, sentAt] : [Math.min(...times), Math.max(...times)];
}

function countsOf({ waveforms, numerics }: DecodedFrame): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { code, samples } of waveforms) counts[code] = (counts[code] ?? 0) + samples.length;
  for (const { code } of numerics) counts[code] = (counts[code] ?? 0) + 1;
  return counts;
}

test('arrays in several blocks, with and without sizes, are the same array', () => {
  // Samples 1, 2, 3 as blocks of 1 (sized, 1 byte), 1, and 1 (sized).
  const plain = encodeFrameBody({ ...frame, waveforms: [wave] }).toString('hex');
  const blocks = Buffer.from(plain.replace('0602020200', '0102020202010202' + '00'), 'hex');
  assert.notEqual(blocks.toString('hex'), plain);
  assert.deepEqual(decodeFrameBodies(blocks), [{ ...frame, waveforms: [wave] }]);
  assert.equal(scanFrames(blocks, 0), 1);
});

test('a waveform with a block for each sample is read in linear time', () => {
  const count = limits.waveformSamplesMax;
  const head = encodeFrameBody({ ...frame, waveforms: [{ ...wave, samples: Int32Array.of(0) }] });
  const bytes = Buffer.concat([head.subarray(0, -6), Buffer.alloc(2 * count, '0202', 'hex'), Buffer.alloc(4)]);
  const [read] = decodeFrameBodies(bytes);
  assert.deepEqual(read?.waveforms[0]?.samples, Int32Array.from({ length: count }, (_, i) => i + 1));
});

const bound = (patch: Partial<DecodedFrame>): Buffer => encodeFrameBody({ ...frame, ...patch });
const numeric = (code: number) => ({ code, unit: 1, time: 0, value: 1 });
const tooMuch: ReadonlyArray<readonly [string, Buffer, string]> = [
  ['waveforms', bound({ waveforms: Array.from({ length: 65 }, () => wave) }), 'frames[0].waveforms'],
  ['samples', bound({ waveforms: [{ ...wave, samples: new Int32Array(20_001) }] }), 'frames[0].waveforms[0].deltas'],
  ['numerics', bound({ numerics: Array.from({ length: 1025 }, () => numeric(1)) }), 'frames[0].numerics'],
  ['distinct signals', bound({ numerics: Array.from({ length: 65 }, (_, i) => numeric(i)) }), 'frames[0].numerics'],
  ['bytes', bound({ waveforms: Array.from({ length: 60 }, () => ({ ...wave, samples: new Int32Array(1500) })) }), 'frames[0]'],
];
for (const [what, bytes, where] of tooMuch) {
  test(`more ${what} than the limit is frame_too_large`, () => {
    assert.throws(() => scanFrames(bytes, 0), (error: unknown) => error instanceof SpamerError && error.code === 'frame_too_large' && error.where === where);
  });
}

test('frames before a bad one have been visited', () => {
  const seen: number[] = [];
  const bytes = Buffer.concat([bound({}), bound({ seq: 2 }), Buffer.of(0)]);
  assert.throws(() => scanFrames(bytes, 0, limits, ({ seq }) => seen.push(seq)), { code: 'frame_malformed', where: 'frames[2].epoch' });
  assert.deepEqual(seen, [1, 2]);
});

test('a visitor may scan again', () => {
  const ends: number[] = [];
  const bytes = Buffer.concat([bound({}), bound({ seq: 2 })]);
  scanFrames(bytes, 0, limits, (scan) => {
    scanFrames(bound({ seq: 9 }), 0);
    ends.push(scan.end);
  });
  assert.deepEqual(ends, [bytes.length / 2, bytes.length]);
});

const unfit: ReadonlyArray<readonly [Partial<DecodedFrame>, string]> = [
  [{ epoch: 0 }, 'epoch'],
  [{ seq: 2 ** 53 }, 'seq'],
  [{ waveforms: [{ ...wave, periodNs: 0 }] }, 'waveforms[0].periodNs'],
  [{ waveforms: [wave, { ...wave, scale: NaN }] }, 'waveforms[1].scale'],
  [{ waveforms: [{ ...wave, samples: new Int32Array(0) }] }, 'waveforms[0].deltas'],
  [{ numerics: [{ ...numeric(1), value: Infinity }] }, 'numerics[0].value'],
  [{ events: [{ kind: 'ALARM', code: 0, time: 0, durationUs: 0, priority: 4 }] }, 'events[0].priority'],
];
for (const [patch, where] of unfit) {
  test(`the encoder refuses what no server takes: ${where}`, () => {
    assert.throws(() => bound(patch), { code: 'frame_malformed', where });
  });
}

test('chunk content of bodies is what avsc writes of frames', () => {
  fc.assert(fc.property(fc.array(anyFrame, { maxLength: 5 }), (values) => {
    const body = encodeChunkContent(values.map(encodeFrameBody));
    assert.ok(body.equals(encodeBody('ChunkContent', { frames: values.map(asSchemaFrame) })));
    assert.deepEqual(decodeChunkContent(body), values);
    assert.equal(decodeBody('ChunkContent', body).frames.length, values.length);
  }), { numRuns: Math.ceil(runs / 5) });
  assert.throws(() => decodeChunkContent(encodeChunkContent([bound({})]).subarray(0, -1)), SpamerError);
  assert.throws(() => decodeChunkContent(Buffer.concat([Buffer.of(4), bound({}), Buffer.of(0)])), SpamerError);
});

test('deltas and samples are each other\'s inverse', () => {
  fc.assert(fc.property(fc.array(fc.integer({ min: -0x80000000, max: 0x7fffffff })), (values) => {
    assert.deepEqual([...samplesOf(deltasOf(Int32Array.from(values)))], values);
  }));
});
