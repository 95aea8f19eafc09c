import { MessageChannel, Worker, type MessagePort } from 'node:worker_threads';
import type { Config } from '../core/config.js';
import type { Part } from '../core/lifecycle.js';
import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import { connect, type Remote } from './rpc.js';

/** What every worker thread is given when it starts. */
export interface ThreadData {
  readonly config: Config;
  /** Ports on which this thread serves others, and ports on which others serve it, by name. */
  readonly ports: Readonly<Record<string, MessagePort>>;
  /** The name of the log to the stores' server, where the data folder is not this process's to read it from. */
  readonly storesName?: string;
}

/** What every worker thread offers to the main thread, besides its own API. */
export interface ThreadApi {
  start(): Promise<void>;
  /** Finishes what is in hand, commits, closes. */
  stop(): Promise<void>;
}

export interface Thread<Api extends ThreadApi> extends Part {
  readonly api: Remote<Api>;
}

/** Half of V8's own bound: four threads with whole ones hold 65 MB more and take no less CPU (decision 0106). */
const maxYoungGenerationSizeMb = 24;

/** A thread that reads its code and waits to be started. */
export interface SpawnedThread<Api extends ThreadApi> extends Thread<Api> {
  /** Once, whoever asks. Rejects when it can't; then the thread has ended. */
  start(): Promise<void>;
}

/** A thread that is being started: its API can be asked already, and what of it is not there yet says so. */
export interface StartingThread<Api extends ThreadApi> extends Thread<Api> {
  /** Rejects when it can't start; then it has ended. */
  readonly started: Promise<void>;
}

/** Starts a worker thread from a module of this folder and waits until it is ready: see `spawnThread`. */
export async function startThread<Api extends ThreadApi>(...given: Parameters<typeof spawnThread>): Promise<Thread<Api>> {
  const thread = spawnThread<Api>(...given);
  await thread.start();
  return thread;
}

/** The same without waiting. */
export function beginThread<Api extends ThreadApi>(...given: Parameters<typeof spawnThread>): StartingThread<Api> {
  const thread = spawnThread<Api>(...given);
  const started = thread.start();
  // Told to whoever waits for it.
  started.catch(() => undefined);
  return { ...thread, started };
}

/**
 * @param onDeath called when the thread ends without having been asked, or its loop stands still for `silentMs`: the program must
 * then end, [DURABLE] makes that safe.
 */
export function spawnThread<Api extends ThreadApi>(module: string, data: ThreadData, onDeath: (name: string, error: unknown) => void, silentMs: number = limits.threadSilentMs): SpawnedThread<Api> {
  const worker = new Worker(new URL(`./${module}.js`, import.meta.url), { name: module, resourceLimits: { maxYoungGenerationSizeMb }, workerData: data, transferList: Object.values(data.ports) });
  const connection = connect<Api>(worker);
  let asked = false;
  worker.on('error', (error) => {
    connection.disconnect(`the ${module} thread failed`);
    if (!asked) onDeath(module, error);
  });
  worker.on('exit', (code) => {
    connection.disconnect(`the ${module} thread has ended`);
    if (!asked) onDeath(module, new SpamerError('internal', `the ${module} thread ended with code ${code}`));
  });
  const api = connection.api as unknown as Remote<ThreadApi>;
  const begin = async (): Promise<void> => {
    try {
      await api.start();
    } catch (error) {
      asked = true;
      await worker.terminate();
      throw error;
    }
    const listening = listen(() => connection.alive(), silentMs, () => {
      if (!asked) onDeath(module, new SpamerError('internal', `the ${module} thread does not answer`));
    });
    worker.once('exit', () => clearInterval(listening));
  };
  let started: Promise<void> | undefined;
  const end = async (): Promise<void> => {
    // What could not start has ended, and has said why.
    const running = await started?.then(() => true, () => false);
    asked = true;
    try {
      if (running === true) await api.stop();
    } finally {
      await worker.terminate();
    }
  };
  let ended: Promise<void> | undefined;
  return { name: module, api: connection.api, start: () => (started ??= begin()), stop: () => (ended ??= end()) };
}

/**
 * A thread that runs out of memory inside a transaction doesn't end, and says nothing (see `exitNow`). Looks are counted, not time:
 * a process that was stopped or a machine that slept gets only one for all that time.
 */
function listen(alive: () => Promise<void>, silentMs: number, onSilent: () => void): NodeJS.Timeout {
  const looksUntilSilent = 24;
  let [answered, looks] = [true, 0];
  return setInterval(() => {
    looks = answered ? 0 : looks + 1;
    if (looks === looksUntilSilent) onSilent();
    if (!answered) return;
    answered = false;
    // What ended is told by its exit.
    alive().then(() => { answered = true; }, () => undefined);
  }, silentMs / looksUntilSilent).unref();
}

/** A line between two threads: one end serves, the other calls. */
export function line(): { readonly serving: MessagePort; readonly calling: MessagePort } {
  const { port1, port2 } = new MessageChannel();
  return { serving: port1, calling: port2 };
}
