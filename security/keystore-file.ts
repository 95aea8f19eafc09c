import { createHash, randomBytes } from 'node:crypto';
import { z } from 'zod';
import { SpamerError } from '../core/errors.js';
import { gcmNonceBytes, gcmOpen, gcmSeal, gcmTagBytes } from './gcm.js';
import { PassphraseKek, scryptShape, type Kek, type KekFields } from './kek.js';
import { nodesValid, type TreeNode } from './tree.js';

/**
 * The keystore's bytes, version 2; binary members in base64url:
 *
 *   {version: 2, id, number, previous, kek: {kind, …}, nonce, sealed, tag, hash}
 *
 * `number` counts versions from 1 and `previous` is the hash of the one before (null at 1). Each version has a data key of its
 * own (32 random bytes), wrapped by the KEK under the context `spamer keystore v2 <id> <number>`; `kek` is what the KEK left.
 * `sealed` = AES-256-GCM(data key, content), additional data = the JSON of {version, id, number, previous, kek}.
 * `hash` = SHA-256 of the JSON of all members before it: the version's name, and what tells damage from a wrong key; it protects nothing.
 *
 *   content: offset  bytes
 *                 0     32  blind index key
 *                32     32  signing seed (Ed25519) of certificates
 *                64   37·n  covering nodes in order: depth (1), index (u32, big-endian), key (32)
 */
export interface KeystoreContent {
  /** In order of the slots that they cover. */
  readonly nodes: readonly TreeNode[];
  readonly blindIndexKey: Uint8Array;
  readonly signingSeed: Uint8Array;
}

export interface KeystoreVersion {
  readonly number: number;
  /** SHA-256 of the file's members, base64url. */
  readonly hash: string;
}

export interface KeystoreFile extends KeystoreVersion {
  readonly id: string;
  readonly previous: string | null;
  readonly kek: KekFields & { readonly kind: string };
}

const keyBytes = 32;
const nodeBytes = 37;
const base64url = z.string().regex(/^[\w-]+$/);
const shape = z.strictObject({
  version: z.literal(2),
  id: z.uuid(),
  number: z.number().int().min(1),
  previous: base64url.nullable(),
  kek: z.object({ kind: z.string() }).catchall(z.union([z.string(), z.number()])),
  nonce: base64url,
  sealed: base64url,
  tag: base64url,
  hash: base64url,
});
type Parsed = z.output<typeof shape>;

const encode = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64url');
const decode = (text: string): Buffer => Buffer.from(text, 'base64url');
const damaged = (path: string, how: string): SpamerError => new SpamerError('data_damaged', `the keystore ${how}`, { where: path });
const contextOf = (id: string, number: number): string => `spamer keystore v2 ${id} ${number}`;

/** The text of a new version, and its name. */
export async function sealKeystore(content: KeystoreContent, id: string, before: KeystoreVersion | null, kek: Kek): Promise<{ readonly text: string; readonly file: KeystoreFile }> {
  const number = (before?.number ?? 0) + 1;
  const dataKey = randomBytes(keyBytes);
  const fields = { ...(await kek.wrap(dataKey, contextOf(id, number))), kind: kek.kind };
  const head = { version: 2, id, number, previous: before?.hash ?? null, kek: inOrder(fields) };
  const nonce = randomBytes(gcmNonceBytes);
  const sealed = gcmSeal(dataKey, nonce, [Buffer.from(JSON.stringify(head))], packed(content));
  const file = { ...head, nonce: encode(nonce), sealed: encode(sealed.subarray(0, -gcmTagBytes)), tag: encode(sealed.subarray(-gcmTagBytes)) };
  const hash = hashOf(JSON.stringify(file));
  return { text: `${JSON.stringify({ ...file, hash }, null, 2)}\n`, file: { id, number, hash, previous: head.previous, kek: fields } };
}

/**
 * Opens a keystore's text with the first of the keys that is of the kind that it names.
 * @throws SpamerError `data_damaged`, `data_newer`, `passphrase_wrong`, `config_invalid`, `unreachable`, `kms_refused`
 */
export async function unsealKeystore(path: string, text: string, keks: readonly Kek[]): Promise<{ readonly file: KeystoreFile; readonly content: KeystoreContent }> {
  const json = parseJson(path, text);
  const version = z.looseObject({ version: z.number().int() }).safeParse(json).data?.version;
  if (version !== undefined && version > 2) throw new SpamerError('data_newer', 'the keystore was written by a newer version', { where: path });
  if (version === 1) return unsealFirst(path, json, keks);
  const parsed = shape.safeParse(json);
  if (!parsed.success) throw damaged(path, 'is damaged');
  const { id, number, previous, kek: fields, nonce, sealed, tag, hash } = parsed.data;
  const head = { version: 2, id, number, previous, kek: inOrder(fields) };
  if (hashOf(JSON.stringify({ ...head, nonce, sealed, tag })) !== hash) throw damaged(path, 'is damaged');
  const { kind, ...own } = fields;
  const dataKey = await named(path, keks, kind).unwrap(own, contextOf(id, number)).catch((error: unknown) => { throw located(path, error); });
  const content = unpacked(path, opened(path, dataKey, head, parsed.data));
  return { file: { id, number, hash, previous, kek: { ...own, kind } }, content };
}

/** Version 1 had the passphrase only, no numbers, and the content as JSON; it becomes number 0, and the next write makes it a version 2. */
async function unsealFirst(path: string, json: unknown, keks: readonly Kek[]): Promise<{ readonly file: KeystoreFile; readonly content: KeystoreContent }> {
  const first = z.strictObject({ version: z.literal(1), id: z.uuid(), kdf: scryptShape.extend({ name: z.literal('scrypt') }), check: base64url, nonce: base64url, sealed: base64url, tag: base64url, sum: base64url }).safeParse(json);
  if (!first.success) throw damaged(path, 'is damaged');
  const { id, kdf: { name, N, r, p, salt }, check, nonce, sealed, tag, sum } = first.data;
  const head = { version: 1, id, kdf: { name, N, r, p, salt } };
  if (createHash('sha256').update(JSON.stringify({ ...head, check, nonce, sealed, tag })).digest('base64url') !== sum) throw damaged(path, 'is damaged');
  const kek = keks.find((one) => one instanceof PassphraseKek);
  if (kek === undefined) throw new SpamerError('passphrase_wrong', 'the keystore needs its passphrase', { where: path });
  const key = await kek.open({ N, r, p, salt }, check).catch((error: unknown) => { throw located(path, error); });
  const content = z.strictObject({ nodes: z.array(z.strictObject({ depth: z.number(), index: z.number(), key: base64url })), blindIndexKey: base64url });
  const { nodes, blindIndexKey } = content.parse(JSON.parse(opened(path, key, head, first.data).toString('utf8')));
  const keys = { nodes: nodes.map((node) => ({ ...node, key: decode(node.key) })), blindIndexKey: decode(blindIndexKey), signingSeed: randomBytes(keyBytes) };
  if (!nodesValid(keys.nodes) || keys.blindIndexKey.length !== keyBytes) throw damaged(path, 'content is not well formed');
  return { file: { id, number: 0, hash: sum, previous: null, kek: { kind: 'passphrase' } }, content: keys };
}

function named(path: string, keks: readonly Kek[], kind: string): Kek {
  const kek = keks.find((one) => one.kind === kind);
  if (kek !== undefined) return kek;
  if (kind === 'passphrase') throw new SpamerError('passphrase_wrong', 'the keystore needs its passphrase', { where: path });
  throw new SpamerError('config_invalid', 'the keystore is under a key service that is not configured', { where: 'kek' });
}

/** Whose fault it is stays; which file it is about is added. */
function located(path: string, error: unknown): unknown {
  return error instanceof SpamerError && error.where === undefined ? new SpamerError(error.code, error.message, { where: path }) : error;
}

function opened(path: string, key: Buffer, head: object, { nonce, sealed, tag }: Pick<Parsed, 'nonce' | 'sealed' | 'tag'>): Buffer {
  const content = gcmOpen(key, decode(nonce), [Buffer.from(JSON.stringify(head))], Buffer.concat([decode(sealed), decode(tag)]));
  if (content === null) throw damaged(path, 'opens with its key, but its content is damaged');
  return content;
}

function packed({ nodes, blindIndexKey, signingSeed }: KeystoreContent): Buffer {
  const bytes = Buffer.alloc(2 * keyBytes + nodes.length * nodeBytes);
  bytes.set(blindIndexKey, 0);
  bytes.set(signingSeed, keyBytes);
  for (const [at, { depth, index, key }] of nodes.entries()) {
    const offset = 2 * keyBytes + at * nodeBytes;
    bytes[offset] = depth;
    bytes.writeUInt32BE(index, offset + 1);
    bytes.set(key, offset + 5);
  }
  return bytes;
}

function unpacked(path: string, bytes: Buffer): KeystoreContent {
  const count = (bytes.length - 2 * keyBytes) / nodeBytes;
  if (!Number.isInteger(count) || count < 0) throw damaged(path, 'content is not well formed');
  const nodes = Array.from({ length: count }, (_, at): TreeNode => {
    const offset = 2 * keyBytes + at * nodeBytes;
    return { depth: bytes[offset] ?? 255, index: bytes.readUInt32BE(offset + 1), key: bytes.subarray(offset + 5, offset + nodeBytes) };
  });
  if (!nodesValid(nodes)) throw damaged(path, 'content is not well formed');
  return { nodes, blindIndexKey: bytes.subarray(0, keyBytes), signingSeed: bytes.subarray(keyBytes, 2 * keyBytes) };
}

function parseJson(path: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw damaged(path, 'is not JSON');
  }
}

/** Names sorted, so that the same fields have the same bytes whatever wrote them. */
const inOrder = (fields: KekFields): KekFields => Object.fromEntries(Object.entries(fields).sort(([a], [b]) => (a < b ? -1 : 1)));
const hashOf = (json: string): string => createHash('sha256').update(json).digest('base64url');
