import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SpamerError } from '../core/errors.js';
import { cedar } from './cedar.js';

export interface PolicyFiles {
  /** The Cedar schema's text. */
  readonly schema: string;
  /** Text by `@id`. */
  readonly policies: Readonly<Record<string, string>>;
  /** Paths of the `*.test.json` beside the policies. */
  readonly tests: readonly string[];
}

/** Policies stay where the source is: beside this file, or, seen from `dist/security/`, two folders up. */
export function policiesFolder(): string {
  const candidates = ['./policies', '../../security/policies'].map((path) => fileURLToPath(new URL(path, import.meta.url)));
  const found = candidates.find((path) => existsSync(join(path, 'spamer.cedarschema')));
  if (found === undefined) throw new SpamerError('part_missing', 'the policies are not installed', { where: 'security/policies' });
  return found;
}

/**
 * The program's policies, and an operator's own beside them: every `*.cedar` and `*.test.json` of the folder. The schema is the program's.
 * @throws SpamerError `config_invalid` that names the file: unreadable, does not parse, no or a second `@id`
 */
export function readPolicyFiles(own?: string): PolicyFiles {
  const policies: Record<string, string> = {};
  const { schema, texts, tests } = readTexts(own);
  for (const { path, text } of texts) addPolicies(policies, path, text);
  return { schema, policies, tests };
}

export interface PolicyTexts {
  readonly schema: string;
  /** The `*.cedar` files. */
  readonly texts: ReadonlyArray<{ readonly path: string; readonly text: string }>;
  readonly tests: readonly string[];
}

/** What lies in the folders, as it is. @throws SpamerError `config_invalid` when the operator's own can't be read */
export function readTexts(own?: string): PolicyTexts {
  const folders = [policiesFolder(), ...(own === undefined ? [] : [own])];
  const files = folders.flatMap((folder) => namesOf(folder).map((name) => join(folder, name)));
  const texts = files.filter((file) => file.endsWith('.cedar')).map((path) => ({ path, text: readFileSync(path, 'utf8') }));
  return { schema: readFileSync(join(policiesFolder(), 'spamer.cedarschema'), 'utf8'), texts, tests: files.filter((file) => file.endsWith('.test.json')) };
}

function namesOf(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    throw new SpamerError('config_invalid', 'the folder of own policies cannot be read', { where: 'policy_dir' });
  }
}

function addPolicies(policies: Record<string, string>, path: string, text: string): void {
  const bad = (message: string): SpamerError => new SpamerError('config_invalid', `policies: ${message}`, { where: path });
  const parts = cedar().policySetTextToParts(text);
  if (parts.type === 'failure') throw bad(parts.errors[0]?.message ?? 'does not parse');
  if (parts.policy_templates.length > 0) throw bad('templates are not used here');
  for (const one of parts.policies) {
    const parsed = cedar().policyToJson(one);
    const id = parsed.type === 'success' ? parsed.json.annotations?.['id'] : undefined;
    if (typeof id !== 'string' || !/^[a-z0-9][a-z0-9-]{0,63}$/.test(id)) throw bad('every policy needs an @id of lower-case letters, digits and hyphens');
    if (policies[id] !== undefined) throw bad(`@id("${id}") is there twice (also in another file than ${basename(path)}, perhaps)`);
    policies[id] = one;
  }
}
