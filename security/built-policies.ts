import { createHash } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { checkedSlices, PolicyEngine, type Slices } from './policy.js';
import { readPolicyFiles, readTexts, type PolicyTexts } from './policy-files.js';

/** What the build has made of the program's own policies. */
export interface BuiltPolicies {
  /** Of what it was made of: the files, and the library that checked them. */
  readonly of: string;
  readonly policies: Readonly<Record<string, string>>;
  readonly slices: Slices;
}

const path = fileURLToPath(new URL('./policies.json', import.meta.url));

/**
 * The program's policies, and an operator's own beside them. Without such, those that were checked when the program was built
 * (`node dist/security/built-policies.js`) are taken as they are, if they are of the files that lie there now, byte for byte, and of the library that decides by
 * them: to check them takes a quarter of a second, which each start had before its first ack.
 * @throws SpamerError as `readPolicyFiles` and `PolicyEngine`
 */
export function openPolicies(own?: string): PolicyEngine {
  if (own !== undefined) return new PolicyEngine(readPolicyFiles(own));
  const texts = readTexts();
  const built = builtOf(texts);
  return built === null ? new PolicyEngine(readPolicyFiles()) : new PolicyEngine({ schema: texts.schema, policies: built.policies, tests: texts.tests }, built.slices);
}

/** null: nothing was built, or of something else. */
export function builtOf(texts: PolicyTexts): BuiltPolicies | null {
  try {
    const built = JSON.parse(readFileSync(path, 'utf8')) as BuiltPolicies;
    return built.of === hashOf(texts) ? built : null;
  } catch {
    return null;
  }
}

function hashOf({ schema, texts }: PolicyTexts): string {
  const named = texts.map((file) => [basename(file.path), file.text]);
  return createHash('sha256').update(JSON.stringify([libraryVersion(), schema, named])).digest('hex');
}

function libraryVersion(): string {
  const library = createRequire(import.meta.url).resolve('@cedar-policy/cedar-wasm/nodejs');
  return (JSON.parse(readFileSync(join(library, '../../package.json'), 'utf8')) as { readonly version: string }).version;
}

function build(): void {
  const files = readPolicyFiles();
  const built: BuiltPolicies = { of: hashOf(readTexts()), policies: files.policies, slices: checkedSlices(files) };
  // Beside and renamed: a start meanwhile reads the whole of one or of the other.
  writeFileSync(`${path}.${process.pid}`, JSON.stringify(built));
  renameSync(`${path}.${process.pid}`, path);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) build();
