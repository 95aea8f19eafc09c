import { existsSync, renameSync, writeFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { SpamerError } from '../core/errors.js';
import { exitNow } from '../core/exit.js';
import { openJournal } from '../core/journal.js';
import { stopOnSignals } from '../core/lifecycle.js';
import { helpersGoBehind } from '../core/priority.js';
import type { Config, RoleName, SettingName } from '../core/config.js';
import type { Program, WholeProgram } from '../app/program.js';
import { action, command, type CommonOptions, type Context } from './context.js';

const drainMs = 10_000;
/** After a thread's death: what is left may never stop by itself, and nothing is taken until the next start. */
const failedMs = 3000;

interface RunOptions extends CommonOptions {
  readonly roles?: string;
  readonly dataDir?: string;
  readonly httpPort?: string;
  readonly ingestPort?: string;
}

function withRunOptions(made: Command): Command {
  return made
    .option('--data-dir <dir>', 'folder of everything that is kept (SPAMER_DATA_DIR)')
    .option('--http-port <port>', 'page and API; 0: any (SPAMER_HTTP_PORT)')
    .option('--ingest-port <port>', 'device stream; 0: any (SPAMER_INGEST_PORT)');
}

function overrides(options: RunOptions): Partial<Record<SettingName, unknown>> {
  return {
    ...(options.roles === undefined ? {} : { roles: options.roles }),
    ...(options.dataDir === undefined ? {} : { data_dir: options.dataDir }),
    ...(options.httpPort === undefined ? {} : { http_port: options.httpPort }),
    ...(options.ingestPort === undefined ? {} : { ingest_port: options.ingestPort }),
  };
}

export function run(): Command {
  return withRunOptions(command('run', 'Run the pipeline: device stream, processors, stores, page and API.', ['spamer run', 'spamer run --json --data-dir /srv/spamer', 'spamer run --roles ingest,processors']))
    .option('--roles <names>', 'what this process does, where several share the work: registry, ingest, processors, sinks, query (SPAMER_ROLES)')
    .action(action<RunOptions>('run', async (context, options) => {
      const config = context.config(overrides(options));
      if (config.roles !== undefined) return runRoles(context, config, config.roles);
      const program = await begin(config, false);
      serveUntilStopped(program, config, async () => undefined);
      announce(context, program, `page and API  ${program.http}\ndevices       ${program.ingest ?? '–'}\nadmin token   ${join(config.data_dir, 'admin.token')}\n${firstPassword(config)}Next: spamer patient add --help`);
    }));
}

export function demo(): Command {
  return withRunOptions(command('demo', 'Run the pipeline with a ward of 12 demo patients and the page.', ['spamer demo', 'npm start']))
    .action(action<RunOptions>('demo', async (context, options) => {
      const config = context.config(overrides(options));
      if (config.roles !== undefined) throw new SpamerError('config_invalid', 'the demo is one process that does everything', { where: 'roles' });
      const { startWard } = await import('./ward.js');
      const program = await begin(config, true);
      const ward = await startWard(program, config).catch(async (error: unknown) => {
        await program.stop();
        throw error;
      });
      serveUntilStopped(program, config, () => ward.stop());
      announce(context, program, `\n  SPaMeR is running. Open the page:\n\n    ${program.http}\n\n  ${ward.patients} demo patients stream to ${program.ingest ?? '–'} (recorded and synthetic signals; no real patient).\n  Ctrl-C stops; everything acknowledged is kept in ${config.data_dir}.\n`);
    }));
}

async function runRoles(context: Context, config: Config, roles: readonly RoleName[]): Promise<void> {
  const { startRoles } = await import('../app/role-program.js');
  const program = await startRoles(config, roles, { journal: openJournal(roles.join(','), config.log_level) });
  serveUntilStopped(program, config, async () => undefined, roles.includes('query'));
  const told = roles.includes('query') ? `page and API  ${program.http}` : `health        ${program.http}/healthz`;
  announce(context, program, `roles         ${roles.join(', ')}\n${told}\n${program.ingest === null ? '' : `devices       ${program.ingest}\n`}${program.line === null ? '' : `processes     ${program.line}\n`}`);
}

/** Said until the first administrator has a password of their own. */
function firstPassword(config: Config): string {
  const file = join(config.data_dir, 'admin.password');
  return existsSync(file) ? `first sign-in  login admin, one-time password in ${file}\n` : '';
}

async function begin(config: Config, demoMode: boolean): Promise<WholeProgram> {
  // On Kafka that pool carries out what acks wait for, and other programs would go before it.
  if (config.kafka_brokers === undefined) await helpersGoBehind();
  // Loaded only when it runs: help and bad use answer without the native parts.
  const { startProgram } = await import('../app/main.js');
  return startProgram(config, { journal: openJournal('main', config.log_level), stream: true, demo: demoMode });
}

/** @param noted whether commands on this data folder are to find the API of this process */
function serveUntilStopped(program: Program, config: Config, stopFirst: () => Promise<void>, noted = true): void {
  const runFile = join(config.data_dir, 'run.json');
  if (noted) {
    note(runFile, program, []);
    program.certificate?.onChange((fingerprints) => note(runFile, program, fingerprints));
  }
  const stop = async (): Promise<void> => {
    await stopFirst();
    await program.stop();
    if (noted) rmSync(runFile, { force: true });
  };
  stopOnSignals(stop, drainMs, program.journal);
  void program.failed.then(() => {
    setTimeout(() => exitNow(1), failedMs);
    return stop().finally(() => exitNow(1));
  });
}

/** Where commands find this program, and by what they know its certificate. Whole at every moment: half a note reads as none. */
function note(file: string, { http, ingest }: Program, certificates: readonly string[]): void {
  writeFileSync(`${file}.new`, JSON.stringify({ pid: process.pid, http, ingest, certificates }), { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

function announce(context: Context, program: Program, text: string): void {
  if (context.output.json) process.stdout.write(`${JSON.stringify({ event: 'ready', http: program.http, ingest: program.ingest, ...(program.line === null ? {} : { line: program.line }) })}\n`);
  else process.stdout.write(`${text}\n`);
}
