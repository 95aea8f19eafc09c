import { createHash } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { extname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { SpamerError } from '../core/errors.js';
import type { Api } from './api.js';
import { isKnown } from './etag.js';

const mediaTypes: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/** The page talks to this server only; no inline code, no frame around it. */
export const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

interface Asset {
  readonly type: string;
  readonly etag: string;
  readonly plain: Buffer;
  readonly packed: Buffer;
}

/** The page, read and packed once at the start: a handful of files, so no path of a request ever reaches the disk. */
export function pageRoutes(api: Api, folder: string | null): void {
  const assets = folder === null ? new Map<string, Asset>() : readAssets(folder);
  const send = (request: FastifyRequest, reply: FastifyReply, name: string): FastifyReply => sendAsset(request, reply, assets.get(name));
  api.get('/', { schema: { hide: true } }, (request, reply) => send(request, reply, 'index.html'));
  api.get('/assets/:file', { schema: { hide: true, params: Type.Object({ file: Type.String({ maxLength: 128 }) }) } }, (request, reply) => send(request, reply, request.params.file));
}

function readAssets(folder: string): Map<string, Asset> {
  const assets = new Map<string, Asset>();
  for (const name of readdirSync(folder)) {
    const type = mediaTypes[extname(name)];
    if (type === undefined || name.endsWith('.test.js')) continue;
    const plain = readFileSync(join(folder, name));
    assets.set(name, { type, etag: `"${createHash('sha256').update(plain).digest('base64url').slice(0, 22)}"`, plain, packed: gzipSync(plain) });
  }
  return assets;
}

function sendAsset(request: FastifyRequest, reply: FastifyReply, asset: Asset | undefined): FastifyReply {
  if (asset === undefined) throw new SpamerError('not_found', 'there is nothing at this path');
  // Names do not change with their content, so a browser asks again, and mostly hears 304.
  reply.header('cache-control', 'no-cache').header('etag', asset.etag).header('vary', 'accept-encoding').type(asset.type);
  if (isKnown(request.headers['if-none-match'], asset.etag)) return reply.code(304).send();
  if (!/\bgzip\b/.test(String(request.headers['accept-encoding'] ?? ''))) return reply.send(asset.plain);
  return reply.header('content-encoding', 'gzip').send(asset.packed);
}
