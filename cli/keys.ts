import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { SpamerError } from '../core/errors.js';
import { action, command, patientArgument, withServer, type CommonOptions } from './context.js';
import { table } from './output.js';
import { needsOneOf } from './required.js';

interface Epoch { readonly epoch: number; readonly seals: number }
interface Status {
  readonly version: { readonly number: number; readonly hash: string };
  readonly kek: string;
  readonly generatedPassphrase: boolean;
  readonly bytes: number;
  readonly nodes: number;
  readonly punctures: number;
  readonly sealsPerKeyMax: number;
  readonly epochs: ReadonlyArray<Epoch & { readonly keys: number; readonly sealsMost: number }>;
}

export function keys(): Command {
  return command('keys', 'Look at and rotate keys, while devices stream.', ['spamer keys status', 'spamer keys rotate --patient 3f0c…', 'SPAMER_NEW_PASSPHRASE=… spamer keys rotate --kek']).addCommand(status()).addCommand(rotate());
}

function status(): Command {
  return command('status', 'The keystore\'s version and how often data keys were used; nothing that opens anything.', ['spamer keys status', 'spamer keys status --patient 3f0c… --json'])
    .option('--patient <id>', 'the epochs of this patient\'s keys instead', patientArgument)
    .action(action<CommonOptions & { patient?: string }>('keys status', async ({ output, config }, { patient }) => withServer(config(), async (server) => {
      if (patient !== undefined) {
        const uses = (await server.json(`/v1/patients/${encodeURIComponent(patient)}/keys`)) as { epochs: ReadonlyArray<Epoch & { createdAt: string | null }> };
        output.answer(uses, () => output.say(table(['epoch', 'encryptions', 'since'], uses.epochs.map(({ epoch, seals, createdAt }) => [String(epoch), String(seals), createdAt ?? '']))));
        return;
      }
      const keystore = (await server.json('/v1/keystore')) as Status;
      output.answer(keystore, () => output.say(described(keystore)));
    })));
}

function described({ version, kek, generatedPassphrase, bytes, nodes, punctures, sealsPerKeyMax, epochs }: Status): string {
  return [
    `keystore version ${version.number} (${version.hash}), ${bytes} bytes`,
    `under ${kek}${generatedPassphrase ? ', generated, which lies beside it' : ''}; ${nodes} nodes, ${punctures} punctures`,
    `a data key is replaced before it is used more than ${sealsPerKeyMax} times`,
    table(['epoch', 'keys', 'encryptions', 'most of one key'], epochs.map((row) => [String(row.epoch), String(row.keys), String(row.seals), String(row.sealsMost)])),
  ].join('\n');
}

function rotate(): Command {
  const made = command('rotate', 'Start a new epoch of a patient\'s keys, or write the keystore under a new passphrase or key version.', ['spamer keys rotate --patient 3f0c…', 'SPAMER_NEW_PASSPHRASE=… spamer keys rotate --kek', 'spamer keys rotate --kek --passphrase-file new.passphrase'])
    .option('--patient <id>', 'what comes from now on is sealed under a new key; what is there opens on', patientArgument)
    .option('--kek', 'the same keys under a new passphrase (SPAMER_NEW_PASSPHRASE or --passphrase-file; a generated one is generated anew), or under the next version of the key in the key service')
    .option('--passphrase-file <file>', 'its first line is the new passphrase')
    .action(action<CommonOptions & { patient?: string; kek?: boolean; passphraseFile?: string }>('keys rotate', async ({ output, config }, { patient, passphraseFile }) => {
      await withServer(config(), async (server) => {
        if (patient !== undefined) {
          const { epoch } = (await server.send('POST', `/v1/patients/${encodeURIComponent(patient)}/keys/rotate`, {})) as { epoch: number };
          output.answer({ patient, epoch }, () => output.say(`epoch ${epoch} begins`));
          return;
        }
        const passphrase = newPassphrase(passphraseFile);
        const version = (await server.send('POST', '/v1/keystore/rotate', passphrase === undefined ? {} : { passphrase })) as Status['version'];
        output.answer(version, () => output.say(`keystore version ${version.number} (${version.hash})${passphrase === undefined ? '' : '\nThe next start needs the new passphrase in SPAMER_PASSPHRASE. Destroy the old one: it opens older keystores.'}`));
      });
    }));
  return needsOneOf(made, 'patient', 'kek');
}

function newPassphrase(file: string | undefined): string | undefined {
  if (file === undefined) return process.env['SPAMER_NEW_PASSPHRASE'] || undefined;
  try {
    return readFileSync(file, 'utf8').split(/\r?\n/)[0];
  } catch (cause) {
    throw new SpamerError('bad_request', 'the file cannot be read', { where: file, cause });
  }
}
