/**
 * Golden vectors: one message each, as hex (header and body) and as JSON, made from the values below. JSON form: bytes and
 * fixed as lower-case hex, enums as their symbol, longs as numbers, null as null. `decodeOnly`: other bytes than an encoder
 * writes, which a reader must take all the same. `error`: what a server answers, with the place.
 */
import { encode } from './codec.js';
import { schemaIds, type MessageName } from './ids.js';
import type { Block, Frame, Messages, Waveform } from './types.js';

export interface GoldenVector {
  readonly name: string;
  readonly message: MessageName;
  readonly schemaId: number;
  readonly hex: string;
  /** null where the bytes are not a message. */
  readonly json: unknown;
  readonly decodeOnly?: true;
  readonly error?: { readonly code: string; readonly where: string };
}

const bytes = (length: number, first: number): Buffer => Buffer.from(Array.from({ length }, (_, i) => (first + i) & 0xff));
const t = 1_767_225_600_000_000; // 2026-01-01T00:00:00Z
const device = bytes(16, 0x10);
const patient = bytes(16, 0x40);
const counts = [{ code: 131330, samples: 250 }, { code: 147842, samples: 1 }];

const heartRate = { code: 147842, unit: 264864, time: t, value: 72 };
const lead: Waveform = { code: 131330, unit: 266418, t0: t, periodNs: 4_000_000, scale: 0.005, offset: 0, deltas: [-3, 1, 70, -200, 0, 64, -65] };
const numericFrame: Frame = { epoch: 1, seq: 1, sentAt: t, waveforms: [], numerics: [heartRate], events: [] };
const waveFrame: Frame = {
  epoch: 2, seq: 300, sentAt: t + 1_000_000, waveforms: [lead, { ...lead, code: 150452, unit: 262656, deltas: [2147483647, -4294967295, 4294967295] }],
  numerics: [heartRate, { code: 150456, unit: 262688, time: t, value: 97.5 }],
  events: [{ kind: 'GAP', code: 131330, time: t - 500_000, durationUs: 500_000, priority: 0 }, { kind: 'ALARM', code: 147842, time: t, durationUs: 0, priority: 3 }],
};
const block: Block = { device, patient, boundFrom: t - 60_000_000, boundUntil: null, receivedAt: t + 5, epoch: 1, seqFirst: 1, seqLast: 4, frameSchema: 1, counts, sealed: bytes(24, 0x80) };
const studied = { study: 'ward-a', policy: bytes(32, 0xa0), pseudonym: bytes(16, 0x60), group: { age: '60-69', sex: 'F' } } as const;
const reason = { epoch: 1, seq: 3, path: 'waveforms[0].deltas[17]', code: 'out_of_range', signal: 131330, samples: 250 };

/** One or two values of every message. */
const values: { readonly [N in MessageName]: ReadonlyArray<Messages[N]> } = {
  Frame: [numericFrame, waveFrame, { epoch: 1, seq: 9_007_199_254_740_990, sentAt: 0, waveforms: [], numerics: [], events: [] }],
  Hello: [{ serverTime: t, epoch: 1, durableSeq: 41, windowFrames: 4096, windowBytes: 1_048_576, frameBytesMax: 65_536, messageBytesMax: 262_144, batchMs: 100 }],
  Ack: [{ epoch: 1, seq: 42 }, { epoch: 2, seq: 1_000_000_000_000 }],
  Nack: [{ epoch: 1, seq: 43, code: 'seq_gap', resend: true, retryAfterMs: 0 }],
  Command: [{ id: bytes(16, 0xc0), name: 'set_rate', args: { code: '131330', hz: '250' }, expiresAt: t + 60_000_000 }],
  CommandResult: [{ id: bytes(16, 0xc0), done: true, code: 'ok' }],
  Status: [{ sentAt: t, batteryPercent: 87, bufferedFrames: 12, droppedFrames: 0 }, { sentAt: t, batteryPercent: -1, bufferedFrames: 0, droppedFrames: 3 }],
  Block: [block, { ...block, boundUntil: t + 1, sealed: Buffer.alloc(0) }],
  Rejected: [{ device, patient, receivedAt: t, partition: 2, offset: 77, frameSchema: 1, reasons: [reason], sealed: bytes(8, 1) }],
  Held: [{ device, patient, receivedAt: t, partition: 2, offset: 78, frameSchema: 1, studies: ['ward-a'], counts, sealed: bytes(8, 1) }],
  AnonymizedRun: [{ ...studied, timeBasis: 'RELATIVE', year: 2026, code: 131330, unit: 266418, t0: 0, periodNs: 4_000_000, scale: 0.005, offset: 0, deltas: lead.deltas }],
  AnonymizedNumeric: [{ ...studied, timeBasis: 'SHIFTED', year: null, code: 147842, unit: 264864, times: [t, 1_000_000], values: [72, 71.5] }],
  PmrChunk: [{ patient, device, timeFirst: t, timeLast: t + 996_000, receivedFrom: t + 5, frameSchema: 1, compression: 'DEFLATE_RAW', plainBytes: 812, counts, sealed: bytes(8, 1) }],
  AuditRecord: [
    { time: t, nonce: bytes(16, 0x20), action: 'record.read', outcome: 'ALLOW', actorKind: 'USER', actor: bytes(32, 0x30), part: null, resourceKind: 'patient', resourceName: null, resource: bytes(32, 0x50), patient: bytes(32, 0x70), context: { purpose: 'treatment' }, hidden: { reason: bytes(32, 0x90) } },
    { time: t, nonce: bytes(16, 0x20), action: 'program.start', outcome: 'DONE', actorKind: 'SYSTEM', actor: bytes(32, 0x30), part: 'main', resourceKind: null, resourceName: null, resource: null, patient: null, context: {}, hidden: {} },
  ],
  AuditDetail: [{ who: bytes(40, 1), what: Buffer.alloc(0) }],
  AuditCheckpoint: [{ time: t, size: 2, note: 'origin\n2\nAAAA\n\n— origin AAAA\n' }],
  ChunkContent: [{ frames: [numericFrame, waveFrame] }, { frames: [] }],
};

/** Buffers as hex, at any depth. */
export function jsonForm(value: unknown): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  if (Array.isArray(value)) return value.map(jsonForm);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, field]) => [key, jsonForm(field)]));
}

function sound<N extends MessageName>(message: N): readonly GoldenVector[] {
  return values[message].map((value, index) => ({
    name: `${message}.${index + 1}`, message, schemaId: schemaIds[message], hex: encode(message, value).toString('hex'), json: jsonForm(value),
  }));
}

const frameHeader = '0000000001';
/** epoch 1, seq 1, sentAt 0 */
const start = '020200';
const timeZero = '00';
/** code 1, unit 1, time 0 */
const numericStart = `0202${timeZero}`;
const one = '000000000000f03f';

/** Bytes that no encoder of ours writes. */
const spelled: ReadonlyArray<readonly [name: string, body: string, json: unknown]> = [
  ['Frame.blocks', `${start}000116${numericStart}${one}02${numericStart}${one}0000`, { epoch: 1, seq: 1, sentAt: 0, waveforms: [], numerics: [1, 1].map(() => ({ code: 1, unit: 1, time: 0, value: 1 })), events: [] }],
];

const broken: ReadonlyArray<readonly [name: string, body: string, code: string, where: string]> = [
  ['empty', '', 'frame_malformed', 'frames[0].epoch'],
  ['truncated', `${start}0002${numericStart}0000`, 'frame_malformed', 'frames[0].numerics[0].value'],
  ['trailing', `${start}000000ff`, 'frame_malformed', 'frames[1].epoch'],
  ['epoch-zero', '000200000000', 'frame_malformed', 'frames[0].epoch'],
  ['seq-zero', '020000000000', 'frame_malformed', 'frames[0].seq'],
  ['int-too-big', '80808080100200000000', 'frame_malformed', 'frames[0].epoch'],
  ['varint-too-long', `02${'80'.repeat(10)}0000000000`, 'frame_malformed', 'frames[0].seq'],
  ['long-beyond-53-bits', `02${'ff'.repeat(8)}0f00000000`, 'frame_malformed', 'frames[0].seq'],
  ['value-nan', `${start}0002${numericStart}000000000000f87f0000`, 'frame_malformed', 'frames[0].numerics[0].value'],
  ['period-zero', `${start}0202020000${one}${one}020200000000`, 'frame_malformed', 'frames[0].waveforms[0].periodNs'],
  ['no-sample', `${start}0202020002${one}${one}00000000`, 'frame_malformed', 'frames[0].waveforms[0].deltas'],
  ['sample-beyond-32-bits', `${start}0202020002${one}${one}02808080801000000000`, 'frame_malformed', 'frames[0].waveforms[0].deltas[0]'],
  ['block-size-wrong', `${start}000118${numericStart}${one}0000`, 'frame_malformed', 'frames[0].numerics'],
  ['event-kind', `${start}0000020a0000000000`, 'frame_malformed', 'frames[0].events[0].kind'],
  ['too-many-events', `${start}00008208`, 'frame_too_large', 'frames[0].events'],
];

/** Every vector. */
export function goldenVectors(): readonly GoldenVector[] {
  const schemaId = schemaIds.Frame;
  return [
    ...(Object.keys(values) as MessageName[]).flatMap((message) => sound(message)),
    ...spelled.map(([name, body, json]): GoldenVector => ({ name, message: 'Frame', schemaId, hex: frameHeader + body, json, decodeOnly: true })),
    ...broken.map(([name, body, code, where]): GoldenVector => ({ name: `Frame.bad.${name}`, message: 'Frame', schemaId, hex: frameHeader + body, json: null, error: { code, where } })),
  ];
}

/** File name in schemas/ -> text. */
export function goldenFiles(): ReadonlyMap<string, string> {
  return new Map(goldenVectors().map((vector) => [`golden/${vector.name}.json`, `${JSON.stringify(vector, null, 2)}\n`]));
}
