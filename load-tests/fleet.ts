import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** What `fleet.child.ts` is asked for, and what it says; a number: to connect such a part of its devices. */
export type Asked = number | 'sign' | 'storm' | 'look';
export type Told =
  | { readonly kind: 'ready' | 'signed' }
  | { readonly kind: 'held'; readonly held: number; readonly dropped: number }
  | { readonly kind: 'open' | 'back'; readonly held: number; readonly refusals: Readonly<Record<string, number>>; readonly ms: readonly number[] };

export interface Back {
  readonly held: number;
  /** Answers other than an upgrade, by what was said. */
  readonly refusals: ReadonlyMap<string, number>;
  /** Of each device from when its network was gone to its Hello. */
  readonly ms: readonly number[];
}

/** A loop with more sockets than that stands still for longer, in a storm, than a server waits for the answer to a ping. */
const perProcess = 6000;
const program = fileURLToPath(new URL('./fleet.child.js', import.meta.url));

/** Many devices that hold a connection and say nothing, in processes of their own. */
export class Fleet {
  readonly #children: readonly ChildProcess[];

  private constructor(children: readonly ChildProcess[]) {
    this.#children = children;
  }

  /** @param file of the devices' keys @param urls of the doors, with commas between */
  static async start(file: string, count: number, urls: string): Promise<Fleet> {
    // As many as the cores share evenly, so that no process is busy while others have nothing left to do.
    const processes = Math.max(2, Math.ceil(count / perProcess));
    const share = Math.ceil(count / processes);
    const children = Array.from({ length: processes }, (_, at) => fork(program, [file, String(at * share), String(Math.max(0, Math.min(share, count - at * share))), urls, `127.0.0.${at + 2}`], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] }));
    const fleet = new Fleet(children);
    await Promise.all(children.map((child) => said(child, 'ready')));
    return fleet;
  }

  /** Connects a part of all, a few at a time. */
  open(part: number): Promise<Back> {
    return this.#all(part, 'open');
  }

  /** All lose their connection in one moment and come back as fast as they are let in; their first tokens are signed before, which is the devices' work. */
  async storm(): Promise<Back> {
    await this.#told('sign', 'signed');
    return this.#all('storm', 'back');
  }

  /** How many are connected, and how many were dropped by the server since the beginning. */
  async look(): Promise<{ readonly held: number; readonly dropped: number }> {
    const told = (await this.#told('look', 'held')).flatMap((one) => (one.kind === 'held' ? [one] : []));
    return { held: told.reduce((sum, { held }) => sum + held, 0), dropped: told.reduce((sum, { dropped }) => sum + dropped, 0) };
  }

  end(): void {
    for (const child of this.#children) child.disconnect();
  }

  async #all(asked: Asked, kind: 'open' | 'back'): Promise<Back> {
    const told = (await this.#told(asked, kind)).flatMap((one) => (one.kind === kind && 'ms' in one ? [one] : []));
    const refusals = new Map<string, number>();
    for (const one of told) for (const [reason, count] of Object.entries(one.refusals)) refusals.set(reason, (refusals.get(reason) ?? 0) + count);
    return { held: told.reduce((sum, { held }) => sum + held, 0), refusals, ms: told.flatMap(({ ms }) => ms) };
  }

  #told(asked: Asked, kind: Told['kind']): Promise<Told[]> {
    return Promise.all(this.#children.map((child) => {
      const answer = said(child, kind);
      child.send(asked);
      return answer;
    }));
  }
}

function said(child: ChildProcess, kind: Told['kind']): Promise<Told> {
  return new Promise((resolve, reject) => {
    const onExit = (code: number | null): void => reject(new RangeError(`a process of the fleet ended with ${code}`));
    child.once('exit', onExit);
    child.on('message', function listen(message) {
      const told = message as Told;
      if (told.kind !== kind) return;
      child.off('message', listen).off('exit', onExit);
      resolve(told);
    });
  });
}
