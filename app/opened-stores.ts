import type { Config } from '../core/config.js';
import type { Stores } from '../sinks/duckdb.js';
import { openStores } from './stores.js';

/** The stores as a process has them. */
export interface OpenedStores {
  /** @throws SpamerError `unreachable` while nobody has made them. */
  reads(): Promise<Stores>;
  /** While this process has the sinks. */
  writes(): Promise<Stores>;
  doneWriting(): Promise<void>;
  close(): Promise<void>;
}

/** Of the only process that there is: one and the same for everything. */
export async function openOwnStores(config: Config): Promise<OpenedStores> {
  const stores = await openStores(config);
  return { reads: async () => stores, writes: async () => stores, doneWriting: async () => undefined, close: () => stores.close() };
}

/**
 * Of one of several processes: what writes is opened anew each time that the sinks come here, since whoever had them before is fenced for
 * ever, and read through meanwhile; what only reads takes nothing from anybody, and waits for whoever makes the tables.
 * @param name of the log, to the server
 * @param onTakenOver another process took the stores while this one stood still
 */
export function sharedStores(config: Config, name: string, onTakenOver: () => void): OpenedStores {
  let reading: Promise<Stores> | null = null;
  let writing: Stores | null = null;
  const read = (): Promise<Stores> => {
    reading ??= openStores(config, { storesName: name, readOnly: true }).catch((error: unknown) => {
      reading = null;
      throw error;
    });
    return reading;
  };
  const doneWriting = async (): Promise<void> => {
    const before = writing;
    writing = null;
    await before?.close();
  };
  return {
    reads: async () => writing ?? read(),
    writes: async () => (writing ??= await openStores(config, { storesName: name, onTakenOver })),
    doneWriting,
    close: async () => {
      await doneWriting();
      await (await reading?.catch(() => null))?.close();
    },
  };
}
