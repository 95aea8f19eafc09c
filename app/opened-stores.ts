import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import type { Stores } from '../sinks/duckdb.js';
import { openStores, sinkShares } from './stores.js';

/** The stores as a process has them. */
export interface OpenedStores {
  /** @throws SpamerError `unreachable` while nobody has made them. */
  reads(): Promise<Stores>;
  /** For questions about all studies and patients at once, which a user that only reads is not answered. @throws SpamerError `unreachable`: another process can tell. */
  counts(): Promise<Stores>;
  /** While this process has that share of the sinks. */
  writes(share: number): Promise<Stores>;
  doneWriting(share: number): Promise<void>;
  close(): Promise<void>;
}

/** Of the only process that there is, and its only share: one and the same for everything. */
export async function openOwnStores(config: Config): Promise<OpenedStores> {
  const stores = await openStores(config);
  return { reads: async () => stores, counts: async () => stores, writes: async () => stores, doneWriting: async () => undefined, close: () => stores.close() };
}

/**
 * Of shares that come and go: what writes one is opened anew each time that it comes here, since whoever had it before is fenced for ever; what
 * only reads takes nothing from anybody, waits for whoever makes the tables, and uses no user but the one that reads, where there is one.
 * @param name of the log, to the server; undefined: as the data folder says
 * @param onTakenOver another process took a share while this one stood still
 */
export function sharedStores(config: Config, name: string | undefined, onTakenOver: () => void): OpenedStores {
  let reading: Promise<Stores> | null = null;
  const writing = new Map<number, Stores>();
  const read = (): Promise<Stores> => {
    reading ??= openStores(config, { storesName: name, readOnly: true }).catch((error: unknown) => {
      reading = null;
      throw error;
    });
    return reading;
  };
  const write = async (share: number): Promise<Stores> => {
    const stores = await openStores(config, { storesName: name, onTakenOver, share: { share, shares: sinkShares(config) } });
    writing.set(share, stores);
    return stores;
  };
  const doneWriting = async (share: number): Promise<void> => {
    const before = writing.get(share);
    writing.delete(share);
    await before?.close();
  };
  return {
    reads: read,
    counts: async () => {
      const [first] = writing.values();
      // What row policies hide would be missing from the books.
      if (first === undefined && config.clickhouse_read_user !== undefined) throw new SpamerError('unreachable', 'this process has the stores for reading only; one with the sinks counts', { where: 'sinks' });
      return first ?? read();
    },
    writes: async (share) => writing.get(share) ?? write(share),
    doneWriting,
    close: async () => {
      await Promise.all([...writing.keys()].map(doneWriting));
      await (await reading?.catch(() => null))?.close();
    },
  };
}
