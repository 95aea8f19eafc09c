/** WFDB headers, after header(5) of the WFDB Applications Guide (https://physionet.org/physiotools/wag/header-5.htm). */
import { SpamerError } from '../core/errors.js';

export interface HeaderSignal {
  readonly file: string;
  readonly format: number;
  readonly samplesPerFrame: number;
  readonly skewFrames: number;
  readonly byteOffset: number;
  /** Sample units per physical unit; 0 in the file means 200, uncalibrated. */
  readonly gain: number;
  readonly baseline: number;
  readonly units: string;
  readonly adcZero: number;
  readonly initial: number;
  /** null where the header gives none. */
  readonly checksum: number | null;
  readonly label: string;
}

export interface Segment {
  /** `~` stands for a gap. */
  readonly name: string;
  readonly frames: number;
}

export interface Header {
  readonly name: string;
  readonly hz: number;
  /** 0: not given; the files say. */
  readonly frames: number;
  readonly startUs: number | null;
  readonly signals: readonly HeaderSignal[];
  /** null: a record of one segment. */
  readonly segments: readonly Segment[] | null;
}

const bad = (message: string, where: string): SpamerError => new SpamerError('bad_request', message, { where });

/** @throws SpamerError `bad_request` naming file and line. */
export function parseHeader(text: string, where: string): Header {
  const lines = text.split(/\r?\n/).map((line, at) => ({ line: line.trim(), where: `${where}:${at + 1}` })).filter(({ line }) => line !== '' && !line.startsWith('#'));
  const [first, ...rest] = lines;
  if (first === undefined) throw bad('empty header', where);
  const [name = '', count = '', rate = '250', frames = '0', time = '', date = ''] = first.line.split(/\s+/);
  const [recordName = '', segmentCount] = name.split('/');
  const number = Number(count);
  if (!Number.isInteger(number) || number < 0) throw bad('no count of signals', first.where);
  const hz = Number.parseFloat(rate) || 250;
  const base = { name: recordName, hz, frames: Number(frames) || 0, startUs: startOf(time, date) };
  if (segmentCount !== undefined) return { ...base, signals: [], segments: rest.slice(0, Number(segmentCount)).map(segmentOf) };
  if (rest.length < number) throw bad(`${number} signals announced, ${rest.length} described`, where);
  return { ...base, segments: null, signals: rest.slice(0, number).map(({ line, where: place }) => signalOf(line, place)) };
}

function segmentOf({ line, where }: { line: string; where: string }): Segment {
  const [name = '', frames = ''] = line.split(/\s+/);
  if (!/^\d+$/.test(frames)) throw bad('a segment without length', where);
  return { name, frames: Number(frames) };
}

const signalFormat = /^(\d+)(?:x(\d+))?(?::(-?\d+))?(?:\+(\d+))?$/;
const gainFormat = /^(-?[\d.]+(?:[eE][-+]?\d+)?)(?:\((-?\d+)\))?(?:\/(\S+))?$/;

function signalOf(line: string, where: string): HeaderSignal {
  const fields = line.split(/\s+/);
  const shape = signalFormat.exec(fields[1] ?? '');
  if (shape === null) throw bad('a signal without format', where);
  const adcZero = Number(fields[4] ?? 0);
  const gain = gainFormat.exec(fields[2] ?? '200');
  if (gain === null) throw bad('an unreadable gain', where);
  return {
    file: fields[0] ?? '', format: Number(shape[1]), samplesPerFrame: Number(shape[2] ?? 1), skewFrames: Number(shape[3] ?? 0), byteOffset: Number(shape[4] ?? 0),
    gain: Number(gain[1]) || 200, baseline: gain[2] === undefined ? adcZero : Number(gain[2]), units: gain[3] ?? 'mV',
    adcZero, initial: fields[5] === undefined ? adcZero : Number(fields[5]), checksum: fields[6] === undefined ? null : Number(fields[6]), label: fields.slice(8).join(' '),
  };
}

/** A time without a date says nothing about when, so it is left to the caller. */
function startOf(time: string, date: string): number | null {
  const day = /^(\d{1,2})\/(\d{1,2})\/(\d{4})$/.exec(date);
  const clock = /^(?:(?:(\d{1,2}):)?(\d{1,2}):)?(\d{1,2})(?:\.(\d{1,6}))?$/.exec(time);
  if (day === null || clock === null) return null;
  const ms = Date.UTC(Number(day[3]), Number(day[2]) - 1, Number(day[1]), Number(clock[1] ?? 0), Number(clock[2] ?? 0), Number(clock[3]));
  return ms * 1000 + Number((clock[4] ?? '').padEnd(6, '0'));
}
