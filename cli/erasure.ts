import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { SpamerError } from '../core/errors.js';
import type { Certificate } from '../security/certificate.js';
import { action, command, patientArgument, positive, withServer, type CommonOptions } from './context.js';
import { table, type Output } from './output.js';
import { openProgress } from './progress.js';
import type { Server } from './server.js';

interface Erasure { readonly erasure: string; readonly patient: string; readonly state: string; readonly requestedAt: string; readonly certificate: string | null }

/** `spamer patient erase`: the first of the two people. */
export function patientErase(): Command {
  return command('erase', 'Ask for the erasure of a patient; another person has to approve it.', ['spamer patient erase --patient 3f0c…', 'SPAMER_TOKEN=… spamer erasure approve 91ab… --out erasure.jws'])
    .requiredOption('--patient <id>', 'whose keys are to be destroyed, for ever and in every backup', patientArgument)
    .action(action<CommonOptions & { patient: string }>('patient erase', async ({ output, config }, options) => withServer(config(), async (server) => {
      const asked = (await server.send('POST', '/v1/erasures', { patient: options.patient })) as Erasure;
      output.answer(asked, () => output.say(`erasure ${asked.erasure} waits for another person\nNext: SPAMER_TOKEN=<theirs> spamer erasure approve ${asked.erasure} --out erasure.jws`));
    })));
}

export function patientHold(): Command {
  return command('hold', 'Place a legal hold on a patient\'s record, or release one.', ['spamer patient hold --patient 3f0c… --reference CASE-7', 'spamer patient hold --patient 3f0c… --release 77de…'])
    .requiredOption('--patient <id>', 'whose record', patientArgument)
    .option('--reference <text>', 'of the case; no person\'s name')
    .option('--release <hold>', 'the hold to release')
    .action(action<CommonOptions & { patient: string; reference?: string; release?: string }>('patient hold', async ({ output, config }, options) => withServer(config(), async (server) => {
      const path = `/v1/patients/${encodeURIComponent(options.patient)}/holds`;
      const answer = options.release !== undefined ? await server.send('DELETE', `${path}/${encodeURIComponent(options.release)}`, {})
        : options.reference !== undefined ? await server.send('POST', path, { reference: options.reference })
        : await server.json(path);
      const { holds } = answer as { holds: ReadonlyArray<{ hold: string; reference: string; placedAt: string }> };
      output.answer(answer, () => output.say(table(['hold', 'reference', 'placed'], holds.map(({ hold, reference, placedAt }) => [hold, reference, placedAt]))));
    })));
}

export function erasure(): Command {
  return command('erasure', 'Approve, look at and verify erasures.', ['spamer erasure list', 'spamer erasure verify erasure.jws --key erasure-key.json']).addCommand(approve()).addCommand(withdraw()).addCommand(list()).addCommand(key()).addCommand(verify());
}

function approve(): Command {
  return command('approve', 'Approve an erasure that another person asked for; it can\'t be undone.', ['spamer erasure approve 91ab… --out erasure.jws', 'SPAMER_TOKEN=… spamer erasure approve 91ab… --out erasure.jws'])
    .argument('<erasure>')
    .option('--out <file>', 'where the signed certificate goes')
    .option('--wait <seconds>', 'for the erasure to be done', positive, 600)
    .action(action<CommonOptions & { out?: string; wait: number }>('erasure approve', async ({ output, config, interrupt: { signal } }, options, [id]) => withServer(config(), async (server) => {
      const path = `/v1/erasures/${encodeURIComponent(id ?? '')}`;
      await server.send('POST', `${path}/approve`, {});
      const done = await finished(server, path, options.wait, output, signal).catch((error: unknown) => {
        // It was approved: that is not taken back by not waiting for it.
        if (signal.aborted) output.note('the erasure goes on; look again with spamer erasure list');
        throw error;
      });
      if (done.certificate === null) throw new SpamerError('unreachable', `the erasure is ${done.state} and goes on; look again with spamer erasure list`);
      if (options.out !== undefined) writeFileSync(options.out, `${done.certificate}\n`);
      output.answer(done, () => output.say(`erased\n${options.out === undefined ? done.certificate ?? '' : `certificate in ${options.out}`}`));
    })));
}

/** States of an erasure that was approved, in their order. */
const steps = ['approved', 'begun', 'punctured', 'done'];

async function finished(server: Server, path: string, seconds: number, output: Output, signal: AbortSignal): Promise<Erasure> {
  const until = Date.now() + seconds * 1000;
  const progress = openProgress(output, 'steps', steps.length - 1);
  try {
    for (let before = 0; ;) {
      const row = (await server.json(path, signal)) as Erasure;
      const step = Math.max(before, steps.indexOf(row.state));
      progress.add(step - before);
      before = step;
      if (row.state === 'done' || Date.now() > until) return row;
      await sleep(200, undefined, { signal });
    }
  } finally {
    progress.stop();
  }
}

function withdraw(): Command {
  return command('withdraw', 'Withdraw a request that nobody has approved.', ['spamer erasure withdraw 91ab…'])
    .argument('<erasure>')
    .action(action<CommonOptions>('erasure withdraw', async ({ output, config }, _options, [id]) => withServer(config(), async (server) => {
      const row = await server.send('POST', `/v1/erasures/${encodeURIComponent(id ?? '')}/withdraw`, {});
      output.answer(row, () => output.say('withdrawn'));
    })));
}

function list(): Command {
  return command('list', 'Erasures and their state.', ['spamer erasure list --json'])
    .action(action<CommonOptions>('erasure list', async ({ output, config }) => withServer(config(), async (server) => {
      const answer = (await server.json('/v1/erasures')) as { erasures: readonly Erasure[] };
      output.answer(answer, () => output.say(table(['erasure', 'patient', 'state', 'requested'], answer.erasures.map((row) => [row.erasure, row.patient, row.state, row.requestedAt]))));
    })));
}

function key(): Command {
  return command('key', 'The public key that certificates are checked with, as a JWK. Keep it where the certificates are.', ['spamer erasure key --out erasure-key.json'])
    .option('--out <file>')
    .action(action<CommonOptions & { out?: string }>('erasure key', async ({ output, config }, options) => withServer(config(), async (server) => {
      const jwk = await server.json('/v1/erasure-key');
      if (options.out !== undefined) writeFileSync(options.out, `${JSON.stringify(jwk, null, 2)}\n`);
      output.answer(jwk, () => output.say(options.out === undefined ? JSON.stringify(jwk) : `key in ${options.out}`));
    })));
}

function verify(): Command {
  return command('verify', 'Check an erasure\'s certificate, offline: exit 0 it is valid, 1 it is not.', ['spamer erasure verify erasure.jws --key erasure-key.json'])
    .argument('<certificate>', 'file')
    .requiredOption('--key <file>', 'public key (JWK) of the keystore that signed it')
    .action(action<CommonOptions & { key: string }>('erasure verify', async ({ output }, options, [file]) => {
      const jwk = parsed(read(options.key), options.key);
      const text = read(file ?? '');
      const { verifyCertificate } = await import('../security/certificate.js');
      try {
        const certificate = verifyCertificate(text, jwk);
        const { before, after } = certificate.keystore;
        output.answer({ valid: true, certificate }, () => output.say(`valid: patient ${certificate.patient} was erased at ${certificate.erasedAt}; keystore version ${before.number} became ${after.number} (${after.hash})\n${JSON.stringify({ ...certificate.destroyed, ...certificate.unreadable })}${deletedRows(certificate)}`));
        return 0;
      } catch (error) {
        if (!(error instanceof SpamerError) || error.code !== 'certificate_invalid') throw error;
        output.answer({ valid: false }, () => output.say('NOT valid under this key'));
        return 1;
      }
    }));
}

/** A line for each study that had the rows deleted. */
function deletedRows({ deleted, logKeepsUntil }: Certificate): string {
  const lines = (deleted ?? []).map(({ study, rows, samples }) => (rows === null
    ? `study ${study}: nothing led to the pseudonym any more, so no rows were deleted`
    : `study ${study}: ${rows} rows with ${samples} samples deleted; the log may keep copies until ${logKeepsUntil ?? 'retention takes them'}`));
  return lines.map((line) => `\n${line}`).join('');
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new SpamerError('bad_request', 'the file cannot be read', { where: file, cause });
  }
}

function parsed(text: string, file: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  } catch {
    // told below
  }
  throw new SpamerError('bad_request', 'the key is no JWK', { where: file });
}
