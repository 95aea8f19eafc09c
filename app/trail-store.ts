import { SpamerError } from '../core/errors.js';
import { micros } from '../core/ids.js';
import { limits } from '../core/limits.js';
import type { Log, NewRecord, TopicStatus, Writer } from '../log/log.js';
import { decode, encode } from '../schemas/codec.js';
import type { Batch, StoredTrail, TrailStore } from '../security/trail.js';

/** The audit's three topics: an entry and its sealed detail have the same offset. */
export const auditTopics = { entries: 'audit', details: 'audit.details', checkpoints: 'audit.checkpoints' } as const;
/** State table of the tree's complete subtrees: key "level/index", value the hash. */
const nodes = 'nodes';
const noKey = Buffer.alloc(0);

type NodeRead = (key: string) => Promise<Uint8Array | null>;

/** The trail in the log, as it is read. @param nodeOf what reads the state of its writer */
export function storedTrail(log: Log, nodeOf: NodeRead = async (key) => (await log.stateScan('audit', nodes, key)).find((entry) => entry.key === key)?.value ?? null): StoredTrail {
  const status = async (topic: string): Promise<TopicStatus> => {
    const found = (await log.status()).find((row) => row.topic === topic);
    if (found === undefined) throw new SpamerError('internal', 'the log has no audit', { where: topic });
    return found;
  };
  const read = (topic: string, from: number, maxRecords: number): ReturnType<Log['read']> => log.read(topic, 0, from, { maxRecords, maxBytes: limits.readBytesMax });
  return {
    size: async () => (await status(auditTopics.entries)).end,
    node: async (level, index) => {
      const hash = await nodeOf(`${level}/${index}`);
      if (hash === null) throw new SpamerError('data_damaged', 'the hash tree of the audit has a hole', { where: `audit ${level}/${index}` });
      return hash;
    },
    entries: async (from, max) => {
      const leaves = await read(auditTopics.entries, from, max);
      const details = leaves.length === 0 ? [] : await read(auditTopics.details, from, leaves.length);
      // Both are cut where their bytes end; the rest comes with the next call.
      return leaves.slice(0, details.length).map(({ offset, value }, i) => ({ index: offset, leaf: value, detail: details[i]?.value ?? noKey }));
    },
    seek: (time) => log.seek(auditTopics.entries, 0, time),
    checkpoints: async (from, max) => (await read(auditTopics.checkpoints, from, max)).map(({ value }) => {
      const { time, size, note } = decode('AuditCheckpoint', value);
      return { time: micros(time), size, note };
    }),
    checkpointCount: async () => (await status(auditTopics.checkpoints)).end,
  };
}

/** The trail in the log: one partition, one writer of its own, all of a batch in one transaction. */
export function trailStore(log: Log, writer: Writer): TrailStore {
  return {
    ...storedTrail(log, (key) => writer.stateGet(nodes, key)),
    append: async (batch) => {
      const offsets = await writer.commit({ records: recordsOf(batch), state: batch.nodes.map(({ level, index, hash }) => ({ table: nodes, key: `${level}/${index}`, value: hash })) });
      return offsets[0] ?? -1;
    },
    addCheckpoint: async (checkpoint) => {
      await writer.commit({ records: [{ topic: auditTopics.checkpoints, partition: 0, key: noKey, timeUs: checkpoint.time, value: encode('AuditCheckpoint', checkpoint) }] });
    },
    close: () => writer.close(),
  };
}

function recordsOf({ entries }: Batch): NewRecord[] {
  const record = (topic: string, timeUs: number, value: Buffer): NewRecord => ({ topic, partition: 0, key: noKey, timeUs, value });
  return [...entries.map(({ time, leaf }) => record(auditTopics.entries, time, leaf)), ...entries.map(({ time, detail }) => record(auditTopics.details, time, detail))];
}
