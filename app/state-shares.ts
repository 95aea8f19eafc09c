import { SpamerError } from '../core/errors.js';
import { deviceId, uuidBytes } from '../core/ids.js';
import { partitionOf, shareOf, shareWriter, type TopicSettings, type WholeState } from '../log/log.js';

/** Into what a writer's partitions are shared out. */
interface Layout {
  readonly partitions: number;
  readonly shares: number;
}

/** An entry as each share that has a part of it has it. */
type Parts = ReadonlyMap<number, Uint8Array>;
type Rule = (key: string, value: Uint8Array, layout: Layout) => Parts;

const ofDevice: Rule = (key, value, { partitions, shares }) => {
  const device = deviceId(key);
  if (device === null) throw new SpamerError('data_damaged', 'an entry of a device has another key');
  return new Map([[shareOf(partitionOf(uuidBytes(device), partitions), shares), value]]);
};
const ofPartition: Rule = (key, value, { shares }) => new Map([[shareOf(Number(key), shares), value]]);
/** What every share must know, and none counts. */
const ofAll: Rule = (_key, value, { shares }) => new Map(Array.from({ length: shares }, (_, share) => [share, value]));
/** Counts that readers add up over all shares. */
const ofOne: Rule = (_key, value) => new Map([[0, value]]);

/** Where a patient's held records begin, by partition: each share has those of its own. */
const ofHolds: Rule = (_key, value, { shares }) => {
  const { first } = JSON.parse(Buffer.from(value).toString()) as { readonly first: Readonly<Record<string, number>> };
  const byShare = new Map<number, Record<string, number>>();
  for (const [partition, offset] of Object.entries(first)) {
    const share = shareOf(Number(partition), shares);
    byShare.set(share, { ...byShare.get(share), [partition]: offset });
  }
  return new Map([...byShare].map(([share, own]) => [share, Buffer.from(JSON.stringify({ first: own }))]));
};

/** Every state table of the writers that are shared out. */
const rules: Readonly<Record<string, Readonly<Record<string, Rule>>>> = {
  // A used token is known by a hash, which does not say whose it is.
  ingest: { devices: ofDevice, tokens: ofAll, clock: ofAll },
  // A patient's devices may be of several shares, and relative times go on from the one anchor.
  anonymize: { ends: ofDevice, ledger: ofDevice, anchors: ofAll, holds: ofHolds, released: ofOne, times: ofPartition, unreadable: ofPartition },
  record: { devices: ofDevice, ledger: ofDevice },
};

/**
 * Whose, of the writers of the shares, each entry of a writer's state is, and how far its stage is.
 * @param topics as they are shared out
 * @throws SpamerError `data_damaged`, `internal` (a table that says nothing of shares)
 */
export function sharedState(topics: readonly TopicSettings[], writer: string, whole: WholeState): ReadonlyMap<string, WholeState> {
  // Sinks write no topic; they are shared out as what they read is.
  const { partitions, shares = 1 } = topics.find((topic) => topic.writer === (writer === 'sinks' ? 'record' : writer)) ?? { partitions: 1 };
  if (shares === 1) return new Map([[writer, whole]]);
  const heirs = Array.from({ length: shares }, () => ({ state: [] as Array<WholeState['state'][number]>, consumed: [] as Array<WholeState['consumed'][number]> }));
  for (const { table, key, value } of whole.state) {
    const rule = rules[writer]?.[table];
    if (rule === undefined) throw new SpamerError('internal', 'a state table does not say which share its entries are of', { where: `${writer}/${table}` });
    for (const [share, own] of rule(key, value, { partitions, shares })) heirs[share]?.state.push({ table, key, value: own });
  }
  for (const { consumer, topic, partition, offset } of whole.consumed) {
    const share = shareOf(partition, shares);
    heirs[share]?.consumed.push({ consumer: consumer === writer ? shareWriter(writer, share, shares) : consumer, topic, partition, offset });
  }
  return new Map(heirs.map((heir, share) => [shareWriter(writer, share, shares), heir]));
}
