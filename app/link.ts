import { setTimeout as sleep } from 'node:timers/promises';
import { SpamerError } from '../core/errors.js';
import { faultOf, type Journal } from '../core/journal.js';
import { limits } from '../core/limits.js';
import type { ClusterApi, Deployment, NodeAbout, NodeApi } from './cluster.js';
import { dialLine, type LineAddress, type LineSocket } from './line-socket.js';
import { connect, serve, type Connection, type Remote } from './rpc.js';

export interface LinkParts {
  readonly to: LineAddress;
  readonly secret: string;
  readonly about: () => NodeAbout;
  /** What this process does when it is asked. */
  readonly node: NodeApi;
  /** The line is there, perhaps again: what could not be heard meanwhile is to be read anew. */
  readonly onJoined: () => Promise<void>;
  /** The line has been gone for so long that nothing that rests on it may go on. */
  readonly onLost: () => void;
  readonly journal: Journal;
}

const againMs = 250;

/**
 * The line to the process with the keys; it dials again whenever it is cut. A call that finds none waits for it, and fails when it does not
 * come back in time; one that was under way when it was cut fails at once, since nobody knows whether it was done.
 */
export class Link {
  readonly name = 'link';
  readonly #parts: LinkParts;
  readonly #apis = new Map<string, Connection<unknown>>();
  #line: LineSocket | null = null;
  #deployment: Deployment | undefined;
  readonly #waiting = new Set<() => void>();
  #stopping = false;
  #running: Promise<void> | undefined;
  #lostTimer: NodeJS.Timeout | undefined;

  private constructor(parts: LinkParts) {
    this.#parts = parts;
  }

  /**
   * Resolves when this process has joined.
   * @throws SpamerError `unreachable` when nobody answers for `waitMs`, `config_invalid` when the secret or a setting differs.
   */
  static async join(parts: LinkParts, waitMs: number): Promise<Link> {
    const link = new Link(parts);
    const until = performance.now() + waitMs;
    for (;;) {
      try {
        await link.#dial();
        break;
      } catch (error) {
        if (!(error instanceof SpamerError && error.code === 'unreachable') || performance.now() > until) throw error;
      }
      await sleep(againMs);
    }
    link.#running = link.#run();
    return link;
  }

  get deployment(): Deployment {
    if (this.#deployment === undefined) throw new SpamerError('internal', 'this process has not joined');
    return this.#deployment;
  }

  get joined(): boolean {
    return this.#line !== null && !this.#line.closed;
  }

  /** Tells what this process says of itself by now. */
  async tell(): Promise<void> {
    await this.api<ClusterApi>('cluster').join(this.#parts.about());
  }

  /** Gives back what this process has, so that others go on at once. */
  async leave(): Promise<void> {
    if (this.joined) await this.api<ClusterApi>('cluster').leave().catch((error: unknown) => this.#parts.journal.warn('the process with the keys was not told of the stop', { fault: faultOf(error) }));
  }

  /** What is served on the line of this name, whichever connection carries it. */
  api<Api>(name: string): Remote<Api> {
    const invoke = async (method: string, args: readonly unknown[]): Promise<unknown> => {
      const call = Reflect.get(await this.#connected(name), method) as (...args: readonly unknown[]) => Promise<unknown>;
      return call(...args);
    };
    // A promise looks for `then`; this object is none.
    return new Proxy({}, { get: (_target, method) => (typeof method === 'string' && method !== 'then' ? (...args: readonly unknown[]) => invoke(method, args) : undefined) }) as Remote<Api>;
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#lostTimer);
    this.#line?.close();
    this.#wake();
    await this.#running;
  }

  async #connected(name: string): Promise<object> {
    const until = performance.now() + limits.lineWaitMs;
    while (!this.joined) {
      if (this.#stopping || performance.now() > until) throw new SpamerError('unreachable', 'the process with the keys does not answer', { where: 'line_to' });
      await this.#change(until);
    }
    return this.#apiOf(name).api;
  }

  #apiOf(name: string): Connection<unknown> {
    const line = this.#line;
    if (line === null) throw new SpamerError('unreachable', 'the process with the keys does not answer', { where: 'line_to' });
    const known = this.#apis.get(name);
    if (known !== undefined) return known;
    const made = connect<unknown>(line.port(name));
    this.#apis.set(name, made);
    return made;
  }

  /** Waits until the line is there or not, at most until then. */
  async #change(untilMs: number): Promise<void> {
    if (this.#waiting.size >= limits.callsInFlightMax) throw new SpamerError('overloaded', 'too many calls wait for the process with the keys');
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        this.#waiting.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, Math.max(1, untilMs - performance.now()));
      this.#waiting.add(wake);
    });
  }

  #wake(): void {
    for (const wake of [...this.#waiting]) wake();
  }

  async #dial(): Promise<void> {
    const { to, secret, node, about, onJoined } = this.#parts;
    const line = await dialLine(to, secret);
    try {
      serve(line.port('node'), node);
      const cluster = connect<ClusterApi>(line.port('cluster'));
      const deployment = await cluster.api.join(about());
      if (this.#deployment !== undefined && deployment.log !== this.#deployment.log) throw new SpamerError('config_invalid', 'the process with the role registry has another log than before', { where: 'line_to' });
      this.#deployment = deployment;
      this.#apis.clear();
      this.#apis.set('cluster', cluster);
      this.#line = line;
      this.#wake();
      await onJoined();
      // Not before everything was read anew: until then a revocation may be unknown here.
      clearTimeout(this.#lostTimer);
      this.#lostTimer = undefined;
    } catch (error) {
      line.close();
      throw error;
    }
  }

  async #run(): Promise<void> {
    while (!this.#stopping) {
      await this.#cut();
      if (this.#stopping) return;
      this.#lostTimer ??= setTimeout(() => this.#parts.onLost(), limits.lineLostMs);
      this.#parts.journal.warn('the line to the process with the keys was cut; dialling again', {});
      await this.#dialAgain();
    }
  }

  async #dialAgain(): Promise<void> {
    while (!this.#stopping) {
      try {
        return await this.#dial();
      } catch (error) {
        if (error instanceof SpamerError && error.code !== 'unreachable') this.#parts.journal.error('this process cannot join again', { code: error.code });
      }
      // Apart from each other: all of them lost it in the same moment.
      await sleep(againMs * (0.5 + Math.random()));
    }
  }

  #cut(): Promise<void> {
    const line = this.#line;
    return new Promise((resolve) => (line === null ? resolve() : line.onClose(resolve)));
  }
}
