import { createHash, type Hash } from 'node:crypto';
import { z } from 'zod';
import { SpamerError } from '../core/errors.js';
import { decode } from '../schemas/codec.js';
import { exportFormat, exportVersion, openStatement, type Statement } from './export.js';
import { Frontier, leafHash } from './merkle.js';
import { openCheckpoint, type Checkpoint, type NoteVerifier } from './note.js';

/** What is wrong, and where; `from` and `to` are indexes of entries, as narrow as checkpoints allow. */
export interface Finding {
  readonly what: string;
  readonly line: number | null;
  readonly from: number | null;
  readonly to: number | null;
}

export interface Verdict {
  readonly holds: boolean;
  readonly findings: readonly Finding[];
  readonly entries: number;
  readonly checkpoints: number;
  readonly origin: string;
  /** Hex; of all entries that the file has. */
  readonly root: string;
  /** When the file was made, as its signed statement says. */
  readonly exportedAt: string | null;
  /** Size of the older checkpoint that the file was held against. */
  readonly against: number | null;
}

const header = z.strictObject({ format: z.literal(exportFormat), version: z.literal(exportVersion), key: z.string() });
const content = z.union([z.strictObject({ entry: z.number().int().min(0), leaf: z.string() }), z.strictObject({ checkpoint: z.string() }), z.strictObject({ statement: z.string() })]);
const findingsMax = 20;
const lineCharsMax = 1024 * 1024;

/** Checks an export with nothing but itself, the key, and perhaps a checkpoint that was kept: line by line, in bounded memory. */
export class ExportVerifier {
  readonly #verifier: NoteVerifier;
  readonly #older: Checkpoint | null;
  readonly #findings: Finding[] = [];
  readonly #frontier = Frontier.empty();
  readonly #digest: Hash = createHash('sha256');
  #line = 0;
  #time = 0;
  #checkpoints = 0;
  /** Entries that the last good checkpoint covers. */
  #covered = 0;
  #statement: Statement | null = null;
  #olderMet = false;

  /**
   * @param olderNote a checkpoint that the auditor kept
   * @throws SpamerError `bad_request` when that is none of this key
   */
  constructor(verifier: NoteVerifier, olderNote: string | null) {
    this.#verifier = verifier;
    this.#older = olderNote === null ? null : openCheckpoint(olderNote, verifier);
    if (olderNote !== null && this.#older === null) throw new SpamerError('bad_request', 'the older checkpoint is not signed by this key', { where: 'against' });
    this.#meetOlder();
  }

  /** One line, without its end. */
  take(line: string): void {
    this.#line += 1;
    if (this.#statement !== null) return this.#find('there is something after the end of the export');
    const json = line.length > lineCharsMax ? undefined : parsed(line);
    const statement = this.#line === 1 ? this.#header(json) : this.#content(json, line);
    if (!statement) this.#digest.update(line).update('\n');
  }

  /** @param rest what came after the last end of a line; '' when the file is whole */
  finish(rest: string): Verdict {
    const { size } = this.#frontier;
    if (rest !== '') this.#find('the file ends within a line');
    if (this.#line === 0) this.#find('the file is empty');
    if (this.#statement === null) this.#find('the export is cut off: its signed statement is missing', this.#covered, size);
    if (this.#covered < size) this.#find('no checkpoint covers these entries', this.#covered, size);
    if (this.#older !== null && !this.#olderMet) this.#find('the export has fewer entries than the older checkpoint: entries were removed from its end, or it is another tree', size, this.#older.size);
    return {
      holds: this.#findings.length === 0,
      findings: this.#findings,
      entries: size,
      checkpoints: this.#checkpoints,
      origin: this.#verifier.name,
      root: this.#frontier.root().toString('hex'),
      exportedAt: this.#statement?.time ?? null,
      against: this.#older?.size ?? null,
    };
  }

  #find(what: string, from: number | null = null, to: number | null = null): void {
    if (this.#findings.length < findingsMax) this.#findings.push({ what, line: this.#line, from, to });
  }

  #header(json: unknown): false {
    const read = header.safeParse(json);
    if (!read.success) this.#find('this does not begin as an export of version 1 does');
    else if (!read.data.key.startsWith(`${this.#verifier.name}+`)) this.#find('the export is of another audit than the key');
    return false;
  }

  /** @returns whether it was the statement. */
  #content(json: unknown, line: string): boolean {
    const read = content.safeParse(json);
    if (!read.success) this.#find('this line is no entry and no checkpoint');
    else if ('entry' in read.data) this.#entry(read.data.entry, read.data.leaf);
    else if ('checkpoint' in read.data) this.#checkpoint(read.data.checkpoint);
    else return this.#end(read.data.statement, line);
    return false;
  }

  #entry(index: number, leaf: string): void {
    const { size } = this.#frontier;
    if (index !== size) this.#find(index > size ? 'entries are missing here' : 'an entry is here that belongs elsewhere', Math.min(index, size), Math.max(index, size));
    const bytes = Buffer.from(leaf, 'base64');
    const time = timeOf(bytes);
    if (time === null || bytes.toString('base64') !== leaf) this.#find('this is no entry', size, size + 1);
    else if (time < this.#time) this.#find('an entry is older than the one before it', size, size + 1);
    this.#time = Math.max(this.#time, time ?? 0);
    this.#frontier.append(leafHash(bytes));
    this.#meetOlder();
  }

  #checkpoint(note: string): void {
    this.#checkpoints += 1;
    const { size } = this.#frontier;
    const signed = openCheckpoint(note, this.#verifier);
    if (signed === null) return this.#find('a checkpoint is not signed by this key', this.#covered, size);
    if (signed.size !== size) this.#find(signed.size > size ? 'entries are missing before this checkpoint' : 'entries were added before this checkpoint', Math.min(this.#covered, signed.size), Math.max(size, signed.size));
    else if (!signed.root.equals(this.#frontier.root())) this.#find('entries were changed, added, removed or reordered here: they are not what the checkpoint was signed over', this.#covered, size);
    this.#covered = size;
  }

  #end(note: string, line: string): true {
    const { size } = this.#frontier;
    // The only line that no digest covers: one spelling, one signature.
    if (line !== JSON.stringify({ statement: note }) || !/[^\n]\n\n— [^\n]+\n$/u.test(note)) this.#find('the statement was changed');
    const statement = openStatement(note, this.#verifier);
    if (statement === null) this.#find('the statement is not signed by this key', this.#covered, size);
    else if (statement.size !== size || !statement.root.equals(this.#frontier.root())) this.#find('the entries are not those that were exported', this.#covered, Math.max(size, statement.size));
    else if (!statement.digest.equals(this.#digest.copy().digest())) this.#find('bytes of the export were changed');
    this.#statement = statement ?? { origin: '', size: 0, root: Buffer.alloc(0), digest: Buffer.alloc(0), time: '' };
    return true;
  }

  /** The tree grows through the size of the older checkpoint once: there its root must be the one that was signed. */
  #meetOlder(): void {
    if (this.#older === null || this.#olderMet || this.#frontier.size !== this.#older.size) return;
    this.#olderMet = true;
    if (!this.#frontier.root().equals(this.#older.root)) this.#find('a fork: the older checkpoint was signed over other entries', 0, this.#older.size);
  }
}

/**
 * Checks an export as it is read.
 * @param text in pieces of any size, as UTF-8
 */
export async function verifyExport(text: AsyncIterable<string> | Iterable<string>, verifier: NoteVerifier, olderNote: string | null = null): Promise<Verdict> {
  const checking = new ExportVerifier(verifier, olderNote);
  let rest = '';
  for await (const piece of text) {
    const lines = (rest + piece).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) checking.take(line);
    if (rest.length <= lineCharsMax) continue;
    // No line of an export is so long: told as one that is none, and not kept.
    checking.take(rest);
    rest = '';
  }
  return checking.finish(rest);
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function timeOf(leaf: Buffer): number | null {
  try {
    return decode('AuditRecord', leaf).time;
  } catch {
    return null;
  }
}
