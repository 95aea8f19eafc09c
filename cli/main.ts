#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { commands } from './commands.js';

// Whatever is written, by the stores and the registry's database too, is for this user only.
process.umask(0o077);

// `| head -1`: whoever read has seen enough. That is no fault, and what this process holds is safe by [DURABLE].
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(process.exitCode ?? 0);
    throw error;
  });
}

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string };

const spamer = new Command('spamer')
  .description('Collects patients\' vitals without losing one, seals them under the patient\'s own key, and answers.')
  .version(version)
  .addHelpText('before', 'Examples:\n  spamer demo                     see it work, with 12 demo patients\n  spamer run                      the pipeline for your own devices\n  spamer doctor                   what is wrong with this machine\n')
  .showHelpAfterError('(--help shows examples)');

for (const each of commands()) spamer.addCommand(each);
// Bad use is exit code 2 everywhere (DESIGN §9); help and version are none.
for (const each of [spamer, ...spamer.commands, ...spamer.commands.flatMap((sub) => sub.commands)]) each.exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2));

await spamer.parseAsync();
