import { SpamerError } from '../core/errors.js';
import { csvMappings, guessMapping, openCsv, type CsvMappingName } from './csv.js';
import { openEdf } from './edf.js';
import type { Source } from './source.js';
import { openWfdb } from './wfdb.js';

/**
 * A recording by its path: `*.edf` (EDF, EDF+), `*.csv` and `*.txt` (by a mapping of `csv.ts`, else guessed by name), anything
 * else is a WFDB record, with or without `.hea`.
 * @throws SpamerError `not_found`, `bad_request`, `data_damaged`
 */
export async function openRecording(path: string, mapping?: string): Promise<Source> {
  if (/\.edf$/i.test(path)) return openEdf(path);
  if (mapping === undefined && !/\.(?:csv|txt)$/i.test(path)) return openWfdb(path);
  const name = mapping ?? guessMapping(path);
  if (name === null || !isMapping(name)) {
    throw new SpamerError('bad_request', `no column mapping for this file; known ones: ${Object.keys(csvMappings).join(', ')}`, { where: path });
  }
  return openCsv(path, csvMappings[name]);
}

const isMapping = (name: string): name is CsvMappingName => Object.hasOwn(csvMappings, name);
