import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Deployment, deploymentMissing } from './deployment.js';
import { cli, demanded } from './program.js';
import { ProvenWard } from './proven-ward.js';

const missing = deploymentMissing();
const skip = missing === null || demanded('kafka') ? false : missing;
const seed = Number(process.env['SPAMER_SEED'] ?? Math.floor(Math.random() * 1e9));

test('[ONCE] [LEDGER] what one process began goes on as several, on its data folder and its log of one share; more shares are refused', { skip, timeout: 240_000 }, async (t) => {
  const deployment = await Deployment.start({ shares: 1 });
  t.after(() => deployment.discard());
  // Everything in one process, at the port where `ingest` is later.
  await deployment.begin('ingest', 'ingest', { SPAMER_ROLES: '', SPAMER_LINE_TO: '', SPAMER_LINE_SECRET: '', SPAMER_REGISTRY_URL: deployment.postgresql.url('spamer') });
  await deployment.ready();
  let api = 'ingest';
  const ward = new ProvenWard({ ingest: async () => deployment.door('ingest'), server: () => deployment.server(api) }, seed, 4);
  t.after(() => ward.stop());
  await ward.send();
  assert.equal(await deployment.of('ingest').stop(), 0);
  for (const name of ['registry', 'ingest', 'processors', 'sinks', 'query']) await deployment.begin(name, name);
  await deployment.ready();
  api = 'query';
  const { samples, connections } = await ward.prove();
  t.diagnostic(`seed ${seed}: ${samples} samples over ${connections} connections`);
  assert.ok(samples > 1000);

  for (const name of ['query', 'sinks', 'processors', 'ingest', 'registry']) assert.equal(await deployment.of(name).stop(), 0, name);
  const four = { ...deployment.environmentOf('registry'), SPAMER_LOG_SHARES: '4' };
  const applied = await cli(deployment.folder, ['topics', 'apply'], { ...four, SPAMER_ROLES: '', SPAMER_LINE_SECRET: '' });
  assert.equal(applied.code, 0, applied.err);
  await deployment.begin('registry', 'registry', four);
  await assert.rejects(deployment.of('registry').ready, /ended with 2 .*this log is shared out into 1, for ever/s);
});
