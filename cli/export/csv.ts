/**
 * CSV: for each wave `<name>.<signal>.csv` (time_us, sample, value), `<name>.numerics.csv`, `<name>.events.csv`, and
 * `<name>.json`, which says device, code, unit, period, scale and offset of each file. Values have exactly the digits of their scale.
 */
import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { physical } from '../../device-emulator/source.js';
import { shortNameOf } from '../../device-emulator/signal-names.js';
import { sampleTimeUs } from '../../schemas/frames.js';
import { ucumOf } from '../../schemas/signals.js';
import type { Channel, DeviceNumeric, Exported, ExportPlace, PatientRecord } from './record.js';

export async function writeCsv(record: PatientRecord, { folder, name }: ExportPlace): Promise<Exported> {
  const files: string[] = [];
  const put = async (suffix: string, lines: Iterable<string>): Promise<string> => {
    const file = join(folder, `${name}.${suffix}`);
    await writeLines(file, lines);
    files.push(file);
    return `${name}.${suffix}`;
  };
  const taken = new Map<string, number>();
  const described: object[] = [];
  for (const channel of record.channels) {
    const count = (taken.get(channel.name) ?? 0) + 1;
    taken.set(channel.name, count);
    const file = await put(`${channel.name}${count === 1 ? '' : `-${count}`}.csv`, waveLines(channel));
    const { parts, ...about } = channel;
    described.push({ file, ...about, ucum: ucumOf(channel.unit), samples: parts.reduce((sum, { samples }) => sum + samples.length, 0) });
  }
  await put('numerics.csv', numericLines(record.numerics));
  await put('events.csv', eventLines(record));
  const about = join(folder, `${name}.json`);
  await writeFile(about, `${JSON.stringify({ channels: described, time: 'time_us: microseconds since 1970-01-01T00:00:00Z; value = sample × scale + offset' }, null, 2)}\n`, { mode: 0o600 });
  return { files: [...files, about], notes: [] };
}

function* waveLines(channel: Channel): Generator<string> {
  yield 'time_us,sample,value';
  for (const { t0, first, samples } of channel.parts) {
    for (let at = 0; at < samples.length; at++) {
      const sample = samples[at] ?? 0;
      yield `${sampleTimeUs(t0, channel.periodNs, first + at)},${sample},${physical(sample, channel.scale, channel.offset)}`;
    }
  }
}

export function* numericLines(numerics: readonly DeviceNumeric[]): Generator<string> {
  yield 'time_us,code,name,unit,value,device';
  for (const { time, code, unit, value, device } of numerics) yield `${time},${code},${shortNameOf(code)},${ucumOf(unit)},${value},${device}`;
}

function* eventLines({ events }: PatientRecord): Generator<string> {
  yield 'time_us,kind,code,name,duration_us,priority,device';
  for (const { time, kind, code, durationUs, priority, device } of events) yield `${time},${kind},${code},${code === 0 ? '' : shortNameOf(code)},${durationUs},${priority},${device}`;
}

/** In pieces: a day of one wave is a gigabyte of text. */
export async function writeLines(file: string, lines: Iterable<string>): Promise<void> {
  const handle = await open(file, 'w', 0o600);
  try {
    let waiting: string[] = [];
    for (const line of lines) {
      if (waiting.push(line) < 20_000) continue;
      await handle.write(`${waiting.join('\n')}\n`);
      waiting = [];
    }
    if (waiting.length > 0) await handle.write(`${waiting.join('\n')}\n`);
  } finally {
    await handle.close();
  }
}
