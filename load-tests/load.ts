import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { compare } from './compare.js';
import { fleetSoak } from './fleet-soak.js';
import { judgePaths, renewBaseline } from './hot-paths.js';
import { pageOf } from './report-page.js';
import { say } from './report.js';
import { scalingPage } from './scaling-page.js';
import { scaling } from './scaling.js';
import { soakPage } from './soak-page.js';
import { k6Missing, k6Program, runScenario, scenarios, scenarioServer } from './scenario.js';

/**
 * `npm run load -- report`: everything that is installed beside us in alternated rounds, as one HTML page and JSON.
 * `npm run load -- hot-paths`: what each path that every frame takes costs, against its baseline (load-tests/hot-paths.json); `--renew` writes that anew.
 * `npm run load -- scaling`: how costs grow with devices, frames, a backlog and what is stored; exit 1 where one grows faster than it may.
 * `npm run load -- fleet-soak`: our own generator for an hour at 70 % of the highest pace; exit 1 where anything grows or the books don't balance.
 * `npm run load -- SCENARIO`: devices and readers as k6 plays them; exit 1 where a threshold does not hold or the books don't balance.
 */
const usage = `usage: npm run load -- report [--frames N] [--rounds N] [--seconds N] [--out DIR]
       npm run load -- scaling [--quick] [--out DIR]
       npm run load -- fleet-soak [--minutes N] [--share 0.7] [--pace SAMPLES_PER_S] [--out DIR]
       npm run load -- ${scenarios.join('|')}|all [--devices N] [--seconds N]
       npm run load -- hot-paths [--renew [--rounds N]]
`;
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    frames: { type: 'string', default: '1000000' }, rounds: { type: 'string', default: '5' }, seconds: { type: 'string' }, out: { type: 'string', default: 'load-report' },
    devices: { type: 'string', default: '50' }, minutes: { type: 'string', default: '60' }, share: { type: 'string', default: '0.7' }, pace: { type: 'string' }, quick: { type: 'boolean', default: false }, renew: { type: 'boolean', default: false },
  },
});

function whole(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) misused(`--${name} is a positive whole number`);
  return value;
}

function misused(what: string): never {
  process.stderr.write(`${what}\n${usage}`);
  process.exit(2);
}

function above0(name: string, text: string): number {
  const value = Number(text);
  if (!(value > 0 && value < Infinity)) misused(`--${name} is a number above 0`);
  return value;
}

async function grown(): Promise<void> {
  const found = await scaling(values.quick);
  mkdirSync(values.out, { recursive: true });
  writeFileSync(join(values.out, 'scaling.json'), `${JSON.stringify(found, null, 2)}\n`);
  writeFileSync(join(values.out, 'scaling.html'), scalingPage(found));
  process.stdout.write(`${join(values.out, 'scaling.html')}\n`);
  if (!found.growths.every(({ slope, slopeMax }) => slope <= slopeMax)) process.exitCode = 1;
}

async function soak(): Promise<void> {
  const result = await fleetSoak({ minutes: above0('minutes', values.minutes), share: above0('share', values.share), pace: values.pace === undefined ? null : above0('pace', values.pace) });
  mkdirSync(values.out, { recursive: true });
  writeFileSync(join(values.out, 'soak.json'), `${JSON.stringify(result)}\n`);
  writeFileSync(join(values.out, 'soak.html'), soakPage(result));
  process.stdout.write(`${join(values.out, 'soak.html')}\n`);
  if (!result.verdicts.every(({ holds }) => holds)) process.exitCode = 1;
}

async function report(): Promise<void> {
  // Frames go a hundred a message too.
  const frames = Math.ceil(whole('frames', values.frames) / 100) * 100;
  const comparison = await compare({ frames, rounds: whole('rounds', values.rounds), latencySeconds: whole('seconds', values.seconds ?? '20') });
  mkdirSync(values.out, { recursive: true });
  writeFileSync(join(values.out, 'report.json'), `${JSON.stringify(comparison, null, 2)}\n`);
  writeFileSync(join(values.out, 'report.html'), pageOf(comparison));
  process.stdout.write(`${join(values.out, 'report.html')}\n`);
}

async function play(names: ReadonlyArray<(typeof scenarios)[number]>): Promise<void> {
  if (k6Program() === null) misused(k6Missing);
  const run = await scenarioServer();
  try {
    for (const scenario of names) {
      // A soak is an hour unless it is told otherwise.
      const seconds = whole('seconds', values.seconds ?? (scenario === 'soak' ? '3600' : '30'));
      say(`${scenario}: ${values.devices} devices, ${seconds} s`);
      if (!(await runScenario(run, { scenario, devices: whole('devices', values.devices), seconds }))) process.exitCode = 1;
    }
  } finally {
    await run.end();
  }
}

async function hotPaths(): Promise<void> {
  if (values.renew) return renewBaseline(whole('rounds', values.rounds));
  const verdicts = await judgePaths(say);
  if (verdicts.some(({ dearer }) => dearer)) process.exitCode = 1;
}

const [asked, ...more] = positionals;
const known = scenarios.find((name) => name === asked);
if (more.length > 0) misused('one at a time');
else if (asked === 'report') await report();
else if (asked === 'hot-paths') await hotPaths();
else if (asked === 'scaling') await grown();
else if (asked === 'fleet-soak') await soak();
else if (asked === 'all') await play(scenarios);
else if (known !== undefined) await play([known]);
else misused(asked === undefined ? 'what shall be run?' : 'there is no such scenario');
