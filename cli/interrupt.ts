/**
 * Ctrl-C (SIGINT) and SIGTERM while a command works. Who takes the signal promises to stop by it, leaving nothing half done; a second
 * one ends the process at once. Where nobody has taken it, the first does, as it would without this.
 */
export class Interrupt {
  readonly #stop = new AbortController();
  #taken = false;
  #code: number | null = null;

  get signal(): AbortSignal {
    if (!this.#taken) {
      this.#taken = true;
      for (const [name, code] of [['SIGINT', 130], ['SIGTERM', 143]] as const) process.on(name, () => this.#on(code));
    }
    return this.#stop.signal;
  }

  /** Exit code of a command that was stopped, as shells have it; null: it was not. */
  get code(): number | null {
    return this.#code;
  }

  #on(code: number): void {
    if (this.#code !== null) process.exit(code);
    this.#code = code;
    this.#stop.abort();
  }
}

/** What `work` comes to, or at once a rejection when it is to stop; what it still does then is nobody's any more. */
export async function unlessStopped<Result>(signal: AbortSignal, work: Promise<Result>): Promise<Result> {
  signal.throwIfAborted();
  work.catch(() => undefined);
  const stop = new AbortController();
  const stopped = new Promise<never>((_resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true, signal: stop.signal });
  });
  try {
    return await Promise.race([work, stopped]);
  } finally {
    stop.abort();
  }
}
