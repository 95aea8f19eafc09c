import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import type { StoredRecord } from '../log/log.js';
import { headerBytes, messageId } from '../schemas/codec.js';
import { Cursor } from '../schemas/cursor.js';
import { schemaIds } from '../schemas/ids.js';
import { decodeAnalytics, type AnalyticsRecord, type Series } from './analytics.js';
import type { SourcePosition } from './store.js';

const policyAndPseudonymBytes = 48;
const roomSamples = 64 * 1024;
const nothing = new Int32Array(0);

/**
 * `decodeAnalytics` at a fraction of its cost. A series' records begin with the same bytes, so what those say is read once, and records of one series
 * have the very same `series`; runs are read into typed arrays. Whatever is not as `schemas/runs.ts` writes it is left to `decodeAnalytics`, which reads
 * it another way or says what is wrong.
 *
 *   header │ study, policy, pseudonym, group, timeBasis, year, code, unit │ t0, periodNs, scale, offset, deltas[]
 *                                                                         │ times[], values[]
 */
export class AnalyticsReader {
  /** By the bytes from `study` to `unit`. */
  readonly #series = new Map<string, Series>();
  readonly #cursor = new Cursor();
  /** Room for the samples of many runs. */
  #room = nothing;
  #used = 0;

  /** A record of `vitals.anonymized`. @throws SpamerError as `decodeAnalytics`. */
  read(record: StoredRecord, partition: number): AnalyticsRecord {
    const name = sound(() => this.#nameOf(record.value));
    const series = name === null ? undefined : this.#series.get(name);
    const read = series === undefined ? null : sound(() => this.#values(record.value, series, { partition, offset: record.offset }));
    return read ?? this.#plainly(record, partition, name);
  }

  #plainly(record: StoredRecord, partition: number, name: string | null): AnalyticsRecord {
    const read = decodeAnalytics(record, partition);
    if (name === null) return read;
    const known = this.#series.get(name);
    if (known !== undefined) return { ...read, series: known };
    if (this.#series.size >= limits.seriesNamesKeptMax) this.#series.clear();
    this.#series.set(name, read.series);
    return read;
  }

  /** The bytes from `study` to `unit`; leaves the cursor behind them. */
  #nameOf(value: Uint8Array): string {
    const cursor = this.#cursor;
    cursor.bytes = value;
    cursor.pos = headerBytes;
    cursor.end = value.length;
    this.#skip(cursor.long('study') + policyAndPseudonymBytes);
    for (let count = this.#block(); count > 0; count = this.#block()) for (let texts = 2 * count; texts > 0; texts--) this.#skip(cursor.long('group'));
    cursor.int('timeBasis');
    if (cursor.int('year') !== 0) cursor.int('year');
    cursor.int('code');
    cursor.int('unit');
    return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('latin1', headerBytes, cursor.pos);
  }

  /** What follows the series. null: not as we write it. */
  #values(value: Uint8Array, series: Series, source: SourcePosition): AnalyticsRecord | null {
    const id = messageId(value);
    const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    if (id === schemaIds.AnonymizedRun) return this.#run(bytes, series, source);
    return id === schemaIds.AnonymizedNumeric ? this.#numeric(bytes, series, source) : null;
  }

  #skip(bytes: number): void {
    if (bytes < 0 || bytes > this.#cursor.end - this.#cursor.pos) this.#cursor.fail('', 'ends early');
    this.#cursor.pos += bytes;
  }

  #block(): number {
    const count = this.#cursor.long('');
    if (count < 0 || count > this.#cursor.end - this.#cursor.pos) this.#cursor.fail('', 'not one block');
    return count;
  }

  #run(bytes: Buffer, series: Series, source: SourcePosition): AnalyticsRecord | null {
    const cursor = this.#cursor;
    const [t0Us, periodNs] = [cursor.long('t0'), cursor.long('periodNs')];
    const [scale, offset] = [bytes.readDoubleLE(cursor.pos), bytes.readDoubleLE(cursor.pos + 8)];
    if (!Number.isFinite(scale) || !Number.isFinite(offset)) return null;
    cursor.pos += 16;
    const samples = this.#samples(bytes);
    return samples !== null && this.#atEnd() ? { kind: 'run', series, source, t0Us, periodNs, scale, offset, samples } : null;
  }

  /** null: a sample that 32 bits don't hold. */
  #samples(bytes: Buffer): Int32Array | null {
    const cursor = this.#cursor;
    const count = this.#block();
    const samples = this.#take(count);
    let [pos, sum] = [cursor.pos, 0];
    for (let index = 0; index < count; index++) {
      const byte = bytes[pos];
      if (byte === undefined) return null;
      if (byte < 0x80) {
        pos += 1;
        sum += (byte >>> 1) ^ -(byte & 1);
      } else {
        cursor.pos = pos;
        sum += cursor.long('deltas');
        pos = cursor.pos;
      }
      if (sum !== (sum | 0)) return null;
      samples[index] = sum;
    }
    cursor.pos = pos;
    this.#used += count;
    // The end of the array, which is there if there was any block.
    return count === 0 || this.#block() === 0 ? samples : null;
  }

  #take(count: number): Int32Array {
    if (this.#room.length - this.#used < count) {
      this.#room = new Int32Array(Math.max(roomSamples, count));
      this.#used = 0;
    }
    return this.#room.subarray(this.#used, this.#used + count);
  }

  #numeric(bytes: Buffer, series: Series, source: SourcePosition): AnalyticsRecord | null {
    const cursor = this.#cursor;
    const timesUs: number[] = [];
    for (let left = this.#block(), time = 0; left > 0; left--) {
      time += cursor.long('times');
      if (Math.abs(time) >= Number.MAX_SAFE_INTEGER) return null;
      timesUs.push(time);
    }
    if (timesUs.length > 0 && this.#block() !== 0) return null;
    const count = this.#block();
    if (count !== timesUs.length) return null;
    const values: number[] = [];
    for (; values.length < count; cursor.pos += 8) {
      const value = bytes.readDoubleLE(cursor.pos);
      if (!Number.isFinite(value)) return null;
      values.push(value);
    }
    if (count > 0 && this.#block() !== 0) return null;
    return this.#atEnd() ? { kind: 'numeric', series, source, timesUs, values } : null;
  }

  #atEnd(): boolean {
    return this.#cursor.pos === this.#cursor.end;
  }
}

/** null: bytes end early, or say what ours never do. */
function sound<Result>(read: () => Result): Result | null {
  try {
    return read();
  } catch (error) {
    if (error instanceof SpamerError || error instanceof RangeError) return null;
    throw error;
  }
}
