import { Option, type Command } from 'commander';
import { prepareCompose } from './compose-folder.js';
import { action, command, type CommonOptions } from './context.js';
import { table } from './output.js';

interface InitOptions extends CommonOptions {
  readonly compose: string;
  readonly brokers: '1' | '3';
}

/** `spamer init`: what a set-up needs that no repository may hold. */
export function init(): Command {
  return command('init', 'Make the secrets that compose.yaml reads, each in a file of its own, and its .env; what is there is kept.', ['spamer init --compose .', 'spamer init --compose . --brokers 3'])
    .requiredOption('--compose <dir>', 'folder of compose.yaml; the secrets come into its folder secrets, mode 0600')
    .addOption(new Option('--brokers <number>', 'brokers of the log').choices(['1', '3']).default('1'))
    .action(action<InitOptions>('init', async ({ output }, { compose, brokers }) => {
      const files = prepareCompose({ dir: compose, brokers: brokers === '3' ? 3 : 1 });
      output.answer({ files }, () => output.say(table(['file', ''], files.map(({ file, found }) => [file, found]))));
      if (files.some(({ file, found }) => found === 'kept' && file.endsWith('.env'))) output.note('The .env that was there is kept: it says how many brokers there are.');
      output.note('Keep secrets/passphrase apart from the volumes, and a copy of it: without it nothing that is stored opens again.');
    }));
}
