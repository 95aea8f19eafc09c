import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { SpamerError } from '../core/errors.js';
import { patientId, type PatientId } from '../core/ids.js';
import type { Api } from './api.js';
import { doubles, t0 } from './doubles.test.js';
import { listPage, patientCursors } from './lists.js';
import type { PatientPlace, Principal } from './ports.js';
import { buildServer } from './server.js';

const idOf = (number: number): PatientId => patientId(`${String(number).padStart(8, '0')}-0000-4000-8000-000000000000`) as PatientId;
/** Two of each moment, so that the time alone is no place. */
const places = Array.from({ length: 150 }, (_, at): PatientPlace => ({ createdUs: t0 + (at >> 1), patient: idOf(at) }));
const isAfter = (row: PatientPlace, place: PatientPlace | null): boolean => place === null || row.createdUs > place.createdUs || (row.createdUs === place.createdUs && row.patient > place.patient);
const after = async (place: PatientPlace | null, limit: number): Promise<readonly PatientPlace[]> => places.filter((row) => isAfter(row, place)).slice(0, limit);

test('pages of every size hold what may be seen, once each and in order, and end exactly', async () => {
  const some: Readonly<Record<string, (row: PatientPlace) => boolean>> = { all: () => true, 'every third': ({ patient }) => Number(patient.slice(0, 8)) % 3 === 0, none: () => false, 'the last': ({ patient }) => patient === idOf(149), 'the first 75': ({ patient }) => patient < idOf(75) };
  for (const [name, seen] of Object.entries(some)) {
    const wanted = places.filter(seen).map(({ patient }) => patient);
    for (const limit of [1, 2, 7, 74, 75, 149, 150, 151, 10_000]) {
      const found: PatientId[] = [];
      let cursor: string | undefined;
      for (;;) {
        const page = await listPage({ limit, ...(cursor === undefined ? {} : { cursor }) }, patientCursors, after, async (rows) => rows.filter(seen));
        found.push(...page.rows.map(({ patient }) => patient));
        assert.ok(page.rows.length === limit || page.next === null, `${name}: a page of ${limit} is full, or the last`);
        if (page.next === null) break;
        assert.ok(!wanted.every((patient) => found.includes(patient)), `${name}: no empty page behind the last row at ${limit}`);
        cursor = page.next;
      }
      assert.deepEqual(found, wanted, `${name} by ${limit}`);
    }
  }
});

test('a cursor that was not given by this list is refused', async () => {
  const wrong = ['', 'x', idOf(1), Buffer.from(idOf(1)).toString('base64url'), Buffer.from(`-1 ${idOf(1)}`).toString('base64url'), Buffer.from('5 ; DROP TABLE patients').toString('base64url')];
  for (const cursor of wrong) await assert.rejects(listPage({ cursor }, patientCursors, after, async (rows) => rows), (error) => error instanceof SpamerError && error.code === 'bad_request' && error.where === 'querystring/cursor', cursor);
});

async function served(t: TestContext, principal: Principal): Promise<Api> {
  const made = doubles();
  made.tokens.set('token', principal);
  const rows = places.map((place) => ({ ...place, label: 'Patient', origin: null, devices: [] }));
  const listPatients: typeof made.ports.admin.listPatients = async ({ after: place, limit, among }) => rows.filter((row) => isAfter(row, place) && (among === null || among.includes(row.patient))).slice(0, limit);
  const list: typeof made.ports.devices.list = async ({ after: place, limit, among }) =>
    rows.filter(({ patient }) => (place === null || String(patient) > place) && (among === null || among.includes(patient))).slice(0, limit).map(({ patient }) => ({ device: patient, state: 'active', patient, connected: false, lastFrameUs: null, frames: 0, batteryPercent: null, bufferedFrames: null, droppedFrames: null }));
  const api = await buildServer({ ...made.ports, admin: { ...made.ports.admin, listPatients }, devices: { ...made.ports.devices, list } }, { version: '0.0.0', consoleDir: null });
  t.after(() => api.close());
  return api;
}

test('[DENY] patients, devices and studies are paged over what the caller may see and nothing else', async (t) => {
  const api = await served(t, { kind: 'user', id: 'c', role: 'clinician', patients: [5, 6, 140].map(idOf), session: 's' });
  const headers = { authorization: 'Bearer token' };
  const pages = async (list: string, limit: number): Promise<string[][]> => {
    const found: string[][] = [];
    for (let next: string | null = ''; next !== null;) {
      const answer: { statusCode: number; json<T>(): T } = await api.inject({ url: `/v1/${list}?limit=${limit}${next === '' ? '' : `&cursor=${next}`}`, headers });
      assert.equal(answer.statusCode, 200);
      const body = answer.json<Record<string, Array<Record<string, string>>> & { next: string | null }>();
      found.push((body[list] ?? []).map((row) => row[list.slice(0, -1)] ?? ''));
      next = body.next;
    }
    return found;
  };
  assert.deepEqual(await pages('patients', 2), [[idOf(5), idOf(6)], [idOf(140)]]);
  assert.deepEqual(await pages('devices', 1), [[idOf(5)], [idOf(6)], [idOf(140)]]);
  assert.deepEqual(await pages('patients', 3), [[idOf(5), idOf(6), idOf(140)]]);
  const unknown = await api.inject({ url: `/v1/patients?cursor=${Buffer.from('no place').toString('base64url')}`, headers });
  assert.deepEqual([unknown.statusCode, unknown.json<{ where: string }>().where], [400, 'querystring/cursor']);
  assert.equal((await api.inject({ url: '/v1/patients?limit=0', headers })).statusCode, 400);
  const researcher = await served(t, { kind: 'user', id: 'r', role: 'researcher', studies: ['other', 'ward'], session: 's' });
  const first = (await researcher.inject({ url: '/v1/studies?limit=1', headers })).json<{ studies: Array<{ study: string }>; next: string }>();
  assert.deepEqual(first.studies.map(({ study }) => study), ['other']);
  const second = (await researcher.inject({ url: `/v1/studies?limit=1&cursor=${first.next}`, headers })).json<{ studies: Array<{ study: string }>; next: null }>();
  assert.deepEqual([second.studies.map(({ study }) => study), second.next], [['ward'], null]);
});
