import type { ConsumerStatus, Log } from '../log/log.js';
import type { UnreadableRecords } from '../processors/unreadable.js';
import type { Ledger, LedgerChannel, SetAsideRecord } from '../query/ports.js';
import { channelLine, lostOf, studyLines, withLost, type Burial, type Lost, type StudyFacts } from './ledger.js';
import type { Remote } from './rpc.js';
import type { StoresThread } from './stores-thread.js';

interface SettledCount { readonly valid: number; readonly rejected: number; readonly settled: number; readonly held: number; readonly erased?: number; readonly notConsented?: number; readonly rejectedByReason?: Readonly<Record<string, number>> }
interface ChunkedCount { readonly rejected: number; readonly erased?: number }
interface DeviceState { readonly counts: Readonly<Record<string, number>> }

const nothing: SettledCount = { valid: 0, rejected: 0, settled: 0, held: 0 };
const json = <Value>(bytes: Uint8Array): Value => JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8')) as Value;

/** Reads both ends of the books and balances them [LEDGER]. */
export function openBooks(log: Pick<Log, 'consumers' | 'stateScan'>, stores: Pick<Remote<StoresThread>, 'pmrCounts' | 'pmrTotals' | 'analyticsCounts' | 'analyticsTotals' | 'buried' | 'setAside'>): Ledger {
  /** What was found lost when the pipeline was drained last: while it is busy, nothing else can tell it from what is in flight. */
  const lost = new Map<string, Lost>();

  const setAside = async (): Promise<readonly SetAsideRecord[]> => {
    const blocks = (await log.stateScan('anonymize', 'unreadable', '')).flatMap(({ key, value }) => json<UnreadableRecords>(value).offsets.map((offset) => ({ topic: 'vitals.raw', partition: Number(key), offset, code: 'block_unreadable' })));
    const rows = await stores.setAside();
    return [...blocks, ...rows.map(({ topic, partition, offset, code }) => ({ topic, partition, offset, code }))];
  };

  const studyFacts = async (full: boolean): Promise<StudyFacts> => {
    const before = await buriedIn(stores);
    const stored = new Map((await (full ? stores.analyticsCounts() : stores.analyticsTotals())).map(({ study, pseudonym, code, samples }) => [`${study}/${pseudonym}/${code}`, samples]));
    const emitted = new Map<string, number>();
    // Of a writer with shares each counts its own.
    for (const { key, value } of await log.stateScan('anonymize', 'released', '')) emitted.set(key, (emitted.get(key) ?? 0) + json<number>(value));
    // Of what was buried while the rows were counted, the count may be from before or after.
    const buried = new Map([...await buriedIn(stores)].map(([name, burial]) => [name, before.get(name) === 'gone' ? burial : ('going' as const)]));
    return { stored, emitted, buried };
  };

  /** Stores before stages before ingest: what moves on meanwhile then shows as in flight, never as too much. */
  const read = async (full: boolean): Promise<readonly LedgerChannel[]> => {
    const consumers = await log.consumers();
    const recorded = new Map((await (full ? stores.pmrCounts() : stores.pmrTotals())).map(({ device, code, samples }) => [`${device}/${code}`, samples]));
    const ofStudies = await studyFacts(full);
    const settled = new Map((await log.stateScan('anonymize', 'ledger', '')).map(({ key, value }) => [key, json<Record<string, SettledCount>>(value)]));
    const chunked = new Map((await log.stateScan('record', 'ledger', '')).map(({ key, value }) => [key, json<Record<string, ChunkedCount>>(value)]));
    const accepted = await log.stateScan('ingest', 'devices', '');
    const drained = isDrained(consumers, await log.consumers());
    const channels = accepted.flatMap(({ key: device, value }) => Object.entries(json<DeviceState>(value).counts).map(([code, samples]) => {
      const branch = settled.get(device)?.[code] ?? nothing;
      const record = chunked.get(device)?.[code];
      const facts = { accepted: samples, rejected: branch.rejected, settled: branch.settled, held: branch.held, erased: branch.erased ?? 0, recorded: recorded.get(`${device}/${code}`) ?? 0, recordRejected: record?.rejected ?? 0, recordErased: record?.erased ?? 0 };
      return { device, code, facts, line: channelLine(facts, false), notConsented: branch.notConsented ?? 0, reasons: branch.rejectedByReason ?? {} };
    }));
    const asideTopics = drained && (full || channels.some(({ line }) => line.inFlight > 0)) ? new Set((await setAside()).map(({ topic }) => topic)) : null;
    // What the analytics store could not read is listed among what was set aside; it can hold no more than the rest.
    const analytics = studyLines(ofStudies, drained && full && asideTopics?.has('vitals.anonymized') !== true).every(({ balanced }) => balanced);
    return channels.map(({ device, code, facts, line, notConsented, reasons }) => {
      const name = `${device}/${code}`;
      if (asideTopics !== null) lost.set(name, lostOf(facts, { blocks: asideTopics.has('vitals.raw'), chunks: asideTopics.has('pmr.chunks') }));
      const gone = lost.get(name) ?? { block_unreadable: 0, chunk_unreadable: 0 };
      const whole = withLost(line, gone, drained && full);
      return { device, code: Number(code), ...whole, notConsented, rejectedByReason: withReasons(reasons, gone), balanced: whole.balanced && analytics };
    });
  };
  const studies = async () => studyLines(await studyFacts(true), false);
  return { snapshot: () => read(false), reconcile: () => read(true), setAside, studies };
}

async function buriedIn(stores: Pick<Remote<StoresThread>, 'buried'>): Promise<Map<string, Burial>> {
  return new Map((await stores.buried()).map(({ study, pseudonym, gone }) => [`${study}/${pseudonym}`, gone ? 'gone' : 'going']));
}

/** Nothing was left to read before and after, and nothing was read in between: then both ends of the books are of one moment. */
function isDrained(before: readonly ConsumerStatus[], after: readonly ConsumerStatus[]): boolean {
  const place = ({ consumer, topic, partition, offset }: ConsumerStatus): string => `${consumer}/${topic}/${partition}/${offset}`;
  const places = new Set(before.map(place));
  return before.length > 0 && before.every(({ lag }) => lag === 0) && after.length === before.length && after.every((one) => one.lag === 0 && places.has(place(one)));
}

function withReasons(reasons: Readonly<Record<string, number>>, lost: Lost): Readonly<Record<string, number>> {
  const all: Record<string, number> = { ...reasons };
  for (const [reason, samples] of Object.entries(lost)) if (samples > 0) all[reason] = (all[reason] ?? 0) + samples;
  return all;
}
