import { Command, InvalidArgumentError } from 'commander';
import type { Config, SettingName } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import { exitNow } from '../core/exit.js';
import { patientId } from '../core/ids.js';
import { parseInstant } from '../core/instant.js';
import { Interrupt } from './interrupt.js';
import { exitCodeOf, explain, openOutput, type Output } from './output.js';
import { helpWithRequired, placeOnCommandLine } from './required.js';
import { openServer, type Server } from './server.js';

/** What every command gets. */
export interface Context {
  readonly output: Output;
  readonly config: (overrides?: Partial<Record<SettingName, unknown>>) => Config;
  /** Of a command that can be stopped in its midst: cli/interrupt.ts. */
  readonly interrupt: Interrupt;
}

export interface CommonOptions {
  readonly json?: boolean;
  readonly verbose?: boolean;
}

/** A command with the options that all have. */
export function command(name: string, summary: string, examples: readonly string[]): Command {
  return new Command(name)
    .description(summary)
    .option('--json', 'one JSON value (or one a line) on standard output, nothing else there')
    .option('--verbose', 'show the stack of an error')
    .addHelpText('before', `Examples:\n${examples.map((example) => `  ${example}`).join('\n')}\n`)
    .configureHelp(helpWithRequired)
    .showHelpAfterError('(--help shows examples)');
}

/** Runs a command's work; errors become one paragraph and the agreed exit code. */
export function action<Options extends CommonOptions>(tried: string, work: (context: Context, options: Options, args: readonly string[]) => Promise<number | void>) {
  return async (...given: unknown[]): Promise<void> => {
    const self = given.at(-1) as Command;
    const options = self.optsWithGlobals<Options>();
    const interrupt = new Interrupt();
    // Here and not above, as everything that only a command's work needs: help and bad use answer without it.
    const { loadConfig } = await import('../core/config.js');
    const context: Context = {
      interrupt,
      output: openOutput(options.json === true),
      config: (overrides) => loadConfig({ environment: process.env, cwd: process.cwd(), ...(overrides === undefined ? {} : { overrides }) }),
    };
    try {
      const code = await work(context, options, self.args);
      process.exitCode = code ?? 0;
    } catch (error) {
      if (interrupt.code !== null) process.stderr.write(`${tried}: stopped; nothing was left half done\n`);
      else process.stderr.write(`${explain(tried, error, options.verbose === true, (where) => placeOnCommandLine(where, self))}\n`);
      process.exitCode = error instanceof SpamerError ? exitCodeOf(error.code) : 2;
    }
    // What goes on in the background of a command that was stopped is not waited for.
    if (interrupt.code !== null) exitNow(interrupt.code);
  };
}

/** Lends the API for one command. */
export async function withServer<Result>(config: Config, work: (server: Server) => Promise<Result>): Promise<Result> {
  const server = await openServer(config);
  try {
    return await work(server);
  } finally {
    await server.close();
  }
}

export function positive(text: string): number {
  const value = Number(text);
  if (!Number.isFinite(value) || value <= 0) throw new InvalidArgumentError('must be a number above 0');
  return value;
}

/** A patient's internal id; several behind each other where the option takes several. */
export function patientArgument(text: string): string {
  if (patientId(text) === null) throw new InvalidArgumentError('must be the internal id, a UUID: `spamer patient list` shows them');
  return text;
}

export const patientArguments = (text: string, before: readonly string[] | undefined): readonly string[] => [...(before ?? []), patientArgument(text)];

/** Microseconds since 1970: of an RFC 3339 time, which says its zone, of a date (its midnight in UTC), or of a whole number of microseconds. */
export function timeArgument(text: string): number {
  // Under five digits it is rather a year than microseconds of 1970.
  const us = /^-?\d{1,4}$/.test(text) ? null : parseInstant(text);
  if (us === null) throw new InvalidArgumentError('must be a time with its zone, like 2026-01-31T12:00:00Z, a date, or whole microseconds since 1970');
  return us;
}
