import { createRequire } from 'node:module';
import type { DestinationStream, Logger } from 'pino';

const require = createRequire(import.meta.url);

/**
 * The program's own log: one JSON object a line on standard error. Only these fields can be written: there is none
 * for a name, a record number or a measured value, so [SEALED] holds for log lines by type.
 */
export interface JournalFields {
  readonly code?: string;
  readonly where?: string;
  readonly topic?: string;
  readonly partition?: number;
  readonly offset?: number;
  readonly stage?: string;
  readonly count?: number;
  readonly bytes?: number;
  readonly ms?: number;
  readonly address?: string;
  readonly file?: string;
  /** Class and stack of a foreign error, never its message: that may quote its input. */
  readonly fault?: string;
}

export interface Journal {
  info(what: string, fields?: JournalFields): void;
  warn(what: string, fields?: JournalFields): void;
  error(what: string, fields?: JournalFields): void;
}

export type JournalLevel = 'info' | 'warn' | 'error' | 'silent';

export function openJournal(role: string, level: JournalLevel, destination?: DestinationStream): Journal {
  // Read with the first journal: most commands write none.
  const { pino } = require('pino') as typeof import('pino');
  const options = { level, base: { role }, timestamp: () => `,"time":"${new Date().toISOString()}"`, formatters: { level: (label: string) => ({ level: label }) } };
  const logger: Logger = pino(options, destination ?? pino.destination({ fd: 2, sync: true }));
  return {
    info: (what, fields = {}) => logger.info(fields, what),
    warn: (what, fields = {}) => logger.warn(fields, what),
    error: (what, fields = {}) => logger.error(fields, what),
  };
}

export const silentJournal: Journal = { info: () => undefined, warn: () => undefined, error: () => undefined };

/** Where a foreign error arose, without its message. */
export function faultOf(error: unknown): string {
  if (!(error instanceof Error)) return typeof error;
  const frames = (error.stack ?? '').split('\n').filter((line) => line.startsWith('    at ')).slice(0, 4);
  return [error.constructor.name, ...frames.map((line) => line.trim())].join(' ');
}
