import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decode, encode } from '../../schemas/codec.js';
import { decodeFrameBodies, encodeFrameBody, frameMessage, type DecodedFrame } from '../../schemas/frames.js';

interface Frames {
  encodeFrame(frame: object): Uint8Array;
  messageOf(bodies: readonly Uint8Array[]): Uint8Array;
  parse(message: ArrayBuffer): { readonly name: string; readonly epoch?: number; readonly seq?: number; readonly code?: string; readonly windowFrames?: number };
}
/** The script that k6 runs, as it is. */
const frames = (await import(new URL('../../../load-tests/k6/frames.js', import.meta.url).href)) as Frames;

const t = 1_767_225_600_000_123;
const waveform = { code: 131330, unit: 266418, t0: t - 1_000_000, periodNs: 4_000_000, scale: 0.005, offset: -1.25, samples: Int32Array.of(0, -1, 300, -32_768, 2_147_483_647, -2_147_483_648) };
const numeric = { code: 147842, unit: 264864, time: t, value: 71.5 };

void test('the encoder that k6 runs writes the bytes of the program\'s own', () => {
  const cases: readonly DecodedFrame[] = [
    { epoch: 1, seq: 1, sentAt: t, waveforms: [waveform], numerics: [], events: [] },
    { epoch: 2_147_483_647, seq: 2 ** 40, sentAt: t, waveforms: [], numerics: [numeric, { ...numeric, value: -0.1 }], events: [] },
    { epoch: 3, seq: 7, sentAt: t, waveforms: [waveform, { ...waveform, samples: Int32Array.from({ length: 5000 }, (_, at) => (at * 7919) % 4096 - 2048) }], numerics: [numeric], events: [] },
  ];
  const bodies = cases.map((frame) => frames.encodeFrame({ ...frame, waveforms: frame.waveforms.map((one) => ({ ...one, samples: [...one.samples] })) }));
  for (const [at, frame] of cases.entries()) assert.deepEqual(Buffer.from(bodies[at] ?? []), encodeFrameBody(frame));
  const message = Buffer.from(frames.messageOf(bodies));
  assert.deepEqual(message, frameMessage(bodies.map((body) => Buffer.from(body))));
  assert.equal(decodeFrameBodies(message.subarray(5)).length, 3);
});

void test('what the server says is read as it was said', () => {
  const said = (message: Buffer): ReturnType<Frames['parse']> => frames.parse(new Uint8Array(message).buffer);
  const hello = { serverTime: t, epoch: 4, durableSeq: 2 ** 41 + 1, windowFrames: 4096, windowBytes: 1 << 20, frameBytesMax: 65_536, messageBytesMax: 262_144, batchMs: 50 };
  assert.deepEqual(said(encode('Hello', hello)), { name: 'Hello', epoch: 4, seq: 2 ** 41 + 1, windowFrames: 4096 });
  assert.deepEqual(said(encode('Ack', { epoch: 1, seq: 300 })), { name: 'Ack', epoch: 1, seq: 300 });
  const nack = encode('Nack', { epoch: 1, seq: 9, code: 'disk_full', resend: true, retryAfterMs: 100 });
  assert.deepEqual(said(nack), { name: 'Nack', epoch: 1, seq: 9, code: decode('Nack', nack).code });
});
