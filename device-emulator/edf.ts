/** European Data Format (Kemp 1992, doi:10.1016/0013-4694(92)90009-7) and EDF+ in continuous or interrupted form (EDF+C, EDF+D). */
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { SpamerError } from '../core/errors.js';
import { codesOf } from './signal-names.js';
import { columnsSource, missingSample, periodNsOf, type Column, type Source } from './source.js';

interface Head {
  readonly startUs: number;
  readonly records: number;
  readonly recordS: number;
  readonly headerBytes: number;
  readonly interrupted: boolean;
  readonly signals: readonly EdfSignal[];
}

interface EdfSignal {
  readonly label: string;
  readonly unit: string;
  readonly perRecord: number;
  readonly scale: number;
  readonly offset: number;
}

/** @throws SpamerError `not_found`, `bad_request`, `data_damaged`, naming the file. */
export async function openEdf(file: string): Promise<Source> {
  const bytes = await readFile(file).catch((cause: unknown) => { throw new SpamerError('not_found', 'no such EDF file', { where: file, cause }); });
  const head = readHead(bytes, file);
  const recordBytes = head.signals.reduce((sum, { perRecord }) => sum + perRecord, 0) * 2;
  if (bytes.length < head.headerBytes + head.records * recordBytes) throw new SpamerError('data_damaged', 'the file is shorter than its header says', { where: file });
  const onsets = onsetsOf(bytes, head, recordBytes);
  const shown = head.signals.map((signal, at) => ({ signal, at })).filter(({ signal }) => !signal.label.startsWith('EDF Annotations'));
  const rates = shown.map(({ signal }) => signal.perRecord / head.recordS);
  const codes = codesOf(shown.map(({ signal }, order) => ({ label: signal.label, unit: signal.unit, hz: rates[order] ?? 1 })));
  const columns = shown.flatMap(({ signal, at }, order): Column[] => {
    const code = codes[order];
    const hz = rates[order] ?? 1;
    if (code === undefined) return [];
    return [{ ...code, hz, periodNs: periodNsOf(hz), scale: signal.scale, offset: signal.offset, label: signal.label, samples: columnOf(bytes, head, at, recordBytes, onsets) }];
  });
  return columnsSource({ name: basename(file), columns, startUs: head.startUs + Math.round((onsets[0] ?? 0) * 1e6) });
}

function readHead(bytes: Buffer, where: string): Head {
  const text = (at: number, length: number): string => bytes.toString('latin1', at, at + length).trim();
  const count = Number(text(252, 4));
  const records = Number(text(236, 8));
  const recordS = Number(text(244, 8));
  if (text(0, 8) !== '0' || !Number.isInteger(count) || count < 1 || !(recordS > 0) || records < 0) throw new SpamerError('bad_request', 'not an EDF header', { where });
  let at = 256;
  const column = (width: number): string[] => {
    const values = Array.from({ length: count }, (_, order) => text(at + order * width, width));
    at += count * width;
    return values;
  };
  const labels = column(16);
  column(80);
  const dimensions = column(8);
  const [physicalMin, physicalMax, digitalMin, digitalMax] = [column(8), column(8), column(8), column(8)].map((values) => values.map(Number));
  column(80);
  const perRecord = column(8).map(Number);
  const signals = labels.map((label, order): EdfSignal => {
    const low = digitalMin?.[order] ?? 0;
    const span = (digitalMax?.[order] ?? 0) - low;
    const physicalLow = physicalMin?.[order] ?? 0;
    const exact = span === 0 ? 1 : ((physicalMax?.[order] ?? 0) - physicalLow) / span;
    const scale = tidy(exact);
    return { label, unit: dimensions[order] ?? '', perRecord: perRecord[order] ?? 0, scale, offset: tidy(physicalLow - low * scale) };
  });
  return { startUs: startOf(text(168, 8), text(176, 8)), records, recordS, headerBytes: Number(text(184, 8)), interrupted: text(192, 44).startsWith('EDF+D'), signals };
}

/** The header's decimals leave noise in the last bits of a quotient. */
const tidy = (value: number): number => Number(value.toPrecision(12));

function startOf(date: string, time: string): number {
  const [day = 1, month = 1, year = 0] = date.split('.').map(Number);
  const [hour = 0, minute = 0, second = 0] = time.split('.').map(Number);
  return Date.UTC(year >= 85 ? 1900 + year : 2000 + year, month - 1, day, hour, minute, second) * 1000;
}

/** Start of each data record, s: its first annotation says so in EDF+; in plain EDF they follow each other. */
function onsetsOf(bytes: Buffer, head: Head, recordBytes: number): number[] {
  let offset = 0;
  let length = 0;
  for (const { label, perRecord } of head.signals) {
    if (label.startsWith('EDF Annotations')) {
      length = perRecord * 2;
      break;
    }
    offset += perRecord * 2;
  }
  return Array.from({ length: head.records }, (_, record) => {
    const at = head.headerBytes + record * recordBytes + offset;
    const told = length === 0 ? NaN : Number.parseFloat(bytes.toString('latin1', at, at + length).split('\x14')[0] ?? '');
    return Number.isFinite(told) ? told : record * head.recordS;
  });
}

function columnOf(bytes: Buffer, head: Head, signal: number, recordBytes: number, onsets: readonly number[]): Int32Array {
  const { perRecord } = head.signals[signal] ?? { perRecord: 0 };
  const before = head.signals.slice(0, signal).reduce((sum, other) => sum + other.perRecord, 0) * 2;
  const first = onsets[0] ?? 0;
  const place = (record: number): number => Math.round((((onsets[record] ?? 0) - first) / head.recordS) * perRecord);
  const samples = new Int32Array(head.records === 0 ? 0 : place(head.records - 1) + perRecord).fill(missingSample);
  for (let record = 0; record < head.records; record++) {
    const at = head.headerBytes + record * recordBytes + before;
    for (let sample = 0; sample < perRecord; sample++) samples[place(record) + sample] = bytes.readInt16LE(at + sample * 2);
  }
  return samples;
}
