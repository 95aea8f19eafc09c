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
