import assert from 'node:assert/strict';
import { tokenOf, type Door, type EnrolledDevice } from '../tests/door.js';
import { numericFrame, TestDevice } from './ingest.fixture.js';

/** Sends one frame after the other, each when the last is acked, until it is told to stop. */
export class Honest {
  slowestMs = 0;
  acked = 0;
  readonly device: EnrolledDevice;
  readonly #told = new AbortController();
  readonly #running: Promise<void>;

  constructor(door: Door) {
    this.device = door.enrol('ES256');
    this.#running = this.#run(door.server.url);
    this.#running.catch(() => undefined);
  }

  async #run(url: string): Promise<void> {
    const device = await TestDevice.connect(url, tokenOf(this.device));
    while (!this.#told.signal.aborted) {
      const sentAt = performance.now();
      device.send(numericFrame(1, this.acked + 1));
      await device.until(() => device.acked === this.acked + 1, 20_000);
      this.acked += 1;
      this.slowestMs = Math.max(this.slowestMs, performance.now() - sentAt);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.deepEqual(device.nacks, []);
    await device.leave();
  }

  async stop(): Promise<void> {
    this.#told.abort();
    await this.#running;
  }
}
