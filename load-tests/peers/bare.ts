import { sendAll } from '../generator.js';
import { readings } from '../loads.js';
import { folderOf, killed, libraryVersion, ownPackage, sink, type Peer } from './peer.js';

export interface BareSink {
  readonly ingest: string;
  readonly pid: number;
  end(): Promise<void>;
}

/** bare-sink.ts as a process of its own. */
export async function bareSink(): Promise<BareSink> {
  const folder = folderOf('bare');
  const { child, ready } = await sink<{ ingest: string }>(new URL('./bare-sink.js', import.meta.url), [folder.dir]);
  return {
    ingest: ready.ingest,
    pid: child.pid ?? 0,
    end: async () => {
      await killed(child);
      folder.remove();
    },
  };
}

/** The limit: what uWebSockets and LMDB give when nothing is done but to flush and to ack. */
export const bare: Peer = {
  name: 'bare uWebSockets + LMDB sink',
  guarantees: { acked: 'when it is flushed to disk', durable: 'yes', encrypted: 'no', checked: 'no; anonymous' },
  missing: () => null,
  versions: () => ['uWebSockets.js', 'lmdb'].map((name) => libraryVersion(name, ownPackage)).join(', '),
  start: async () => {
    const run = await bareSink();
    const feed = async (count: number): Promise<number> => (await sendAll(run.ingest, 'none', readings(count, 1))).seconds;
    return { pid: run.pid, feed, end: () => run.end() };
  },
};
