import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { fromErrorShape, SpamerError } from '../core/errors.js';
import type { OnKafka } from './kafka.js';
import type { Order, Told } from './log-process.js';
import type { Port } from './rpc.js';

/** Threads of the process: every writer and every reader of the log may hold one while a broker is silent. */
const poolThreads = 32;
/** Writers give up waiting for a broker after 10 s. */
const closeMs = 12_000;

/** The other process, in which the log on Kafka is open (app/log-process.ts). */
export class LogChild {
  readonly port: Port;
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  #stopping = false;

  private constructor(child: ChildProcess, onLost: (error: SpamerError) => void) {
    this.#child = child;
    let told = false;
    const lost = (error: SpamerError): void => {
      if (!told && !this.#stopping) onLost(error);
      told = true;
    };
    child.on('message', (message: Partial<Told>) => {
      if (message.told === 'lost') lost(fromErrorShape((message as Told & { told: 'lost' }).error));
    });
    this.#ended = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        lost(new SpamerError('log_failed', `the process of the log ended (${signal ?? `code ${code}`})`));
        resolve();
      });
    });
    this.port = {
      // What is asked of a process that has ended is refused when its end is told.
      postMessage: (message: unknown) => void child.send(message as object, () => undefined),
      on: (event, listener) => child.on(event, listener),
    };
  }

  /** Resolves when the log is open. @throws SpamerError that says why it is not. */
  static async start(config: OnKafka, onLost: (error: SpamerError) => void): Promise<LogChild> {
    const env = { ...process.env, UV_THREADPOOL_SIZE: String(poolThreads) };
    const child = fork(fileURLToPath(new URL('log-process.js', import.meta.url)), { serialization: 'advanced', stdio: ['ignore', 'ignore', 'inherit', 'ipc'], env });
    await new Promise<void>((resolve, reject) => {
      child.once('error', (cause) => reject(new SpamerError('log_failed', 'the process of the log cannot be started', { cause })));
      child.once('exit', () => reject(new SpamerError('log_failed', 'the process of the log ended before it was ready')));
      child.once('message', (message: Told) => {
        if ('error' in message) reject(fromErrorShape(message.error));
        else resolve();
      });
      child.send({ order: 'open', config } satisfies Order, () => undefined);
    });
    return new LogChild(child, onLost);
  }

  /** Closes the log there and waits for the end of the process; bounded. */
  async stop(): Promise<void> {
    this.#stopping = true;
    if (this.#child.connected) this.#child.send({ order: 'close' } satisfies Order, () => undefined);
    const late = setTimeout(() => this.#child.kill('SIGKILL'), closeMs);
    await this.#ended;
    clearTimeout(late);
  }
}
