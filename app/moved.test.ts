import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadConfig, type Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import { silentJournal } from '../core/journal.js';
import type { AuditEntry } from '../security/audit.js';
import { temporaryFolder } from '../tests/program.js';
import { openProgramLog } from './log.js';
import { migrate } from './migrate.js';
import { checkPlaces, markMoved, movedParts, recordMoves, type MoveReceipt, type Part } from './moved.js';
import { openStores } from './stores.js';

const registry = { SPAMER_REGISTRY_URL: 'postgres://u:p@127.0.0.1:9/spamer' };
const log = { SPAMER_KAFKA_BROKERS: '127.0.0.1:9' };
const stores = { SPAMER_CLICKHOUSE_URL: 'http://127.0.0.1:9' };
const receipt = (id: string, parts: readonly Part[]): MoveReceipt => ({ id, at: '2026-01-31T12:00:00.000Z', by: 'ada@host', parts: parts.map((part) => ({ part, rows: 7, sha256: 'ab'.repeat(32) })) });
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

  markMoved(dir, new Set(['registry', 'stores']), receipt('1', ['registry', 'stores']));
  markMoved(dir, new Set(['registry', 'log', 'stores']), receipt('2', ['log']));
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

test('the audit is told of each move once: who, when, what, counts and hashes; what it could not take is told at the next start', async (t) => {
  const { dir, remove } = temporaryFolder('moved');
  t.after(remove);
  const entries: AuditEntry[] = [];
  const audit = { record: async (entry: AuditEntry): Promise<void> => { entries.push(entry); } };
  const refusing = { record: async (): Promise<void> => { throw new SpamerError('audit_failed', 'no room'); } };
  await recordMoves(dir, audit);
  assert.equal(entries.length, 0, 'nothing was moved');
  markMoved(dir, new Set(['registry']), receipt('1', ['registry']));
  await assert.rejects(recordMoves(dir, refusing), (error: unknown) => error instanceof SpamerError && error.code === 'audit_failed');
  markMoved(dir, new Set(['registry', 'log', 'stores']), receipt('2', ['log', 'stores']));
  await recordMoves(dir, audit);
  await recordMoves(dir, audit);
  assert.deepEqual(entries.map(({ resource, context }) => [resource?.id, context['state'], context['count']]), [['1', 'registry', '7'], ['2', 'log,stores', '14']]);
  assert.deepEqual(entries[1]?.context, { by: 'ada@host', at: '2026-01-31T12:00:00.000Z', state: 'log,stores', count: '14', log: `7 rows, sha256 ${'ab'.repeat(32)}`, stores: `7 rows, sha256 ${'ab'.repeat(32)}` });
  assert.deepEqual([...movedParts(dir)], ['registry', 'log', 'stores'], 'and what was moved stays so');
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
