import { SpamerError, type ErrorCode } from '../core/errors.js';

/** How commands speak: tables for people, one JSON value for programs, errors as one paragraph. */
export interface Output {
  readonly json: boolean;
  /** A line for people; with --json it goes to standard error. */
  readonly say: (line: string) => void;
  /** A remark beside the answer: always to standard error. */
  readonly note: (line: string) => void;
  /** The answer: printed as JSON with --json, else by `print`. */
  readonly answer: (value: unknown, print: () => void) => void;
  /** One record of a stream: a line of JSON, or what `text` makes of it. */
  readonly record: (value: unknown, text: () => string) => void;
}

export function openOutput(json: boolean): Output {
  const say = (line: string): void => {
    (json ? process.stderr : process.stdout).write(`${line}\n`);
  };
  return {
    json,
    say,
    note: (line) => {
      process.stderr.write(`${line}\n`);
    },
    answer: (value, print) => {
      if (json) process.stdout.write(`${JSON.stringify(value)}\n`);
      else print();
    },
    record: (value, text) => {
      process.stdout.write(`${json ? JSON.stringify(value) : text()}\n`);
    },
  };
}

/** A table that fits the terminal: columns as wide as their content, the last one cut where the line ends. */
export function table(header: readonly string[], rows: ReadonlyArray<readonly string[]>, width = process.stdout.columns): string {
  const widths = header.map((name, column) => Math.max(name.length, ...rows.map((row) => (row[column] ?? '').length)));
  const line = (cells: readonly string[]): string => {
    const text = cells.map((cell, column) => (/^-?[\d,.]+%?$/.test(cell) ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0))).join('  ').trimEnd();
    return width > 20 && text.length > width ? `${text.slice(0, width - 1)}…` : text;
  };
  return [line(header), line(widths.map((columns) => '─'.repeat(columns))), ...rows.map(line)].join('\n');
}

/** 0 done, 1 the answer is no, 2 bad use or configuration, 3 something needed is unreachable (DESIGN §9). */
export function exitCodeOf(code: ErrorCode): number {
  if (code === 'unreachable' || code === 'overloaded' || code === 'store_failed' || code === 'log_failed' || code === 'stopping') return 3;
  return 2;
}

/** @param placed says where as the user would */
export function explain(tried: string, error: unknown, verbose: boolean, placed: (where: string) => string = (where) => where): string {
  if (!(error instanceof SpamerError)) {
    const name = error instanceof Error ? error.message : String(error);
    return `${tried}: ${name} [internal]${verbose && error instanceof Error ? `\n${error.stack ?? ''}` : ''}`;
  }
  const where = error.where === undefined ? '' : ` (${placed(error.where)})`;
  const stack = verbose ? `\n${error.stack ?? ''}` : '';
  return `${tried}: ${error.message}${where}. ${error.remedy} [${error.code}]${stack}`;
}
