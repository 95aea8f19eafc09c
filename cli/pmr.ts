import { Option, type Command } from 'commander';
import { action, command, patientArgument, timeArgument } from './context.js';
import type { ExportOptions } from './export/pmr.js';

const formats: ReadonlyArray<ExportOptions['format']> = ['csv', 'wfdb', 'edf', 'jwe'];

/** `spamer pmr export`: one patient's record out of the sealed store, as files. */
export function pmr(): Command {
  const exporting = command('export', 'Write one patient\'s record to files.', ['spamer pmr export --patient 3f0c… --format csv --out record', 'spamer pmr export --patient 3f0c… --from 2026-01-31T12:00:00Z --to 2026-01-31T13:00:00Z --format wfdb --out record', 'spamer pmr export --patient 3f0c… --format jwe --key theirs.public.json --out record'])
    .requiredOption('--patient <id>', 'whose record', patientArgument)
    .option('--from <time>', 'from this time on (RFC 3339, a date, or microseconds)', timeArgument)
    .option('--to <time>', 'up to this time', timeArgument)
    .addOption(new Option('--format <format>', 'file format').choices(formats).default('csv'))
    .option('--key <file>', 'with --format jwe: the public key (JWK) of whoever is to read it, whom it is encrypted to')
    .requiredOption('--out <folder>', 'folder for the files; made if absent. But for jwe they are clear: whoever reads them reads the record')
    .option('--name <name>', 'name of the files', 'record')
    .action(action<ExportOptions>('pmr export', async (context, options) => (await import('./export/pmr.js')).exportRecord(context, options)));
  return command('pmr', 'Patients\' medical records.', ['spamer pmr export --help']).addCommand(exporting);
}
