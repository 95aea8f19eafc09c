import { createHash, randomUUID } from 'node:crypto';
import { SpamerError } from '../core/errors.js';
import type { SqlClient, SqlDatabase } from './sql.js';

/**
 * Moves a registry from one database to another with the same tables, whole or not at all. It knows no table by name but `facts`, so a
 * new migration needs nothing here.
 */

/** The fact that stands in both databases while a move between them is under way; its value names the move. */
const moving = 'moving';
const rowsPerPage = 500;

interface Column {
  readonly name: string;
  readonly type: string;
}

/** A table as both databases have it, its columns in order. */
export interface Table {
  readonly name: string;
  readonly columns: readonly Column[];
  readonly key: readonly string[];
}

/** What was moved of one table; the hash is over its rows in the order of its key. */
export interface MovedTable {
  readonly table: string;
  readonly rows: number;
  readonly sha256: string;
}

/** What a database holds that a registry is to be moved into. */
export type Standing = 'empty' | 'part of this move' | 'in use';

type Cells = ReadonlyArray<string | null>;

/** All tables in an order in which each comes after those that it refers to. @throws SpamerError `internal` */
export async function registryTables(client: SqlClient): Promise<readonly Table[]> {
  const columns = await client.query<{ relation: string; name: string; type: string }>(
    `SELECT c.relname::text AS relation, a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
     WHERE c.relnamespace = current_schema()::text::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.relname, a.attnum`,
  );
  const keys = await client.query<{ relation: string; name: string }>(
    `SELECT c.relname::text AS relation, a.attname::text AS name FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
       CROSS JOIN LATERAL unnest(k.conkey) WITH ORDINALITY AS u(num, place) JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.num
     WHERE k.contype = 'p' AND c.relnamespace = current_schema()::text::regnamespace ORDER BY c.relname, u.place`,
  );
  const references = await client.query<{ relation: string; target: string }>(
    `SELECT c.relname::text AS relation, f.relname::text AS target FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class f ON f.oid = k.confrelid
     WHERE k.contype = 'f' AND c.relnamespace = current_schema()::text::regnamespace`,
  );
  const names = [...new Set(columns.map(({ relation }) => relation))];
  const tables = names.map((name) => ({
    name, columns: columns.filter(({ relation }) => relation === name).map((column) => ({ name: column.name, type: column.type })), key: keys.filter(({ relation }) => relation === name).map((column) => column.name),
  }));
  return inOrder(tables, references);
}

function inOrder(tables: readonly Table[], references: ReadonlyArray<{ readonly relation: string; readonly target: string }>): Table[] {
  const placed: Table[] = [];
  let left = [...tables];
  while (left.length > 0) {
    const waiting = new Set(left.map(({ name }) => name));
    const next = left.filter(({ name }) => !references.some(({ relation, target }) => relation === name && target !== name && waiting.has(target)));
    if (next.length === 0) throw new SpamerError('internal', 'tables of the registry refer to each other in a ring', { where: left.map(({ name }) => name).join(', ') });
    placed.push(...next);
    left = left.filter((table) => !next.includes(table));
  }
  return placed;
}

/** Names the move in the database that is moved, once and for good. */
export async function nameMove(source: SqlClient): Promise<string> {
  await source.query('INSERT INTO facts VALUES ($1, $2) ON CONFLICT (name) DO NOTHING', [moving, randomUUID()]);
  const name = await nameOf(source);
  if (name === null) throw new SpamerError('internal', 'the move has no name');
  return name;
}

const nameOf = async (client: SqlClient): Promise<string | null> => (await client.query<{ value: string }>('SELECT value FROM facts WHERE name = $1', [moving]))[0]?.value ?? null;

/** From here on nothing is moved into this database any more. */
export async function endMove(target: SqlClient): Promise<void> {
  await target.query('DELETE FROM facts WHERE name = $1', [moving]);
}

/** Rows of each table. */
export async function registryCounts(client: SqlClient): Promise<ReadonlyArray<{ readonly table: string; readonly rows: number }>> {
  const counts: Array<{ table: string; rows: number }> = [];
  for (const { name } of await registryTables(client)) {
    const [row] = await client.query<{ rows: number }>(`SELECT count(*)::float8 AS rows FROM ${quoted(name)}`);
    counts.push({ table: name, rows: row?.rows ?? 0 });
  }
  return counts;
}

/** @param source whose move it would be a part of. The target is only read. */
export async function standingOf(source: SqlClient, target: SqlClient): Promise<Standing> {
  const counts = await registryCounts(target);
  if (!counts.some(({ table }) => table === 'facts')) return 'empty';
  const name = await nameOf(target);
  if (name !== null) return name === (await nameOf(source)) ? 'part of this move' : 'in use';
  const facts = await target.query<{ name: string }>(`SELECT name FROM facts WHERE name <> 'release_generation' LIMIT 1`);
  return facts.length === 0 && counts.every(({ table, rows }) => rows === 0 || ['facts', 'migrations'].includes(table)) ? 'empty' : 'in use';
}

/**
 * Makes the target what the source is, in one transaction: every row, and where its sequences stand, so that no slot is given twice.
 * What it holds of an earlier try is replaced.
 * @param source nobody else writes to it meanwhile. @throws SpamerError `conflict` (the target is in use), `data_newer`, `data_damaged` (the copy is not the same).
 */
export async function moveRegistry(source: SqlClient, target: SqlDatabase, moved: (rows: number) => void): Promise<readonly MovedTable[]> {
  const tables = await registryTables(source);
  await nameMove(source);
  return target.transaction(async (client) => {
    if ((await standingOf(source, client)) === 'in use') throw inUse();
    const theirs = await registryTables(client);
    for (const table of tables) {
      if (JSON.stringify(theirs.find(({ name }) => name === table.name)) !== JSON.stringify(table)) throw new SpamerError('data_newer', 'a table of the two registries differs', { where: table.name });
    }
    for (const { name } of [...tables].reverse()) await client.query(`DELETE FROM ${quoted(name)}`);
    const copied: MovedTable[] = [];
    for (const table of tables) copied.push(await copyTable(table, source, client, moved));
    await copySequences(source, client);
    return copied;
  });
}

export const inUse = (): SpamerError => new SpamerError('conflict', 'this database holds a registry that is in use, or part of another move; give an empty one', { where: 'registry_url' });

async function copyTable(table: Table, source: SqlClient, target: SqlClient, moved: (rows: number) => void): Promise<MovedTable> {
  const digest = createHash('sha256');
  let rows = 0;
  for await (const page of pages(table, source)) {
    await insert(table, target, page);
    for (const cells of page) digest.update(`${JSON.stringify(cells)}\n`);
    rows += page.length;
    moved(page.length);
  }
  const sha256 = digest.digest('hex');
  const there = await digestOf(table, target);
  if (there.rows !== rows || there.sha256 !== sha256) throw new SpamerError('data_damaged', 'a table of the registry is not the same where it was moved to', { where: table.name });
  return there;
}

/** Count and hash of a table's rows, in the order of its key. */
export async function digestOf(table: Table, client: SqlClient): Promise<MovedTable> {
  const digest = createHash('sha256');
  let rows = 0;
  for await (const page of pages(table, client)) {
    for (const cells of page) digest.update(`${JSON.stringify(cells)}\n`);
    rows += page.length;
  }
  return { table: table.name, rows, sha256: digest.digest('hex') };
}

/** All rows as text, in the order of the key, which is the same on every server: text by its bytes. */
async function* pages(table: Table, client: SqlClient): AsyncGenerator<readonly Cells[]> {
  const typeOf = (name: string): string => table.columns.find((column) => column.name === name)?.type ?? 'text';
  const ordered = (expression: string, type: string): string => (type === 'text' ? `${expression} COLLATE "C"` : expression);
  const keys = table.key.map((name) => ({ name, type: typeOf(name), at: table.columns.findIndex((column) => column.name === name) }));
  if (keys.length === 0) throw new SpamerError('internal', 'a table of the registry has no key', { where: table.name });
  const order = keys.map(({ name, type }) => ordered(quoted(name), type)).join(', ');
  const after = keys.map(({ type }, index) => ordered(fromText(`$${index + 1}`, type), type)).join(', ');
  const select = `SELECT ${table.columns.map(({ name, type }, index) => `${asText(quoted(name), type)} AS c${index}`).join(', ')} FROM ${quoted(table.name)}`;
  for (let last: Cells | null = null; ; ) {
    const where: string = last === null ? '' : ` WHERE (${order}) > (${after})`;
    const parameters: Cells = last === null ? [] : keys.map(({ at }) => last?.[at] ?? null);
    const found: Array<Record<string, string | null>> = await client.query<Record<string, string | null>>(`${select}${where} ORDER BY ${order} LIMIT ${rowsPerPage}`, parameters);
    const page = found.map((row) => table.columns.map((_, index) => row[`c${index}`] ?? null));
    if (page.length > 0) yield page;
    if (page.length < rowsPerPage) return;
    last = page.at(-1) ?? null;
  }
}

async function insert(table: Table, client: SqlClient, page: readonly Cells[]): Promise<void> {
  const into = table.columns.map(({ name }) => quoted(name)).join(', ');
  const values = table.columns.map(({ type }, index) => fromText(`u.c${index}`, type)).join(', ');
  const lists = table.columns.map((_, index) => `$${index + 1}::text[]`).join(', ');
  const names = table.columns.map((_, index) => `c${index}`).join(', ');
  await client.query(`INSERT INTO ${quoted(table.name)} (${into}) OVERRIDING SYSTEM VALUE SELECT ${values} FROM unnest(${lists}) AS u(${names})`, table.columns.map((_, index) => page.map((cells) => cells[index] ?? null)));
}

async function copySequences(source: SqlClient, target: SqlClient): Promise<void> {
  const rows = await source.query<{ name: string; start: string; last: string | null }>('SELECT sequencename::text AS name, start_value::text AS start, last_value::text AS last FROM pg_sequences WHERE schemaname = current_schema()');
  for (const { name, start, last } of rows) await target.query('SELECT setval($1::text::regclass, $2::text::bigint, $3::boolean)', [quoted(name), last ?? start, last !== null]);
}

const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;
/** A server may be set to show bytes in another way; this one is fixed. */
const asText = (expression: string, type: string): string => (type === 'bytea' ? `encode(${expression}, 'hex')` : `${expression}::text`);
const fromText = (expression: string, type: string): string => (type === 'bytea' ? `decode(${expression}, 'hex')` : `(${expression})::${type}`);
