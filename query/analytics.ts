import type { FastifyReply, FastifyRequest } from 'fastify';
import { Type, type Static, type TSchema } from 'typebox';
import { SpamerError } from '../core/errors.js';
import { decide } from './access.js';
import { Code, Cursor, Limit, readStudy, type Api } from './api.js';
import { listPage, ListQuery, Next, studyCursors } from './lists.js';
import type { AggregateCell, NumericRow, Page, QueryOptions, QueryPorts, RunRow, SeriesFilter, SeriesRow, StudyTerms } from './ports.js';
import { chooseFormat, mediaTypes, toCsv, type Column } from './table.js';
import { parseRelative, parseSpan, parseTime, rfc3339 } from './times.js';

/** No cell of 1 to 10 patients is published (FACTS §4). */
export const minCellDefault = 11;

const params = Type.Object({ study: Type.String({ maxLength: 64 }) });
const filters = {
  code: Type.Optional(Type.String({ pattern: '^\\d{1,9}(,\\d{1,9}){0,31}$', description: 'Signal codes, with commas.', examples: ['147842'] })),
  pseudonym: Type.Optional(Type.String({ maxLength: 2048, description: 'Pseudonyms, with commas.' })),
  group: Type.Optional(Type.String({ maxLength: 1024, description: 'Group attributes of the study: `sex:F,age:60-69`.', examples: ['sex:F'] })),
  from: Type.Optional(Type.String({ maxLength: 40, description: 'First time, of the study\'s basis: RELATIVE a duration (PT1H30M) or integer microseconds, SHIFTED RFC 3339 or integer microseconds.' })),
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

const Group = Type.Record(Type.String(), Type.Union([Type.String(), Type.Null()]), { description: 'Generalized attributes.' });
const Maybe = Type.Union([Type.Number(), Type.Null()]);
const Series = { study: Type.String(), policy: Type.String(), pseudonym: Type.String(), group: Group, basis: Type.String(), year: Type.Union([Type.Integer(), Type.Null()]), code: Code, unit: Type.Integer() };
const calendar = Type.Optional(Type.String({ description: 'Of shifted times only: `tUs` or `t0Us` as RFC 3339.' }));
const Numeric = Type.Object({ ...Series, tUs: Type.Integer(), time: calendar, value: Type.Number() });
const Run = Type.Object({ ...Series, t0Us: Type.Integer(), time: calendar, periodNs: Type.Integer(), scale: Type.Number(), offset: Type.Number(), samples: Type.Array(Type.Integer()) });
const Cell = Type.Object({ code: Code, unit: Type.Integer(), group: Group, suppressed: Type.Boolean({ description: 'Fewer than `minCell` distinct patients: the numbers are null.' }), patients: Maybe, count: Maybe, mean: Maybe, min: Maybe, max: Maybe, stddev: Maybe });
const next = Type.Union([Type.String(), Type.Null()], { description: 'Goes into `cursor`; with CSV and Arrow in the header x-next-cursor.' });

/** The same rows in three spellings, as the description has them. */
function spellings(json: TSchema, columns: ReadonlyArray<Column<never>>): object {
  const names = columns.map(({ name, type }) => `${name} (${type})`).join(', ');
  return { 200: { description: `JSON, CSV or Arrow, by \`format\` or Accept. Columns of CSV and Arrow: ${names}`, content: {
    [mediaTypes.json]: { schema: json }, 'text/csv': { schema: { type: 'string' } }, [mediaTypes.arrow]: { schema: { type: 'string', format: 'binary' } },
  } } };
}

/** What researchers may ask of a study's anonymized data [ANON]. */
export function analyticsRoutes(api: Api, ports: QueryPorts, options: QueryOptions): void {
  studyRoutes(api, ports);
  const { stores } = ports;
  const tags = ['analytics'];
  const numerics = { tags, summary: 'Numerics of a study, a row each', params, querystring: PageQuery, response: spellings(Type.Object({ rows: Type.Array(Numeric), next }), numericColumns) };
  api.get('/v1/studies/:study/numerics', { schema: numerics }, async (request, reply) =>
    sendPage(request, reply, await stores.numerics(pageQuery(request, await termsOf(ports, request.params.study))), numericColumns, (row) => timed(row, row.tUs)),
  );
  const runs = { tags, summary: 'Waveform runs of a study: physical = sample × scale + offset', params, querystring: PageQuery, response: spellings(Type.Object({ rows: Type.Array(Run), next }), runColumns) };
  api.get('/v1/studies/:study/runs', { schema: runs }, async (request, reply) =>
    sendPage(request, reply, await stores.runs(pageQuery(request, await termsOf(ports, request.params.study))), runColumns, (row) => timed(row, row.t0Us)),
  );
  const aggregates = { tags, summary: 'Count, mean, spread by group; small cells suppressed', params, querystring: AggregateQuery, response: spellings(Type.Object({ rows: Type.Array(Cell), next, minCell: Type.Integer({ description: 'Smallest cell that is shown: the strictest of server, policy and request.' }) }), cellColumns) };
  api.get('/v1/studies/:study/aggregates', { schema: aggregates }, async (request, reply) => {
    const { of, by, minCell } = request.query;
    const terms = await termsOf(ports, request.params.study);
    const floor = Math.max(options.minCell ?? minCellDefault, terms.minCell, minCell ?? 0);
    const attributes = known(listOf(by), terms, 'querystring/by');
    const cells = await stores.aggregates({ ...filterOf(request, terms), of: of ?? 'numerics', by: attributes, minCell: floor });
    return sendPage(request, reply, { rows: cells, next: null }, cellColumns, (cell) => cell, { minCell: floor });
  });
}

/** @throws SpamerError `not_found`: a study's name with a typing error in it is not a study without data. */
async function termsOf(ports: QueryPorts, name: string): Promise<StudyTerms> {
  try {
    return await ports.admin.study(readStudy(name));
  } catch (error) {
    if (!(error instanceof SpamerError) || error.code !== 'not_found') throw error;
    throw new SpamerError('not_found', 'there is no such study', { where: 'params/study' });
  }
}

function known(names: string[], { attributes }: StudyTerms, where: string): string[] {
  if (names.some((name) => !attributes.includes(name))) throw new SpamerError('bad_request', `the groups of this study have these attributes: ${attributes.join(', ') || 'none'}`, { where });
  return names;
}

function studyRoutes(api: Api, ports: QueryPorts): void {
  const Study = Type.Object({ study: Type.String(), title: Type.String(), policyHash: Type.String(), k: Type.Integer(), minCell: Type.Integer(), basis: Type.String({ description: 'RELATIVE: times count from each patient\'s first reading. SHIFTED: calendar times, moved by a secret span for each patient.' }), attributes: Type.Array(Type.String(), { description: 'Attributes that groups may have.' }), onErasure: Type.Union([Type.Literal('unlink'), Type.Literal('delete')], { description: 'What becomes of a patient\'s rows when the patient is erased: they stay without anything that leads to the patient, or they are deleted.' }) });
  api.get('/v1/studies', { schema: { tags: ['analytics'], summary: 'Studies that this token may see, by id', querystring: ListQuery, response: { 200: Type.Object({ studies: Type.Array(Study), next: Next }) } } }, async (request) => {
    const seen = async (rows: readonly StudyTerms[]): Promise<StudyTerms[]> => {
      const decisions = await Promise.all(rows.map(({ study }) => decide(ports, request, 'seeStudy', 'dataset', study)));
      return rows.filter((_row, index) => decisions[index]?.allowed === true);
    };
    const { rows, next } = await listPage(request.query, studyCursors, (after, limit) => ports.admin.listStudies({ after, limit }), seen);
    return { studies: rows.map((row) => ({ ...row, attributes: [...row.attributes] })), next };
  });
  const Summary = Type.Object({ code: Code, unit: Type.Integer(), basis: Type.String(), patients: Type.Integer(), readings: Type.Integer(), waveSamples: Type.Integer() });
  const schema = { tags: ['analytics'], summary: 'Signals that a study holds', params, response: { 200: Type.Object({ signals: Type.Array(Summary) }) } };
  api.get('/v1/studies/:study/signals', { schema }, async (request) => {
    const { study } = await termsOf(ports, request.params.study);
    return { signals: (await ports.stores.datasets(study)).map(({ code, unit, basis, patients, readings, waveSamples }) => ({ code, unit, basis, patients, readings, waveSamples })) };
  });
}

type Asked = FastifyRequest<{ Params: { study: string }; Querystring: Filters }>;

function filterOf(request: Asked, terms: StudyTerms): SeriesFilter {
  const { code, pseudonym, group, from, to } = request.query;
  return {
    study: readStudy(request.params.study),
    ...(code === undefined ? {} : { codes: code.split(',').map(Number) }),
    ...(pseudonym === undefined ? {} : { pseudonyms: listOf(pseudonym) }),
    ...(group === undefined ? {} : { group: groupOf(group, terms) }),
    ...parseSpan({ from, to }, terms.basis === 'RELATIVE' ? parseRelative : parseTime),
  };
}

function pageQuery(request: FastifyRequest<{ Params: { study: string }; Querystring: Static<typeof PageQuery> }>, terms: StudyTerms): SeriesFilter & { cursor?: string; limit?: number } {
  const { cursor, limit } = request.query;
  return { ...filterOf(request, terms), ...(cursor === undefined ? {} : { cursor }), ...(limit === undefined ? {} : { limit }) };
}

const listOf = (text: string | undefined): string[] => (text ?? '').split(',').filter((part) => part !== '');

function groupOf(text: string, terms: StudyTerms): Record<string, string> {
  const pairs = listOf(text).map((pair) => pair.split(':'));
  if (pairs.some((pair) => pair.length !== 2)) throw new SpamerError('bad_request', 'a group is name:value, with commas', { where: 'querystring/group' });
  known(pairs.map(([name = '']) => name), terms, 'querystring/group');
  return Object.fromEntries(pairs) as Record<string, string>;
}

/** Relative times are durations, so only shifted ones become a calendar time. */
/** As JSON says it: with a date where the study has dates. */
const timed = <Row extends SeriesRow>(row: Row, us: number): Row & { readonly time?: string } => (row.basis === 'SHIFTED' ? { ...row, time: rfc3339(us) } : row);

async function sendPage<Row>(request: Asked, reply: FastifyReply, page: Page<Row>, columns: ReadonlyArray<Column<Row>>, json: (row: Row) => object, about: object = {}): Promise<FastifyReply> {
  const format = chooseFormat(request.query.format, request.headers.accept);
  if (page.next !== null) reply.header('x-next-cursor', page.next).header('link', `<${nextUrl(request, page.next)}>; rel="next"`);
  reply.header('vary', 'accept, accept-encoding').header('cache-control', 'private, no-cache').type(mediaTypes[format]);
  if (format === 'csv') return reply.send(toCsv(columns, page.rows));
  if (format === 'arrow') {
    // The library is read with the first that is asked for.
    const { toArrow } = await import('./arrow.js');
    return reply.send(Buffer.from(toArrow(columns, page.rows)));
  }
  return reply.send({ rows: page.rows.map(json), next: page.next, ...about });
}

function nextUrl(request: FastifyRequest, next: string): string {
  const url = new URL(request.url, 'http://localhost');
  url.searchParams.set('cursor', next);
  return `${url.pathname}${url.search}`;
}
