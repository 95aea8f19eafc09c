import { Command, InvalidArgumentError } from 'commander';
import { loadConfig, type Config, type SettingName } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import { exitCodeOf, explain, openOutput, type Output } from './output.js';
import { openServer, type Server } from './server.js';

/** What every command gets. */
export interface Context {
  readonly output: Output;
  readonly config: (overrides?: Partial<Record<SettingName, unknown>>) => Config;
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
    .showHelpAfterError('(--help shows examples)');
}

/** Runs a command's work; errors become one paragraph and the agreed exit code. */
export function action<Options extends CommonOptions>(tried: string, work: (context: Context, options: Options, args: readonly string[]) => Promise<number | void>) {
  return async (...given: unknown[]): Promise<void> => {
    const self = given.at(-1) as Command;
    const options = self.optsWithGlobals<Options>();
    const context: Context = {
      output: openOutput(options.json === true),
      config: (overrides) => loadConfig({ environment: process.env, cwd: process.cwd(), ...(overrides === undefined ? {} : { overrides }) }),
    };
    try {
      const code = await work(context, options, self.args);
      process.exitCode = code ?? 0;
    } catch (error) {
      process.stderr.write(`${explain(tried, error, options.verbose === true)}\n`);
      process.exitCode = error instanceof SpamerError ? exitCodeOf(error.code) : 2;
    }
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

const instant = /^(\d{4}-\d\d-\d\d)(?:(T\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(Z|[+-]\d\d:\d\d))?$/i;

/** Microseconds since 1970: of an RFC 3339 time, which says its zone, of a date (its midnight in UTC), or of a whole number of microseconds. */
export function timeArgument(text: string): number {
  if (/^-?\d{5,16}$/.test(text) && Number.isSafeInteger(Number(text))) return Number(text);
  const [, date, time = 'T00:00:00', fraction = '', zone = 'Z'] = instant.exec(text) ?? [];
  const wholeMs = Date.parse(`${date}${time}${zone}`);
  if (Number.isNaN(wholeMs)) throw new InvalidArgumentError('must be a time with its zone, like 2026-01-31T12:00:00Z, a date, or whole microseconds since 1970');
  return wholeMs * 1000 + Number(fraction.padEnd(6, '0'));
}
