import { Option, type Command } from 'commander';
import { openJournal } from '../core/journal.js';
import type { Migrated } from '../app/migrate.js';
import { action, command, type CommonOptions, type Context } from './context.js';
import { table } from './output.js';
import { openProgress } from './progress.js';

interface MigrateOptions extends CommonOptions {
  readonly dryRun?: boolean;
}

/** `spamer migrate`: what the data folder holds, onto servers. */
export function migrate(): Command {
  return command('migrate', 'Move registry, log and stores of a stopped program out of the data folder onto the servers that the settings name: registry_url, kafka_brokers, clickhouse_url, whichever are set. Broken off, it goes on when it is run again.', [
    'spamer migrate --from embedded --to distributed --dry-run', 'SPAMER_REGISTRY_URL=… spamer migrate --from embedded --to distributed',
  ])
    .addOption(new Option('--from <place>', 'where it lies').choices(['embedded']).makeOptionMandatory())
    .addOption(new Option('--to <place>', 'where it goes').choices(['distributed']).makeOptionMandatory())
    .option('--dry-run', 'check everything and say what would be moved; change nothing')
    .action(action<MigrateOptions>('migrate', async (context, { dryRun }) => {
      const config = context.config();
      const { migrate: run } = await import('../app/migrate.js');
      const { output } = context;
      const done = await run(config, {
        journal: openJournal('migrate', config.log_level), dryRun: dryRun === true, signal: context.interrupt.signal,
        progress: (part, unit, total) => {
          output.note(`Moving the ${part}: ${total.toLocaleString('en')} ${unit}, then reading it again from both sides.`);
          return openProgress(output, unit, total);
        },
      });
      print(context, done);
    }));
}

function print({ output }: Context, { state, parts, rows, leftover }: Migrated): void {
  output.answer({ state, parts, rows, leftover }, () => {
    // Empty tables say nothing to people; --json has them.
    if (rows.length > 0) output.say(table(['part', 'what', 'rows', 'SHA-256'], rows.filter((row) => row.rows > 0).map((row) => [row.part, row.what, row.rows.toLocaleString('en'), row.sha256?.slice(0, 16) ?? ''])));
    else output.say('Everything that these settings name was moved before.');
  });
  if (state === 'planned') output.note('Nothing was changed. The program must stay stopped from the move on until it starts with these settings.');
  if (state === 'moved') output.note(`Moved: ${parts.join(', ')}. Counts and hashes are the same on both sides. Start the program with these settings; it refuses to start without them.`);
  if (leftover.length > 0) output.note(`No longer opened, and yours to remove once the program runs (they still hold what an erasure deletes from now on):\n${leftover.map((file) => `  ${file}`).join('\n')}`);
}
