import { errorShape, fromErrorShape, SpamerError, type ErrorShape } from '../core/errors.js';
import { limits } from '../core/limits.js';

/**
 * Calls between threads, or processes: `serve` offers an object's async methods on a port, `connect` makes an object
 * that has them on the other side. Errors cross as their stable code. Calls in flight are bounded; when the other side
 * ends, what is in flight fails.
 */
interface Call {
  readonly id: number;
  readonly method: string;
  readonly args: readonly unknown[];
}
type Reply = { readonly id: number; readonly value: unknown } | { readonly id: number; readonly error: ErrorShape };

/** One end of a line: a thread's port, a worker, another process. */
export interface Port {
  postMessage(message: unknown): void;
  on(event: 'message' | 'close', listener: (message: unknown) => void): unknown;
}
type Method = (...args: unknown[]) => unknown;

/** An object type whose methods all return promises; what can be called over a port. */
export type Remote<Api> = { readonly [Name in keyof Api as Api[Name] extends (...args: never[]) => Promise<unknown> ? Name : never]: Api[Name] };

export function serve(port: Port, api: object): void {
  port.on('message', (message) => {
    const call = message as Partial<Call>;
    // Other things may be said on a line too.
    if (call.method !== undefined) void answer(port, api, call as Call);
  });
}

async function answer(port: Port, api: object, call: Call): Promise<void> {
  let reply: Reply;
  try {
    if (call.method === aliveCall) return port.postMessage({ id: call.id, value: undefined } satisfies Reply);
    const method: unknown = Reflect.get(api, call.method);
    if (typeof method !== 'function') throw new SpamerError('internal', 'no such method between threads', { where: call.method });
    reply = { id: call.id, value: await (method as Method).apply(api, [...call.args]) };
  } catch (error) {
    reply = { id: call.id, error: errorShape(error) };
  }
  try {
    port.postMessage(reply);
  } catch (error) {
    // Too large for the line, or nothing that can be cloned: who asked is told, and nobody else pays for it.
    port.postMessage({ id: call.id, error: errorShape(error) } satisfies Reply);
  }
}

/** Answered by every thread that serves, whatever it offers. */
const aliveCall = '#alive';

interface Waiting {
  resolve(value: unknown): void;
  reject(error: SpamerError): void;
}

export interface Connection<Api> {
  readonly api: Remote<Api>;
  /** Resolves when the other thread's loop turns. */
  alive(): Promise<void>;
  /** Fails what is in flight and everything later. */
  disconnect(reason: string): void;
}

export function connect<Api>(port: Port): Connection<Api> {
  const waiting = new Map<number, Waiting>();
  let lastId = 0;
  let gone: string | undefined;
  port.on('message', (message) => {
    const reply = message as Reply;
    const call = waiting.get(reply.id);
    if (call === undefined) return;
    waiting.delete(reply.id);
    if ('error' in reply) call.reject(fromErrorShape(reply.error));
    else call.resolve(reply.value);
  });
  const disconnect = (reason: string): void => {
    gone = reason;
    for (const call of waiting.values()) call.reject(new SpamerError('unreachable', reason));
    waiting.clear();
  };
  port.on('close', () => disconnect('the other side has ended'));
  const invoke = (method: string, args: readonly unknown[]): Promise<unknown> =>
    new Promise((resolve, reject) => {
      if (gone !== undefined) return reject(new SpamerError('unreachable', gone));
      if (waiting.size >= limits.callsInFlightMax) return reject(new SpamerError('overloaded', 'too many calls between threads', { where: method }));
      const id = ++lastId;
      waiting.set(id, { resolve, reject });
      try {
        port.postMessage({ id, method, args } satisfies Call);
      } catch (error) {
        waiting.delete(id);
        throw error;
      }
    });
  const api = new Proxy({}, {
    // A promise looks for `then`; this object is none.
    get: (_target, name) => (typeof name === 'string' && name !== 'then' ? (...args: readonly unknown[]) => invoke(name, args) : undefined),
  });
  return { api: api as Remote<Api>, alive: async () => void (await invoke(aliveCall, [])), disconnect };
}
