import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Config } from '../core/config.js';
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
