import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import { writersNamed, type TopicSettings } from '../log/log.js';
import type { MessageName } from '../schemas/ids.js';
import { auditTopics } from './trail-store.js';

const hourUs = 3600 * 1e6;

/** The topics of the pipeline: who writes each, and who must have read a record before retention may take it. */
export function topics(config: Config): readonly TopicSettings[] {
  const shared = { partitions: config.log_partitions, ...(config.log_shares === 1 ? {} : { shares: config.log_shares }) };
  const outputs = { ...shared, retentionBytes: null, retentionAgeUs: config.output_retention_hours * hourUs };
  return [
    { name: 'vitals.raw', writer: 'ingest', consumers: ['anonymize', 'record'], ...shared, retentionBytes: null, retentionAgeUs: config.raw_retention_hours * hourUs },
    { name: 'vitals.rejected', writer: 'anonymize', consumers: [], ...shared, retentionBytes: null, retentionAgeUs: config.rejected_retention_hours * hourUs },
    // Held data waits for its group; nothing but its release may end that.
    { name: 'vitals.held', writer: 'anonymize', consumers: [], ...shared, retentionBytes: null, retentionAgeUs: null },
    { name: 'vitals.anonymized', writer: 'anonymize', consumers: ['analytics'], ...outputs },
    { name: 'pmr.chunks', writer: 'record', consumers: ['pmr'], ...outputs },
    // No entry, no act; so the audit is never removed, and the bound of the log is not what stops it first.
    ...Object.values(auditTopics).map((name): TopicSettings => ({ name, writer: 'audit', consumers: [], partitions: 1, retentionBytes: null, retentionAgeUs: null, essential: true })),
  ];
}

/** Writers without topics on Kafka: how far the stores are, by shares, and whose log this is. */
export const extraWriters = ({ log_shares: shares }: Pick<Config, 'log_shares'>): readonly string[] => [...writersNamed('sinks', shares), 'owner'];

/** What the records of each topic are, each behind the header that names its schema. */
const messages: ReadonlyMap<string, readonly MessageName[]> = new Map<string, readonly MessageName[]>([
  ['vitals.raw', ['Block']],
  ['vitals.rejected', ['Rejected']],
  ['vitals.held', ['Held']],
  ['vitals.anonymized', ['AnonymizedRun', 'AnonymizedNumeric']],
  ['pmr.chunks', ['PmrChunk']],
  [auditTopics.entries, ['AuditRecord']],
  [auditTopics.details, ['AuditDetail']],
  [auditTopics.checkpoints, ['AuditCheckpoint']],
]);

export function messagesOf(topic: string): readonly MessageName[] {
  const found = messages.get(topic);
  if (found === undefined) throw new SpamerError('internal', 'a topic does not say what its records are', { where: topic });
  return found;
}
