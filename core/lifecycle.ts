import { SpamerError } from './errors.js';
import { exitNow } from './exit.js';
import { faultOf, type Journal } from './journal.js';

/** A part that was started and must be stopped. */
export interface Part {
  readonly name: string;
  stop(): Promise<void>;
}

/**
 * Ordered start and stop: parts stop in the reverse order of their start, each once, and a part that fails to stop
 * does not keep the others from stopping.
 */
export class Lifecycle {
  readonly #parts: Part[] = [];
  readonly #journal: Journal;
  #stopping: Promise<void> | undefined;
  #failure: unknown;

  constructor(journal: Journal) {
    this.#journal = journal;
  }

  /** Starts one part; if it fails, what was started before is stopped and the failure is thrown on. */
  async start<P extends Part>(begin: () => Promise<P> | P): Promise<P> {
    try {
      const part = await begin();
      if (this.#stopping !== undefined) await this.#refuse(part);
      this.#parts.push(part);
      return part;
    } catch (error) {
      // Of several that fail one after the other the first says why.
      this.#failure ??= error;
      await this.stop();
      throw this.#failure;
    }
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stopAll();
    return this.#stopping;
  }

  /** Of parts that start beside each other, one may be up only when another has failed and all is being stopped. */
  async #refuse(part: Part): Promise<never> {
    await this.#stopOne(part);
    throw new SpamerError('stopping', 'stopped while it started', { where: part.name });
  }

  async #stopAll(): Promise<void> {
    for (const part of this.#parts.reverse()) await this.#stopOne(part);
  }

  async #stopOne(part: Part): Promise<void> {
    try {
      await part.stop();
    } catch (error) {
      this.#journal.error('a part did not stop cleanly', { stage: part.name, fault: faultOf(error) });
    }
  }
}

/**
 * SIGTERM and SIGINT drain; a second one, or `graceMs`, ends the process anyway, which is safe by [DURABLE]: see `exitNow`.
 * @returns a function that removes the handlers.
 */
export function stopOnSignals(drain: () => Promise<void>, graceMs: number, journal: Journal): () => void {
  let draining = false;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (draining) return exitNow(128 + (signal === 'SIGINT' ? 2 : 15));
    draining = true;
    journal.info('draining', { where: signal });
    setTimeout(() => {
      journal.warn('drain took too long; ending, which is safe by [DURABLE]', { ms: graceMs });
      exitNow(1);
    }, graceMs).unref();
    drain().then(
      () => exitNow(0),
      (error: unknown) => {
        journal.error('drain failed', { fault: faultOf(error) });
        exitNow(1);
      },
    );
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  return () => {
    process.off('SIGTERM', onSignal);
    process.off('SIGINT', onSignal);
  };
}
