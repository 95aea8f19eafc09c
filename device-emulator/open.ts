import { open, type FileHandle } from 'node:fs/promises';
import { SpamerError } from '../core/errors.js';
import { csvMappings, guessMapping, openCsv, type CsvMappingName } from './csv.js';
import { openEdf } from './edf.js';
import { guessLayout, openReadings, readingLayouts, type ReadingLayoutName, type ReadingsOptions } from './readings-csv.js';
import type { Source } from './source.js';
import { openVital } from './vital.js';
import { openWfdb } from './wfdb.js';

/** Names that `--mapping` takes: tables of evenly spaced samples, and files of single readings. */
export const mappingNames: readonly string[] = [...Object.keys(csvMappings), ...Object.keys(readingLayouts)];

/**
 * A recording by its path: `*.edf` (EDF, EDF+), `*.vital` (Vital Recorder), `*.csv` and `*.txt` (by a name of `mappingNames`, else
 * guessed), anything else is a WFDB record, with or without `.hea`.
 * @throws SpamerError `not_found`, `bad_request`, `data_damaged`
 */
export async function openRecording(path: string, mapping?: string, options: ReadingsOptions = {}): Promise<Source> {
  if (/\.edf$/i.test(path)) return openEdf(path);
  if (/\.vital$/i.test(path)) return openVital(path);
  if (mapping === undefined && !/\.(?:csv|txt)$/i.test(path)) return openWfdb(path);
  return openTable(path, mapping, options);
}

/** A CSV file by the name of its mapping; without one, by its first line and then by its name. */
export async function openTable(path: string, mapping?: string, options: ReadingsOptions = {}): Promise<Source> {
  const name = mapping ?? guessLayout(await firstLine(path)) ?? guessMapping(path);
  if (name !== null && isLayout(name)) return openReadings(path, readingLayouts[name], options);
  if (name === null || !isMapping(name)) throw new SpamerError('bad_request', `no column mapping for this file; known ones: ${mappingNames.join(', ')}`, { where: path });
  return openCsv(path, csvMappings[name]);
}

const isMapping = (name: string): name is CsvMappingName => Object.hasOwn(csvMappings, name);
const isLayout = (name: string): name is ReadingLayoutName => Object.hasOwn(readingLayouts, name);

/** Empty where there is no file to look into: then its name alone decides, and who opens it tells. */
async function firstLine(path: string): Promise<string> {
  let file: FileHandle | undefined;
  try {
    file = await open(path, 'r');
    const { buffer, bytesRead } = await file.read(Buffer.alloc(1024), 0, 1024, 0);
    return buffer.toString('utf8', 0, bytesRead).replace(/^\ufeff/, '').split(/\r?\n/, 1)[0] ?? '';
  } catch {
    return '';
  } finally {
    await file?.close();
  }
}
