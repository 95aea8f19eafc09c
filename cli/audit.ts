import { createReadStream, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import type { Command } from 'commander';
import { SpamerError } from '../core/errors.js';
import { noteVerifier } from '../security/note.js';
import type { Finding, Verdict } from '../security/verify-export.js';
import { openProgress, type Progress } from './progress.js';
import type { Server } from './server.js';
import { action, command, patientArgument, positive, timeArgument, withServer, type CommonOptions } from './context.js';

type ToFile = CommonOptions & { readonly out?: string };

export function audit(): Command {
  return command('audit', 'Search and export the audit, and verify an export.', ['spamer audit search --patient 3f0c… --from 2026-01-31', 'spamer audit export --out audit.jsonl', 'spamer audit verify audit.jsonl --key audit-key.txt']).addCommand(key()).addCommand(checkpoint()).addCommand(exported()).addCommand(verify()).addCommand(search());
}

function key(): Command {
  return command('key', 'The public key of the audit, as the verifier of a C2SP signed note. Keep it where the exports are not.', ['spamer audit key --out audit-key.txt'])
    .option('--out <file>')
    .action(action<ToFile>('audit key', async ({ output, config }, options) => withServer(config(), async (server) => {
      const answer = (await server.json('/v1/audit/key')) as { key: string };
      if (options.out !== undefined) writeFileSync(options.out, `${answer.key}\n`);
      output.answer(answer, () => output.say(options.out === undefined ? answer.key : `key in ${options.out}`));
    })));
}

function checkpoint(): Command {
  return command('checkpoint', 'A signed checkpoint over the audit as it is now. Kept, it shows later whether history was rewritten.', ['spamer audit checkpoint --out checkpoint.txt'])
    .option('--out <file>')
    .action(action<ToFile>('audit checkpoint', async ({ output, config }, options) => withServer(config(), async (server) => {
      const note = await (await server.get('/v1/audit/checkpoint')).text();
      if (options.out !== undefined) writeFileSync(options.out, note);
      output.answer({ checkpoint: note }, () => output.say(options.out === undefined ? note.trimEnd() : `checkpoint in ${options.out}`));
    })));
}

function exported(): Command {
  return command('export', 'Write the whole audit to a file that can be verified without the server.', ['spamer audit export --out audit.jsonl'])
    .requiredOption('--out <file>', 'JSON lines; commitments in place of ids of people')
    .action(action<CommonOptions & { out: string }>('audit export', async ({ output, config, interrupt: { signal } }, options) => withServer(config(), async (server) => {
      const progress = openProgress(output, 'bytes', null);
      const bytes = await save(await server.get('/v1/audit/export', signal), options.out, progress).finally(() => progress.stop());
      output.answer({ file: options.out, bytes }, () => output.say(`${bytes} bytes in ${options.out}\nNext: spamer audit verify ${options.out} --key <file>`));
    })));
}

/** Under another name until it is whole. @returns its bytes */
async function save(response: Response, file: string, progress: Progress): Promise<number> {
  const part = `${file}.part`;
  const handle = await open(part, 'w', 0o600).catch((cause: unknown) => { throw new SpamerError('bad_request', 'the file cannot be written', { where: part, cause }); });
  let bytes = 0;
  try {
    for await (const piece of response.body ?? []) {
      await handle.write(piece as Uint8Array);
      bytes += (piece as Uint8Array).length;
      progress.add((piece as Uint8Array).length);
    }
    await handle.sync();
    await handle.close();
    renameSync(part, file);
  } catch (cause) {
    await handle.close().catch(() => undefined);
    rmSync(part, { force: true });
    throw new SpamerError('unreachable', 'the export broke off', { where: file, cause });
  }
  return bytes;
}

function verify(): Command {
  return command('verify', 'Check an export, offline: exit 0 nothing was changed, 1 something was, 2 it can\'t be checked.', ['spamer audit verify audit.jsonl --key audit-key.txt', 'spamer audit verify audit.jsonl --key audit-key.txt --against checkpoint.txt'])
    .argument('<export>', 'file')
    .requiredOption('--key <file>', 'the audit\'s public key, kept from before')
    .option('--against <file>', 'a checkpoint that was kept: the export must go on from it')
    .action(action<CommonOptions & { key: string; against?: string }>('audit verify', async ({ output }, options, [file]) => {
      const older = options.against === undefined ? null : read(options.against);
      const { verifyExport } = await import('../security/verify-export.js');
      const verdict = await verifyExport(pieces(file ?? ''), noteVerifier(read(options.key)), older);
      output.answer(verdict, () => output.say(told(verdict)));
      return verdict.holds ? 0 : 1;
    }));
}

interface Found {
  readonly time: string;
  readonly action: string;
  readonly outcome: string;
  readonly actor: { readonly kind: string; readonly id: string | null };
  readonly patient: string | null;
}
type Search = CommonOptions & { readonly person?: string; readonly patient?: string; readonly action?: string; readonly from?: number; readonly to?: number; readonly limit: number };

function search(): Command {
  return command('search', 'Entries by person, patient, action and time, in the order of time; one JSON value a line with --json.', ['spamer audit search --patient 3f0c… --action patients.record.read', 'spamer audit search --person "Dr. Example" --from 2026-01-31T00:00:00Z --json'])
    .option('--person <id>', 'a user, the subject of a token, or a device')
    .option('--patient <id>', 'found until the patient is erased', patientArgument)
    .option('--action <name>', 'the action; with a dot at its end, all that begin so')
    .option('--from <time>', 'RFC 3339 with its zone, a date, or microseconds', timeArgument)
    .option('--to <time>', 'up to, and without, this time', timeArgument)
    .option('--limit <entries>', 'at most so many', positive, 1000)
    .action(action<Search>('audit search', async ({ output, config }, options) => withServer(config(), async (server) => {
      for await (const row of searched(server, options)) {
        output.record(row, () => [row.time, row.outcome.padEnd(6), row.action, `${row.actor.kind} ${row.actor.id ?? '(not known any more)'}`, row.patient ?? ''].join('  ').trimEnd());
      }
    })));
}

/** Page by page: each looks at a bounded part of the audit, so one without a row is not the end. */
async function* searched(server: Server, { person, patient, action: name, from, to, limit }: Search): AsyncGenerator<Found> {
  const asked = { person, patient, action: name, from, to };
  let left = Math.floor(limit);
  for (let cursor: number | null = 0; cursor !== null && left > 0;) {
    const query = new URLSearchParams({ cursor: String(cursor), limit: String(Math.min(left, 1000)) });
    for (const [key, value] of Object.entries(asked)) if (value !== undefined) query.set(key, String(value));
    const page = (await server.json(`/v1/audit/search?${query.toString()}`)) as { rows: readonly Found[]; next: number | null };
    left -= page.rows.length;
    cursor = page.next;
    yield* page.rows;
  }
}

function told(verdict: Verdict): string {
  const { holds, entries, checkpoints, origin, exportedAt, findings, against } = verdict;
  if (!holds) return ['NOT as it was signed:', ...findings.map(finding)].join('\n');
  return `valid: ${entries} entries of ${origin} under ${checkpoints} checkpoints, all there were at ${exportedAt ?? ''}${against === null ? '' : `; goes on from the checkpoint over ${against}`}`;
}

const finding = ({ what, line, from, to }: Finding): string => `${line === null ? '' : `line ${line}: `}${what}${from === null || to === null ? '' : ` (entries ${from} to ${to})`}`;

const unreadable = (file: string, cause: unknown): SpamerError => new SpamerError('bad_request', 'the file cannot be read', { where: file, cause });

async function* pieces(file: string): AsyncGenerator<string> {
  try {
    for await (const piece of createReadStream(file, 'utf8')) yield piece as string;
  } catch (cause) {
    throw unreadable(file, cause);
  }
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw unreadable(file, cause);
  }
}
