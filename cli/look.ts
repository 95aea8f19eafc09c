import type { Command } from 'commander';
import { action, command, positive, withServer, type CommonOptions } from './context.js';
import { table } from './output.js';

interface ChannelRow {
  readonly device: string;
  readonly code: number;
  readonly signal: string;
  readonly accepted: number;
  readonly stored: number;
  readonly rejected: number;
  readonly held: number;
  readonly inFlight: number;
  readonly balanced: boolean;
}

interface Reconciliation {
  readonly balanced: boolean;
  readonly channels: readonly ChannelRow[];
}

/** `spamer reconcile`: [LEDGER] for people and for scripts. */
export function reconcile(): Command {
  return command('reconcile', 'Prove that nothing was dropped: accepted = stored + rejected + held + in flight, per device and channel.', ['spamer reconcile', 'spamer reconcile --json --wait 30'])
    .option('--wait <seconds>', 'wait so long for what is in flight', positive)
    .action(action<CommonOptions & { wait?: number }>('reconcile', async ({ output, config }, options) => withServer(config(), async (server) => {
      const until = Date.now() + (options.wait ?? 0) * 1000;
      let result = (await server.json('/v1/ledger/channels')) as Reconciliation;
      while (Date.now() < until && (!result.balanced || result.channels.some((row) => row.inFlight !== 0))) {
        await new Promise((resolve) => setTimeout(resolve, 500));
        result = (await server.json('/v1/ledger/channels')) as Reconciliation;
      }
      output.answer(result, () => {
        const rows = result.channels.map((row) => [row.device.slice(0, 8), row.signal, ...[row.accepted, row.stored, row.rejected, row.held, row.inFlight].map(String), row.balanced ? 'yes' : 'NO']);
        output.say(table(['device', 'signal', 'accepted', 'stored', 'rejected', 'held', 'in flight', 'balanced'], rows));
        output.say(result.balanced ? 'balanced' : 'NOT balanced');
      });
      return result.balanced ? 0 : 1;
    })));
}

interface TopicPage {
  readonly records: ReadonlyArray<{ readonly partition: number; readonly offset: number; readonly time: string; readonly record: unknown }>;
  readonly next: string | null;
}

/** `spamer tail`: a topic's records as they come; clear ones whole, sealed ones by their header. */
export function tail(): Command {
  return command('tail', 'Show records of a topic as they come.', ['spamer tail vitals.anonymized', 'spamer tail vitals.rejected --from start --json', 'spamer tail pmr.chunks --count 5'])
    .argument('<topic>', 'vitals.raw, vitals.rejected, vitals.held, vitals.anonymized, pmr.chunks')
    .option('--from <where>', 'start or end', 'end')
    .option('--count <n>', 'stop after so many records', positive)
    .action(action<CommonOptions & { from: string; count?: number }>('tail', async ({ output, config }, options, [topic]) => withServer(config(), async (server) => {
      let left = options.count ?? Infinity;
      let cursor = options.from === 'start' ? 'start' : 'end';
      let stop = false;
      process.once('SIGINT', () => { stop = true; });
      while (left > 0 && !stop) {
        const page = (await server.json(`/v1/topics/${encodeURIComponent(topic ?? '')}/records?from=${encodeURIComponent(cursor)}`)) as TopicPage;
        for (const record of page.records.slice(0, left)) output.record(record, () => `${record.partition}/${record.offset} ${record.time} ${JSON.stringify(record.record)}`);
        left -= page.records.length;
        cursor = page.next ?? cursor;
        if (page.records.length === 0) await new Promise((resolve) => setTimeout(resolve, 300));
      }
    })));
}
