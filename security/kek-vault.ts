import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { SpamerError, toSpamerError } from '../core/errors.js';
import type { Kek, KekFields } from './kek.js';

export interface VaultSettings {
  /** For instance `https://vault.example:8200`. */
  readonly address: string;
  /** File of the token, read for each call: an agent may renew it. */
  readonly tokenFile: string;
  /** Name of the transit key, of a type with authenticated data (`aes256-gcm96`). */
  readonly key: string;
  readonly mount: string;
  readonly timeoutMs?: number;
}

const answerBytesMax = 64 * 1024;
const encrypted = z.object({ data: z.object({ ciphertext: z.string().regex(/^vault:v\d+:[A-Za-z0-9+/=]+$/) }) });
const decrypted = z.object({ data: z.object({ plaintext: z.string() }) });

/**
 * HashiCorp Vault's Transit engine (or OpenBao's) as the key over the keystore, by its HTTP API:
 * POST /v1/:mount/encrypt/:key, /decrypt/:key, /keys/:key/rotate, /keys/:key/config. The transit key never leaves Vault.
 */
export class VaultKek implements Kek {
  readonly kind = 'vault-transit';
  readonly #settings: VaultSettings;

  constructor(settings: VaultSettings) {
    this.#settings = settings;
  }

  async wrap(dataKey: Uint8Array, context: string): Promise<KekFields> {
    const { data } = await this.#ask('encrypt', { plaintext: Buffer.from(dataKey).toString('base64'), associated_data: Buffer.from(context).toString('base64') }, encrypted);
    return { key: this.#settings.key, mount: this.#settings.mount, wrapped: data.ciphertext };
  }

  async unwrap(fields: KekFields, context: string): Promise<Buffer> {
    const { key, mount, wrapped } = fields;
    if (key !== this.#settings.key || mount !== this.#settings.mount) throw new SpamerError('config_invalid', 'the keystore names another key of the key service', { where: 'vault_transit_key' });
    const { data } = await this.#ask('decrypt', { ciphertext: wrapped, associated_data: Buffer.from(context).toString('base64') }, decrypted);
    return Buffer.from(data.plaintext, 'base64');
  }

  async rotate(): Promise<void> {
    await this.#ask('rotate', {}, z.unknown());
  }

  async retireBefore(fields: KekFields): Promise<void> {
    const version = Number(/^vault:v(\d+):/.exec(String(fields['wrapped']))?.[1]);
    if (!Number.isSafeInteger(version) || version < 1) throw new SpamerError('data_damaged', 'the keystore names no version of its key');
    await this.#ask('config', { min_decryption_version: version }, z.unknown());
  }

  async #ask<Shape extends z.ZodType>(what: 'encrypt' | 'decrypt' | 'rotate' | 'config', body: object, shape: Shape): Promise<z.output<Shape>> {
    const { address, key, mount, timeoutMs = 10_000 } = this.#settings;
    const name = encodeURIComponent(key);
    const path = what === 'encrypt' || what === 'decrypt' ? `${what}/${name}` : `keys/${name}/${what}`;
    let status: number;
    let text: string;
    try {
      const headers = { 'content-type': 'application/json', 'x-vault-token': await this.#token(), 'x-vault-request': 'true' };
      // No redirect: the token goes to the named address and to no other.
      const response = await fetch(new URL(`/v1/${mount}/${path}`, address), { method: 'POST', headers, body: JSON.stringify(body), redirect: 'error', signal: AbortSignal.timeout(timeoutMs) });
      status = response.status;
      text = await boundedText(response);
    } catch (error) {
      throw toSpamerError(error, 'unreachable', 'the key service does not answer', address);
    }
    if (status === 200 || status === 204) return parsed(text, shape, address);
    // Its text may name tokens and paths; the status says enough.
    if (status === 429 || status >= 500) throw new SpamerError('unreachable', status === 503 ? 'the key service is sealed or in maintenance' : `the key service answered ${status}`, { where: address });
    throw new SpamerError('kms_refused', status === 403 ? 'the key service denies this token the key' : `the key service refused with ${status}`, { where: address });
  }

  async #token(): Promise<string> {
    try {
      return (await readFile(this.#settings.tokenFile, 'utf8')).trim();
    } catch (error) {
      throw toSpamerError(error, 'config_invalid', 'the token file of the key service cannot be read', 'vault_token_file');
    }
  }
}

function parsed<Shape extends z.ZodType>(text: string, shape: Shape, address: string): z.output<Shape> {
  try {
    return shape.parse(text === '' ? {} : JSON.parse(text));
  } catch {
    throw new SpamerError('unreachable', 'the key service answered something that it does not document', { where: address });
  }
}

async function boundedText(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    const part = chunk as Uint8Array;
    bytes += part.length;
    if (bytes > answerBytesMax) throw new SpamerError('unreachable', 'the key service answers too much');
    chunks.push(part);
  }
  return Buffer.concat(chunks).toString('utf8');
}
