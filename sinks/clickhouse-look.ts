import { toSpamerError } from '../core/errors.js';
import type { Finding } from '../core/finding.js';
import { schemaVersion } from './clickhouse-schema.js';
import { ClickHouseServer, type ClickHouseSettings } from './clickhouse-server.js';

/** Less room on the server's disk than that is told: merges write a part anew before they remove the old ones. */
const roomBytesMin = 2 * 1024 ** 3;

/** Rights of the user that writes, on every table of the database. */
const writes = ['CREATE DATABASE', 'CREATE TABLE', 'ALTER ADD COLUMN', 'ALTER DELETE', 'SELECT', 'INSERT'];
const tablesRead = ['series', 'numerics', 'runs', 'chunks', 'format'];
const usersFile = 'deploy/clickhouse/users.xml has both users';

/**
 * Asks the server of the stores what a start, and the days after it, rest on; changes nothing.
 * @param owner the name of the data folder's log; null: it has none yet
 */
export async function lookIntoClickHouse(settings: ClickHouseSettings, owner: string | null): Promise<readonly Finding[]> {
  const { reader, ...writing } = settings;
  const findings = await asked(writing, 'clickhouse_url', async (server) => {
    const found = [await lookAtServer(server), await lookAtWriter(server)];
    return [...found, ...(await asFinding('clickhouse_database', () => lookAtDatabase(server, owner)))];
  });
  if (reader === undefined || findings.some(({ check, good }) => check === 'clickhouse_url' && !good)) return findings;
  return [...findings, ...(await asked({ ...writing, ...reader }, 'clickhouse_read_user', async (server) => [await lookAtReader(server)]))];
}

/** The same of a process that knows no user but the one that reads. */
export async function lookAsReader({ reader, ...writing }: ClickHouseSettings): Promise<readonly Finding[]> {
  return await asked({ ...writing, ...reader }, 'clickhouse_url', async (server) => [await lookAtServer(server), ...(await asFinding('clickhouse_read_user', async () => [await lookAtReader(server)]))]);
}

async function asked(settings: ClickHouseSettings, check: string, look: (server: ClickHouseServer) => Promise<readonly Finding[]>): Promise<readonly Finding[]> {
  return await asFinding(check, async () => {
    const server = await ClickHouseServer.connect(settings);
    return await look(server).finally(() => server.close());
  });
}

async function asFinding(check: string, look: () => Promise<readonly Finding[]>): Promise<readonly Finding[]> {
  try {
    return await look();
  } catch (error) {
    const { message, where, remedy } = toSpamerError(error, 'internal', 'ClickHouse can\'t be asked');
    return [{ check: check === 'clickhouse_url' && where === 'clickhouse_user' ? where : check, good: false, found: message, remedy }];
  }
}

async function lookAtServer(server: ClickHouseServer): Promise<Finding> {
  const [row] = await server.own('SELECT version() AS version, filesystemAvailable() AS room');
  const room = Number(row?.['room']);
  return {
    check: 'clickhouse_url', good: room >= roomBytesMin, found: `ClickHouse ${String(row?.['version'])} answers; ${(room / 1024 ** 3).toFixed(1)} GiB free on its disk`,
    remedy: 'make room on the server: without it nothing is stored, and the log grows',
  };
}

async function lookAtWriter(server: ClickHouseServer): Promise<Finding> {
  const [row] = await server.own("SELECT currentUser() AS user, getSetting('readonly') AS readonly");
  const readOnly = Number(row?.['readonly']) !== 0;
  const lacking = [...(await lacks(server, writes.map((right) => `${right} ON ${server.database}.*`))), ...(await lacks(server, ['processes', 'mutations'].map((table) => `SELECT ON system.${table}`)))];
  const found = readOnly ? 'may only read (readonly is set in its profile)' : lacking.length > 0 ? `lacks ${lacking.join(', ')}` : 'makes tables, inserts, deletes rows and reads';
  return { check: 'clickhouse_user', good: !readOnly && lacking.length === 0, found: `${String(row?.['user'])} ${found}`, remedy: `give it these rights; ${usersFile}` };
}

async function lookAtDatabase(server: ClickHouseServer, owner: string | null): Promise<readonly Finding[]> {
  const check = 'clickhouse_database';
  const database = server.database;
  const tables = await server.own('SELECT name, engine_full AS engine FROM system.tables WHERE database = {database:String}', { database });
  if (tables.length === 0) return [{ check, good: true, found: `${database} has no tables yet; the first start makes them` }];
  const other = 'name another database, or the data folder that it belongs to';
  if (!tables.some(({ name }) => name === 'format')) return [{ check, good: false, found: `${database} holds something else`, remedy: other }];
  const [format] = await server.own(`SELECT max(version) AS version, anyLast(owner) AS owner FROM ${database}.format`);
  const version = Number(format?.['version']);
  if (version > schemaVersion) return [{ check, good: false, found: `${database} was written by a newer version: its tables are of version ${version}, this program knows ${schemaVersion}`, remedy: 'run the newer version' }];
  if (version > 0 && format?.['owner'] !== owner) return [{ check, good: false, found: `${database} holds the stores of another data folder`, remedy: other }];
  const fault = faultOfTables(tables.map(({ name, engine }) => ({ name: String(name), engine: String(engine) })));
  if (fault !== null) return [{ check, good: false, ...fault }];
  return [{ check, good: true, found: `${database} has tables of version ${version}${version < schemaVersion ? `; the next start makes them version ${schemaVersion}` : ''}, which sync what they are given` }];
}

/** What an administrator may have changed, and what the ledger and [DURABLE] rest on. */
function faultOfTables(tables: ReadonlyArray<{ readonly name: string; readonly engine: string }>): { readonly found: string; readonly remedy: string } | null {
  const named = (of: typeof tables): string => of.map(({ name }) => name).sort().join(', ');
  const expiring = tables.filter(({ engine }) => / TTL /.test(engine));
  if (expiring.length > 0) return { found: `rows of ${named(expiring)} expire by a TTL; the books count them as lost`, remedy: 'ALTER TABLE … REMOVE TTL' };
  const unsynced = tables.filter(({ engine }) => /MergeTree/.test(engine) && !/fsync_after_insert = (?:1|true)/.test(engine));
  if (unsynced.length > 0) return { found: `${named(unsynced)} do not sync what they are given`, remedy: 'ALTER TABLE … MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1' };
  return null;
}

async function lookAtReader(server: ClickHouseServer): Promise<Finding> {
  const check = 'clickhouse_read_user';
  const { database } = server;
  const [row] = await server.own("SELECT currentUser() AS user, getSetting('readonly') AS readonly");
  const [user, readOnly] = [String(row?.['user']), Number(row?.['readonly'])];
  const rights = ['INSERT', 'ALTER DELETE', 'DROP TABLE', 'CREATE TABLE'];
  const lacking = new Set(await lacks(server, rights.map((right) => `${right} ON ${database}.*`)));
  const more = rights.filter((right) => !lacking.has(`${right} ON ${database}.*`));
  // A profile that only reads is as good as a right that is not there.
  if (readOnly !== 2) return { check, good: false, found: `${user} has readonly = ${readOnly} in its profile${readOnly === 1 ? ', and can\'t take the bounds of a question' : more.length > 0 ? `, and may write (${more.join(', ')})` : ''}`, remedy: `give it a profile with readonly = 2; ${usersFile}` };
  const unread = await lacks(server, tablesRead.map((table) => `SELECT ON ${database}.${table}`));
  if (unread.length > 0) return { check, good: false, found: `${user} lacks ${unread.join(', ')}`, remedy: `give it these rights; ${usersFile}` };
  const policies = await seesUnasked(server) ? '; no row policy holds it to the study or patient of a question' : '';
  return { check, good: true, found: `${user} reads, and nothing else${policies}` };
}

/** Whether a question that is about nobody sees rows all the same. */
async function seesUnasked(server: ClickHouseServer): Promise<boolean> {
  const tables = await server.own('SELECT name FROM system.tables WHERE database = {database:String}', { database: server.database });
  if (!tables.some(({ name }) => name === 'series')) return false;
  return (await server.own(`SELECT 1 AS seen FROM ${server.database}.series LIMIT 1`)).length > 0;
}

/** Those of the rights, such as `INSERT ON spamer.*`, that the user has not. */
async function lacks(server: ClickHouseServer, rights: readonly string[]): Promise<string[]> {
  const lacking: string[] = [];
  for (const right of rights) {
    if (!(await server.holds(right))) lacking.push(right);
  }
  return lacking;
}
