import { Dictionary, Field, Float64, Int32, Int64, List, Schema, Table, Utf8, tableToIPC, vectorFromArray, type DataType, type Vector } from 'apache-arrow';

/** An answer as columns, so that JSON, CSV and Arrow come from one description. */
export interface Column<Row> {
  readonly name: string;
  readonly type: 'text' | 'int32' | 'int64' | 'double' | 'int32s';
  readonly of: (row: Row) => string | number | readonly number[] | null;
}

export type Format = 'json' | 'csv' | 'arrow';

export const mediaTypes = { json: 'application/json', csv: 'text/csv; charset=utf-8; header=present', arrow: 'application/vnd.apache.arrow.stream' } as const;

/** `?format=` wins over Accept. */
export function chooseFormat(asked: Format | undefined, accept: string | undefined): Format {
  if (asked !== undefined) return asked;
  if (accept?.includes('application/vnd.apache.arrow.stream') === true) return 'arrow';
  return accept?.includes('text/csv') === true ? 'csv' : 'json';
}

/** RFC 4180; lists are their items with a space between. */
export function toCsv<Row>(columns: ReadonlyArray<Column<Row>>, rows: readonly Row[]): string {
  const lines = [columns.map((column) => column.name).join(',')];
  for (const row of rows) lines.push(columns.map((column) => cell(column.of(row))).join(','));
  return `${lines.join('\r\n')}\r\n`;
}

function cell(value: string | number | readonly number[] | null): string {
  if (value === null) return '';
  if (typeof value === 'number') return String(value);
  const text = typeof value === 'string' ? guarded(value) : value.join(' ');
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** A spreadsheet would run text that starts like a formula. */
const guarded = (text: string): string => (/^[=+\-@\t\r]/.test(text) ? `'${text}` : text);

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
