import { SpamerError } from '../core/errors.js';

export interface FetchBounds {
  readonly bytesMax: number;
  readonly timeoutMs: number;
}

interface Asked {
  readonly method: string;
  readonly headers: Record<string, string>;
  readonly body?: unknown;
  readonly signal?: AbortSignal | undefined;
}

/** Headers of an answer that anybody reads. */
const kept = ['content-type', 'date'];

const loopback = new Set(['127.0.0.1', '[::1]', 'localhost']);
/** In the clear on this machine only. */
export const isSafeAddress = (url: URL): boolean => url.protocol === 'https:' || (url.protocol === 'http:' && loopback.has(url.hostname));

/**
 * `fetch` of another organisation's server: bounded in time and in bytes (as they are after decompression), never sent on to where that server
 * points, and never in the clear to another machine.
 * @throws SpamerError `issuer_unreachable` also for a redirect and for a server's own fault (5xx)
 */
export function boundedFetch({ bytesMax, timeoutMs }: FetchBounds): (url: string, asked: Asked) => Promise<Response> {
  return async (url, { method, headers, body, signal }) => {
    if (!isSafeAddress(new URL(url))) throw failed('names an address in the clear');
    const until = AbortSignal.any([AbortSignal.timeout(timeoutMs), ...(signal === undefined ? [] : [signal])]);
    const answer = await fetch(url, { method, headers, redirect: 'manual', signal: until, ...(body === undefined || body === null ? {} : { body: body as URLSearchParams }) }).catch((cause: unknown) => Promise.reject(failed('does not answer', cause)));
    if (answer.status >= 500 || (answer.status >= 300 && answer.status < 400)) {
      await answer.body?.cancel().catch(() => undefined);
      throw failed(`answers with status ${answer.status}`);
    }
    const bytes = await readAll(answer, bytesMax);
    const told = kept.flatMap((name): [string, string][] => (answer.headers.has(name) ? [[name, answer.headers.get(name) ?? '']] : []));
    // A body beside "no content" is refused by the constructor.
    return new Response(answer.status === 204 ? null : bytes, { status: answer.status, headers: told });
  };
}

async function readAll({ body }: Response, bytesMax: number): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  try {
    for await (const part of body ?? []) {
      bytes += (part as Uint8Array).length;
      // Leaving the loop cancels the rest.
      if (bytes > bytesMax) throw failed('answers too much');
      parts.push(part as Uint8Array);
    }
  } catch (cause) {
    throw cause instanceof SpamerError ? cause : failed('ends its answer before it is whole', cause);
  }
  return new Uint8Array(Buffer.concat(parts));
}

const failed = (what: string, cause?: unknown): SpamerError => new SpamerError('issuer_unreachable', `the issuer ${what}`, { cause });
