import { createHash } from 'node:crypto';
import { limits } from '../core/limits.js';
import { checkpointText, openCheckpoint, openNote, signNote, type Checkpoint, type NoteSigner, type NoteVerifier } from './note.js';
import type { StoredCheckpoint, StoredTrail } from './trail.js';

/**
 * The audit as a file, JSON lines:
 *
 *   {"format":"spamer-audit-export","version":1,"key":VERIFIER}
 *   {"entry":INDEX,"leaf":BASE64}            from 0 on, without a gap
 *   {"checkpoint":NOTE}                      after the entries that it covers
 *   {"statement":NOTE}                       last; a signed note whose text is
 *
 *   "spamer audit export v1" \n origin \n size \n base64(root) \n base64(SHA-256 of all bytes before this line) \n time (RFC 3339) \n
 *
 * Checkpoints say where something was changed; the statement says that nothing was, and that this was all there was at that time.
 */
export const exportFormat = 'spamer-audit-export';
export const exportVersion = 1;
const statementHead = 'spamer audit export v1';

export interface Statement extends Checkpoint {
  readonly digest: Buffer;
  readonly time: string;
}

function statementText({ digest, time, ...checkpoint }: Statement): string {
  return `${statementHead}\n${checkpointText(checkpoint)}${digest.toString('base64')}\n${time}\n`;
}

/** The statement in a note that the verifier has signed; null: there is none. */
export function openStatement(note: string, verifier: NoteVerifier): Statement | null {
  const [head, origin, size = '', root = '', digest = '', time = '', end] = openNote(note, verifier)?.split('\n') ?? [];
  if (head !== statementHead || origin !== verifier.name || end !== '') return null;
  return { origin, size: Number(size), root: Buffer.from(root, 'base64'), digest: Buffer.from(digest, 'base64'), time };
}

/** Everything up to and with `last`, a checkpoint of the store. */
export async function* exportLines(store: StoredTrail, signer: NoteSigner, last: StoredCheckpoint | null, nowUs: number): AsyncGenerator<string> {
  const digest = createHash('sha256');
  const line = (value: object): string => {
    const text = `${JSON.stringify(value)}\n`;
    digest.update(text);
    return text;
  };
  yield line({ format: exportFormat, version: exportVersion, key: signer.verifierText });
  let next = 0;
  for await (const checkpoint of checkpointsUpTo(store, last)) {
    while (next < checkpoint.size) {
      const entries = await store.entries(next, Math.min(limits.auditBatchMax, checkpoint.size - next));
      yield entries.map(({ index, leaf }) => line({ entry: index, leaf: Buffer.from(leaf).toString('base64') })).join('');
      next += entries.length;
      if (entries.length === 0) break;
    }
    yield line({ checkpoint: checkpoint.note });
  }
  const signed = last === null ? null : openCheckpoint(last.note, signer);
  const root = signed?.root ?? createHash('sha256').digest();
  yield `${JSON.stringify({ statement: signNote(statementText({ origin: signer.name, size: signed?.size ?? 0, root, digest: digest.digest(), time: new Date(nowUs / 1000).toISOString() }), signer) })}\n`;
}

async function* checkpointsUpTo(store: StoredTrail, last: StoredCheckpoint | null): AsyncGenerator<StoredCheckpoint> {
  if (last === null) return;
  for (let from = 0; ;) {
    const found = await store.checkpoints(from, limits.auditBatchMax);
    for (const checkpoint of found) {
      if (checkpoint.size > last.size) return;
      yield checkpoint;
    }
    if (found.length === 0) return;
    from += found.length;
  }
}
