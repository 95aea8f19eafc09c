import type { Api } from '../tests/program.js';
import { decode, messageId } from '../schemas/codec.js';
import { schemaIds } from '../schemas/ids.js';
import { heartRate, message, reading } from './loads.js';
import { openRaw, type RawConnection } from './wire.js';

interface Sighting { ackedMs: number; seenMs: number }

/**
 * A device of its own that sends one reading at a time. Each is timed from the arrival of its ack to the arrival of the first answer
 * of the analytics API that holds it. It runs on the generator's thread and asks every 50 ms, so it measures rather too much.
 */
export class Probe {
  readonly #connection: RawConnection;
  readonly #server: Api;
  readonly #sightings: Sighting[] = [];
  #timers: NodeJS.Timeout[] = [];

  private constructor(connection: RawConnection, server: Api) {
    this.#connection = connection;
    this.#server = server;
    connection.onMessage = (bytes) => this.#answer(bytes);
  }

  static async open(url: string, token: string, server: Api): Promise<Probe> {
    return new Probe(await openRaw(url, token), server);
  }

  /** Readings sent so far: the ledger must find them again. */
  get sent(): number {
    return this.#sightings.length;
  }

  /** When each reading after the first was acked, and when it was first in an answer. */
  get seen(): ReadonlyArray<Readonly<Sighting>> {
    return this.#sightings.slice(1);
  }

  /** Sends one reading and waits until it can be queried: the study's group is then past its k. */
  async warmUp(timeoutMs: number): Promise<void> {
    const end = performance.now() + timeoutMs;
    this.#send();
    while (this.#sightings[0]?.seenMs === 0) {
      if (performance.now() > end) throw new RangeError('the probe\'s first reading cannot be queried');
      await this.#look();
      await pause(50);
    }
  }

  start(everyMs: number): void {
    let looking = false;
    const look = (): void => {
      // What has been seen is not asked for again: in an hour that is most of the time.
      if (looking || !this.#sightings.some(({ ackedMs, seenMs }) => ackedMs > 0 && seenMs === 0)) return;
      looking = true;
      void this.#look().finally(() => { looking = false; });
    };
    this.#timers = [setInterval(() => this.#send(), everyMs), setInterval(look, 50)];
  }

  /** Freshness of each reading after the first in ms; all have been seen. */
  async stop(timeoutMs: number): Promise<readonly number[]> {
    for (const timer of this.#timers) clearInterval(timer);
    const end = performance.now() + timeoutMs;
    while (this.#sightings.some(({ seenMs }) => seenMs === 0)) {
      if (performance.now() > end) throw new RangeError('a reading of the probe cannot be queried');
      await pause(50);
      await this.#look();
    }
    this.#connection.end();
    return this.#sightings.slice(1).map(({ ackedMs, seenMs }) => Math.max(0, seenMs - ackedMs));
  }

  /** The value tells which reading a row is. */
  #send(): void {
    const seq = this.#sightings.push({ ackedMs: 0, seenMs: 0 });
    this.#connection.socket.write(message(reading(seq, Date.now() * 1000, 50 + seq / 16)));
  }

  #answer(bytes: Buffer): void {
    if (messageId(bytes) !== schemaIds.Ack) return;
    const now = performance.now();
    const { seq } = decode('Ack', bytes);
    for (let at = seq - 1; at >= 0; at--) {
      const sighting = this.#sightings[at];
      if (sighting === undefined || sighting.ackedMs > 0) break;
      sighting.ackedMs = now;
    }
  }

  async #look(): Promise<void> {
    const { rows } = await this.#server.get<{ rows: ReadonlyArray<{ readonly value: number }> }>(`/v1/studies/bench/numerics?code=${heartRate}&limit=10000`);
    const now = performance.now();
    for (const { value } of rows) {
      const sighting = this.#sightings[Math.round((value - 50) * 16) - 1];
      if (sighting !== undefined && sighting.seenMs === 0) sighting.seenMs = now;
    }
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
