/**
 * Frames that are not acknowledged yet. They keep their seq, so a resend is recognised [ONCE]. With a folder they survive a
 * restart of the device:
 *
 *   frames-<epoch>-<first seq>.log = { u32 length, frame body } *
 *
 * When the buffer is full the oldest frames that were never sent lose their content, not their number: a server takes seq
 * without gaps only, and a number that was sent must always mean the same bytes. In place of a lost frame goes one that holds a
 * GAP event, and the loss is counted. After a restart every frame counts as sent, since nothing says which were.
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

/** Frames `from` to `to` have lost their content, which was measured between the two times. */
interface Lost {
  readonly from: number;
  to: number;
  readonly fromUs: number;
  toUs: number;
}

interface Segment {
  readonly file: string;
  handle: number | null;
  readonly first: number;
  last: number;
  bytes: number;
}

const segmentShape = /^frames-(\d{10})-(\d{16})\.log$/;
const bytesMaxDefault = 16 * 1024 * 1024;

export class FrameBuffer {
  epoch = 1;
  /** Highest seq that the server has passed. */
  acked = 0;
  /** Highest seq that was ever sent. */
  sent = 0;
  /** The seq that the next frame gets. */
  next = 1;
  /** Frames that lost their content for want of room. */
  dropped = 0;
  bytes = 0;
  /** True when frames or counters came from the folder. */
  resumed = false;
  readonly #folder: string | null;
  readonly #bytesMax: number;
  /** By seq; what is absent between `acked` and `next` has lost its content. */
  readonly #held = new Map<number, Held>();
  #lost: Lost[] = [];
  #segments: Segment[] = [];

  constructor({ folder, bytesMax = bytesMaxDefault }: BufferOptions) {
    this.#folder = folder;
    this.#bytesMax = Math.max(bytesMax, limits.frameBytesMax);
    if (folder === null) return;
    mkdirSync(folder, { recursive: true });
    this.#load(folder);
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
    this.#held.set(seq, { body, sentAt });
    this.bytes += body.length;
    this.next += 1;
    this.#makeRoom();
    return seq;
  }

  /** The body to send for a seq in (acked, next). */
  body(seq: number): Buffer {
    const held = this.#held.get(seq);
    if (held !== undefined) return held.body;
    const lost = this.#lost.find(({ from, to }) => from <= seq && seq <= to) ?? { to: seq, fromUs: 0, toUs: 0 };
    return this.#gapFrame(seq, lost.fromUs, seq === lost.to ? lost.toUs : lost.fromUs);
  }

  /** Everything up to and with seq is done. */
  ack(seq: number): void {
    const upTo = Math.min(seq, this.next - 1);
    for (let done = this.acked + 1; done <= upTo; done++) this.#forget(done);
    this.acked = Math.max(this.acked, upTo);
    this.sent = Math.max(this.sent, this.acked);
    this.#lost = this.#lost.filter(({ to }) => to > this.acked);
    this.#trim();
  }

  /** The server's mark is behind: frames from there on go again, without content where that is gone. */
  rewind(durable: number): void {
    const first = this.#held.values().next();
    const atUs = first.done === true ? 0 : first.value.sentAt;
    if (durable < this.acked) this.#lost.unshift({ from: durable + 1, to: this.acked, fromUs: atUs, toUs: atUs });
    this.acked = Math.min(this.acked, durable);
  }

  /** Gives up the content of one frame that the server can't read. */
  hollow(seq: number): void {
    const held = this.#held.get(seq);
    if (held === undefined) return;
    const body = this.#gapFrame(seq, held.sentAt, held.sentAt);
    this.bytes += body.length - held.body.length;
    this.#held.set(seq, { body, sentAt: held.sentAt });
    this.dropped += 1;
  }

  /** A new epoch: what is not acknowledged gets numbers 1, 2, 3 …, and frames without content go. */
  renumber(epoch: number): void {
    const frames = [...this.#held.values()].flatMap(({ body }) => decodeFrameBodies(body));
    const old = this.#segments;
    this.#held.clear();
    [this.epoch, this.acked, this.sent, this.next, this.bytes] = [epoch, 0, 0, 1, 0];
    [this.#segments, this.#lost] = [[], []];
    for (const { waveforms, numerics, events, sentAt } of frames) this.append({ waveforms, numerics, events }, sentAt);
    // Only now: a crash in between leaves both, and the higher epoch wins when they are read again.
    for (const segment of old) discard(segment);
  }

  close(): void {
    for (const { handle } of this.#segments) if (handle !== null) closeSync(handle);
    this.#segments = [];
  }

  #makeRoom(): void {
    if (this.bytes <= this.#bytesMax) return;
    // Where dropping went on last time; the frame just appended stays.
    let seq = Math.max(this.sent, this.acked) + 1;
    const last = this.#lost.at(-1);
    if (last !== undefined && last.from <= seq) seq = Math.max(seq, last.to + 1);
    for (; this.bytes > this.#bytesMax && seq < this.next - 1; seq++) this.#drop(seq);
    // All that could go is gone: then the newest measurement is what there is no room for.
    if (this.bytes > this.#bytesMax && seq > this.sent) this.#drop(this.next - 1);
    this.#trim();
  }

  #drop(seq: number): void {
    const held = this.#held.get(seq);
    if (held === undefined) return;
    this.#forget(seq);
    this.dropped += 1;
    const last = this.#lost.at(-1);
    // A range whose end was sent is told already: its bytes stay.
    if (last?.to === seq - 1 && last.to > this.sent) [last.to, last.toUs] = [seq, held.sentAt];
    else this.#lost.push({ from: seq, to: seq, fromUs: held.sentAt, toUs: held.sentAt });
  }

  #forget(seq: number): void {
    const held = this.#held.get(seq);
    if (held === undefined) return;
    this.bytes -= held.body.length;
    this.#held.delete(seq);
  }

  #gapFrame(seq: number, fromUs: number, toUs: number): Buffer {
    return encodeFrameBody({ epoch: this.epoch, seq, sentAt: fromUs, waveforms: [], numerics: [], events: [{ kind: 'GAP', code: 0, time: fromUs, durationUs: Math.max(0, toUs - fromUs), priority: 0 }] });
  }

  #write(seq: number, body: Buffer): void {
    if (this.#folder === null) return;
    try {
      const segment = this.#segmentFor(this.#folder, seq);
      const record = Buffer.alloc(4 + body.length);
      record.writeUInt32LE(body.length);
      body.copy(record, 4);
      if (segment.handle !== null) writeSync(segment.handle, record);
      segment.last = seq;
      segment.bytes += record.length;
    } catch (cause) {
      throw toSpamerError(cause, 'disk_full', 'the offline buffer cannot be written', this.#folder);
    }
  }

  #segmentFor(folder: string, seq: number): Segment {
    const present = this.#segments.at(-1);
    if (present !== undefined && present.handle !== null && present.bytes <= this.#bytesMax / 8) return present;
    if (present !== undefined && present.handle !== null) {
      closeSync(present.handle);
      present.handle = null;
    }
    const file = join(folder, `frames-${String(this.epoch).padStart(10, '0')}-${String(seq).padStart(16, '0')}.log`);
    const segment = { file, handle: openSync(file, 'w', 0o600), first: seq, last: seq, bytes: 0 };
    this.#segments.push(segment);
    return segment;
  }

  /** Removes segments of which no frame is needed; the last stays, since it keeps the counter. */
  #trim(): void {
    const newest = this.#segments.at(-1);
    this.#segments = this.#segments.filter((segment) => {
      if (segment === newest || this.#needs(segment)) return true;
      discard(segment);
      return false;
    });
  }

  #needs({ first, last }: Segment): boolean {
    for (let seq = Math.max(first, this.acked + 1); seq <= last; seq++) if (this.#held.has(seq)) return true;
    return false;
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
    this.sent = this.next - 1;
  }

  #loadSegment(file: string): void {
    const bytes = readFileSync(file);
    const first = this.next;
    for (let at = 0; at + 4 <= bytes.length;) {
      const end = at + 4 + bytes.readUInt32LE(at);
      // A torn tail: the frame was never sent, since writing comes first.
      if (end > bytes.length) break;
      const body = bytes.subarray(at + 4, end);
      for (const { epoch, seq, sentAt } of decodeFrameBodies(body)) this.#keep(epoch, seq, { body, sentAt });
      at = end;
    }
    this.#segments.push({ file, handle: null, first, last: this.next - 1, bytes: bytes.length });
  }

  #keep(epoch: number, seq: number, held: Held): void {
    // What stands before the first frame was acknowledged or dropped: Hello tells which. A hole later on was dropped.
    if (!this.resumed) this.acked = seq - 1;
    else if (seq > this.next) this.#lost.push({ from: this.next, to: seq - 1, fromUs: held.sentAt, toUs: held.sentAt });
    [this.resumed, this.epoch, this.next] = [true, epoch, seq + 1];
    this.#held.set(seq, held);
    this.bytes += held.body.length;
  }
}

function discard({ file, handle }: Segment): void {
  if (handle !== null) closeSync(handle);
  rmSync(file, { force: true });
}
