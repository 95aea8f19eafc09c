import { mkdirSync } from 'node:fs';
import { Option, type Command } from 'commander';
import { SpamerError } from '../core/errors.js';
import { decodeFrameBodies, type DecodedFrame } from '../schemas/frames.js';
import { writeCsv } from './export/csv.js';
import { writeEdf } from './export/edf.js';
import { collect, type Exported } from './export/record.js';
import { writeWfdb } from './export/wfdb.js';
import { action, command, timeArgument, withServer, type CommonOptions } from './context.js';
import type { Server } from './server.js';

const writers = { csv: writeCsv, wfdb: writeWfdb, edf: writeEdf } as const;

interface ExportOptions extends CommonOptions {
  readonly patient: string;
  /** Microseconds since 1970. */
  readonly from?: number;
  readonly to?: number;
  readonly format: keyof typeof writers;
  readonly out: string;
  readonly name: string;
}

/** How long the token lives that an administrator's command makes for one export. */
const exportTokenS = 600;

/** `spamer pmr export`: one patient's record out of the sealed store, as files. */
export function pmr(): Command {
  const exporting = command('export', 'Write one patient\'s record to files.', ['spamer pmr export --patient 3f0c… --format csv --out record', 'spamer pmr export --patient 3f0c… --from 2026-01-31T12:00:00Z --to 2026-01-31T13:00:00Z --format wfdb --out record'])
    .requiredOption('--patient <id>', 'whose record')
    .option('--from <time>', 'from this time on (RFC 3339, a date, or microseconds)', timeArgument)
    .option('--to <time>', 'up to this time', timeArgument)
    .addOption(new Option('--format <format>', 'file format').choices(Object.keys(writers)).default('csv'))
    .requiredOption('--out <folder>', 'folder for the files; made if absent. They are clear: whoever reads them reads the record')
    .option('--name <name>', 'name of the files', 'record')
    .action(action<ExportOptions>('pmr export', async ({ output, config }, options) => withServer(config(), async (server) => {
      const { frames, unreadable } = await readFrames(server, options, (count) => { if (process.stderr.isTTY && !output.json) process.stderr.write(`\r${count} frames read`); });
      for (const place of unreadable) output.note(`a stored chunk does not open and is not in the files: pmr.chunks/${place} [block_unreadable]`);
      if (frames.length === 0) throw new SpamerError('not_found', 'there is nothing of this patient in that time');
      mkdirSync(options.out, { recursive: true, mode: 0o700 });
      const exported: Exported = await writers[options.format](collect(frames), { folder: options.out, name: options.name });
      output.answer({ ...exported, unreadable }, () => {
        for (const file of exported.files) output.say(file);
        for (const note of exported.notes) output.say(`note: ${note}`);
      });
      return unreadable.length === 0 ? 0 : 1;
    })));
  return command('pmr', 'Patients\' medical records.', ['spamer pmr export --help']).addCommand(exporting);
}

interface Read {
  readonly frames: readonly DecodedFrame[];
  /** Chunks that do not open, as partition/offset. */
  readonly unreadable: readonly string[];
}

async function readFrames(server: Server, options: ExportOptions, onProgress: (frames: number) => void): Promise<Read> {
  const reader = await asClinician(server, options.patient);
  const frames: DecodedFrame[] = [];
  const unreadable: string[] = [];
  let cursor: string | null = null;
  do {
    const query = new URLSearchParams({ format: 'avro', ...(options.from === undefined ? {} : { from: String(options.from) }), ...(options.to === undefined ? {} : { to: String(options.to) }), ...(cursor === null ? {} : { cursor }) });
    const response: Response = await reader.get(`/v1/patients/${encodeURIComponent(options.patient)}/record?${query.toString()}`);
    const bytes = Buffer.from(await response.arrayBuffer());
    // For every chunk: 16 bytes device, uint32 length, the bodies of its frames.
    for (let at = 0; at < bytes.length;) {
      const length = bytes.readUInt32BE(at + 16);
      for (const frame of decodeFrameBodies(bytes.subarray(at + 20, at + 20 + length))) frames.push(within(frame, options));
      at += 20 + length;
    }
    unreadable.push(...(response.headers.get('x-unreadable-chunks')?.split(',') ?? []));
    onProgress(frames.length);
    cursor = response.headers.get('x-next-cursor');
  } while (cursor !== null);
  return { frames, unreadable };
}

/** Chunks overlap the borders of the time asked for; numerics and waves outside it go. */
function within(frame: DecodedFrame, { from, to }: ExportOptions): DecodedFrame {
  const fromUs = from ?? -Infinity;
  const toUs = to ?? Infinity;
  const inside = (us: number): boolean => us >= fromUs && us < toUs;
  const waveforms = frame.waveforms.flatMap((wave) => {
    const periodUs = wave.periodNs / 1000;
    const first = Math.max(0, Math.ceil((fromUs - wave.t0) / periodUs));
    const end = Math.min(wave.samples.length, Math.ceil((toUs - wave.t0) / periodUs));
    return first >= end ? [] : [{ ...wave, t0: Math.round(wave.t0 + first * periodUs), samples: wave.samples.subarray(first, end) }];
  });
  return { ...frame, waveforms, numerics: frame.numerics.filter(({ time }) => inside(time)), events: frame.events.filter(({ time }) => inside(time)) };
}

/** Administrators may not read records; the local one may make a token that can, for this patient and ten minutes. */
async function asClinician(server: Server, patient: string): Promise<Server> {
  if (process.env['SPAMER_TOKEN'] !== undefined) return server;
  const { token } = (await server.send('POST', '/v1/tokens', { role: 'clinician', subject: 'pmr export', expiresInS: exportTokenS, patients: [patient] })) as { token: string };
  return server.as(token);
}
