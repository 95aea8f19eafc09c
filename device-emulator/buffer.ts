/**
 * Frames that are not acknowledged yet. They keep their seq, so a resend is recognised [ONCE]. With a folder they survive a
 * restart of the device:
 *
 *   frames-<epoch>-<first seq>.log = { u32 length, frame body } *
 *
 * When the buffer is full the oldest frames lose their content, never their number: a server takes seq without gaps only.
 * In place of a lost frame goes one that holds a GAP event, and the loss is counted.
 */
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { SpamerError, toSpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import { decodeFrameBodies, encodeFrameBody } from '../schemas/frames.js';
import type { FrameContent } from './framer.js';

export interface BufferOptions {
  /** null: in memory only. */
  readonly folder: string | null;
  readonly bytesMax?: number;
}

interface Held {
  readonly body: Buffer;
  readonly sentAt: number;
}

interface Segment {
  readonly file: string;
  readonly handle: number | null;
  last: number;
  bytes: number;
}

const segmentShape = /^frames-(\d{10})-(\d{16})\.log$/;
const bytesMaxDefault = 16 * 1024 * 1024;

export class FrameBuffer {
  epoch = 1;
  /** Highest seq that the server has passed. */
  acked = 0;
  /** Frames that lost their content for want of room. */
  dropped = 0;
  bytes = 0;
  /** True when frames or counters came from the folder. */
  resumed = false;
  readonly #folder: string | null;
  readonly #bytesMax: number;
  /** Frames `#first`, `#first` + 1 …; those between `acked` and `#first` have lost their content. */
  #held: Held[] = [];
  #first = 1;
  #hole: { fromUs: number; toUs: number } | null = null;
  #segments: Segment[] = [];

  constructor({ folder, bytesMax = bytesMaxDefault }: BufferOptions) {
    this.#folder = folder;
    this.#bytesMax = Math.max(bytesMax, limits.frameBytesMax);
    if (folder === null) return;
    mkdirSync(folder, { recursive: true });
    this.#load(folder);
  }

  /** The seq that the next frame gets. */
  get next(): number {
    return this.#first + this.#held.length;
  }

  get frames(): number {
    return this.next - 1 - this.acked;
  }

  /** @returns the frame's seq. @throws SpamerError `disk_full`, `frame_too_large`. */
  append(content: FrameContent, sentAt: number): number {
    const seq = this.next;
    const body = encodeFrameBody({ epoch: this.epoch, seq, sentAt, ...content });
    if (body.length > limits.frameBytesMax) throw new SpamerError('frame_too_large', 'a frame is larger than any server takes', { where: `seq ${seq}` });
    this.#write(seq, body);
    this.#held.push({ body, sentAt });
    this.bytes += body.length;
    while (this.bytes > this.#bytesMax && this.#held.length > 1) this.#dropOldest();
    return seq;
  }

  /** The body to send for a seq in (acked, next). */
  body(seq: number): Buffer {
    const held = this.#held[seq - this.#first];
    return held === undefined ? this.#hollow(seq) : held.body;
  }

  /** Everything up to and with seq is done. */
  ack(seq: number): void {
    if (seq <= this.acked) return;
    this.acked = Math.min(seq, this.next - 1);
    const done = Math.max(0, this.acked + 1 - this.#first);
    for (const { body } of this.#held.splice(0, done)) this.bytes -= body.length;
    this.#first += done;
    if (this.acked + 1 >= this.#first) this.#hole = null;
    this.#trim();
  }

  /** Gives up the content of one frame that the server can't read. */
  hollow(seq: number): void {
    const at = seq - this.#first;
    const held = this.#held[at];
    if (held === undefined) return;
    const body = this.#gapFrame(seq, held.sentAt, held.sentAt, held.sentAt);
    this.bytes += body.length - held.body.length;
    this.#held[at] = { body, sentAt: held.sentAt };
    this.dropped += 1;
  }

  /** A new epoch: what is not acknowledged gets numbers 1, 2, 3 …, and frames without content go. */
  renumber(epoch: number): void {
    const frames = this.#held.flatMap(({ body }) => decodeFrameBodies(body));
    const old = this.#segments;
    this.epoch = epoch;
    this.acked = 0;
    this.#first = 1;
    this.bytes = 0;
    this.#held = [];
    this.#segments = [];
    this.#hole = null;
    for (const { waveforms, numerics, events, sentAt } of frames) this.append({ waveforms, numerics, events }, sentAt);
    // Only now: a crash in between leaves both, and the higher epoch wins when they are read again.
    for (const segment of old) discard(segment);
  }

  close(): void {
    for (const { handle } of this.#segments) if (handle !== null) closeSync(handle);
    this.#segments = [];
  }

  #dropOldest(): void {
    const oldest = this.#held.shift();
    if (oldest === undefined) return;
    this.bytes -= oldest.body.length;
    this.#first += 1;
    this.dropped += 1;
    this.#hole = { fromUs: Math.min(this.#hole?.fromUs ?? oldest.sentAt, oldest.sentAt), toUs: oldest.sentAt };
    this.#trim();
  }

  #hollow(seq: number): Buffer {
    const hole = this.#hole ?? { fromUs: 0, toUs: 0 };
    return this.#gapFrame(seq, hole.toUs, hole.fromUs, seq === this.#first - 1 ? hole.toUs : hole.fromUs);
  }

  #gapFrame(seq: number, sentAt: number, fromUs: number, toUs: number): Buffer {
    return encodeFrameBody({ epoch: this.epoch, seq, sentAt, waveforms: [], numerics: [], events: [{ kind: 'GAP', code: 0, time: fromUs, durationUs: Math.max(0, toUs - fromUs), priority: 0 }] });
  }

  #write(seq: number, body: Buffer): void {
    if (this.#folder === null) return;
    try {
      let segment = this.#segments.at(-1);
      if (segment?.handle == null || segment.bytes > this.#bytesMax / 8) {
        if (segment?.handle != null) {
          closeSync(segment.handle);
          this.#segments[this.#segments.length - 1] = { ...segment, handle: null };
        }
        const file = join(this.#folder, `frames-${String(this.epoch).padStart(10, '0')}-${String(seq).padStart(16, '0')}.log`);
        segment = { file, handle: openSync(file, 'w', 0o600), last: seq, bytes: 0 };
        this.#segments.push(segment);
      }
      const length = Buffer.alloc(4);
      length.writeUInt32LE(body.length);
      if (segment.handle !== null) writeSync(segment.handle, Buffer.concat([length, body]));
      segment.last = seq;
      segment.bytes += body.length + 4;
    } catch (cause) {
      throw toSpamerError(cause, 'disk_full', 'the offline buffer cannot be written', this.#folder);
    }
  }

  /** Removes segments of which no frame is needed; the last stays, since it keeps the counter. */
  #trim(): void {
    while (this.#segments.length > 1 && (this.#segments[0]?.last ?? Infinity) < this.#first) {
      const segment = this.#segments.shift();
      if (segment !== undefined) discard(segment);
    }
  }

  #load(folder: string): void {
    const files = readdirSync(folder).filter((name) => segmentShape.test(name)).sort();
    const newest = files.at(-1);
    if (newest === undefined) return;
    const epoch = newest.slice(0, 'frames-0000000000'.length);
    for (const name of files) {
      if (name.startsWith(epoch)) this.#loadSegment(join(folder, name));
      else rmSync(join(folder, name));
    }
    // What stands before the first frame was acknowledged or dropped: Hello tells which.
    this.acked = this.#first - 1;
    while (this.bytes > this.#bytesMax && this.#held.length > 1) this.#dropOldest();
  }

  #loadSegment(file: string): void {
    const bytes = readFileSync(file);
    let last = 0;
    for (let at = 0; at + 4 <= bytes.length;) {
      const end = at + 4 + bytes.readUInt32LE(at);
      // A torn tail: the frame was never sent, since writing comes first.
      if (end > bytes.length) break;
      const body = bytes.subarray(at + 4, end);
      const [frame] = decodeFrameBodies(body);
      if (frame !== undefined) this.#keep(frame.epoch, frame.seq, { body, sentAt: frame.sentAt });
      last = frame?.seq ?? last;
      at = end;
    }
    this.#segments.push({ file, handle: null, last, bytes: bytes.length });
  }

  #keep(epoch: number, seq: number, held: Held): void {
    if (!this.resumed || seq !== this.next) {
      this.#held = [];
      this.bytes = 0;
      this.#first = seq;
    }
    this.resumed = true;
    this.epoch = epoch;
    this.#held.push(held);
    this.bytes += held.body.length;
  }
}

function discard({ file, handle }: Segment): void {
  if (handle !== null) closeSync(handle);
  rmSync(file, { force: true });
}
