import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import type { Part } from '../core/lifecycle.js';
import type { Api } from '../query/api.js';

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
