import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { signalNamed } from '../schemas/signals.js';
import { main, startProgram, temporaryFolder, until } from './program.js';

const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');
/** The commands of README below a headline, as they stand there. */
const commandsBelow = (headline: string): string => /```sh\n([^`]*)```/.exec(readme.slice(readme.indexOf(`## ${headline}\n`)))?.[1] ?? '';

interface Cell {
  readonly code: number;
  readonly group: Readonly<Record<string, string>>;
  readonly suppressed: boolean;
  readonly patients: number | null;
  readonly mean: number | null;
}

interface Newcomer {
  readonly http: string;
  readonly dir: string;
  /** Runs commands as README has them, in a shell in a folder of their own, whose `npx spamer` is this one. */
  readonly shell: (commands: string) => { readonly status: number | null; readonly stdout: string; readonly stderr: string };
  /** Runs a command on a terminal, and presses Ctrl-C once it shows `cue`. */
  readonly stopped: (args: string, cue: RegExp, env?: Record<string, string>) => Promise<{ readonly code: number | null; readonly shown: string }>;
}

/** A demo, and a shell beside it. */
async function newcomer(t: TestContext): Promise<Newcomer> {
  const folder = temporaryFolder('demo');
  const dir = join(folder.dir, 'shell');
  mkdirSync(join(dir, 'bin'), { recursive: true });
  writeFileSync(join(dir, 'bin', 'npx'), `#!/bin/sh\nshift\nexec "${process.execPath}" "${main}" "$@"\n`, { mode: 0o700 });
  const program = await startProgram(join(folder.dir, 'data'), { command: 'demo', env: { SPAMER_CHUNK_SECONDS: '1' } });
  t.after(async () => { await program.kill(); folder.remove(); });
  const env = { ...process.env, PATH: `${join(dir, 'bin')}:${process.env['PATH'] ?? ''}`, SPAMER_DATA_DIR: join(folder.dir, 'data') };
  return {
    http: program.http,
    dir,
    shell: (commands) => spawnSync('sh', ['-ec', commands], { cwd: dir, env, encoding: 'utf8', timeout: 60_000 }),
    stopped: (args, cue, more = {}) => new Promise((resolve, reject) => {
      const child = spawn('script', ['-qec', `npx spamer ${args}`, '/dev/null'], { cwd: dir, env: { ...env, ...more }, stdio: ['pipe', 'pipe', 'ignore'], timeout: 60_000 });
      let shown = '';
      let pressed = false;
      child.stdout.on('data', (chunk: Buffer) => {
        shown += chunk.toString();
        if (pressed || !cue.test(shown)) return;
        pressed = true;
        child.stdin.write('\x03');
      });
      child.once('error', reject);
      child.once('exit', (code) => resolve({ code, shown }));
    }),
  };
}

async function asksAsResearcher({ http, shell }: Newcomer): Promise<void> {
  const command = /\$\((npx spamer token create [^)]*)\)" "http:\/\/127\.0\.0\.1:8080(\/[^?"]*)/.exec(commandsBelow('Ask as a researcher'));
  assert.ok(command !== null, 'README asks as a researcher');
  const { stdout: token, status } = shell(command[1] ?? '');
  assert.equal(status, 0);
  const ask = async (by: string): Promise<readonly Cell[]> => {
    const answer = await fetch(new URL(`${command[2] ?? ''}${by}`, http), { headers: { authorization: `Bearer ${token.trim()}` } });
    assert.equal(answer.status, 200);
    return ((await answer.json()) as { rows: readonly Cell[] }).rows;
  };
  const heartRate = signalNamed('MDC_ECG_HEART_RATE')?.code;
  await until('a heart rate of eleven patients', async () => (await ask('')).some((cell) => cell.code === heartRate && !cell.suppressed));
  const cells = await ask('');
  const shown = cells.filter(({ suppressed }) => !suppressed);
  assert.deepEqual(shown.map((cell) => [cell.code, cell.patients]), [[heartRate, 11]]);
  assert.ok((shown[0]?.mean ?? 0) > 40 && (shown[0]?.mean ?? 0) < 140);
  assert.ok(cells.length > 5);
  const bySex = await ask('?by=sex');
  assert.deepEqual(bySex.filter(({ suppressed, patients, mean }) => !suppressed || patients !== null || mean !== null), [], 'by sex no group reaches eleven');
  assert.ok(bySex.length > cells.length);
}

const noScript = spawnSync('script', ['--version'], { encoding: 'utf8' }).stdout?.includes('util-linux') === true ? false : 'there is no util-linux `script`, which lends a terminal';

function playsADevice({ dir, shell }: Newcomer): void {
  const commands = commandsBelow('Your own device');
  assert.equal(commands.match(/^.*npx spamer /gm)?.length, 4);
  const { status, stdout, stderr } = shell(commands.replace('--seconds 20', '--seconds 2'));
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^2 frames, \d+ samples sent; 0 not acknowledged, 0 dropped$/m);
  assert.ok(['record.II.csv', 'record.json', 'record.numerics.csv'].every((file) => readdirSync(join(dir, 'record')).includes(file)), stdout);
}

async function pressesCtrlC({ stopped }: Newcomer): Promise<void> {
  const emulated = await stopped('emulate --key bed-7.key.json --synthetic --buffer waiting', /[1-9]\d* frames \| /, { NO_COLOR: '1' });
  assert.equal(emulated.code, 130, emulated.shown);
  assert.match(emulated.shown, /\d frames \| [\d.]+\/s \| /, 'progress with its rate');
  assert.match(emulated.shown, /\n\d+ frames, \d+ samples sent; \d+ not acknowledged, 0 dropped\r\n/, 'what is done');
  assert.doesNotMatch(emulated.shown, /\x1b\[[0-9;]*m/, 'no colour');
  const reconciled = await stopped('reconcile --wait 30', /[1-9]\d* samples settled \| /, { NO_COLOR: '1' });
  assert.equal(reconciled.code, 130, reconciled.shown);
  const tailed = await stopped('tail vitals.raw', /\d+\/\d+ .*Block/);
  assert.equal(tailed.code, 130, tailed.shown);
  assert.match(tailed.shown, /Block .*\r\n[^]*$/);
}

test('a newcomer: what README says to run runs as it is written', { timeout: 120_000 }, async (t) => {
  const who = await newcomer(t);
  await t.test("[ANON] the demo's study has one cell that is shown and others that are suppressed", () => asksAsResearcher(who));
  await t.test('a device of one\'s own, from its patient to the exported record', () => playsADevice(who));
  await t.test('Ctrl-C on a terminal ends a command cleanly with 130, having shown progress without colour', { skip: noScript }, () => pressesCtrlC(who));
});
