import { SpamerError } from '../../core/errors.js';
import { uuidText, type DeviceId } from '../../core/ids.js';
import { decodeFrameBodies } from '../../schemas/frames.js';
import { withServer, type CommonOptions, type Context } from '../context.js';
import type { Output } from '../output.js';
import { openProgress, type Progress } from '../progress.js';
import type { Server } from '../server.js';
import { writeCsv } from './csv.js';
import { writeEdf } from './edf.js';
import { readKeyFile, writePortable } from './portable.js';
import { collect, type DeviceFrame, type Exported } from './record.js';
import { writeWfdb } from './wfdb.js';
import { writeWhole } from './whole.js';

const writers = { csv: writeCsv, wfdb: writeWfdb, edf: writeEdf } as const;

export interface ExportOptions extends CommonOptions {
  readonly patient: string;
  /** Microseconds since 1970. */
  readonly from?: number;
  readonly to?: number;
  readonly format: keyof typeof writers | 'jwe';
  /** File of the public JWK, with format jwe. */
  readonly key?: string;
  readonly out: string;
  readonly name: string;
}

/** How long the token lives that an administrator's command makes for one export. */
const exportTokenS = 600;

/** What `spamer pmr export` does. @returns 1: not everything is in the files */
export async function exportRecord(context: Context, options: ExportOptions): Promise<number> {
  const { format, key } = options;
  if ((format === 'jwe') !== (key !== undefined)) throw new SpamerError('bad_request', '--format jwe and --key go together', { where: '--key' });
  if (format !== 'jwe') return withServer(context.config(), (server) => exportClear(server, context, options, writers[format]));
  const recipient = readKeyFile(key ?? '');
  return withServer(context.config(), (server) => exportSealed(server, context, options, recipient));
}

async function exportClear(server: Server, { output, interrupt: { signal } }: Context, options: ExportOptions, write: (typeof writers)[keyof typeof writers]): Promise<number> {
  const progress = openProgress(output, 'frames read', null);
  const { frames, unreadable } = await readFrames(server, options, signal, progress).finally(() => progress.stop());
  tellUnreadable(output, unreadable);
  const record = collect(frames, { fromUs: options.from ?? -Infinity, toUs: options.to ?? Infinity });
  if (record.channels.length + record.numerics.length + record.events.length === 0) throw new SpamerError('not_found', 'there is nothing of this patient in that time');
  const exported = await writeWhole(options.out, signal, (folder) => write(record, { folder, name: options.name }));
  return told(output, exported, unreadable);
}

async function exportSealed(server: Server, { output, interrupt: { signal } }: Context, { patient, from, to, out, name }: ExportOptions, key: Readonly<Record<string, unknown>>): Promise<number> {
  const reader = await asClinician(server, patient);
  const progress = openProgress(output, 'parts written', null);
  const unreadable: string[] = [];
  const asked = { patient, key, ...(from === undefined ? {} : { from }), ...(to === undefined ? {} : { to }) };
  const exported = await writeWhole(out, signal, async (folder) => {
    const written = await writePortable(reader, asked, { folder, name }, () => progress.add(1));
    unreadable.push(...written.unreadable);
    return written;
  }).finally(() => progress.stop());
  tellUnreadable(output, unreadable);
  return told(output, exported, unreadable);
}

function tellUnreadable(output: Output, places: readonly string[]): void {
  for (const place of places) output.note(`a stored chunk does not open and is not in the files: pmr.chunks/${place} [block_unreadable]`);
}

/** 1: not everything is in the files. */
function told(output: Output, { files, notes }: Exported, unreadable: readonly string[]): number {
  output.answer({ files, notes, unreadable }, () => {
    for (const file of files) output.say(file);
    for (const note of notes) output.say(`note: ${note}`);
  });
  return unreadable.length === 0 ? 0 : 1;
}

interface Read {
  readonly frames: readonly DeviceFrame[];
  /** Chunks that do not open, as partition/offset. */
  readonly unreadable: readonly string[];
}

async function readFrames(server: Server, options: ExportOptions, signal: AbortSignal, progress: Progress): Promise<Read> {
  const reader = await asClinician(server, options.patient);
  const frames: DeviceFrame[] = [];
  const unreadable: string[] = [];
  let cursor: string | null = null;
  do {
    const query = new URLSearchParams({ format: 'avro', ...(options.from === undefined ? {} : { from: String(options.from) }), ...(options.to === undefined ? {} : { to: String(options.to) }), ...(cursor === null ? {} : { cursor }) });
    const response: Response = await reader.get(`/v1/patients/${encodeURIComponent(options.patient)}/record?${query.toString()}`, signal);
    const bytes = Buffer.from(await response.arrayBuffer());
    const before = frames.length;
    // For every chunk: 16 bytes device, uint32 length, the bodies of its frames.
    for (let at = 0; at < bytes.length;) {
      const length = bytes.readUInt32BE(at + 16);
      const device = uuidText<DeviceId>(bytes.subarray(at, at + 16));
      for (const frame of decodeFrameBodies(bytes.subarray(at + 20, at + 20 + length))) frames.push({ ...frame, device });
      at += 20 + length;
    }
    unreadable.push(...(response.headers.get('x-unreadable-chunks')?.split(',') ?? []));
    progress.add(frames.length - before);
    cursor = response.headers.get('x-next-cursor');
  } while (cursor !== null);
  return { frames, unreadable };
}

/** Administrators may not read records; the local one may make a token that can, for this patient and ten minutes. */
async function asClinician(server: Server, patient: string): Promise<Server> {
  if (process.env['SPAMER_TOKEN'] !== undefined) return server;
  const { token } = (await server.send('POST', '/v1/tokens', { role: 'clinician', subject: 'pmr export', expiresInS: exportTokenS, patients: [patient] })) as { token: string };
  return server.as(token);
}
