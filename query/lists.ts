import { Type } from 'typebox';
import { SpamerError } from '../core/errors.js';
import { deviceId, patientId, studyId, type DeviceId, type StudyId } from '../core/ids.js';
import { Cursor, Limit } from './api.js';
import type { DeviceRow, PatientPlace, StudyRow } from './ports.js';

/** Of every list that may be long: `?limit=&cursor=`, and `next` in the answer. */
export const ListQuery = Type.Object({ cursor: Cursor, limit: Limit });
export const Next = Type.Union([Type.String(), Type.Null()], { description: 'Goes into `cursor` for the page that follows; null after the last row.' });

/** Rows of a page for which no limit is asked. */
export const pageRows = 200;
/** A page that is thinned out by decisions is not read on in drops. */
const readRowsMin = 64;

/** How the place after a row is written into a cursor, and read again; to a client it is opaque. */
export interface Cursors<Row, Place> {
  readonly write: (row: Row) => string;
  /** null: not written here. */
  readonly read: (text: string) => Place | null;
}

export interface Asked {
  readonly cursor?: string;
  readonly limit?: number;
}

/**
 * One page of what the caller may see. A cursor is the place of a row that was shown, never of one that was not, and carries that
 * place itself: whether a row still is there, or ever was, nobody can ask by it [DENY].
 * @param after at most `limit` rows after a place, in the list's order; fewer are the last
 * @param mayBeSeen those of the rows that the caller may see, in the same order
 * @throws SpamerError `bad_request`
 */
export async function listPage<Row, Place>(
  { cursor, limit = pageRows }: Asked,
  cursors: Cursors<Row, Place>,
  after: (place: Place | null, limit: number) => Promise<readonly Row[]>,
  mayBeSeen: (rows: readonly Row[]) => Promise<readonly Row[]>,
): Promise<{ rows: Row[]; next: string | null }> {
  let place = cursor === undefined ? null : placeOf(cursors, unpacked(cursor));
  const rows: Row[] = [];
  for (;;) {
    // One more than fits tells whether there is a next page.
    const wanted = Math.max(limit + 1 - rows.length, readRowsMin);
    const found = await after(place, wanted);
    rows.push(...(await mayBeSeen(found)));
    const shown = rows.slice(0, limit);
    const [last] = shown.slice(-1);
    if (rows.length > limit && last !== undefined) return { rows: shown, next: packed(cursors.write(last)) };
    const [read] = found.slice(-1);
    if (found.length < wanted || read === undefined) return { rows, next: null };
    place = placeOf(cursors, cursors.write(read));
  }
}

function placeOf<Row, Place>(cursors: Cursors<Row, Place>, text: string): Place {
  const place = cursors.read(text);
  if (place === null) throw new SpamerError('bad_request', 'this cursor is not of this list', { where: 'querystring/cursor' });
  return place;
}

const packed = (text: string): string => Buffer.from(text, 'latin1').toString('base64url');
const unpacked = (cursor: string): string => Buffer.from(cursor, 'base64url').toString('latin1');

export const patientCursors: Cursors<PatientPlace, PatientPlace> = {
  write: ({ createdUs, patient }) => `${createdUs} ${patient}`,
  read: (text) => {
    const [, createdUs = '', id = ''] = /^(\d{1,16}) (\S+)$/.exec(text) ?? [];
    const patient = patientId(id);
    return patient === null ? null : { createdUs: Number(createdUs), patient };
  },
};
export const deviceCursors: Cursors<Pick<DeviceRow, 'device'>, DeviceId> = { write: ({ device }) => device, read: deviceId };
export const studyCursors: Cursors<Pick<StudyRow, 'study'>, StudyId> = { write: ({ study }) => study, read: studyId };
