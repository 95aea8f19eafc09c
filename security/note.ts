import { createHash, createPrivateKey, createPublicKey, sign, verify, type KeyObject } from 'node:crypto';
import { SpamerError } from '../core/errors.js';

/**
 * Signed notes (C2SP signed-note) with Ed25519, and the checkpoints that they carry (C2SP tlog-checkpoint):
 *
 *   note        = text, "\n", signature lines; text ends in "\n"
 *   signature   = "— " name " " base64(key hash (4) || Ed25519 signature of the text (64)) "\n"
 *   key hash    = first 4 bytes of SHA-256(name || 0x0A || 0x01 || public key)
 *   verifier    = name "+" key hash in hex "+" base64(0x01 || public key)
 *   checkpoint  = origin "\n" size "\n" base64(root) "\n"
 */
const ed25519 = 1;
const pkcs8Prefix = Buffer.from('302e020100300506032b657004220420', 'hex');
const spkiPrefix = Buffer.from('302a300506032b6570032100', 'hex');

export interface NoteVerifier {
  readonly name: string;
  readonly hash: Buffer;
  readonly publicKey: KeyObject;
}

export interface NoteSigner extends NoteVerifier {
  /** The verifier's text, to be published. */
  readonly verifierText: string;
  readonly privateKey: KeyObject;
}

export interface Checkpoint {
  readonly origin: string;
  readonly size: number;
  readonly root: Buffer;
}

/** The bytes of strict standard base64; null for a second spelling of the same bytes, too. */
function base64Bytes(text: string): Buffer | null {
  const bytes = Buffer.from(text, 'base64');
  return bytes.toString('base64') === text ? bytes : null;
}

const keyHash = (name: string, publicKey: Uint8Array): Buffer => createHash('sha256').update(name).update(Buffer.of(0x0a, ed25519)).update(publicKey).digest().subarray(0, 4);

/** @param seed 32 bytes, the private key @param name no space, no `+` */
export function noteSigner(name: string, seed: Uint8Array): NoteSigner {
  if (!/^[^\s+]+$/u.test(name) || seed.length !== 32) throw new SpamerError('internal', 'a note key needs a name without spaces and 32 bytes');
  const privateKey = createPrivateKey({ key: Buffer.concat([pkcs8Prefix, seed]), format: 'der', type: 'pkcs8' });
  const publicKey = createPublicKey(privateKey);
  const raw = publicKey.export({ format: 'der', type: 'spki' }).subarray(spkiPrefix.length);
  const hash = keyHash(name, raw);
  return { name, hash, publicKey, privateKey, verifierText: `${name}+${hash.toString('hex')}+${Buffer.concat([Buffer.of(ed25519), raw]).toString('base64')}` };
}

/** Reads the text of a verifier. @throws SpamerError `bad_request` when it is none. */
export function noteVerifier(text: string): NoteVerifier {
  const [, name = '', hash = '', data = ''] = /^([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)$/u.exec(text.trim()) ?? [];
  const key = base64Bytes(data);
  if (key?.length !== 33 || key[0] !== ed25519 || keyHash(name, key.subarray(1)).toString('hex') !== hash) {
    throw new SpamerError('bad_request', 'this is no verifier key of a signed note (name+hash+key, Ed25519)', { where: 'key' });
  }
  const publicKey = createPublicKey({ key: Buffer.concat([spkiPrefix, key.subarray(1)]), format: 'der', type: 'spki' });
  return { name, hash: Buffer.from(hash, 'hex'), publicKey };
}

/** @param text ends in a newline */
export function signNote(text: string, signer: NoteSigner): string {
  const signature = Buffer.concat([signer.hash, sign(null, Buffer.from(text), signer.privateKey)]);
  return `${text}\n— ${signer.name} ${signature.toString('base64')}\n`;
}

const signatureLine = /^— ([^\s+]+) ([A-Za-z0-9+/=]+)$/u;
const noteCharsMax = 64 * 1024;

/** The text of a note that `verifier` has signed; null: it has not, or this is no note. Signatures of others are passed over, as C2SP asks. */
export function openNote(note: string, verifier: NoteVerifier): string | null {
  const end = note.lastIndexOf('\n\n');
  if (note.length > noteCharsMax || end < 0 || !note.endsWith('\n')) return null;
  const text = note.slice(0, end + 1);
  const lines = note.slice(end + 2, -1).split('\n').map((line) => signatureLine.exec(line));
  if (lines.some((line) => line === null)) return null;
  const own = lines.flatMap((line) => {
    const bytes = line?.[1] === verifier.name ? base64Bytes(line[2] ?? '') : null;
    return bytes !== null && bytes.length === 68 && bytes.subarray(0, 4).equals(verifier.hash) ? [bytes.subarray(4)] : [];
  });
  // One bad signature under our key makes the note bad: the specification's rule.
  return own.length > 0 && own.every((signature) => verify(null, Buffer.from(text), verifier.publicKey, signature)) ? text : null;
}

export const checkpointText = ({ origin, size, root }: Checkpoint): string => `${origin}\n${size}\n${root.toString('base64')}\n`;

/** The checkpoint in a note that the verifier has signed; null: there is none. The origin is the key's name. */
export function openCheckpoint(note: string, verifier: NoteVerifier): Checkpoint | null {
  const [origin, sizeText = '', rootText = ''] = openNote(note, verifier)?.split('\n') ?? [];
  const root = base64Bytes(rootText);
  const size = /^(?:0|[1-9]\d{0,15})$/.test(sizeText) ? Number(sizeText) : NaN;
  return origin === verifier.name && root?.length === 32 && Number.isSafeInteger(size) ? { origin, size, root } : null;
}
