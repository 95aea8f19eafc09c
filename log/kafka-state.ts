import type { Cluster, Place } from './kafka-cluster.js';
import type { Cursor } from './kafka-cursor.js';
import * as layout from './kafka-layout.js';
import type { StateEntry, WholeState } from './log.js';

const takeMax = 1000;

/** The topic that holds a writer's state. */
export const stateTopic = (writer: string): string => `state.${writer}`;
export const statePlace = (writer: string): Place => ({ topic: stateTopic(writer), partition: 0 });

/** What a writer's state topic says, as far as it was read. */
export class WriterState {
  readonly #values = new Map<string, Buffer>();

  get(key: string): Buffer | undefined {
    return this.#values.get(key);
  }

  set(key: string, value: Buffer | null): void {
    if (value === null) this.#values.delete(key);
    else this.#values.set(key, value);
  }

  clear(): void {
    this.#values.clear();
  }

  whole(): WholeState {
    const state: Array<WholeState['state'][number]> = [];
    const consumed: Array<WholeState['consumed'][number]> = [];
    for (const [name, bytes] of this.#values) {
      const read = layout.readKey(name);
      if (read?.kind === 'state') state.push({ table: read.table, key: read.key, value: layout.readState(bytes) });
      if (read?.kind === 'used') consumed.push({ consumer: read.consumer, topic: read.topic, partition: read.partition, offset: layout.readNumber(bytes) });
    }
    return { state, consumed };
  }

  /** In byte order of the keys. */
  scan(table: string, prefix: string): StateEntry[] {
    const start = layout.stateKey(table, prefix);
    const tableLength = layout.stateKey(table, '').length;
    const found = [...this.#values].filter(([key]) => key.startsWith(start)).map(([key, value]) => ({ sort: Buffer.from(key), key: key.slice(tableLength), value: layout.readState(value) }));
    return found.sort((a, b) => Buffer.compare(a.sort, b.sort)).map(({ key, value }) => ({ key, value }));
  }
}

/** Reads a state topic from `position` to `end` into `state`. */
export async function follow(cluster: Cluster, cursor: Cursor, writer: string, state: WriterState, position: number, end: number, wanted: (key: string) => boolean): Promise<void> {
  if (position >= end) return;
  cursor.seek(cluster.name(stateTopic(writer)), 0, position);
  for (;;) {
    const messages = await cursor.next(takeMax, end);
    if (messages.length === 0) return;
    for (const { key, value } of messages) {
      const name = Buffer.isBuffer(key) ? key.toString() : (key ?? '');
      if (wanted(name)) state.set(name, value);
    }
  }
}

interface View {
  readonly state: WriterState;
  /** Whether the state tables are kept too, which only some are asked for. */
  whole: boolean;
  position: number;
}

/** The states of all writers as readers see them; each question first catches up with what is committed. */
export class StateViews {
  readonly #cluster: Cluster;
  readonly #views: ReadonlyMap<string, View>;
  #cursor: Promise<Cursor> | undefined;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;

  constructor(cluster: Cluster, writers: readonly string[]) {
    this.#cluster = cluster;
    this.#views = new Map(writers.map((writer) => [writer, { state: new WriterState(), whole: false, position: 0 }]));
  }

  /** Entries of a table as of now. */
  async scan(writer: string, table: string, prefix: string): Promise<readonly StateEntry[]> {
    const view = this.#views.get(writer);
    if (view === undefined) return [];
    if (!view.whole) {
      await this.#running?.catch(() => undefined);
      view.whole = true;
      view.position = 0;
      view.state.clear();
    }
    await this.sync();
    return view.state.scan(table, prefix);
  }

  end(writer: string, topic: string, partition: number): layout.End {
    return layout.readEnd(this.#views.get(writer)?.state.get(layout.endKey(topic, partition)));
  }

  /** A consumer's progress, whichever writer noted it. */
  used(consumer: string, topic: string, partition: number): number {
    const key = layout.usedKey(consumer, topic, partition);
    return Math.max(0, ...[...this.#views.values()].map(({ state }) => layout.readNumber(state.get(key))));
  }

  /** Catches up with all that was committed before the call; calls made meanwhile share the next round. */
  sync(): Promise<void> {
    if (this.#running === undefined) return (this.#running = this.#round().finally(() => { this.#running = undefined; }));
    this.#next ??= this.#running.catch(() => undefined).then(() => {
      this.#next = undefined;
      return this.sync();
    });
    return this.#next;
  }

  async close(): Promise<void> {
    await this.#running?.catch(() => undefined);
    const cursor = await this.#cursor?.catch(() => undefined);
    await cursor?.close();
  }

  async #round(): Promise<void> {
    const views = [...this.#views];
    const ends = await this.#cluster.ends(views.map(([writer]) => statePlace(writer)));
    if (views.every(([, view], i) => view.position >= (ends[i] ?? 0))) return;
    this.#cursor ??= this.#cluster.cursor('hopping');
    const cursor = await this.#cursor.catch((error: unknown) => {
      this.#cursor = undefined;
      throw error;
    });
    for (const [i, [writer, view]] of views.entries()) {
      const end = ends[i] ?? 0;
      await follow(this.#cluster, cursor, writer, view.state, view.position, end, (key) => view.whole || !layout.isState(key));
      view.position = Math.max(view.position, end);
    }
  }
}
