import { isMainThread, parentPort, receiveMessageOnPort, workerData, Worker, type MessagePort } from 'node:worker_threads';
import { limits } from '../core/limits.js';
import { errorShape, fromErrorShape, SpamerError, type ErrorShape } from '../core/errors.js';
import { packTransaction } from './layout.js';
import { Committer, type Outcome } from './lmdb-commit.js';
import { closeEnvironments, openEnvironments } from './lmdb-env.js';
import type { TopicSettings, Transaction } from './log.js';

/** How a writer's commits are carried out: in the caller's thread, or in one of their own. */
export interface CommitQueue {
  commit(pack: Uint8Array): Promise<readonly number[]>;
  /** After all that was given is committed. */
  close(): Promise<void>;
}

interface Waiting {
  readonly resolve: (offsets: readonly number[]) => void;
  readonly reject: (error: SpamerError) => void;
}

/** Commits in this thread; what is asked for in one turn of the event loop shares a flush. */
export class LocalQueue implements CommitQueue {
  readonly #committer: Committer;
  #packs: Uint8Array[] = [];
  #waiting: Waiting[] = [];

  constructor(committer: Committer) {
    this.#committer = committer;
  }

  commit(pack: Uint8Array): Promise<readonly number[]> {
    if (this.#packs.length === 0) setImmediate(() => this.#flush());
    this.#packs.push(pack);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  close(): Promise<void> {
    this.#flush();
    return Promise.resolve();
  }

  #flush(): void {
    const [packs, waiting] = [this.#packs, this.#waiting];
    [this.#packs, this.#waiting] = [[], []];
    if (packs.length === 0) return;
    this.#committer.commitAll(packs).forEach((outcome, i) => settle(waiting[i], outcome));
  }
}

function settle(waiting: Waiting | undefined, outcome: Outcome): void {
  if (outcome instanceof SpamerError) waiting?.reject(outcome);
  else waiting?.resolve(Array.from(outcome));
}

interface WorkerSetup {
  readonly lmdbWriter: string;
  readonly dir: string;
  readonly topics: readonly TopicSettings[];
  readonly extraWriters: readonly string[];
  readonly logBytesMax: number;
}

/** To the thread: packed commits, or null to end. From it: outcomes in the order of the commits. */
type ToWorker = Uint8Array | null;
type FromWorker = ReadonlyArray<Float64Array | ErrorShape> | 'ready';

const looksUntilStalled = 20;

/** Commits in a worker thread, so that the caller's never waits for fdatasync. Pipelined: while one group flushes the next gathers. */
export class ThreadQueue implements CommitQueue {
  readonly #worker: Worker;
  readonly #ended: Promise<void>;
  #waiting: Waiting[] = [];
  #failure: SpamerError | undefined;
  #asked = false;
  #stalled = false;

  private constructor(worker: Worker, stalledMs: number, onReady: () => void, onFailed: (error: SpamerError) => void) {
    this.#worker = worker;
    const fail = (error: SpamerError): void => {
      const first = this.#failure === undefined;
      this.#failure ??= error;
      if (first && !this.#asked) onFailed(error);
      for (const waiting of this.#waiting.splice(0)) waiting.reject(error);
    };
    worker.on('message', (message: FromWorker) => (message === 'ready' ? onReady() : this.#settleAll(message)));
    // What was on its way may or may not be written: to the caller that is a refusal it may try again after reopening.
    worker.on('error', (error) => fail(new SpamerError('log_failed', 'the writer thread ended', { cause: error })));
    this.#ended = new Promise((resolve) => worker.once('exit', () => (fail(new SpamerError('log_failed', 'the writer thread has ended')), resolve())));
    const watching = this.#watch(stalledMs, () => {
      this.#stalled = true;
      fail(new SpamerError('log_failed', 'the writer thread does not answer'));
    });
    void this.#ended.then(() => clearInterval(watching));
  }

  /**
   * A thread that runs out of memory inside a transaction doesn't end (see `exitNow`), and says nothing. Looks are counted, not time:
   * a process that was stopped or a machine that slept gets only one for all that time.
   */
  #watch(stalledMs: number, onStalled: () => void): NodeJS.Timeout {
    let [first, looks] = [this.#waiting[0], 0];
    return setInterval(() => {
      looks = first !== undefined && first === this.#waiting[0] ? looks + 1 : 0;
      first = this.#waiting[0];
      if (looks === looksUntilStalled) onStalled();
    }, stalledMs / looksUntilStalled).unref();
  }

  /**
   * @param onDeath called once when the thread ends, later than its start, without having been asked: nothing can be committed any more.
   * Also when a commit is not answered for `stalledMs`.
   * @throws SpamerError when it can't start.
   */
  static async start(setup: WorkerSetup, onDeath: (error: SpamerError) => void, stalledMs: number = limits.commitStalledMs): Promise<ThreadQueue> {
    const worker = new Worker(new URL(import.meta.url), { workerData: setup, name: `log ${setup.lmdbWriter}` });
    return new Promise((resolve, reject) => {
      let ready = false;
      const begun = (): void => {
        ready = true;
        resolve(queue);
      };
      const queue: ThreadQueue = new ThreadQueue(worker, stalledMs, begun, (error) => (ready ? onDeath(error) : reject(error)));
    });
  }

  /** `pack` is given away. */
  commit(pack: Uint8Array): Promise<readonly number[]> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#worker.postMessage(pack, [pack.buffer as ArrayBuffer]);
    });
  }

  async close(): Promise<void> {
    this.#asked = true;
    this.#worker.postMessage(null);
    // One that stood still may never end.
    if (this.#stalled) this.#worker.unref();
    else await this.#ended;
  }

  #settleAll(outcomes: ReadonlyArray<Float64Array | ErrorShape>): void {
    const waiting = this.#waiting.splice(0, outcomes.length);
    outcomes.forEach((outcome, i) => settle(waiting[i], outcome instanceof Float64Array ? outcome : fromErrorShape(outcome)));
  }
}

export function packFor(writer: string, topics: readonly TopicSettings[]): (transaction: Transaction) => Uint8Array {
  return (transaction) => packTransaction(transaction, writer, topics);
}

function isSetup(data: unknown): data is WorkerSetup {
  return typeof data === 'object' && data !== null && 'lmdbWriter' in data;
}

function runWorker(setup: WorkerSetup, port: MessagePort): void {
  const environments = openEnvironments(setup.dir, setup.topics, setup.extraWriters, setup.logBytesMax);
  const committer = new Committer(setup.lmdbWriter, environments, setup.topics, setup.logBytesMax);
  const end = async (): Promise<void> => {
    await closeEnvironments(environments);
    port.close();
  };
  port.on('message', (first: ToWorker) => {
    const packs = gather(first, port);
    const last = packs.at(-1) === null;
    const outcomes = committer.commitAll(packs.filter((pack) => pack !== null));
    if (outcomes.length > 0) port.postMessage(outcomes.map((outcome) => (outcome instanceof SpamerError ? errorShape(outcome) : outcome)));
    if (last) void end();
  });
  port.postMessage('ready');
}

/** All that has come meanwhile goes into one flush. */
function gather(first: ToWorker, port: MessagePort): ToWorker[] {
  const packs: ToWorker[] = [first];
  for (let next = receiveMessageOnPort(port); next !== undefined; next = receiveMessageOnPort(port)) packs.push(next.message as ToWorker);
  return packs;
}

if (!isMainThread && parentPort !== null && isSetup(workerData)) runWorker(workerData, parentPort);
