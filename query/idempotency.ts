import { createHash, randomUUID } from 'node:crypto';
import type { FastifyReply } from 'fastify';
import { SpamerError, verdicts, type ErrorCode } from '../core/errors.js';
import { faultOf, type Journal } from '../core/journal.js';
import { openAnswer, requestFingerprint, sealAnswer } from '../security/answers.js';
import { bearerOf } from './access.js';
import { access } from './actions.js';
import type { Api } from './api.js';
import type { IdempotencyStore } from './ports.js';

export interface IdempotencyParts {
  readonly store: IdempotencyStore;
  readonly journal: Journal;
  /** Microseconds since the epoch. */
  readonly now: () => number;
}

/** How long an answer is kept. */
export const keepS = 24 * 3600;
const keyShape = /^[\x21-\x7e]{1,255}$/;
const answerBytesMax = 64 * 1024;

export const idempotencyHeader = {
  'idempotency-key': {
    type: 'string', minLength: 1, maxLength: 255,
    description: 'Makes a request safe to send again: within 24 hours the same key with the same body, from the same caller, is done once and answered alike (header idempotency-replayed). The same key with another request is refused with `key_reused`. Use a new random UUID for each thing to be created.',
  },
} as const;

interface Running {
  readonly id: Buffer;
  readonly token: string;
  readonly done: () => void;
  settled: boolean;
}

declare module 'fastify' {
  interface FastifyRequest {
    idempotency: Running | null;
  }
}

/** They make nothing, and are a POST since a key does not belong in an address; what they answer is large and is not to be kept. */
const reading: ReadonlySet<string> = new Set(['/v1/me/record', '/v1/patients/:patient/portable-record']);

/** Whether a route takes the header: every POST that needs a token and makes something. */
export const takesKey = (method: string, url: string): boolean => method === 'POST' && !reading.has(url) && access[`POST ${url}`] !== 'public' && access[`POST ${url}`] !== undefined;

/**
 * Idempotency keys. The order of things: the key is claimed durably, the request is done, its answer is kept durably, the answer is
 * sent. A process that dies in between leaves a claim whose outcome nobody knows; that is said, and not done a second time.
 */
export function installIdempotency(api: Api, { store, journal, now }: IdempotencyParts): void {
  /** Keys under way in this process; as many as there are requests. */
  const running = new Map<string, Promise<void>>();
  const attempt = randomUUID();
  api.decorateRequest('idempotency', null);

  api.addHook('preHandler', async (request, reply) => {
    const key = request.headers['idempotency-key'];
    if (key === undefined || !takesKey(request.method, request.routeOptions.url ?? '')) return;
    const token = bearerOf(request);
    if (typeof key !== 'string' || !keyShape.test(key)) throw new SpamerError('bad_request', 'a key is 1 to 255 visible ASCII characters', { where: 'headers/idempotency-key' });
    if (token === null || request.principal === null) throw new SpamerError('unauthenticated', 'a valid bearer token is needed');
    const id = createHash('sha256').update(JSON.stringify([request.principal.kind, request.principal.id, key])).digest();
    const fingerprint = requestFingerprint(token, JSON.stringify([request.method, request.url, request.body ?? null]));
    const name = id.toString('hex');
    // One that is under way is waited for; it ends with an answer, or gives the key back.
    for (let other = running.get(name); other !== undefined; other = running.get(name)) await other;
    const [ended, done] = ending();
    running.set(name, ended);
    const finish = (): void => {
      if (running.get(name) === ended) running.delete(name);
      done();
    };
    try {
      const nowUs = now();
      const kept = await store.claim({ id, fingerprint, attempt, nowUs, expiresUs: nowUs + keepS * 1e6 });
      if (kept === null) {
        request.idempotency = { id, token, done: finish, settled: false };
        return;
      }
      if (!Buffer.from(kept.fingerprint).equals(fingerprint)) throw new SpamerError('key_reused', 'this key was used for another request, or with another token', { where: 'headers/idempotency-key' });
      if (kept.answer === null) throw new SpamerError('conflict', 'the first request with this key was cut off and its outcome is not known; look whether it was done, then use a new key', { where: 'headers/idempotency-key' });
      finish();
      return replay(reply, kept.answer.status, openAnswer(token, id, kept.answer.sealed));
    } catch (error) {
      finish();
      throw error;
    }
  });

  api.addHook('onSend', async (request, reply, payload) => {
    const own = request.idempotency;
    if (own === null || own.settled) return payload;
    own.settled = true;
    try {
      await settle(store, own, reply, payload);
    } catch (error) {
      // What was asked is done, so its answer goes out; the key stays claimed and will tell that the outcome is unknown.
      journal.warn('an idempotent answer could not be kept', { fault: faultOf(error) });
    } finally {
      own.done();
    }
    return payload;
  });
}

async function settle(store: IdempotencyStore, own: Running, reply: FastifyReply, payload: unknown): Promise<void> {
  const text = typeof payload === 'string' ? payload : payload === null || payload === undefined ? '' : null;
  if (reply.statusCode < 400 && text !== null && text.length <= answerBytesMax) await store.finish(own.id, reply.statusCode, sealAnswer(own.token, own.id, text));
  else if (nothingDone(reply.statusCode, text)) await store.release(own.id);
}

/** A refusal did nothing, and neither did what says that it may be tried again; an internal error may have done half. */
function nothingDone(status: number, text: string | null): boolean {
  if (status >= 400 && status < 500) return true;
  const code = /"code":"([a-z_]+)"/.exec(text ?? '')?.[1];
  return code !== undefined && code in verdicts && verdicts[code as ErrorCode].retry;
}

function replay(reply: FastifyReply, status: number, text: string): FastifyReply {
  reply.code(status).header('idempotency-replayed', 'true').header('cache-control', 'no-store');
  return text === '' ? reply.send() : reply.type('application/json; charset=utf-8').serializer((body: unknown) => String(body)).send(text);
}

function ending(): [Promise<void>, () => void] {
  let done = (): void => undefined;
  const ended = new Promise<void>((resolve) => { done = resolve; });
  return [ended, done];
}

