import { SpamerError } from '../core/errors.js';

const fieldOf = (error: unknown, name: 'code'): string => (typeof error === 'object' && error !== null && name in error ? String((error as Record<string, unknown>)[name]) : 'unknown');

/** What a PostgreSQL server, or the way to it, refuses; where a remedy is a setting's, that setting is named. Never its text: a database quotes the row that it refuses. */
export function translate(error: unknown): SpamerError {
  if (error instanceof SpamerError) return error;
  const state = fieldOf(error, 'code');
  if (state === '23505' || state === '23P01') return new SpamerError('conflict', 'it is registered already');
  if (state.startsWith('53') && state !== '53300') return new SpamerError('disk_full', 'the registry\'s server has no room');
  if (state === '28P01' || state === '28000') return new SpamerError('config_invalid', 'the registry\'s server refuses this user or password', { where: 'registry_url' });
  if (state === '3D000') return new SpamerError('config_invalid', 'the registry\'s server has no such database', { where: 'registry_url' });
  if (state === '42501') return new SpamerError('config_invalid', 'the user may not make or change tables in this database', { where: 'registry_url' });
  if (state === '25006') return new SpamerError('store_failed', 'the registry\'s server takes no writes', { where: 'registry_url' });
  // 08: connection, 57P: shut down or starting, 53300: too many connections; without a state: the socket's own word.
  if (/^(08|57P|53300)/.test(state) || !/^[0-9A-Z]{5}$/.test(state)) return new SpamerError('unreachable', `the registry's server does not answer (${/^[A-Z_]+$/.test(state) ? state : 'the connection ended'})`, { where: 'registry_url' });
  return new SpamerError('store_failed', `the registry refused with SQLSTATE ${state}`);
}
