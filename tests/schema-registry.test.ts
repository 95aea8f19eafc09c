import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { applyConfiguredSubjects, declaredSubjects, faultOfSubjects, schemaRegistryOf } from '../app/schema-registry.js';
import { topics } from '../app/topics.js';
import { loadConfig } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import { SchemaRegistry } from '../log/schema-registry.js';
import { applySubjects, sameForm, type DeclaredSubject } from '../log/schema-subjects.js';
import { schemaIds } from '../schemas/ids.js';
import { makeCertificate, withoutOpenssl } from './certificate.js';
import { cli, freePort, temporaryFolder } from './program.js';
import { refusal, startAxonOps, startDouble, type TestRegistry } from './schema-registry.js';

const binary = process.env['SPAMER_SCHEMA_REGISTRY_SERVER'];
const kinds: ReadonlyArray<readonly [string, () => Promise<TestRegistry>, string | false]> = [
  ['a double that answers as documented', () => startDouble(), false],
  ['AxonOps Schema Registry', () => startAxonOps(binary ?? ''), binary === undefined ? 'SPAMER_SCHEMA_REGISTRY_SERVER names no binary of AxonOps Schema Registry' : false],
];
const config = loadConfig({ environment: { SPAMER_KAFKA_BROKERS: '127.0.0.1:9', SPAMER_KAFKA_TOPIC_PREFIX: 't.' }, cwd: '/' });
const declared = declaredSubjects(config);
const quick = { timeoutMs: 5000, readyMs: 0 };
/** For registries that will say nothing. */
const impatient = { timeoutMs: 1000, readyMs: 0 };
const level = 'FULL_TRANSITIVE';

const apply = ({ url }: TestRegistry, make = true, subjects: readonly DeclaredSubject[] = declared, patience = quick) => applySubjects(new SchemaRegistry({ url, ...patience }), subjects, make);
const kindsOf = async (found: ReturnType<typeof apply>): Promise<string[]> => [...new Set((await found).map(({ kind }) => kind))];
const subjectOf = (message: string): DeclaredSubject => declared.find(({ schemas }) => schemas.some(({ schema }) => (JSON.parse(schema) as { name: string }).name === message)) ?? assert.fail(message);
/** Enough of them to stop in the midst of. */
const few = ['Block', 'AnonymizedRun', 'AuditDetail'].map(subjectOf);
const withField = (schema: string, field: object): string => {
  const parsed = JSON.parse(schema) as { fields: object[] };
  return JSON.stringify({ ...parsed, fields: [...parsed.fields, field] });
};
const compatible = { name: 'added', type: ['null', 'int'], default: null };
const incompatible = { name: 'added', type: 'int' };

/** Everything of every subject that a stranger can see, versions included that were deleted only softly. */
async function stateOf(registry: TestRegistry): Promise<unknown> {
  // AxonOps says null of none.
  const names = (((await registry.ask('GET', '/subjects?deleted=true')) as string[] | null) ?? []).sort();
  const asked = async (path: string): Promise<unknown> => registry.ask('GET', path).catch(() => null);
  const settings = Promise.all(few.flatMap(({ subject }) => ['config', 'mode'].map((kind) => asked(`/${kind}/${subject}`))));
  const subjects = await Promise.all(names.map(async (name) => [name, await asked(`/subjects/${name}/versions?deleted=true`), await asked(`/subjects/${name}/versions/latest`)]));
  // AxonOps goes on to list a subject whose versions are gone.
  return { subjects: subjects.filter(([, versions]) => versions !== null), settings: await settings };
}

async function putSchema(registry: TestRegistry, subject: string, schema: string, id?: number, version?: number): Promise<void> {
  if (id !== undefined) await registry.ask('PUT', `/mode/${subject}?force=true`, { mode: 'IMPORT' });
  await registry.ask('POST', `/subjects/${subject}/versions`, { schemaType: 'AVRO', schema, ...(id === undefined ? {} : { id, version }) });
  if (id !== undefined) await registry.ask('DELETE', `/mode/${subject}`);
}

for (const [name, start, skip] of kinds) {
  describe(`schemas in ${name}`, { skip }, () => {
    const started = async (t: TestContext): Promise<TestRegistry> => {
      const registry = await start();
      t.after(() => registry.stop());
      return registry;
    };
    registering(started);
    drifting(started);
    failing(started);
  });
}

type Start = (t: TestContext) => Promise<TestRegistry>;

function registering(started: Start): void {
  it('every schema is registered under the id that records carry, its subject keeps to the level, and no mode stays behind; again changes nothing', async (t) => {
    const registry = await started(t);
    assert.deepEqual(await kindsOf(apply(registry, false)), ['missing']);
    assert.deepEqual(registry.writes, [], 'a check writes nothing');
    assert.deepEqual(await kindsOf(apply(registry)), ['made']);
    for (const { subject, schemas } of declared) {
      for (const { id, version, schema } of schemas) {
        const [byId, byVersion] = [await registry.ask('GET', `/schemas/ids/${id}`), await registry.ask('GET', `/subjects/${subject}/versions/${version}`)] as [{ schema: string }, { id: number }];
        assert.ok(sameForm(byId.schema, schema), subject);
        assert.equal(byVersion.id, id, subject);
      }
      assert.deepEqual(await registry.ask('GET', `/config/${subject}`), { compatibilityLevel: level });
      await assert.rejects(registry.ask('GET', `/mode/${subject}`), /40409/);
    }
    registry.writes.length = 0;
    const before = await stateOf(registry);
    assert.deepEqual([await kindsOf(apply(registry)), registry.writes], [['as declared'], []]);
    assert.deepEqual(await stateOf(registry), before);
  });

  it('the registry itself then refuses what the level forbids', async (t) => {
    const registry = await started(t);
    await apply(registry);
    const { subject, schemas } = subjectOf('PmrChunk');
    await assert.rejects(putSchema(registry, subject, withField(schemas[0]?.schema ?? '', incompatible)), /409/);
    assert.deepEqual(await kindsOf(apply(registry, false)), ['as declared']);
  });

  it('a newer version joins under its own id, once the registry finds it compatible; one that is not is refused', async (t) => {
    const registry = await started(t);
    const { subject, schemas } = subjectOf('Held');
    const first = schemas[0] ?? assert.fail();
    const next = (field: object): DeclaredSubject[] => [{ subject, schemas: [first, { id: 1000, version: 2, schema: withField(first.schema, field) }] }];
    await apply(registry);
    const before = await stateOf(registry);
    await assert.rejects(apply(registry, true, next(incompatible)), { code: 'config_invalid', where: subject, message: /version 2 of a schema is not compatible with version 1/ });
    assert.deepEqual(await stateOf(registry), before);
    assert.deepEqual(await kindsOf(apply(registry, true, next(compatible))), ['made']);
    assert.deepEqual(await registry.ask('GET', `/subjects/${subject}/versions`), [1, 2]);
    assert.deepEqual(await kindsOf(apply(registry, true, next(compatible))), ['as declared']);
    const [older] = await apply(registry, true, [{ subject, schemas }]);
    assert.deepEqual(older, { subject, kind: 'drift', setting: 'newest version', declared: '1', found: '2' }, 'an older program says that the registry is newer');
  });

  it('what a run left behind that was killed is completed by the next: a subject that imports, one without its level', async (t) => {
    const registry = await started(t);
    const [first, second, third] = declared;
    for (const { subject, schemas } of [first, second, third] as DeclaredSubject[]) {
      const [{ id, version, schema } = assert.fail()] = schemas;
      await putSchema(registry, subject, schema, id, version);
    }
    await registry.ask('PUT', `/mode/${first?.subject}?force=true`, { mode: 'IMPORT' });
    for (const each of [first, second]) await registry.ask('PUT', `/config/${each?.subject}`, { compatibility: level });
    assert.equal((await apply(registry, false)).filter(({ kind }) => kind === 'as declared').length, 1);
    await apply(registry);
    assert.deepEqual(await kindsOf(apply(registry, false)), ['as declared']);
    await assert.rejects(registry.ask('GET', `/mode/${first?.subject}`), /40409/);
  });
}

function drifting(started: Start): void {
  const { subject, schemas: [{ id, schema } = assert.fail()] } = subjectOf('AuditDetail');
  const other = '{"type":"record","name":"Stranger","fields":[{"name":"a","type":"int"}]}';
  const cases: ReadonlyArray<readonly [string, (registry: TestRegistry) => Promise<unknown>, object]> = [
    ['an id that is another\'s', (registry) => putSchema(registry, 'stranger', other, id, 1), { setting: `id ${id}`, declared: 'ours', found: 'another schema' }],
    ['a schema under another id', (registry) => putSchema(registry, subject, schema, 900, 1), { setting: 'version 1', declared: `id ${id}`, found: 'id 900' }],
    ['a newest version that is not ours', async (registry) => {
      await apply(registry, true, few);
      await putSchema(registry, subject, withField(schema, compatible));
    }, { setting: 'newest version', declared: '1', found: '2' }],
    ['a lower level', (registry) => registry.ask('PUT', `/config/${subject}`, { compatibility: 'BACKWARD' }), { setting: 'compatibility', declared: level, found: 'BACKWARD' }],
  ];
  for (const [what, make, finding] of cases) {
    it(`${what} is told by subject and setting, and nothing at all is changed`, async (t) => {
      const registry = await started(t);
      await make(registry);
      const before = await stateOf(registry);
      registry.writes.length = 0;
      const found = await apply(registry, true, few);
      assert.deepEqual(found.filter(({ kind }) => kind === 'drift'), [{ subject, kind: 'drift', ...finding }]);
      assert.deepEqual([await stateOf(registry), registry.writes], [before, []]);
      const fault = faultOfSubjects(found);
      assert.equal(fault?.code, 'config_invalid');
      assert.match(fault.where ?? '', new RegExp(`^${subject}: `));
    });
  }
}

/** Calls of `write` up to the n-th pass. */
const nth = (n: number, write: RegExp, fault: ReturnType<TestRegistry['fault']>): TestRegistry['fault'] => {
  let left = n;
  return ({ method, path }) => (write.test(`${method} ${path}`) && --left === 0 ? fault : null);
};

function failing(started: Start): void {
  it('a registry without import mode, and one whose modes may not be changed: the remedy is told, and nothing is done', async (t) => {
    const registry = await started(t);
    const before = await stateOf(registry);
    const refusals = [[refusal(42205, 'Mode mutability is not enabled'), /import.*mode\.mutability/], [refusal(42204, 'Invalid mode. Valid values are READWRITE, READONLY'), /no import mode.*25\.3/], [refusal(405, 'HTTP 405 Method Not Allowed'), /no import mode/]] as const;
    for (const [told, message] of refusals) {
      registry.fault = ({ method, path }) => (method === 'PUT' && path.startsWith('/mode/') ? told : null);
      registry.writes.length = 0;
      await assert.rejects(apply(registry, true, few), { code: 'config_invalid', message });
      assert.deepEqual([registry.writes.length, await stateOf(registry)], [1, before]);
    }
  });

  const places = [[2, /^PUT \/mode/], [1, /^POST \/subjects/], [3, /^POST \/subjects/], [2, /^PUT \/config/]] as const;
  const wholes: ReadonlyArray<readonly [string, ReturnType<TestRegistry['fault']>, string]> = [
    ['an error of the registry', refusal(50001, 'Error in the backend data store'), 'unreachable'],
    ['a refusal', refusal(42201, 'Invalid schema'), 'config_invalid'],
    ['a cut before', 'cut', 'unreachable'],
    ['a cut after it was done', { after: 'cut' }, 'unreachable'],
    ['silence', 'silence', 'unreachable'],
  ];
  for (const [what, fault, code] of wholes) {
    it(`${what} in the midst: what was begun is taken back, and the next run does it all`, async (t) => {
      const registry = await started(t);
      const before = await stateOf(registry);
      // Silence takes its time.
      for (const [n, write] of fault === 'silence' ? places.slice(2, 3) : places) {
        registry.fault = nth(n, write, fault);
        await assert.rejects(apply(registry, true, few, fault === 'silence' ? impatient : quick), { code });
        assert.deepEqual(await stateOf(registry), before, `${n}. ${write.source}`);
      }
      registry.fault = () => null;
      assert.deepEqual(await kindsOf(apply(registry, true, few)), ['made']);
      assert.deepEqual(await kindsOf(apply(registry, false, few)), ['as declared']);
    });
  }

  it('a registry that goes away for good in the midst: that is said, and the next run goes on from there', async (t) => {
    const registry = await started(t);
    let posts = 0;
    registry.fault = ({ method }) => (method === 'POST' && ++posts > 2) || posts > 2 ? 'cut' : null;
    await assert.rejects(apply(registry, true, few), { code: 'unreachable', message: /could not be taken back, and spamer topics apply goes on/ });
    registry.fault = () => null;
    await apply(registry, true, few);
    assert.deepEqual(await kindsOf(apply(registry, false, few)), ['as declared']);
  });
}

it('every topic has its subjects, every message its file, and the ids are those of the wire format', () => {
  for (const { name } of topics(config)) assert.ok(declared.some(({ subject }) => subject.startsWith(`t.${name}-`)), name);
  const ids = declared.flatMap(({ schemas }) => schemas.map(({ id }) => id));
  assert.equal(new Set(ids).size, ids.length);
  assert.deepEqual(declared.filter(({ subject }) => subject.startsWith('t.vitals.anonymized')).map(({ subject, schemas }) => [subject, schemas.at(-1)?.id]), [['t.vitals.anonymized-spamer.AnonymizedRun', schemaIds.AnonymizedRun], ['t.vitals.anonymized-spamer.AnonymizedNumeric', schemaIds.AnonymizedNumeric]]);
});

it('a schema is the same with other docs, defaults and order of keys, and another with another field', () => {
  const { schemas: [{ schema } = assert.fail()] } = subjectOf('AuditRecord');
  const parsed = JSON.parse(schema) as { fields: Array<Record<string, unknown>> };
  assert.ok(sameForm(schema, JSON.stringify({ ...parsed, doc: 'another', fields: parsed.fields.map((field) => Object.fromEntries(Object.entries(field).filter(([key]) => key !== 'doc' && key !== 'default').reverse())) })));
  assert.ok(!sameForm(schema, withField(schema, compatible)));
  for (const broken of ['', '{}', '"nothing"', '[[[']) assert.ok(!sameForm(broken, broken), broken);
});

it('nobody there, a stranger, too much, and a wrong password are told by name, without the password or what was answered', async (t) => {
  const registry = await startDouble({ user: 'spamer', password: 'secret-of-schemas' });
  t.after(() => registry.stop());
  const told = async (account: { user: string; password: string } | undefined, url = registry.url, patience = quick): Promise<SpamerError> => {
    const error: unknown = await applyConfiguredSubjects(config, { url, ...patience, ...(account === undefined ? {} : { account }) }, true).then(() => null, (thrown: unknown) => thrown);
    assert.ok(error instanceof SpamerError, String(error));
    assert.doesNotMatch(`${error.message} ${error.where}`, /secret-of|not-the|private words/);
    return error;
  };
  const right = { user: 'spamer', password: 'secret-of-schemas' };
  assert.deepEqual([(await told({ user: 'spamer', password: 'not-the-password' })).where, (await told(undefined)).where], ['schema_registry_user', 'schema_registry_user']);
  assert.deepEqual([(await told(right, `http://127.0.0.1:${await freePort()}`)).code], ['unreachable']);
  for (const [answered, code] of [[{ status: 200, body: '<html>private words' }, 'config_invalid'], [{ status: 404, body: 'private words' }, 'config_invalid'], [{ status: 200, body: ['JSON'] }, 'config_invalid'], [{ status: 200, body: 'x'.repeat(2_000_000) }, 'config_invalid'], [{ status: 503, body: 'private words' }, 'unreachable'], ['silence', 'unreachable']] as const) {
    registry.fault = () => answered;
    assert.equal((await told(right, registry.url, answered === 'silence' ? impatient : quick)).code, code, JSON.stringify(answered).slice(0, 60));
  }
  registry.fault = () => null;
  const findings = await applyConfiguredSubjects(config, { url: registry.url, ...quick, account: right }, true);
  assert.equal(faultOfSubjects(findings), null);
});

it('a registry whose certificate is of a private authority is trusted by the file that names it; without it, with another, or with none that is one, a line says so', { skip: withoutOpenssl }, async (t) => {
  const folder = temporaryFolder('schema-tls');
  t.after(() => folder.remove());
  const [own, stranger] = [makeCertificate(folder.dir, 'registry'), makeCertificate(folder.dir, 'stranger')];
  const registry = await startDouble({ user: 'spamer', password: 'secret-of-schemas' }, own);
  t.after(() => registry.stop());
  const asked = async (ca?: string): Promise<string> => {
    const given = loadConfig({ environment: { SPAMER_KAFKA_BROKERS: '127.0.0.1:9', SPAMER_SCHEMA_REGISTRY_URL: registry.url, SPAMER_SCHEMA_REGISTRY_USER: 'spamer', SPAMER_SCHEMA_REGISTRY_PASSWORD: 'secret-of-schemas', ...(ca === undefined ? {} : { SPAMER_SCHEMA_REGISTRY_TLS_CA_FILE: ca }) }, cwd: '/' });
    try {
      const findings = await applyConfiguredSubjects(given, { ...(schemaRegistryOf(given) ?? assert.fail()), ...quick }, true);
      return findings.every(({ kind }) => kind === 'made') ? 'made' : 'not made';
    } catch (error) {
      assert.ok(error instanceof SpamerError);
      return `${error.code} ${error.where === undefined ? '' : error.where.replace(folder.dir, '')}`;
    }
  };
  for (const ca of [undefined, stranger.cert]) assert.equal(await asked(ca), 'config_invalid schema_registry_tls_ca_file', ca);
  assert.equal(await asked(join(folder.dir, 'absent.pem')), 'config_invalid /absent.pem');
  assert.deepEqual(registry.writes, [], 'nothing was said to whom is not trusted');
  assert.equal(await asked(own.cert), 'made');
});

it('doctor asks the schema registry, whether or not the brokers answer', async (t) => {
  const registry = await startDouble();
  const folder = temporaryFolder('schema-doctor');
  t.after(async () => { folder.remove(); await registry.stop(); });
  const doctor = async (url: string): Promise<{ good: boolean; found: string } | undefined> => {
    const { out } = await cli(folder.dir, ['doctor', '--json'], { SPAMER_KAFKA_BROKERS: '127.0.0.1:9', SPAMER_KAFKA_TOPIC_PREFIX: 't.', SPAMER_SCHEMA_REGISTRY_URL: url, NODE_PATH: '' });
    return (JSON.parse(out) as { findings: Array<{ check: string; good: boolean; found: string }> }).findings.find(({ check }) => check === 'schema_registry_url');
  };
  const before = await doctor(registry.url);
  await apply(registry);
  const after = await doctor(`${registry.url}/`);
  assert.deepEqual([before?.good, after?.good], [false, true]);
  assert.match(before?.found ?? '', /9 subjects are not in the schema registry.*t\.vitals\.raw-value/);
});
