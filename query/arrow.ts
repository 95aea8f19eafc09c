import { Dictionary, Field, Float64, Int32, Int64, List, Schema, Table, Utf8, tableToIPC, vectorFromArray, type DataType, type Vector } from 'apache-arrow';
import type { Column } from './table.js';

/** An Arrow IPC stream of one batch; of none when there are no rows: a batch without its dictionaries, as the library writes it then, opens nowhere else. */
export function toArrow<Row>(columns: ReadonlyArray<Column<Row>>, rows: readonly Row[]): Uint8Array {
  if (rows.length === 0) return tableToIPC(new Table(new Schema(columns.map(({ name, type }) => new Field(name, arrowType(type), true)))), 'stream');
  const vectors: Record<string, Vector> = {};
  for (const column of columns) vectors[column.name] = vectorOf(column, rows);
  return tableToIPC(new Table(vectors), 'stream');
}

function vectorOf<Row>(column: Column<Row>, rows: readonly Row[]): Vector {
  const values = rows.map(column.of);
  if (column.type !== 'int64') return vectorFromArray(values, arrowType(column.type));
  return vectorFromArray(values.map((value) => (typeof value === 'number' ? BigInt(value) : null)), arrowType('int64'));
}

function arrowType(type: Column<unknown>['type']): DataType {
  switch (type) {
    case 'int64': return new Int64();
    case 'text': return new Dictionary(new Utf8(), new Int32());
    case 'int32': return new Int32();
    case 'double': return new Float64();
    case 'int32s': return new List(new Field('item', new Int32(), false));
  }
}
