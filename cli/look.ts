import { setTimeout as sleep } from 'node:timers/promises';
import { Option, type Command } from 'commander';
import { action, command, positive, withServer, type CommonOptions } from './context.js';
import { SpamerError } from '../core/errors.js';
import { signalOf } from '../schemas/signals.js';
import { table, type Output } from './output.js';
import { openProgress } from './progress.js';
import type { Server } from './server.js';

interface ChannelRow {
  readonly device: string;
  readonly code: number;
  readonly accepted: number;
  readonly stored: number;
  readonly rejected: number;
  readonly held: number;
  readonly erased: number;
  readonly inFlight: number;
  readonly rejectedByReason: Readonly<Record<string, number>>;
  readonly balanced: boolean;
}

interface Reconciliation {
  readonly balanced: boolean;
  readonly channels: readonly ChannelRow[];
  readonly studies?: ReadonlyArray<{ readonly study: string; readonly emitted: number; readonly stored: number; readonly erased: number; readonly inFlight: number }>;
  readonly setAside?: ReadonlyArray<{ readonly topic: string; readonly partition: number; readonly offset: number; readonly code: string }>;
}

/** `spamer reconcile`: [LEDGER] for people and for scripts. */
export function reconcile(): Command {
  return command('reconcile', 'Prove that nothing was dropped: accepted = stored + rejected + held + in flight, per device and channel.', ['spamer reconcile', 'spamer reconcile --json --wait 30'])
    .option('--wait <seconds>', 'wait so long for what is in flight', positive)
    .action(action<CommonOptions & { wait?: number }>('reconcile', async ({ output, config, interrupt: { signal } }, options) => withServer(config(), async (server) => {
      const result = options.wait === undefined ? await booksOf(server) : await settled(server, options.wait, output, signal);
      output.answer(result, () => {
        const rows = result.channels.map((row) => [row.device.slice(0, 8), signalOf(row.code)?.label ?? String(row.code), ...[row.accepted, row.stored, row.rejected, row.held, row.erased, row.inFlight].map(String), row.balanced ? 'yes' : 'NO']);
        output.say(table(['device', 'signal', 'accepted', 'stored', 'rejected', 'held', 'erased', 'in flight', 'balanced'], rows));
        for (const { device, code, rejectedByReason } of result.channels) {
          for (const [reason, samples] of Object.entries(rejectedByReason)) if (samples > 0) output.say(`rejected: ${device.slice(0, 8)} ${signalOf(code)?.label ?? code}, ${samples} [${reason}]`);
        }
        for (const { study, emitted, stored, erased, inFlight } of result.studies ?? []) output.say(`study ${study}: ${emitted} samples given out = ${stored} stored + ${erased} erased + ${inFlight} in flight`);
        for (const { topic, partition, offset, code } of result.setAside ?? []) output.say(`set aside: ${topic}/${partition} offset ${offset} [${code}]`);
        output.say(result.balanced ? 'balanced' : 'NOT balanced');
      });
      return result.balanced ? 0 : 1;
    })));
}

const booksOf = async (server: Server, signal?: AbortSignal): Promise<Reconciliation> => (await server.json('/v1/ledger/channels?full=true', signal)) as Reconciliation;
const lookEveryMs = 500;

/** The books once nothing is in flight, or as they are after so many seconds. */
async function settled(server: Server, seconds: number, output: Output, signal: AbortSignal): Promise<Reconciliation> {
  const until = Date.now() + seconds * 1000;
  let result = await booksOf(server, signal);
  const progress = openProgress(output, 'samples settled', null);
  try {
    for (let before = settledIn(result); Date.now() < until && (!result.balanced || result.channels.some((row) => row.inFlight !== 0));) {
      await sleep(lookEveryMs, undefined, { signal });
      result = await booksOf(server, signal);
      const now = settledIn(result);
      progress.add(now - before);
      before = now;
    }
  } finally {
    progress.stop();
  }
  return result;
}

const settledIn = ({ channels }: Reconciliation): number => channels.reduce((sum, row) => sum + row.accepted - row.inFlight, 0);

interface TopicStatus { readonly topic: string; readonly partition: number; readonly start: number; readonly end: number }
interface TopicPage { readonly records: ReadonlyArray<{ readonly offset: number; readonly time: string; readonly schema: string | null; readonly value?: unknown; readonly code?: string }>; readonly next: number }
interface TailOptions extends CommonOptions { readonly from: string; readonly count?: number }

const idleMs = 300;

/** `spamer tail`: a topic's records as they come; clear ones whole, sealed ones by their header. */
export function tail(): Command {
  return command('tail', 'Show records of a topic as they come.', ['spamer tail vitals.anonymized', 'spamer tail vitals.rejected --from start --json', 'spamer tail pmr.chunks --count 5'])
    .argument('<topic>', 'vitals.raw, vitals.rejected, vitals.held, vitals.anonymized, pmr.chunks')
    .addOption(new Option('--from <where>', 'where to begin').choices(['start', 'end']).default('end'))
    .option('--count <n>', 'stop after so many records', positive)
    .action(action<TailOptions>('tail', async ({ output, config, interrupt: { signal } }, options, [topic]) => withServer(config(), async (server) => {
      const { topics } = (await server.json('/v1/topics')) as { topics: readonly TopicStatus[] };
      const places = topics.filter((row) => row.topic === topic).map((row) => ({ partition: row.partition, next: options.from === 'start' ? row.start : row.end }));
      if (places.length === 0) throw new SpamerError('not_found', 'there is no such topic', { where: topics.map((row) => row.topic).filter((name, index, all) => all.indexOf(name) === index).join(', ') });
      let left = options.count ?? Infinity;
      while (left > 0 && !signal.aborted) {
        let seen = 0;
        for (const place of places) {
          if (left <= 0) break;
          const page = (await server.json(`/v1/topics/${encodeURIComponent(topic ?? '')}/records?partition=${place.partition}&from=${place.next}&limit=${Math.min(100, left)}`, signal)) as TopicPage;
          for (const record of page.records) output.record({ partition: place.partition, ...record }, () => `${place.partition}/${record.offset} ${record.time} ${record.schema ?? record.code ?? ''} ${JSON.stringify(record.value ?? null)}`);
          place.next = page.next;
          seen += page.records.length;
          left -= page.records.length;
        }
        if (seen === 0) await sleep(idleMs, undefined, { signal });
      }
    })));
}
