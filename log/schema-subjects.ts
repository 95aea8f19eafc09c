import { SpamerError } from '../core/errors.js';
import { avroType } from '../schemas/codec.js';
import type { NewSchema, Registered, SchemaRegistry } from './schema-registry.js';

/** A subject of the schema registry with all versions of one message, in rising order. */
export interface DeclaredSubject {
  readonly subject: string;
  readonly schemas: readonly NewSchema[];
}

/** 'missing': a version, its compatibility, or the end of an import that was broken off. */
export type SubjectFinding =
  | { readonly subject: string; readonly kind: 'made' | 'as declared' | 'missing' }
  | { readonly subject: string; readonly kind: 'drift'; readonly setting: string; readonly declared: string; readonly found: string };

/** What schemas/evolution.test.ts holds us to: every version reads every other. No level is stricter. */
export const compatibility = 'FULL_TRANSITIVE';

interface Found {
  readonly versions: readonly number[];
  /** For each declared schema, in its order: what has its id anywhere, and what has its number in the subject. */
  readonly byId: ReadonlyArray<string | null>;
  readonly byVersion: ReadonlyArray<Registered | null>;
  readonly compatibility: string | null;
  readonly mode: string | null;
}

interface Subject extends DeclaredSubject {
  readonly found: Found;
}

/**
 * Compares the subjects with what is declared, and registers what is missing (with `make`), under the ids that records carry.
 * It changes nothing that is there. With anything told as drift it makes nothing; what it began and can't end, it takes back.
 * @throws SpamerError `config_invalid`, `unreachable`
 */
export async function applySubjects(registry: SchemaRegistry, declared: readonly DeclaredSubject[], make: boolean): Promise<readonly SubjectFinding[]> {
  await registry.ready();
  const subjects = await readAll(registry, declared);
  const findings = subjects.flatMap(compared);
  if (!make || !findings.some(({ kind }) => kind === 'missing') || findings.some(({ kind }) => kind === 'drift')) return findings;
  await complete(registry, subjects.filter((subject) => isIncomplete(subject)));
  return findings.map((finding): SubjectFinding => (finding.kind === 'missing' ? { subject: finding.subject, kind: 'made' } : finding));
}

async function readAll(registry: SchemaRegistry, declared: readonly DeclaredSubject[]): Promise<Subject[]> {
  const subjects: Subject[] = [];
  for (const { subject, schemas } of declared) {
    const [versions, byId, byVersion, level, mode] = await Promise.all([
      registry.versions(subject), Promise.all(schemas.map(({ id }) => registry.schema(id))), Promise.all(schemas.map(({ version }) => registry.version(subject, version))),
      registry.compatibility(subject), registry.mode(subject),
    ]);
    subjects.push({ subject, schemas, found: { versions, byId, byVersion, compatibility: level, mode } });
  }
  return subjects;
}

function compared(subject: Subject): SubjectFinding[] {
  const { subject: name, schemas, found } = subject;
  const drift: SubjectFinding[] = [];
  const differs = (setting: string, wanted: string, is: string): void => { drift.push({ subject: name, kind: 'drift', setting, declared: wanted, found: is }); };
  schemas.forEach(({ id, version, schema }, i) => {
    const [byId, byVersion] = [found.byId[i] ?? null, found.byVersion[i] ?? null];
    if (byId !== null && !sameForm(byId, schema)) differs(`id ${id}`, 'ours', 'another schema');
    if (byVersion !== null && byVersion.id !== id) differs(`version ${version}`, `id ${id}`, `id ${byVersion.id}`);
  });
  const [newest, ours] = [Math.max(0, ...found.versions), schemas.at(-1)?.version ?? 0];
  if (newest > ours) differs('newest version', String(ours), String(newest));
  if (found.compatibility !== null && found.compatibility !== compatibility) differs('compatibility', compatibility, found.compatibility);
  if (drift.length > 0) return drift;
  return [{ subject: name, kind: isIncomplete(subject) ? 'missing' : 'as declared' }];
}

const missingOf = ({ schemas, found }: Subject): readonly NewSchema[] => schemas.filter((_, i) => (found.byVersion[i] ?? null) === null);
const isIncomplete = (subject: Subject): boolean => missingOf(subject).length > 0 || subject.found.compatibility === null || subject.found.mode === 'IMPORT';

/** All of it or nothing: first whatever may be refused as a whole, then each schema, at last a look at what it became. */
async function complete(registry: SchemaRegistry, subjects: readonly Subject[]): Promise<void> {
  await checkNewer(registry, subjects);
  const back: Array<() => Promise<void>> = [];
  try {
    for (const { subject, found } of subjects.filter((each) => missingOf(each).length > 0)) {
      await step(back, () => registry.startImport(subject, found.versions.length > 0), () => registry.endImport(subject, modeBefore(found)));
    }
    for (const each of subjects) {
      for (const schema of missingOf(each)) await step(back, () => registry.register(each.subject, schema), () => registry.remove(each.subject, schema.version));
      if (each.found.compatibility === null) await step(back, () => registry.setCompatibility(each.subject, compatibility), () => registry.resetCompatibility(each.subject));
    }
    await verify(registry, subjects);
  } catch (error) {
    throw await takenBack(back, error);
  }
  for (const { subject, found } of subjects) await registry.endImport(subject, modeBefore(found));
}

/** A subject that still imports was left so by a run that was broken off. */
const modeBefore = ({ mode }: Found): string | null => (mode === 'IMPORT' ? null : mode);

/** An import is not held to the subject's level, so a version that joins others is asked about first. */
async function checkNewer(registry: SchemaRegistry, subjects: readonly Subject[]): Promise<void> {
  for (const each of subjects.filter(({ found }) => found.versions.length > 0)) {
    for (const { schema, version } of missingOf(each)) {
      for (const other of each.found.versions) {
        if (!(await registry.compatible(each.subject, other, schema))) throw new SpamerError('config_invalid', `version ${version} of a schema is not compatible with version ${other} that the schema registry has`, { where: each.subject });
      }
    }
  }
}

/** A request without an answer may have been done all the same, so it is taken back too; one that was refused is not. */
async function step(back: Array<() => Promise<void>>, act: () => Promise<void>, undo: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (error) {
    if (error instanceof SpamerError && error.retry) back.push(undo);
    throw error;
  }
  back.push(undo);
}

async function takenBack(back: ReadonlyArray<() => Promise<void>>, error: unknown): Promise<unknown> {
  try {
    for (const undo of [...back].reverse()) await undo();
    return error;
  } catch {
    if (!(error instanceof SpamerError)) return error;
    return new SpamerError(error.code, `${error.message}; what was begun could not be taken back, and spamer topics apply goes on from there`, { ...(error.where === undefined ? {} : { where: error.where }), cause: error });
  }
}

async function verify(registry: SchemaRegistry, subjects: readonly DeclaredSubject[]): Promise<void> {
  for (const { found, ...declared } of await readAll(registry, subjects)) {
    // It still imports; the end of that is what comes last.
    const finding = compared({ ...declared, found: { ...found, mode: null } }).find(({ kind }) => kind !== 'as declared');
    if (finding !== undefined) throw new SpamerError('config_invalid', 'the schema registry did not keep what it took', { where: finding.subject });
  }
}

/**
 * Whether two texts are the same schema to who reads records: Avro's parsing canonical form, which leaves out docs, defaults and aliases.
 * Source: the Avro specification, "Transforming into Parsing Canonical Form".
 */
export function sameForm(a: string, b: string): boolean {
  const [left, right] = [formOf(a), formOf(b)];
  return left !== null && left === right;
}

/** null: no Avro schema. */
function formOf(text: string): string | null {
  try {
    return JSON.stringify(avroType(JSON.parse(text) as object).schema());
  } catch {
    return null;
  }
}
