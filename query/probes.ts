import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import fastify from 'fastify';
import type { Journal } from '../core/journal.js';
import { limits } from '../core/limits.js';
import type { Api } from './api.js';
import { installValidator, lazySerializers } from './lazy-compilers.js';
import type { MetricsSource, Readiness } from './ports.js';
import { installProblems, Problem } from './problem.js';
import type { SecureServers } from './secure-servers.js';
import { probeRoutes } from './system.js';

export interface ProbePorts {
  readonly journal: Journal;
  readonly metrics: MetricsSource;
  readiness(): Promise<Readiness>;
}

/** What a process without the API tells of itself: that it lives, whether it is ready, its metrics. @param secure how it speaks TLS; absent: in the clear */
export async function buildProbes(ports: ProbePorts, secure: SecureServers | undefined): Promise<Api> {
  const api = fastify({ logger: false, ...(secure === undefined ? {} : { serverFactory: secure.make, https: {} }), bodyLimit: limits.openBodyBytesMax, forceCloseConnections: true, requestTimeout: 30_000, schemaController: { compilersFactory: { buildSerializer: lazySerializers } } }).withTypeProvider<TypeBoxTypeProvider>();
  installValidator(api);
  api.addSchema(Problem);
  installProblems(api, ports.journal);
  await api.register(async (scope) => probeRoutes(scope as unknown as Api, ports));
  await api.ready();
  return api;
}
