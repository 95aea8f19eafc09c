import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadConfig, type Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import { silentJournal } from '../core/journal.js';
import { temporaryFolder } from '../tests/program.js';
import { openProgramLog } from './log.js';
import { migrate } from './migrate.js';
import { checkPlaces, markMoved, movedParts } from './moved.js';
import { openStores } from './stores.js';

const registry = { SPAMER_REGISTRY_URL: 'postgres://u:p@127.0.0.1:9/spamer' };
const log = { SPAMER_KAFKA_BROKERS: '127.0.0.1:9' };
const stores = { SPAMER_CLICKHOUSE_URL: 'http://127.0.0.1:9' };
const refused = (code: string, where: string, message: RegExp) => (error: unknown): boolean => error instanceof SpamerError && error.code === code && error.where === where && message.test(error.message);

test('what lies in files is not left aside by a setting, and what was moved is not begun anew without it', async (t) => {
  const { dir, remove } = temporaryFolder('moved');
  t.after(remove);
  const config = (environment: Record<string, string>): Config => loadConfig({ environment: { ...environment, SPAMER_DATA_DIR: dir }, cwd: dir });
  const [embedded, elsewhere] = [config({}), config({ ...registry, ...log, ...stores })];
  const open = (settings: Config) => openProgramLog(settings, silentJournal, () => undefined);
  checkPlaces(embedded);
  checkPlaces(elsewhere);
  for (const folder of ['registry', 'log', 'stores']) mkdirSync(join(dir, folder));
  for (const file of ['log/ingest.mdb', 'stores/analytics.duckdb']) writeFileSync(join(dir, file), '');
  checkPlaces(embedded);
  assert.throws(() => checkPlaces(elsewhere), refused('config_invalid', 'registry_url', /spamer migrate moves it/));
  await assert.rejects(open(elsewhere), refused('config_invalid', 'kafka_brokers', /spamer migrate moves it/));
  await assert.rejects(openStores(elsewhere), refused('config_invalid', 'clickhouse_url', /spamer migrate moves it/));

  markMoved(dir, new Set(['registry', 'stores']));
  markMoved(dir, new Set(['registry', 'log', 'stores']));
  assert.deepEqual([...movedParts(dir)], ['registry', 'log', 'stores']);
  checkPlaces(elsewhere);
  for (const [given, missing] of [[{ ...log, ...stores }, 'registry_url'], [{ ...registry, ...stores }, 'kafka_brokers'], [{ ...registry, ...log }, 'clickhouse_url']] as const) {
    assert.throws(() => checkPlaces(config(given)), refused('config_invalid', missing, /moved to a server; set .* again/));
  }
  // Past the check of the folder: to the servers, which are not there.
  await assert.rejects(openStores(elsewhere), (error: unknown) => error instanceof SpamerError && error.code !== 'config_invalid');
  writeFileSync(join(dir, 'moved.json'), '{');
  assert.throws(() => movedParts(dir), (error: unknown) => error instanceof SpamerError && error.code === 'data_damaged');
});

test('nothing to move, or nowhere to move it: one line that says which setting, and nothing is made', async (t) => {
  const { dir, remove } = temporaryFolder('moved');
  t.after(remove);
  const options = { journal: silentJournal, dryRun: false, signal: new AbortController().signal, progress: () => ({ add: () => undefined, stop: () => undefined }) };
  const run = (environment: Record<string, string>) => migrate(loadConfig({ environment: { ...environment, SPAMER_DATA_DIR: join(dir, 'data') }, cwd: dir }), options);
  await assert.rejects(run({}), refused('config_invalid', 'registry_url, kafka_brokers, clickhouse_url', /no setting names where to move to/));
  await assert.rejects(run(registry), refused('config_invalid', join(dir, 'data'), /nothing to move/));
  mkdirSync(join(dir, 'data', 'registry'), { recursive: true });
  await assert.rejects(run(stores), refused('config_invalid', 'clickhouse_url', /lies there already/));
});
