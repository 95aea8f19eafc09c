import { createPrivateKey, createPublicKey, randomBytes, randomUUID, sign, type JsonWebKey } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { SpamerError } from '../core/errors.js';
import { PassphraseKek, type Kek } from './kek.js';
import { keystorePath, passphrasePath } from './keystore-paths.js';
import { sealKeystore, unsealKeystore, type KeystoreContent, type KeystoreFile, type KeystoreVersion } from './keystore-file.js';
import { finishReplacement, overwrite, readIfThere, replaceFile } from './replace.js';
import { covers, leafKey, puncture } from './tree.js';

export interface KeystoreOptions {
  readonly passphrase?: string | undefined;
  /** The key service that new versions are written under; absent: the passphrase, configured or generated. */
  readonly kms?: Kek | undefined;
  /** False when data exist that another keystore sealed: then a missing file is damage, no first start. */
  readonly mayCreate: boolean;
  /** scrypt's N for a new file; a reader takes the file's own. */
  readonly scryptN?: number;
}

/** The generated passphrase that a rotation is about to use: there before the keystore that needs it. */
const nextPassphrasePath = (dir: string): string => `${passphrasePath(dir)}.next`;

/** PKCS #8 of an Ed25519 private key before its 32 bytes (RFC 8410 §7). */
const ed25519Prefix = Buffer.from('302e020100300506032b657004220420', 'hex');

/**
 * The keystore: one small file, `keystore.json` (security/keystore-file.ts), that holds the covering nodes of the key tree, the
 * blind index key and the seed that signs certificates, under a KEK. Everything else may be backed up freely; this is the file
 * whose destruction destroys (DESIGN §10), so it is replaced whole, version by version, and never copied by the program.
 */
export class Keystore {
  /** What an operator must be told; null when nothing. */
  readonly warning: string | null;
  readonly #dir: string;
  readonly #scryptN: number | undefined;
  #kek: Kek;
  /** Whether the passphrase was generated, and so lies beside. */
  #generated: boolean;
  #file: KeystoreFile;
  #content: KeystoreContent;
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(dir: string, options: KeystoreOptions, keks: Keks, file: KeystoreFile, content: KeystoreContent) {
    this.#dir = dir;
    this.#scryptN = options.scryptN;
    this.#kek = keks.write;
    this.#generated = keks.generated;
    this.#file = file;
    this.#content = content;
    this.warning = keks.generated ? generatedWarning(passphrasePath(dir)) : null;
  }

  /**
   * Opens the keystore of a data folder; on first start creates it. What a kill interrupted is finished.
   * @throws SpamerError `passphrase_wrong`, `data_damaged`, `data_newer`, `unreachable`, `kms_refused`; then nothing was changed.
   */
  static async open(dir: string, options: KeystoreOptions): Promise<Keystore> {
    const path = keystorePath(dir);
    const text = await readIfThere(path);
    if (text === null && !options.mayCreate) throw new SpamerError('data_damaged', 'the keystore is missing, but data exist that it sealed', { where: path });
    const keks = await chooseKeks(dir, options, text === null);
    if (text === null) {
      const content = { nodes: [{ depth: 0, index: 0, key: randomBytes(32) }], blindIndexKey: randomBytes(32), signingSeed: randomBytes(32) };
      const made = await sealKeystore(content, randomUUID(), null, keks.write);
      await replaceFile(path, made.text);
      return new Keystore(dir, options, keks, made.file, content);
    }
    const { file, content, used } = await openWith(path, text, keks);
    // Of two generated passphrases the one that fits goes on.
    const write = used !== null && options.kms === undefined ? used : keks.write;
    const keystore = new Keystore(dir, options, { ...keks, write }, file, content);
    // Of passphrases too: what was replaced opens older keystores.
    for (const each of [path, passphrasePath(dir), nextPassphrasePath(dir)]) await finishReplacement(each);
    await keystore.#settlePassphrase();
    if (file.number === 0) await keystore.#write(content, write);
    return keystore;
  }

  /** Random UUID: the registry remembers which keystore it belongs to. */
  get id(): string {
    return this.#file.id;
  }

  get version(): KeystoreVersion {
    return { number: this.#file.number, hash: this.#file.hash };
  }

  get kekKind(): string {
    return this.#file.kek.kind;
  }

  get nodeCount(): number {
    return this.#content.nodes.length;
  }

  /** Slots whose wrap key is gone: what the covering nodes leave out. */
  get punctures(): number {
    return 2 ** 32 - this.#content.nodes.reduce((covered, { depth }) => covered + 2 ** (32 - depth), 0);
  }

  get generatedPassphrase(): boolean {
    return this.#generated;
  }

  /** Size of the file. */
  async bytes(): Promise<number> {
    return (await stat(keystorePath(this.#dir))).size;
  }

  get blindIndexKey(): Uint8Array {
    return this.#content.blindIndexKey;
  }

  /** The wrap key of a slot; null: punctured [ERASED]. */
  wrapKey(slot: number): Buffer | null {
    return covers(this.#content.nodes, slot) ? leafKey(this.#content.nodes, slot) : null;
  }

  /** Destroys the wrap keys of slots, in one new version; the rename within is the point of no return. Slots that are gone already change nothing [ERASED]. */
  puncture(slots: readonly number[]): Promise<KeystoreVersion> {
    return this.#alone(async () => {
      const before = this.#content.nodes;
      const nodes = slots.reduce((left, slot) => puncture(left, slot), before);
      if (nodes === before) return this.version;
      await this.#write({ ...this.#content, nodes }, this.#kek);
      forget(before, nodes);
      return this.version;
    });
  }

  /**
   * Writes the same keys under another KEK: a new passphrase (generated when the present one was), or a new version of the key in the
   * key service, whose older versions are then ended so that older keystores open no more.
   * @throws SpamerError `bad_request` when a configured passphrase is to be replaced and no new one is given
   */
  rekey(passphrase?: string): Promise<KeystoreVersion> {
    return this.#alone(async () => {
      const kek = this.#kek;
      if (kek instanceof PassphraseKek) return this.#rekeyPassphrase(passphrase);
      if (passphrase !== undefined) throw new SpamerError('bad_request', 'the keystore is under a key service, not under a passphrase', { where: 'passphrase' });
      await kek.rotate?.();
      await this.#write(this.#content, kek);
      await kek.retireBefore?.(this.#file.kek);
      return this.version;
    });
  }

  async #rekeyPassphrase(given: string | undefined): Promise<KeystoreVersion> {
    if (given === undefined && !this.#generated) throw new SpamerError('bad_request', 'a new passphrase is needed', { where: 'passphrase' });
    if (given !== undefined && given.length < 8) throw new SpamerError('bad_request', 'a passphrase has at least 8 characters', { where: 'passphrase' });
    const passphrase = given ?? randomBytes(24).toString('base64url');
    // Before the keystore: a kill between the two leaves both passphrases, and the next start finds which one fits.
    if (given === undefined) await replaceFile(nextPassphrasePath(this.#dir), `${passphrase}\n`);
    const kek = new PassphraseKek(passphrase, this.#scryptN);
    await this.#write(this.#content, kek);
    this.#kek = kek;
    if (given === undefined) await this.#settlePassphrase();
    else {
      await overwrite(passphrasePath(this.#dir));
      this.#generated = false;
    }
    return this.version;
  }

  /** After a rotation of a generated passphrase: the one that fits takes its place, the other is overwritten. */
  async #settlePassphrase(): Promise<void> {
    const next = (await readIfThere(nextPassphrasePath(this.#dir)))?.trim();
    if (next === undefined) return;
    if (this.#generated && (await fits(next, this.#file))) await replaceFile(passphrasePath(this.#dir), `${next}\n`);
    await overwrite(nextPassphrasePath(this.#dir));
  }

  /** Ed25519 over `bytes` with the keystore's own key: what certificates are signed with. */
  sign(bytes: Uint8Array): Buffer {
    return sign(null, bytes, this.#signingKey());
  }

  /** The public half, as a JWK. */
  publicKey(): JsonWebKey {
    return createPublicKey(this.#signingKey()).export({ format: 'jwk' });
  }

  #signingKey(): ReturnType<typeof createPrivateKey> {
    return createPrivateKey({ key: Buffer.concat([ed25519Prefix, this.#content.signingSeed]), format: 'der', type: 'pkcs8' });
  }

  async #write(content: KeystoreContent, kek: Kek): Promise<void> {
    const before = this.#file.number === 0 ? null : this.version;
    const { text, file } = await sealKeystore(content, this.id, before, kek);
    const path = keystorePath(this.#dir);
    try {
      await replaceFile(path, text);
    } catch (error) {
      // It may have failed after the rename. What counts is what the file says, else a later version would bring back what this one destroyed.
      if ((await readIfThere(path)) === text) this.#take(file, content);
      throw error;
    }
    this.#take(file, content);
  }

  #take(file: KeystoreFile, content: KeystoreContent): void {
    this.#file = file;
    this.#content = content;
  }

  /** One change at a time: two at once would each build on the same version. */
  #alone<Result>(work: () => Promise<Result>): Promise<Result> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => undefined);
    return turn;
  }
}

/** As far as this language allows it: keys that are held no more are overwritten in memory. */
function forget(before: KeystoreContent['nodes'], after: KeystoreContent['nodes']): void {
  const held = new Set(after);
  for (const node of before) if (!held.has(node)) node.key.fill(0);
}

interface Keks {
  readonly write: Kek;
  readonly read: readonly Kek[];
  readonly generated: boolean;
}

async function chooseKeks(dir: string, options: KeystoreOptions, creating: boolean): Promise<Keks> {
  const { kms, passphrase, scryptN } = options;
  if (passphrase !== undefined) {
    const kek = new PassphraseKek(passphrase, scryptN);
    return { write: kms ?? kek, read: kms === undefined ? [kek] : [kms, kek], generated: false };
  }
  const kept = [];
  for (const path of [passphrasePath(dir), nextPassphrasePath(dir)]) {
    const text = (await readIfThere(path))?.trim();
    if (text !== undefined && text !== '') kept.push(new PassphraseKek(text, scryptN));
  }
  if (kms !== undefined) return { write: kms, read: [kms, ...kept], generated: false };
  if (kept[0] !== undefined) return { write: kept[0], read: kept, generated: true };
  if (!creating) throw new SpamerError('passphrase_wrong', 'the keystore needs its passphrase: none is configured and the generated one is gone', { where: passphrasePath(dir) });
  const made = randomBytes(24).toString('base64url');
  // Written before the keystore: a kill between the two leaves a passphrase without a keystore, which the next start takes up.
  await replaceFile(passphrasePath(dir), `${made}\n`);
  const kek = new PassphraseKek(made, scryptN);
  return { write: kek, read: [kek], generated: true };
}

/** Of two generated passphrases, which a killed rotation leaves, one fits. */
async function openWith(path: string, text: string, keks: Keks): Promise<Awaited<ReturnType<typeof unsealKeystore>> & { readonly used: Kek | null }> {
  const others = keks.read.filter((kek) => !(kek instanceof PassphraseKek));
  const passphrases = keks.read.filter((kek) => kek instanceof PassphraseKek);
  for (const [at, kek] of passphrases.entries()) {
    try {
      return { ...(await unsealKeystore(path, text, [...others, kek])), used: kek };
    } catch (error) {
      const more = at + 1 < passphrases.length && error instanceof SpamerError && error.code === 'passphrase_wrong';
      if (!more) throw error;
    }
  }
  return { ...(await unsealKeystore(path, text, others)), used: null };
}

async function fits(passphrase: string, file: KeystoreFile): Promise<boolean> {
  const { kind, ...fields } = file.kek;
  if (kind !== 'passphrase') return false;
  return new PassphraseKek(passphrase).unwrap(fields, `spamer keystore v2 ${file.id} ${file.number}`).then(() => true, () => false);
}

function generatedWarning(path: string): string {
  return (
    `The keystore's passphrase was generated and lies beside it in ${path} (mode 0600). Whoever can read this folder, or a backup that has both files, ` +
    'can open every record. For real data set SPAMER_PASSPHRASE from a secret store, and keep the keystore out of ordinary backups.'
  );
}
