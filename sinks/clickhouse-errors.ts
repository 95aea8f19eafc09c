import { SpamerError, type ErrorCode } from '../core/errors.js';

/** ClickHouse's own numbers (src/Common/ErrorCodes.cpp), where one means something to us; the setting to look at where there is one. */
const known: Readonly<Record<string, readonly [ErrorCode, string, string?]>> = {
  158: ['too_large', 'the query reads more rows than it may'],
  159: ['too_large', 'the query took too long'],
  160: ['too_large', 'the query would take too long'],
  241: ['too_large', 'the query needs more memory than it may use'],
  307: ['too_large', 'the query reads more bytes than it may'],
  396: ['too_large', 'the answer has more rows than it may'],
  202: ['overloaded', 'the stores\' server runs too many queries'],
  243: ['disk_full', 'the stores\' server has no room'],
  40: ['data_damaged', 'a part of the store is damaged'],
  246: ['data_damaged', 'a part of the store is damaged'],
  228: ['data_damaged', 'a part of the store is lost'],
  81: ['config_invalid', 'the stores\' server has no such database', 'clickhouse_database'],
  192: ['config_invalid', 'the stores\' server refuses this user or password', 'clickhouse_user'],
  193: ['config_invalid', 'the stores\' server refuses this user or password', 'clickhouse_user'],
  194: ['config_invalid', 'the stores\' server refuses this user or password', 'clickhouse_user'],
  516: ['config_invalid', 'the stores\' server refuses this user or password', 'clickhouse_user'],
  497: ['config_invalid', 'the user lacks a right on the stores\' server', 'clickhouse_user'],
  // Nothing else here throws by itself: the fence does.
  395: ['taken_over', 'another process took this store over'],
  164: ['store_failed', 'the stores\' server lets this user only read', 'clickhouse_user'],
  242: ['store_failed', 'a table of the store is read-only'],
};

const fieldOf = (error: unknown, name: 'code' | 'type'): string => (typeof error === 'object' && error !== null && name in error ? String((error as Record<string, unknown>)[name]) : '');

/** What the server, or the way to it, refuses. Never its text: a database quotes the row that it refuses. */
export function clickHouseError(error: unknown): SpamerError {
  if (error instanceof SpamerError) return error;
  const code = fieldOf(error, 'code');
  const found = known[code];
  if (found !== undefined) return new SpamerError(found[0], found[1], found[2] === undefined ? {} : { where: found[2] });
  if (/^\d+$/.test(code)) return new SpamerError('store_failed', `the store refused with ClickHouse's code ${code}`);
  // Without a number it never reached the server, or lost it: the socket's own word.
  return new SpamerError('unreachable', `the stores' server does not answer (${/^[A-Z_]+$/.test(code) ? code : 'the connection ended'})`, { where: 'clickhouse_url' });
}
