import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocket, type RawData } from 'ws';
import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import { decode, encode, headerBytes, messageName } from '../schemas/codec.js';
import { frameMessage } from '../schemas/frames.js';
import type { Command, Hello, Nack } from '../schemas/types.js';
import type { FrameBuffer } from './buffer.js';
import type { Faults } from './faults.js';
import { signDeviceToken, type Jwk } from './key.js';

export type DeviceEventNote =
  | { readonly kind: 'connected'; readonly epoch: number; readonly resumeSeq: number }
  | { readonly kind: 'disconnected'; readonly code: number; readonly reason: string }
  /** The server answered the handshake with another HTTP status, or there is none; `retryMs` until the next try. */
  | { readonly kind: 'unreachable'; readonly status: number | null; readonly retryMs: number }
  | { readonly kind: 'acked'; readonly seq: number; readonly frames: number }
  | { readonly kind: 'nacked'; readonly seq: number; readonly code: string; readonly resend: boolean }
  | { readonly kind: 'command'; readonly name: string; readonly code: string };

/** Answers a command with `ok` or a code of its own. */
export type CommandHandler = (name: string, args: Readonly<Record<string, string>>) => Promise<string> | string;

export interface ClientOptions {
  /** Several with commas: places that can be tried, in turn. */
  readonly url: string;
  readonly deviceId: string;
  readonly privateKey: Jwk;
  /** PEM of the authority that signed the server's certificate, the only one to be trusted then; absent: those that Node trusts. */
  readonly ca?: Buffer | undefined;
  /** Connects in place of the usual way, and knows the server by itself; a failure is tried again. */
  readonly connect?: ((url: URL) => Promise<Socket>) | undefined;
  readonly buffer: FrameBuffer;
  readonly faults: Faults;
  /** Device clock, µs. */
  readonly now: () => number;
  readonly onEvent?: ((note: DeviceEventNote) => void) | undefined;
  readonly onCommand?: CommandHandler | undefined;
  readonly startedAtUs: number;
  readonly ackTimeoutMs?: number | undefined;
  /** Silence after which a waiting device pings the server. */
  readonly askAfterMs?: number | undefined;
  /** Offers permessage-deflate: fewer bytes on the wire for some CPU. */
  readonly deflate?: boolean | undefined;
  readonly statusMs?: number | undefined;
  readonly backoffMs?: number | undefined;
}

export interface ClientCounts {
  sent: number;
  resent: number;
  acked: number;
  refused: number;
  connections: number;
}

const subprotocol = 'spamer.v1';
/** Smaller messages hardly shrink. */
const deflateBytesMin = 128;
/** The longest wait is so many times the first one: a minute for a second. */
const backoffGrowthMax = 60;
/** Handshakes refused in a row after which waiting won't help: key unknown, device revoked, clock wrong. */
const refusalsMax = 5;
/** So often the server may fail to read one frame before its content is given up: never by chance, even where every fifth message is damaged. */
const attemptsMax = 12;
const commandsRemembered = 256;
/** A device that waits for the server and has heard nothing for so long pings it; without an answer for as long again it gives the connection up. */
const defaultAskAfterMs = 10_000;
/** Nothing waits, and not even a ping came for so long. */
const silentMsMax = 60_000;
const closedReplaced = 4001;
const closedForbidden = 4003;

/** Node's codes for a certificate that doesn't verify; waiting won't help. */
const certificateFaults = /^(DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_|CERT_|ERR_TLS_CERT_)/;

/** Sent from one place to another so often in a row, at most. */
const hopsMax = 3;

interface Ended {
  readonly helloed: boolean;
  /** The server lets this device in elsewhere. */
  readonly elsewhere: string | null;
  /** Of a refused handshake. */
  readonly status: number | null;
  readonly code: number;
  readonly untrusted: boolean;
}

const unconnected: Ended = { helloed: false, elsewhere: null, status: null, code: 1006, untrusted: false };

/** When anything came over a connection, and since when a ping waits for its answer. */
interface Heard {
  at: number;
  asked: number | null;
}

interface Live {
  readonly socket: WebSocket;
  readonly hello: Hello;
  sent: number;
  sentBytes: number;
  /** No sending before this, ms. */
  pausedUntil: number;
  progressAt: number;
}

/**
 * The connection of one device: it resumes from Hello, keeps within the window, sends again what was refused for now, and
 * comes back after a loss with growing, jittered pauses.
 */
export class DeviceClient {
  readonly counts: ClientCounts = { sent: 0, resent: 0, acked: 0, refused: 0, connections: 0 };
  readonly #options: ClientOptions;
  #live: Live | null = null;
  #window = 256;
  #skipped = new Set<number>();
  #attempts = { seq: 0, count: 0 };
  #waiters: Array<() => void> = [];
  #pumping = false;
  readonly #results = new Map<string, Promise<string>>();
  /** Server time less device time at Hello, µs. */
  #clockLead = 0;
  #fresh: boolean;
  /** When handshakes were given up that nobody had answered, ms: each may still arrive, and is the newer connection then. */
  #unanswered: number[] = [];

  constructor(options: ClientOptions) {
    this.#options = options;
    this.#fresh = !options.buffer.resumed;
  }

  /** Stays connected until `signal`. @throws SpamerError `unauthenticated` after repeated refusals, `replaced`, `forbidden`, `unreachable` when the certificate is not trusted. */
  async run(signal: AbortSignal): Promise<void> {
    const urls = this.#options.url.split(',');
    for (let failures = 0, refusals = 0, turn = 0; !signal.aborted; turn++) {
      const ackedBefore = this.counts.acked;
      const end = await this.#arrival(urls[turn % urls.length] ?? this.#options.url, signal);
      if (signal.aborted) return;
      if (this.counts.acked > ackedBefore) failures = 0;
      if (end.helloed) refusals = 0;
      if (end.code === closedReplaced && !this.#replacedItself()) throw new SpamerError('replaced', 'another connection of this device took over');
      if (end.code === closedForbidden) throw new SpamerError('forbidden', 'the device was suspended or revoked');
      if (end.untrusted) throw new SpamerError('unreachable', 'the certificate of the server is not trusted; `--ca` names the authority of a private one', { where: this.#options.url });
      if (end.status === 401 || end.status === 403) refusals += 1;
      if (refusals >= refusalsMax) throw new SpamerError('unauthenticated', 'the server refuses this device', { where: this.#options.url });
      const retryMs = (0.5 + Math.random() / 2) * (this.#options.backoffMs ?? 1000) * Math.min(backoffGrowthMax, 2 ** failures);
      failures = Math.min(failures + 1, 10);
      if (!end.helloed) this.#options.onEvent?.({ kind: 'unreachable', status: end.status, retryMs: Math.round(retryMs) });
      await sleep(retryMs, undefined, { signal }).catch(() => undefined);
    }
  }

  /** Whether a handshake of its own that came late can have been what took over; each is an excuse once. */
  #replacedItself(): boolean {
    this.#forgetLate();
    return this.#unanswered.shift() !== undefined;
  }

  /** Handshakes whose token is no longer good. */
  #forgetLate(): void {
    this.#unanswered = this.#unanswered.filter((at) => Date.now() - at < limits.deviceTokenAgeMaxS * 1000);
  }

  /** To be called after `buffer.append`. Frames appended in one turn share messages. */
  offer(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    setImmediate(() => {
      this.#pumping = false;
      this.#pump();
    });
  }

  /** Resolves when fewer frames wait than the window holds: the pace of `max`. */
  async room(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && this.#options.buffer.frames >= this.#window) await this.#change(signal);
  }

  /** Resolves when every frame is acknowledged, or refused for good. */
  async drained(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && this.#options.buffer.frames > 0) await this.#change(signal);
  }

  async #change(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        signal.removeEventListener('abort', done);
        resolve();
      };
      signal.addEventListener('abort', done, { once: true });
      this.#waiters.push(done);
    });
  }

  /** A connection to this place, or to where it sends the device. */
  async #arrival(url: string, signal: AbortSignal): Promise<Ended> {
    let end = await this.#connection(url, signal);
    for (let hops = 0; end.elsewhere !== null && hops < hopsMax && !signal.aborted; hops++) end = await this.#connection(end.elsewhere, signal);
    return end;
  }

  async #connection(url: string, signal: AbortSignal): Promise<Ended> {
    const { ca, connect, deviceId, privateKey, now, deflate = false } = this.#options;
    const made = connect === undefined ? undefined : await connect(new URL(url)).catch(() => null);
    if (made === null) return unconnected;
    return new Promise((resolve) => {
      const token = signDeviceToken({ device: deviceId, privateKey, nowMs: Math.floor(now() / 1000) });
      const socket = new WebSocket(url, subprotocol, { headers: { authorization: `Bearer ${token}` }, perMessageDeflate: deflate && { threshold: deflateBytesMin, clientNoContextTakeover: true }, handshakeTimeout: 10_000, maxPayload: 1024 * 1024, ...(ca === undefined ? {} : { ca }), ...(made === undefined ? {} : { createConnection: () => made }) });
      let untrusted = false;
      let status: number | null = null;
      let elsewhere: string | null = null;
      let helloed = false;
      let asked = true;
      const heard: Heard = { at: Date.now(), asked: null };
      const hear = (): void => void Object.assign(heard, { at: Date.now(), asked: null });
      const abort = (): void => {
        socket.close(1001);
        setTimeout(() => socket.terminate(), 1_000).unref();
      };
      const watch = setInterval(() => this.#watch(socket, heard), 250);
      const report = setInterval(() => this.#status(), this.#options.statusMs ?? 60_000);
      signal.addEventListener('abort', abort, { once: true });
      socket.on('unexpected-response', (request, response) => {
        status = response.statusCode ?? null;
        elsewhere = status === 307 ? placeOf(response.headers.location, url) : null;
        response.resume();
        request.destroy();
        socket.terminate();
      });
      socket.on('error', (error: NodeJS.ErrnoException) => {
        untrusted = certificateFaults.test(error.code ?? '');
        asked = error.code !== 'ECONNREFUSED';
      });
      socket.on('ping', hear);
      socket.on('pong', hear);
      socket.on('message', (data: RawData) => {
        hear();
        if (this.#message(socket, data as Buffer)) helloed = true;
      });
      socket.on('close', (code, reason) => {
        clearInterval(watch);
        clearInterval(report);
        signal.removeEventListener('abort', abort);
        if (this.#live?.socket === socket) this.#live = null;
        if (helloed) this.#options.onEvent?.({ kind: 'disconnected', code, reason: reason.toString() });
        else if (asked && status === null) {
          this.#forgetLate();
          this.#unanswered.push(Date.now());
        }
        resolve({ helloed, elsewhere, status, code, untrusted });
      });
      if (signal.aborted) abort();
    });
  }

  /** @returns whether it was the Hello. */
  #message(socket: WebSocket, data: Buffer): boolean {
    try {
      switch (messageName(data)) {
        case 'Hello': this.#hello(socket, decode('Hello', data)); return true;
        case 'Ack': this.#ack(decode('Ack', data)); return false;
        case 'Nack': this.#nack(decode('Nack', data)); return false;
        case 'Command': void this.#command(socket, decode('Command', data)); return false;
        default: return false;
      }
    } catch {
      // A server that sends what can't be read is no server of ours.
      socket.close(1002);
      return false;
    }
  }

  #hello(socket: WebSocket, hello: Hello): void {
    const { buffer, onEvent } = this.#options;
    this.#agree(hello);
    this.#clockLead = hello.serverTime - this.#options.now();
    this.#fresh = false;
    this.#skipped.clear();
    this.#window = hello.windowFrames;
    this.counts.connections += 1;
    this.#live = { socket, hello, sent: buffer.acked, sentBytes: 0, pausedUntil: 0, progressAt: Date.now() };
    onEvent?.({ kind: 'connected', epoch: buffer.epoch, resumeSeq: buffer.acked + 1 });
    this.#status();
    this.#changed();
    this.#pump();
  }

  /** Brings the device's counter and the server's mark together [ONCE]. */
  #agree(hello: Hello): void {
    const { buffer } = this.#options;
    if (this.#fresh && hello.epoch > 0) {
      // A device without memory can't know whether its numbers were used before.
      this.#renumber(hello.epoch + 1);
    } else if (hello.epoch > buffer.epoch) {
      this.#renumber(hello.epoch + 1);
    } else if (hello.epoch === buffer.epoch) {
      if (hello.durableSeq >= buffer.next) {
        buffer.ack(buffer.next - 1);
        this.#renumber(hello.epoch + 1);
      } else if (hello.durableSeq < buffer.acked && !buffer.resumed) {
        // The server was set back: what it lost is gone here too, the rest goes under a new epoch.
        this.#renumber(hello.epoch + 1);
      } else {
        buffer.rewind(hello.durableSeq);
        buffer.ack(hello.durableSeq);
      }
    } else if (buffer.acked > 0) {
      this.#renumber(buffer.epoch + 1);
    }
    buffer.resumed = false;
  }

  #renumber(epoch: number): void {
    this.#options.buffer.renumber(epoch);
  }

  #ack({ epoch, seq }: { epoch: number; seq: number }): void {
    const { buffer } = this.#options;
    if (epoch !== buffer.epoch) return;
    this.#passed(Math.max(seq, buffer.acked));
  }

  #passed(seq: number): void {
    const { buffer, onEvent } = this.#options;
    const live = this.#live;
    const before = buffer.acked;
    let upTo = seq;
    while (this.#skipped.delete(upTo + 1)) upTo += 1;
    for (let done = before + 1; live !== null && done <= Math.min(upTo, live.sent); done++) live.sentBytes -= buffer.body(done).length;
    buffer.ack(upTo);
    if (live !== null) {
      live.sent = Math.max(live.sent, buffer.acked);
      live.progressAt = Date.now();
      if (live.sent === buffer.acked) live.sentBytes = 0;
    }
    this.counts.acked += buffer.acked - before;
    if (buffer.acked > before) onEvent?.({ kind: 'acked', seq: buffer.acked, frames: buffer.acked - before });
    this.#changed();
    this.#pump();
  }

  #nack({ epoch, seq, code, resend, retryAfterMs }: Nack): void {
    const { buffer, onEvent } = this.#options;
    onEvent?.({ kind: 'nacked', seq, code, resend });
    if (code === 'epoch_old') {
      // Hello of the next connection names the epoch to go on with.
      this.#live?.socket.close(1000);
    } else if (!resend && seq > buffer.acked && epoch === buffer.epoch) {
      // Passed for good: its seq counts, its content is lost.
      this.counts.refused += 1;
      this.#skipped.add(seq);
      this.#passed(buffer.acked);
    } else {
      // Known only as "what you sent could not be read": from the first unacknowledged frame on, once more.
      if (!resend) this.#tried(buffer.acked + 1);
      // Later by a random part: else a whole ward comes back in the same moment that was too much before.
      this.#rewind(Math.ceil(retryAfterMs * (1 + Math.random() / 2)));
    }
  }

  #tried(seq: number): void {
    // One that was doubled on the way is refused twice, and was tried once.
    if (this.#live === null || this.#live.sent < seq) return;
    this.#attempts = this.#attempts.seq === seq ? { seq, count: this.#attempts.count + 1 } : { seq, count: 1 };
    if (this.#attempts.count < attemptsMax) return;
    this.#options.buffer.hollow(seq);
    this.counts.refused += 1;
  }

  #rewind(afterMs: number): void {
    const live = this.#live;
    if (live === null) return;
    live.sent = this.#options.buffer.acked;
    live.sentBytes = 0;
    live.pausedUntil = Date.now() + afterMs;
    live.progressAt = live.pausedUntil;
    if (afterMs === 0) this.offer();
    // A timer may fire within the last millisecond of its time, when the pause still holds.
    else setTimeout(() => this.#pump(), afterMs + 1).unref();
  }

  /** Sends what the window allows; several frames share a message. */
  #pump(): void {
    const live = this.#live;
    if (live === null || live.socket.readyState !== WebSocket.OPEN || Date.now() < live.pausedUntil) return;
    const { buffer, faults } = this.#options;
    if (live.sent === buffer.acked) live.progressAt = Date.now();
    for (;;) {
      const bodies = this.#batch(live);
      if (bodies.length === 0) return;
      faults.transmit(frameMessage(bodies), (message) => { if (live.socket.readyState === WebSocket.OPEN) live.socket.send(message); }, () => live.socket.terminate());
    }
  }

  #batch(live: Live): Buffer[] {
    const { buffer } = this.#options;
    const { windowFrames, windowBytes, messageBytesMax } = live.hello;
    const bodies: Buffer[] = [];
    let bytes = headerBytes;
    while (live.sent + 1 < buffer.next && live.sent - buffer.acked < windowFrames) {
      const body = buffer.body(live.sent + 1);
      if (bytes + body.length > messageBytesMax && bodies.length > 0) break;
      if (live.sentBytes + body.length > windowBytes) break;
      bodies.push(body);
      bytes += body.length;
      live.sentBytes += body.length;
      live.sent += 1;
      if (live.sent > buffer.sent) this.counts.sent += 1;
      else this.counts.resent += 1;
      buffer.sent = Math.max(buffer.sent, live.sent);
    }
    return bodies;
  }

  /** A message may be lost on the way into a dying connection, so silence is answered by sending again; and by a question, since the other side may be gone untold. */
  #watch(socket: WebSocket, heard: Heard): void {
    const live = this.#live;
    const now = Date.now();
    const { askAfterMs = defaultAskAfterMs, ackTimeoutMs = 15_000 } = this.#options;
    const waits = live?.socket !== socket || live.sent > this.#options.buffer.acked;
    if (now - heard.at > silentMsMax || (heard.asked !== null && now - heard.asked > askAfterMs)) {
      socket.terminate();
      return;
    }
    if (!waits) return;
    if (heard.asked === null && now - heard.at > askAfterMs) {
      heard.asked = now;
      if (socket.readyState === WebSocket.OPEN) socket.ping();
    }
    if (live?.socket === socket && now - live.progressAt > ackTimeoutMs) this.#rewind(0);
  }

  #status(): void {
    const { buffer, faults, now, startedAtUs } = this.#options;
    const socket = this.#live?.socket;
    if (socket?.readyState !== WebSocket.OPEN) return;
    const batteryPercent = faults.battery((Date.now() * 1000 - startedAtUs) / 1e6);
    socket.send(encode('Status', { sentAt: Math.floor(now()), batteryPercent, bufferedFrames: buffer.frames, droppedFrames: buffer.dropped }));
  }

  async #command(socket: WebSocket, command: Command): Promise<void> {
    const id = Buffer.from(command.id).toString('hex');
    const result = this.#results.get(id) ?? this.#perform(command);
    // An order that comes again is answered again, not done again.
    this.#results.set(id, result);
    const [oldest] = this.#results.keys();
    if (this.#results.size > commandsRemembered && oldest !== undefined) this.#results.delete(oldest);
    const code = await result;
    this.#options.onEvent?.({ kind: 'command', name: command.name, code });
    if (socket.readyState === WebSocket.OPEN) socket.send(encode('CommandResult', { id: command.id, done: code === 'ok', code }));
  }

  async #perform({ name, args, expiresAt }: Command): Promise<string> {
    if (expiresAt < this.#options.now() + this.#clockLead) return 'expired';
    if (name === 'ping') return 'ok';
    if (name === 'status') {
      this.#status();
      return 'ok';
    }
    try {
      return (await this.#options.onCommand?.(name, args)) ?? 'unknown_command';
    } catch {
      return 'refused';
    }
  }

  #changed(): void {
    const waiting = this.#waiters;
    this.#waiters = [];
    for (const wake of waiting) wake();
  }
}

/** Where a redirect leads; null: nowhere that the token may go, since TLS must not be given up for it. */
export function placeOf(location: string | undefined, from: string): string | null {
  if (location === undefined || !URL.canParse(location, from)) return null;
  const { protocol, href } = new URL(location, from);
  return protocol === 'wss:' || (protocol === 'ws:' && from.startsWith('ws:')) ? href : null;
}
