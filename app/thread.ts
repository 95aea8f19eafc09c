import { MessageChannel, Worker, type MessagePort } from 'node:worker_threads';
import type { Config } from '../core/config.js';
import type { Part } from '../core/lifecycle.js';
import { SpamerError } from '../core/errors.js';
import { connect, type Remote } from './rpc.js';

/** What every worker thread is given when it starts. */
export interface ThreadData {
  readonly config: Config;
  /** Ports on which this thread serves others, and ports on which others serve it, by name. */
  readonly ports: Readonly<Record<string, MessagePort>>;
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

/**
 * Starts a worker thread from a module of this folder and waits until it is ready.
 * @param onDeath called when the thread ends without having been asked: the program must then end, [DURABLE] makes that safe.
 */
export async function startThread<Api extends ThreadApi>(module: string, data: ThreadData, onDeath: (name: string, error: unknown) => void): Promise<Thread<Api>> {
  const worker = new Worker(new URL(`./${module}.js`, import.meta.url), { name: module, workerData: data, transferList: Object.values(data.ports) });
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
  try {
    await api.start();
  } catch (error) {
    asked = true;
    await worker.terminate();
    throw error;
  }
  const stop = async (): Promise<void> => {
    asked = true;
    try {
      await api.stop();
    } finally {
      await worker.terminate();
    }
  };
  return { name: module, api: connection.api, stop };
}

/** A line between two threads: one end serves, the other calls. */
export function line(): { readonly serving: MessagePort; readonly calling: MessagePort } {
  const { port1, port2 } = new MessageChannel();
  return { serving: port1, calling: port2 };
}
