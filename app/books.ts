import type { Log } from '../log/log.js';
import type { Ledger, LedgerChannel } from '../query/ports.js';
import { analyticsBalanced, channelLine } from './ledger.js';
import type { Remote } from './rpc.js';
import type { StoresThread } from './stores-thread.js';

interface SettledCount { readonly valid: number; readonly rejected: number; readonly settled: number; readonly held: number; readonly erased?: number; readonly rejectedByReason?: Readonly<Record<string, number>> }
interface ChunkedCount { readonly rejected: number; readonly erased?: number }
interface DeviceState { readonly counts: Readonly<Record<string, number>> }

const nothing: SettledCount = { valid: 0, rejected: 0, settled: 0, held: 0 };
const json = <Value>(bytes: Uint8Array): Value => JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8')) as Value;

/** Reads both ends of the books and balances them [LEDGER]. */
export function openBooks(log: Log, stores: Remote<StoresThread>): Ledger {
  /** Stores before stages before ingest: what moves on meanwhile then shows as in flight, never as too much. */
  const read = async (full: boolean): Promise<readonly LedgerChannel[]> => {
    const consumers = await log.consumers();
    const recorded = new Map((await (full ? stores.pmrCounts() : stores.pmrTotals())).map(({ device, code, samples }) => [`${device}/${code}`, samples]));
    const stored = new Map((await (full ? stores.analyticsCounts() : stores.analyticsTotals())).map(({ study, pseudonym, code, samples }) => [`${study}/${pseudonym}/${code}`, samples]));
    const emitted = new Map((await log.stateScan('anonymize', 'released', '')).map(({ key, value }) => [key, json<number>(value)]));
    const settled = new Map((await log.stateScan('anonymize', 'ledger', '')).map(({ key, value }) => [key, json<Record<string, SettledCount>>(value)]));
    const chunked = new Map((await log.stateScan('record', 'ledger', '')).map(({ key, value }) => [key, json<Record<string, ChunkedCount>>(value)]));
    const accepted = await log.stateScan('ingest', 'devices', '');
    const drained = consumers.length > 0 && consumers.every(({ lag }) => lag === 0) && (await log.consumers()).every(({ lag }) => lag === 0);
    const analytics = analyticsBalanced(emitted, stored, drained && full);
    return accepted.flatMap(({ key: device, value }) => Object.entries(json<DeviceState>(value).counts).map(([code, samples]) => {
      const branch = settled.get(device)?.[code] ?? nothing;
      const record = chunked.get(device)?.[code];
      const facts = { accepted: samples, rejected: branch.rejected, settled: branch.settled, held: branch.held, erased: branch.erased ?? 0, recorded: recorded.get(`${device}/${code}`) ?? 0, recordRejected: record?.rejected ?? 0, recordErased: record?.erased ?? 0 };
      const line = channelLine(facts, false);
      return { device, code: Number(code), ...line, rejectedByReason: branch.rejectedByReason ?? {}, balanced: line.balanced && analytics && !(drained && full && line.inFlight !== 0) };
    }));
  };
  return { snapshot: () => read(false), reconcile: () => read(true) };
}
