import type { TemplatedApp } from 'uWebSockets.js';
import type { Counters } from './counters.js';

export interface LobbyLimits {
  /** Sockets without a session. */
  readonly halfOpenMax: number;
  /** Sockets of any kind: below what the operating system lets this process open. */
  readonly socketsMax: number;
}

/**
 * Sockets that are not a device's yet: silent ones, half a request, a TLS or token handshake under way. Nobody has proved
 * anything on them, so they are counted from the accept on and those beyond the bound are closed at once: else they would
 * take every file descriptor of the process. uWebSockets closes each that has sent no whole request 10 to 12 s after it came,
 * however it drips.
 */
export class Lobby {
  readonly #limits: LobbyLimits;
  readonly #counters: Counters;

  constructor(limits: LobbyLimits, counters: Counters) {
    this.#limits = limits;
    this.#counters = counters;
  }

  /** To be called before the app listens. */
  watch(app: TemplatedApp): void {
    app.filter((response, change) => {
      if (Number(change) < 0) {
        this.#left();
        return;
      }
      this.#counters.halfOpen += 1;
      if (!this.#full()) return;
      this.#counters.halfOpenRefused += 1;
      response.close();
    });
  }

  /** A socket has become a device's; uWebSockets tells its filter nothing of that. */
  upgraded(): void {
    this.#left();
  }

  #full(): boolean {
    const { halfOpen, connections } = this.#counters;
    return halfOpen > this.#limits.halfOpenMax || halfOpen + connections > this.#limits.socketsMax;
  }

  #left(): void {
    this.#counters.halfOpen -= 1;
  }
}
