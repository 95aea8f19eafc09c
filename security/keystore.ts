import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes, randomUUID, scrypt, timingSafeEqual } from 'node:crypto';
import { constants } from 'node:fs';
import { chmod, mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { SpamerError, toSpamerError } from '../core/errors.js';
import { nodesValid, type TreeNode } from './tree.js';

/**
 * The keystore: one small file, `keystore.json`, that holds the covering nodes of the key tree and the blind index key,
 * under AES-256-GCM with a key that scrypt derives from the passphrase. Everything else may be backed up freely; this is
 * the file whose destruction destroys (DESIGN §10), so it is replaced whole and never copied by the program.
 *
 *   {version, id, kdf: {name, N, r, p, salt}, check, nonce, sealed, tag, sum}        binary members in base64url
 *   encryption key (32) || check (32) = HKDF-SHA-512(scrypt(passphrase), "spamer keystore v1")
 *   additional data = the JSON of {version, id, kdf}; sum = SHA-256 of the JSON of all members before it
 * `sum` tells damage from a wrong passphrase; it protects nothing.
 */
export interface KeystoreContent {
  readonly nodes: readonly TreeNode[];
  readonly blindIndexKey: Uint8Array;
}

export interface Keystore extends KeystoreContent {
  /** Random UUID: the registry remembers which keystore it belongs to. */
  readonly id: string;
  /** What an operator must be told; null when the passphrase came from the configuration. */
  readonly warning: string | null;
}

export interface KeystoreOptions {
  readonly passphrase?: string | undefined;
  /** False when data exist that another keystore sealed: then a missing file is damage, no first start. */
  readonly mayCreate: boolean;
  /** scrypt's N for a new file; a reader takes the file's own. */
  readonly scryptN?: number;
}

const base64url = z.string().regex(/^[\w-]+$/);
const fileShape = z.strictObject({
  version: z.number().int(),
  id: z.uuid(),
  // Bounds, so that a foreign file can't make the start take hours or gigabytes.
  kdf: z.strictObject({ name: z.literal('scrypt'), N: z.number().int().min(2 ** 10).max(2 ** 20), r: z.literal(8), p: z.literal(1), salt: base64url }),
  check: base64url,
  nonce: base64url,
  sealed: base64url,
  tag: base64url,
  sum: base64url,
});
type KeystoreFile = z.output<typeof fileShape>;
const contentShape = z.strictObject({
  nodes: z.array(z.strictObject({ depth: z.number(), index: z.number(), key: base64url })),
  blindIndexKey: base64url,
});

const encode = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64url');
const decode = (text: string): Buffer => Buffer.from(text, 'base64url');
const damaged = (path: string, how: string): SpamerError => new SpamerError('data_damaged', `the keystore ${how}`, { where: path });

export const keystorePath = (dir: string): string => join(dir, 'keystore.json');
export const passphrasePath = (dir: string): string => join(dir, 'keystore.passphrase');

/**
 * Opens the keystore of a data folder; on first start creates it.
 * @throws SpamerError `passphrase_wrong`, `data_damaged`, `data_newer`; then nothing was changed.
 */
export async function openKeystore(dir: string, options: KeystoreOptions): Promise<Keystore> {
  const path = keystorePath(dir);
  const text = await readIfThere(path);
  if (text === null && !options.mayCreate) throw damaged(path, 'is missing, but data exist that it sealed');
  const { passphrase, generated } = await choosePassphrase(dir, options.passphrase, text === null);
  const warning = generated ? generatedWarning(passphrasePath(dir)) : null;
  if (text !== null) {
    const { id, content } = await unlock(path, text, passphrase);
    return { ...content, id, warning };
  }
  const content: KeystoreContent = { nodes: [{ depth: 0, index: 0, key: randomBytes(32) }], blindIndexKey: randomBytes(32) };
  const id = randomUUID();
  await writeKeystore(dir, id, content, passphrase, options.scryptN);
  return { ...content, id, warning };
}

/** Replaces the keystore: whoever reads it finds the old one or the new one, whole, also after a crash. */
export async function writeKeystore(dir: string, id: string, content: KeystoreContent, passphrase: string, scryptN = 2 ** 17): Promise<void> {
  const kdf = { name: 'scrypt' as const, N: scryptN, r: 8 as const, p: 1 as const, salt: encode(randomBytes(32)) };
  const head = { version: 1, id, kdf };
  const { key, check } = await derive(passphrase, kdf);
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: 16 });
  cipher.setAAD(Buffer.from(JSON.stringify(head)));
  const nodes = content.nodes.map((node) => ({ depth: node.depth, index: node.index, key: encode(node.key) }));
  const sealed = Buffer.concat([cipher.update(JSON.stringify({ nodes, blindIndexKey: encode(content.blindIndexKey) }), 'utf8'), cipher.final()]);
  const file = { ...head, check: encode(check), nonce: encode(nonce), sealed: encode(sealed), tag: encode(cipher.getAuthTag()) };
  await writeWhole(keystorePath(dir), `${JSON.stringify({ ...file, sum: sumOf(file) }, null, 2)}\n`);
}

function sumOf(file: Omit<KeystoreFile, 'sum'>): string {
  const { version, id, kdf, check, nonce, sealed, tag } = file;
  const { name, N, r, p, salt } = kdf;
  const canonical = JSON.stringify({ version, id, kdf: { name, N, r, p, salt }, check, nonce, sealed, tag });
  return createHash('sha256').update(canonical).digest('base64url');
}

async function unlock(path: string, text: string, passphrase: string): Promise<{ id: string; content: KeystoreContent }> {
  const file = parseFile(path, text);
  const { key, check } = await derive(passphrase, file.kdf);
  const expected = decode(file.check);
  if (expected.length !== check.length || !timingSafeEqual(expected, check)) {
    throw new SpamerError('passphrase_wrong', 'the keystore does not open with this passphrase', { where: path });
  }
  try {
    return { id: file.id, content: parseContent(decryptContent(file, key)) };
  } catch {
    throw damaged(path, 'opens with the passphrase, but its content is damaged');
  }
}

function parseFile(path: string, text: string): KeystoreFile {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw damaged(path, 'is not JSON');
  }
  const newer = z.looseObject({ version: z.number().int().min(2) }).safeParse(json);
  if (newer.success) throw new SpamerError('data_newer', 'the keystore was written by a newer version', { where: path });
  const parsed = fileShape.safeParse(json);
  if (!parsed.success || parsed.data.version !== 1 || sumOf(parsed.data) !== parsed.data.sum) throw damaged(path, 'is damaged');
  return parsed.data;
}

function decryptContent(file: KeystoreFile, key: Buffer): string {
  const { name, N, r, p, salt } = file.kdf;
  const decipher = createDecipheriv('aes-256-gcm', key, decode(file.nonce), { authTagLength: 16 });
  decipher.setAAD(Buffer.from(JSON.stringify({ version: file.version, id: file.id, kdf: { name, N, r, p, salt } })));
  decipher.setAuthTag(decode(file.tag));
  return Buffer.concat([decipher.update(decode(file.sealed)), decipher.final()]).toString('utf8');
}

function parseContent(text: string): KeystoreContent {
  const { nodes, blindIndexKey } = contentShape.parse(JSON.parse(text));
  const content = { nodes: nodes.map((node) => ({ ...node, key: decode(node.key) })), blindIndexKey: decode(blindIndexKey) };
  if (!nodesValid(content.nodes) || content.blindIndexKey.length !== 32) throw new SpamerError('data_damaged', 'the keystore content is not well formed');
  return content;
}

async function derive(passphrase: string, kdf: KeystoreFile['kdf']): Promise<{ key: Buffer; check: Buffer }> {
  const cost = { N: kdf.N, r: kdf.r, p: kdf.p, maxmem: 256 * kdf.N * kdf.r };
  const stretched = await new Promise<Buffer>((resolve, reject) => {
    scrypt(passphrase.normalize('NFC'), decode(kdf.salt), 32, cost, (error, bytes) => (error === null ? resolve(bytes) : reject(toSpamerError(error, 'internal', 'scrypt failed'))));
  });
  const bytes = Buffer.from(hkdfSync('sha512', stretched, Buffer.alloc(0), 'spamer keystore v1', 64));
  return { key: bytes.subarray(0, 32), check: bytes.subarray(32) };
}

async function choosePassphrase(dir: string, given: string | undefined, creating: boolean): Promise<{ passphrase: string; generated: boolean }> {
  if (given !== undefined) return { passphrase: given, generated: false };
  const path = passphrasePath(dir);
  const kept = (await readIfThere(path))?.trim();
  if (kept !== undefined && kept !== '') return { passphrase: kept, generated: true };
  if (!creating) throw new SpamerError('passphrase_wrong', 'the keystore needs its passphrase: none is configured and the generated one is gone', { where: path });
  const passphrase = randomBytes(24).toString('base64url');
  // Written before the keystore: a kill between the two leaves a passphrase without a keystore, which the next start takes up.
  await writeWhole(path, `${passphrase}\n`);
  return { passphrase, generated: true };
}

function generatedWarning(path: string): string {
  return (
    `The keystore's passphrase was generated and lies beside it in ${path} (mode 0600). Whoever can read this folder, or a backup that has both files, ` +
    'can open every record. For real data set SPAMER_PASSPHRASE from a secret store, and keep the keystore out of ordinary backups.'
  );
}

async function readIfThere(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw toSpamerError(error, 'data_damaged', 'a file of the keystore cannot be read', path);
  }
}

/** Writes beside, flushes, renames, flushes the folder: a reader sees the old bytes or all of the new ones. */
async function writeWhole(path: string, text: string): Promise<void> {
  const beside = `${path}.tmp`;
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const file = await open(beside, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC, 0o600);
    try {
      // The mode of `open` counts only for a new file; a leftover of a killed start may be there.
      await chmod(beside, 0o600);
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(beside, path);
    await syncFolder(dirname(path));
  } catch (error) {
    throw toSpamerError(error, 'store_failed', 'a file of the keystore cannot be written', path);
  }
}

async function syncFolder(dir: string): Promise<void> {
  const folder = await open(dir, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
