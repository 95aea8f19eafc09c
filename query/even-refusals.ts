import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import type { FastifyInstance } from 'fastify';
import { limits } from '../core/limits.js';
import { servicePath } from './services.js';

declare module 'fastify' {
  interface FastifyRequest {
    /** On the clock that only grows. */
    arrivedMs: number;
  }
}

/** Installed first: what comes after it counts. */
export function installArrival(app: FastifyInstance): void {
  app.decorateRequest('arrivedMs', 0);
  app.addHook('onRequest', async (request) => { request.arrivedMs = performance.now(); });
}

/** Timers fire late by up to so much, and never early. */
const timerSlackMs = 1.5;

/**
 * Every refusal, also of a proof that is judged by what is kept of an account, leaves at a whole multiple of `gridMs` after its request came [DENY]. The steps before it are the same whether the thing is
 * there or not, but what is kept in memory of what others use is quicker, and a key that is there takes longer to derive than none:
 * without this, a refusal's time tells whether somebody is a patient. Installed last, so that the audit's entry is within.
 * Needs `installArrival`.
 */
export function installEvenRefusals(app: FastifyInstance, gridMs: number = limits.refusalGridMs): void {
  app.addHook('onSend', async (request, reply, payload) => {
    if (reply.statusCode === 403 || ((reply.statusCode === 401 || reply.statusCode === 429) && judged.has(request.routeOptions.url ?? ''))) await until(request.arrivedMs + Math.ceil((performance.now() - request.arrivedMs) / gridMs) * gridMs);
    return payload;
  });
}

/** A token is looked up by its hash, whose time tells nothing, and a password costs the same whosever it is; a signature is checked with the key of an account. */
const judged: ReadonlySet<string> = new Set([servicePath]);

/** A timer alone counts whole milliseconds from the turn's begin, so that its end would tell a part of when it was begun. */
async function until(atMs: number): Promise<void> {
  const left = atMs - performance.now() - timerSlackMs;
  if (left >= 1) await sleep(left);
  while (performance.now() < atMs) await turn();
}
