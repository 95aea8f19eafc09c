import type { Command } from 'commander';
import { action, command, withServer, type CommonOptions } from './context.js';
import type { Output } from './output.js';
import { openPrompt, type Prompt } from './prompt.js';
import type { Server } from './server.js';

interface Asked extends CommonOptions {
  readonly login: string;
  readonly newRecoveryCodes?: boolean;
}

/** `spamer user second-factor`: a user sets up their own, signing in for it; nobody does it for another. */
export function secondFactor(): Command {
  return command('second-factor', 'Set up your own second factor, or get new recovery codes; asks for your password and for codes.', ['spamer user second-factor --login admin', 'spamer user second-factor --login admin --new-recovery-codes'])
    .requiredOption('--login <login>', 'your own')
    .option('--new-recovery-codes', 'in the place of those that you have')
    .action(action<Asked>('user second-factor', async ({ output, config }, options) => withServer(config(), async (server) => {
      const prompt = openPrompt();
      try {
        await asUser(server, prompt, options, (own, password) => (options.newRecoveryCodes === true ? renew(own, prompt, output) : enrol(own, prompt, output, password)));
      } finally {
        prompt.close();
      }
    })));
}

/** A session for the work, which ends with it. */
async function asUser(server: Server, prompt: Prompt, { login, newRecoveryCodes }: Asked, work: (own: Server, password: string) => Promise<void>): Promise<void> {
  const password = await prompt.ask('password', { hidden: true });
  const code = newRecoveryCodes === true ? { code: await prompt.ask('code of the app, or a recovery code') } : {};
  const { token } = (await server.send('POST', '/v1/sign-in', { login, password, ...code })) as { token: string };
  const own = server.as(token);
  try {
    await work(own, password);
  } finally {
    await own.send('POST', '/v1/sign-out', {});
  }
}

async function enrol(own: Server, prompt: Prompt, output: Output, password: string): Promise<void> {
  const { uri } = (await own.send('POST', '/v1/second-factor', { password })) as { uri: string };
  const { renderUnicodeCompact } = await import('uqr');
  const secret = new URL(uri).searchParams.get('secret') ?? '';
  output.record({ uri, secret }, () => `${renderUnicodeCompact(uri, { border: 2 })}\nscan this with an authenticator app, or type it in\nsecret  ${secret}\n${uri}\nIt is shown this once, and is in force when one of its codes has confirmed it.`);
  const { recoveryCodes } = (await own.send('POST', '/v1/second-factor/confirm', { code: await prompt.ask('code that the app shows now') })) as { recoveryCodes: readonly string[] };
  tellCodes(output, recoveryCodes, 'From now on every sign-in asks for a code; your other sessions have ended.');
}

async function renew(own: Server, prompt: Prompt, output: Output): Promise<void> {
  const { recoveryCodes } = (await own.send('POST', '/v1/second-factor/recovery-codes', { code: await prompt.ask('another code: the next that the app shows, or a recovery code') })) as { recoveryCodes: readonly string[] };
  tellCodes(output, recoveryCodes, 'The old recovery codes are good no more.');
}

function tellCodes(output: Output, recoveryCodes: readonly string[], then: string): void {
  output.record({ recoveryCodes }, () => `recovery codes, each of which signs in once in the place of a code:\n${recoveryCodes.map((code) => `  ${code}`).join('\n')}\nThey are shown this once; keep them where the phone is not. ${then}`);
}
