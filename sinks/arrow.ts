import { Dictionary, Field, Float64, Int32, Int64, List, Table, Utf8, tableToIPC, vectorFromArray, type DataType, type Vector } from 'apache-arrow';
import type { NumericRow, RunRow, Series } from './analytics.js';

/** Times stay 64-bit integers of microseconds: relative ones are no timestamps, and the column `basis` says which they are. */
function bigints(values: readonly number[]): Vector<Int64> {
  return vectorFromArray(values.map(BigInt), new Int64());
}

const words = (values: readonly string[]): Vector => vectorFromArray(values, new Dictionary(new Utf8(), new Int32()));

function seriesVectors(rows: readonly Series[]): Record<string, Vector> {
  return {
    study: words(rows.map((row) => row.study)),
    policy: words(rows.map((row) => row.policy)),
    pseudonym: words(rows.map((row) => row.pseudonym)),
    group: words(rows.map((row) => JSON.stringify(row.group))),
    basis: words(rows.map((row) => row.basis)),
    year: vectorFromArray(rows.map((row) => row.year), new Int32()),
    code: vectorFromArray(rows.map((row) => row.code), new Int32()),
    unit: vectorFromArray(rows.map((row) => row.unit), new Int32()),
  };
}

const ipc = (vectors: Record<string, Vector>): Buffer => Buffer.from(tableToIPC(new Table(vectors as Record<string, Vector<DataType>>), 'stream'));

/** An Arrow IPC stream of one batch; `group` is a JSON object. */
export function numericsArrow(rows: readonly NumericRow[]): Buffer {
  return ipc({ ...seriesVectors(rows), t_us: bigints(rows.map((row) => row.tUs)), value: vectorFromArray(rows.map((row) => row.value), new Float64()) });
}

/** An Arrow IPC stream of one batch; `samples` is a list of int32, physical = sample × scale + offset. */
export function runsArrow(rows: readonly RunRow[]): Buffer {
  return ipc({
    ...seriesVectors(rows),
    t0_us: bigints(rows.map((row) => row.t0Us)),
    period_ns: bigints(rows.map((row) => row.periodNs)),
    scale: vectorFromArray(rows.map((row) => row.scale), new Float64()),
    offset: vectorFromArray(rows.map((row) => row.offset), new Float64()),
    samples: vectorFromArray(rows.map((row) => row.samples), new List(new Field('item', new Int32(), false))),
  });
}
