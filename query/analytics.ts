import type { FastifyReply, FastifyRequest } from 'fastify';
import { Type, type Static } from 'typebox';
import { SpamerError } from '../core/errors.js';
import { decide } from './access.js';
import { Code, Cursor, Limit, readStudy, type Api } from './api.js';
import type { AggregateCell, NumericRow, Page, QueryOptions, QueryPorts, RunRow, SeriesFilter, SeriesRow } from './ports.js';
import { chooseFormat, mediaTypes, toArrow, toCsv, type Column } from './table.js';
import { parseTime, rfc3339 } from './times.js';

/** No cell of 1 to 10 patients is published (FACTS §4). */
export const minCellDefault = 11;

const params = Type.Object({ study: Type.String({ maxLength: 64 }) });
const filters = {
  code: Type.Optional(Type.String({ pattern: '^\\d{1,9}(,\\d{1,9}){0,31}$', description: 'Signal codes, with commas.', examples: ['147842'] })),
  pseudonym: Type.Optional(Type.String({ maxLength: 2048, description: 'Pseudonyms, with commas.' })),
  group: Type.Optional(Type.String({ maxLength: 1024, description: 'Group attributes: `sex:F,age:60-69`.', examples: ['sex:F'] })),
  from: Type.Optional(Type.String({ maxLength: 40, description: 'First time, of the study\'s basis: RFC 3339 or integer microseconds.' })),
  to: Type.Optional(Type.String({ maxLength: 40, description: 'Time before which.' })),
  format: Type.Optional(Type.Union([Type.Literal('json'), Type.Literal('csv'), Type.Literal('arrow')], { description: 'Wins over Accept.' })),
};
type Filters = Static<Type.TObject<typeof filters>>;
const PageQuery = Type.Object({ ...filters, cursor: Cursor, limit: Limit });
const AggregateQuery = Type.Object({
  ...filters,
  of: Type.Optional(Type.Union([Type.Literal('numerics'), Type.Literal('runs')])),
  by: Type.Optional(Type.String({ maxLength: 256, description: 'Group attributes to break down by, with commas.', examples: ['sex'] })),
  minCell: Type.Optional(Type.Integer({ minimum: 1, maximum: 1_000_000, description: 'Smallest cell, in distinct patients; can only be raised.' })),
});

const seriesColumns: ReadonlyArray<Column<SeriesRow>> = [
  { name: 'pseudonym', type: 'text', of: (row) => row.pseudonym },
  { name: 'group', type: 'text', of: (row) => JSON.stringify(row.group) },
  { name: 'basis', type: 'text', of: (row) => row.basis },
  { name: 'year', type: 'int32', of: (row) => row.year },
  { name: 'code', type: 'int32', of: (row) => row.code },
  { name: 'unit', type: 'int32', of: (row) => row.unit },
  { name: 'policy', type: 'text', of: (row) => row.policy },
];
const numericColumns: ReadonlyArray<Column<NumericRow>> = [
  ...seriesColumns,
  { name: 't_us', type: 'int64', of: (row) => row.tUs },
  { name: 'value', type: 'double', of: (row) => row.value },
];
const runColumns: ReadonlyArray<Column<RunRow>> = [
  ...seriesColumns,
  { name: 't0_us', type: 'int64', of: (row) => row.t0Us },
  { name: 'period_ns', type: 'int64', of: (row) => row.periodNs },
  { name: 'scale', type: 'double', of: (row) => row.scale },
  { name: 'offset', type: 'double', of: (row) => row.offset },
  { name: 'samples', type: 'int32s', of: (row) => row.samples },
];
const cellColumns: ReadonlyArray<Column<AggregateCell>> = [
  { name: 'code', type: 'int32', of: (cell) => cell.code },
  { name: 'unit', type: 'int32', of: (cell) => cell.unit },
  { name: 'group', type: 'text', of: (cell) => JSON.stringify(cell.group) },
  { name: 'suppressed', type: 'int32', of: (cell) => Number(cell.suppressed) },
  { name: 'patients', type: 'int64', of: (cell) => cell.patients },
  { name: 'count', type: 'int64', of: (cell) => cell.count },
  { name: 'mean', type: 'double', of: (cell) => cell.mean },
  { name: 'min', type: 'double', of: (cell) => cell.min },
  { name: 'max', type: 'double', of: (cell) => cell.max },
  { name: 'stddev', type: 'double', of: (cell) => cell.stddev },
];

/** What researchers may ask of a study's anonymized data [ANON]. */
export function analyticsRoutes(api: Api, ports: QueryPorts, options: QueryOptions): void {
  studyRoutes(api, ports);
  const { stores } = ports;
  api.get('/v1/studies/:study/numerics', { schema: { tags: ['analytics'], summary: 'Numerics of a study, a row each', params, querystring: PageQuery } }, async (request, reply) =>
    sendPage(request, reply, await stores.numerics(pageQuery(request)), numericColumns, request.query.format, (row) => ({ ...row, ...timeOf(row, row.tUs) })),
  );
  api.get('/v1/studies/:study/runs', { schema: { tags: ['analytics'], summary: 'Waveform runs of a study: physical = sample × scale + offset', params, querystring: PageQuery } }, async (request, reply) =>
    sendPage(request, reply, await stores.runs(pageQuery(request)), runColumns, request.query.format, (row) => ({ ...row, ...timeOf(row, row.t0Us) })),
  );
  api.get('/v1/studies/:study/aggregates', { schema: { tags: ['analytics'], summary: 'Count, mean, spread by group; small cells suppressed', params, querystring: AggregateQuery } }, async (request, reply) => {
    const { of, by, minCell, format } = request.query;
    const filter = filterOf(request);
    // The caller, the study's policy and the server: the strictest wins.
    const policy = (await ports.admin.listStudies()).find((row) => row.study === filter.study);
    const floor = Math.max(options.minCell ?? minCellDefault, policy?.minCell ?? 0, minCell ?? 0);
    const cells = await stores.aggregates({ ...filter, of: of ?? 'numerics', by: listOf(by), minCell: floor });
    return sendPage(request, reply, { rows: cells, next: null }, cellColumns, format, (cell) => cell);
  });
}

function studyRoutes(api: Api, ports: QueryPorts): void {
  const Study = Type.Object({ study: Type.String(), title: Type.String(), policyHash: Type.String(), k: Type.Integer() });
  api.get('/v1/studies', { schema: { tags: ['analytics'], summary: 'Studies that this token may see', response: { 200: Type.Object({ studies: Type.Array(Study) }) } } }, async (request) => {
    const rows = await ports.admin.listStudies();
    const seen = await Promise.all(rows.map(async (row) => (await decide(ports, request, 'seeStudy', 'dataset', row.study)).allowed));
    return { studies: rows.filter((_row, index) => seen[index] === true).map((row) => ({ ...row })) };
  });
  const Summary = Type.Object({ code: Code, unit: Type.Integer(), basis: Type.String(), patients: Type.Integer(), readings: Type.Integer(), waveSamples: Type.Integer() });
  const schema = { tags: ['analytics'], summary: 'Signals that a study holds', params, response: { 200: Type.Object({ signals: Type.Array(Summary) }) } };
  api.get('/v1/studies/:study/signals', { schema }, async (request) => {
    const study = readStudy(request.params.study);
    return { signals: (await ports.stores.datasets()).filter((row) => row.study === study).map(({ code, unit, basis, patients, readings, waveSamples }) => ({ code, unit, basis, patients, readings, waveSamples })) };
  });
}

function filterOf(request: FastifyRequest<{ Params: { study: string }; Querystring: Filters }>): SeriesFilter {
  const { code, pseudonym, group, from, to } = request.query;
  return {
    study: readStudy(request.params.study),
    ...(code === undefined ? {} : { codes: code.split(',').map(Number) }),
    ...(pseudonym === undefined ? {} : { pseudonyms: listOf(pseudonym) }),
    ...(group === undefined ? {} : { group: groupOf(group) }),
    ...(from === undefined ? {} : { fromUs: parseTime(from, 'querystring/from') }),
    ...(to === undefined ? {} : { toUs: parseTime(to, 'querystring/to') }),
  };
}

function pageQuery(request: FastifyRequest<{ Params: { study: string }; Querystring: Static<typeof PageQuery> }>): SeriesFilter & { cursor?: string; limit?: number } {
  const { cursor, limit } = request.query;
  return { ...filterOf(request), ...(cursor === undefined ? {} : { cursor }), ...(limit === undefined ? {} : { limit }) };
}

const listOf = (text: string | undefined): string[] => (text ?? '').split(',').filter((part) => part !== '');

function groupOf(text: string): Record<string, string> {
  const pairs = listOf(text).map((pair) => pair.split(':'));
  if (pairs.some((pair) => pair.length !== 2)) throw new SpamerError('bad_request', 'a group is name:value, with commas', { where: 'querystring/group' });
  return Object.fromEntries(pairs) as Record<string, string>;
}

/** Relative times are durations, so only shifted ones become a calendar time. */
const timeOf = (row: SeriesRow, us: number): { time?: string } => (row.basis === 'SHIFTED' ? { time: rfc3339(us) } : {});

function sendPage<Row>(request: FastifyRequest, reply: FastifyReply, page: Page<Row>, columns: ReadonlyArray<Column<Row>>, asked: 'json' | 'csv' | 'arrow' | undefined, json: (row: Row) => object): FastifyReply {
  const format = chooseFormat(asked, request.headers.accept);
  if (page.next !== null) reply.header('x-next-cursor', page.next).header('link', `<${nextUrl(request, page.next)}>; rel="next"`);
  reply.header('vary', 'accept, accept-encoding').header('cache-control', 'private, no-cache').type(mediaTypes[format]);
  if (format === 'csv') return reply.send(toCsv(columns, page.rows));
  if (format === 'arrow') return reply.send(Buffer.from(toArrow(columns, page.rows)));
  return reply.send({ rows: page.rows.map(json), next: page.next });
}

function nextUrl(request: FastifyRequest, next: string): string {
  const url = new URL(request.url, 'http://localhost');
  url.searchParams.set('cursor', next);
  return `${url.pathname}${url.search}`;
}
