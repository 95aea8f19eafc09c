import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import type { Part } from '../core/lifecycle.js';
import type { Api } from '../query/api.js';
import type { QueryPorts } from '../query/ports.js';
import { buildServer } from '../query/server.js';
import type { Certificates } from './tls.js';

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string };

/** The page and the HTTP API, not yet listening. */
export function buildApi(ports: QueryPorts, config: Config, { http }: Certificates): Promise<Api> {
  const consoleDir = fileURLToPath(new URL('../console', import.meta.url));
  return buildServer(ports, {
    version, consoleDir: existsSync(consoleDir) ? consoleDir : null,
    ...(http === null ? {} : { secure: http.certificate.servers }),
    ...(config.http_trusted_proxies === undefined ? {} : { trustedProxies: config.http_trusted_proxies.split(',') }),
  });
}

export interface Listening extends Part {
  readonly url: string;
  readonly port: number;
}

/** @throws SpamerError `port_taken`, `config_invalid`; then it is closed. */
export async function listen(api: Pick<Api, 'listen' | 'close' | 'server'>, config: Config): Promise<Listening> {
  const url = await api.listen({ host: config.http_host, port: config.http_port }).catch(async (cause: unknown) => {
    await api.close();
    const taken = cause instanceof Error && 'code' in cause && cause.code === 'EADDRINUSE';
    throw new SpamerError(taken ? 'port_taken' : 'config_invalid', taken ? 'the HTTP port is taken' : 'cannot listen on the HTTP address', { where: `${config.http_host}:${config.http_port}`, cause });
  });
  const address = api.server.address();
  return { name: 'http', url, port: typeof address === 'object' && address !== null ? address.port : config.http_port, stop: () => api.close() };
}
