import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { randomOf } from '../device-emulator/random.js';

/** How a link is at present, in both directions; `{}`: as if it were not there. */
export interface Weather {
  /** Each byte is on its way for so long. */
  readonly delayMs?: number;
  /** Of each connection. */
  readonly bytesPerS?: number;
  /** Share of packets that are lost. TCP sends them again, so what is seen is that all behind one waits for it, longer each time. */
  readonly loss?: number;
  /** Whoever connects is connected and hears nothing; what was sent, a close too, arrives in other weather. */
  readonly stalled?: boolean;
}

/** TCP's first wait before it sends again what was lost; doubled each time. */
const retransmitMs = 200;
const retransmitsMax = 4;
/** Bytes that one direction of a connection holds; beyond them its sender is made to wait. */
const heldBytesMax = 4 * 1024 * 1024;
/** A slow link gives so many pieces a second. */
const piecesPerS = 20;

/** Bytes, or how the sender's side ended. */
type Held = { readonly bytes: Buffer | 'end' | 'reset'; readonly dueMs: number };

interface Shared {
  weather: Weather;
  readonly random: () => number;
  readonly passed: { bytes: number };
}

/**
 * One direction of one connection. Whatever happens (bytes, a write that is done, a timer, other weather) does nothing but `step`, and a
 * sender that waits is let go on in the same place where room is made: nothing hangs on an event that may not come.
 */
class Flow {
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #shared: Shared;
  #held: Held[] = [];
  #heldBytes = 0;
  #lastDueMs = 0;
  #writing = false;
  #freeMs = 0;
  #timer: NodeJS.Timeout | undefined;
  #ended = false;
  /** Nothing is passed on any more, not even how the sender ended. */
  #abandoned = false;
  /** The sender is gone and the receiver is never told; what had been sent comes when it is released. */
  #orphan: 'held' | 'released' | null = null;

  constructor(from: Socket, to: Socket, shared: Shared) {
    this.#from = from;
    this.#to = to;
    this.#shared = shared;
    from.on('data', (bytes: Buffer) => this.#take(bytes));
    from.on('end', () => {
      this.#ended = true;
      this.#take('end');
    });
    // A failure is a close, which tells whether the sender had ended in good order.
    from.on('error', () => undefined);
    from.on('close', (failed) => { if (failed || !this.#ended) this.#take('reset'); });
    to.on('close', () => this.#drop());
  }

  abandon(): void {
    this.#abandoned = true;
    this.#drop();
  }

  orphan(): void {
    this.#orphan = 'held';
  }

  release(): void {
    this.#orphan = 'released';
    this.turn();
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** The weather has changed. */
  turn(): void {
    this.#freeMs = 0;
    // What is late because of the weather before comes when that of now would bring it.
    this.#lastDueMs = 0;
    this.#held = this.#held.map(({ bytes }) => ({ bytes, dueMs: this.#due() }));
    this.#step();
  }

  #due(): number {
    const { weather: { delayMs = 0, loss = 0 }, random } = this.#shared;
    let lateMs = delayMs;
    for (let tries = 0; tries < retransmitsMax && random() < loss; tries++) lateMs += retransmitMs * 2 ** tries;
    this.#lastDueMs = Math.max(this.#lastDueMs, performance.now() + lateMs);
    return this.#lastDueMs;
  }

  #take(bytes: Held['bytes']): void {
    if (this.#abandoned || this.#to.destroyed || (this.#orphan !== null && typeof bytes === 'string')) return;
    this.#held.push({ bytes, dueMs: this.#due() });
    if (typeof bytes !== 'string') this.#heldBytes += bytes.length;
    this.#step();
  }

  #step(): void {
    clearTimeout(this.#timer);
    if (this.#heldBytes < heldBytesMax) this.#from.resume();
    else this.#from.pause();
    const [next] = this.#held;
    const { stalled = false } = this.#shared.weather;
    if (next === undefined || this.#writing || stalled || this.#orphan === 'held' || this.#to.destroyed || this.#to.connecting) return;
    const waitMs = Math.max(next.dueMs, this.#freeMs) - performance.now();
    if (waitMs > 0) this.#timer = setTimeout(() => this.#step(), Math.ceil(waitMs));
    else this.#pass(next);
  }

  #pass({ bytes, dueMs }: Held): void {
    this.#held.shift();
    if (bytes === 'reset') return void this.#to.resetAndDestroy();
    if (bytes === 'end') return void this.#to.end();
    const { bytesPerS = Infinity } = this.#shared.weather;
    const piece = bytes.subarray(0, Math.max(1, Math.floor(bytesPerS / piecesPerS)));
    if (piece.length < bytes.length) this.#held.unshift({ bytes: bytes.subarray(piece.length), dueMs });
    this.#heldBytes -= piece.length;
    this.#freeMs = performance.now() + (1000 * piece.length) / bytesPerS;
    this.#writing = true;
    // Called for a socket that has failed too.
    this.#to.write(piece, (error) => {
      this.#writing = false;
      if (!error) this.#shared.passed.bytes += piece.length;
      this.#step();
    });
  }

  /** What is on its way is gone, and the sender never waits again. */
  #drop(): void {
    clearTimeout(this.#timer);
    this.#held = [];
    this.#heldBytes = 0;
    this.#from.resume();
  }

  /** To be called when the receiver is connected. */
  begin(): void {
    this.#step();
  }
}

interface Pair {
  readonly near: Socket;
  readonly far: Socket;
  readonly flows: readonly [Flow, Flow];
}

/** A TCP link between two parts that a test may disturb while they speak: whoever connects to `port` is connected to the other side. */
export class Link {
  readonly port: number;
  readonly #server: Server;
  readonly #shared: Shared;
  readonly #pairs = new Set<Pair>();
  /** Connections of which neither side will ever hear of the other again. */
  readonly #abandoned = new Set<Pair>();
  #isCut = false;

  private constructor(server: Server, to: number, seed: number) {
    this.port = (server.address() as AddressInfo).port;
    this.#server = server;
    this.#shared = { weather: {}, random: randomOf(seed), passed: { bytes: 0 } };
    server.on('connection', (near) => this.#join(near, to));
  }

  /** @param to port on this machine @param port own one; without it any. */
  static async start(to: number, { port = 0, seed = 1 }: { readonly port?: number; readonly seed?: number } = {}): Promise<Link> {
    const server = createServer({ allowHalfOpen: true, noDelay: true });
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve));
    return new Link(server, to, seed);
  }

  /** Connections over which bytes can go. */
  get connections(): number {
    return this.#pairs.size;
  }

  /** Bytes that are on their way, of both directions. */
  get heldBytes(): number {
    return [...this.#pairs].reduce((sum, { flows: [up, down] }) => sum + up.heldBytes + down.heldBytes, 0);
  }

  /** Bytes that have arrived, of both directions. */
  get passedBytes(): number {
    return this.#shared.passed.bytes;
  }

  /** Who still believes that it has an abandoned connection: of those who connected, and of those who were connected to. */
  get unaware(): { readonly near: number; readonly far: number } {
    const open = (side: 'near' | 'far'): number => [...this.#abandoned].filter((pair) => !pair[side].destroyed).length;
    return { near: open('near'), far: open('far') };
  }

  be(weather: Weather): void {
    this.#shared.weather = weather;
    for (const { flows } of this.#pairs) for (const flow of flows) flow.turn();
  }

  /** Every connection is reset, and so is each new one until `mend`. */
  cut(): void {
    this.#isCut = true;
    this.reset();
  }

  mend(): void {
    this.#isCut = false;
    this.be({});
  }

  /** Every connection is reset; new ones go through. */
  reset(): void {
    for (const { near, far } of [...this.#pairs]) for (const side of [near, far]) side.resetAndDestroy();
  }

  /** Half-open: what runs over the present connections is lost from now on, and neither side is told, not even that the other has closed. New ones go through. */
  abandon(): void {
    for (const pair of this.#pairs) {
      for (const flow of pair.flows) flow.abandon();
      this.#forget(pair);
    }
  }

  /**
   * Whoever had connected is cut off; the other side is never told of it.
   * @returns lets what had been sent to the other side arrive there, after all.
   */
  orphan(): () => void {
    const orphans = [...this.#pairs];
    for (const pair of orphans) {
      pair.flows[0].orphan();
      pair.near.resetAndDestroy();
      this.#forget(pair);
    }
    return () => { for (const { flows } of orphans) flows[0].release(); };
  }

  async stop(): Promise<void> {
    for (const { near, far } of [...this.#pairs, ...this.#abandoned]) for (const side of [near, far]) side.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #forget(pair: Pair): void {
    this.#pairs.delete(pair);
    this.#abandoned.add(pair);
    for (const side of [pair.near, pair.far]) {
      if (side.readableEnded) side.destroy();
      else side.once('end', () => side.destroy());
    }
  }

  #join(near: Socket, to: number): void {
    if (this.#isCut) {
      near.on('error', () => undefined);
      near.resetAndDestroy();
      return;
    }
    const far = connect({ port: to, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
    const flows = [new Flow(near, far, this.#shared), new Flow(far, near, this.#shared)] as const;
    const pair = { near, far, flows };
    this.#pairs.add(pair);
    far.once('connect', () => flows[0].begin());
    for (const side of [near, far]) side.once('close', () => {
      if (!near.destroyed || !far.destroyed) return;
      this.#pairs.delete(pair);
      this.#abandoned.delete(pair);
    });
  }
}
