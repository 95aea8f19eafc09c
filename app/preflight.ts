import { mkdirSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname } from 'node:path';
import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';

/** What can be wrong with the machine or the files that settings name, found before anything is opened or made. */

/** @returns whether the folder is new. @throws SpamerError `config_invalid`. */
export function makeDataFolder(folder: string): boolean {
  try {
    if (!statSync(folder).isDirectory()) throw new SpamerError('config_invalid', 'data_dir: is no folder', { where: folder });
    return false;
  } catch (error) {
    if (error instanceof SpamerError) throw error;
  }
  try {
    make(folder);
  } catch (cause) {
    throw new SpamerError('config_invalid', 'data_dir: the folder cannot be made', { where: folder, cause });
  }
  return true;
}

/** One level after the other: `recursive` of Node 20 never returns where a file system makes no folders, as below /proc. */
function make(folder: string): void {
  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    const parent = dirname(folder);
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || parent === folder || exists(parent)) throw error;
    make(parent);
    mkdirSync(folder, { mode: 0o700 });
  }
}

const exists = (path: string): boolean => statSync(path, { throwIfNoEntry: false }) !== undefined;

/** @throws SpamerError `port_taken`, `config_invalid` (no address of this machine, or not allowed). */
export async function checkPorts(config: Config, stream: boolean): Promise<void> {
  await checkPort('HTTP', config.http_host, config.http_port);
  if (stream) await checkPort('device', config.ingest_host, config.ingest_port);
}

async function checkPort(name: string, host: string, port: number): Promise<void> {
  const fault = await listenFault(host, port);
  if (fault === null) return;
  if (fault.code === 'EADDRINUSE') throw new SpamerError('port_taken', `the ${name} port is taken`, { where: `${host}:${port}`, cause: fault });
  throw new SpamerError('config_invalid', `cannot listen on the ${name} address`, { where: `${host}:${port}`, cause: fault });
}

/** Why nobody can listen there just now; null when one can. */
export function listenFault(host: string, port: number): Promise<NodeJS.ErrnoException | null> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', resolve);
    server.listen(port, host, () => server.close(() => resolve(null)));
  });
}
