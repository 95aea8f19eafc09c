import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { SpamerError } from '../core/errors.js';
import { builtOf, openPolicies } from './built-policies.js';
import { checkedSlices } from './policy.js';
import { readPolicyFiles, readTexts } from './policy-files.js';

test('[DENY] what the build has checked is what a start would check, and is taken for no other file', () => {
  const [texts, files] = [readTexts(), readPolicyFiles()];
  const built = builtOf(texts);
  assert.deepEqual({ policies: built?.policies, slices: built?.slices }, { policies: files.policies, slices: checkedSlices(files) });
  assert.deepEqual(openPolicies().files, files);
  const [first, ...others] = texts.texts;
  assert.ok(first !== undefined && others.length > 0);
  for (const changed of [
    { ...texts, schema: `${texts.schema} ` },
    { ...texts, texts: [{ ...first, text: `${first.text}\n` }, ...others] },
    { ...texts, texts: [{ ...first, path: `${first.path}x` }, ...others] },
    { ...texts, texts: others },
    { ...texts, texts: [...texts.texts, { path: 'own.cedar', text: '' }] },
  ]) assert.equal(builtOf(changed), null);
});

test('[DENY] own policies are checked with the program\'s, by each start', (t) => {
  const own = mkdtempSync(join(tmpdir(), 'spamer-policies-'));
  t.after(() => rmSync(own, { recursive: true, force: true }));
  const guard = (text: string): void => writeFileSync(join(own, 'own.cedar'), text);
  guard('@id("own") forbid (principal, action == Action::"readStatus", resource);');
  assert.ok(openPolicies(own).files.policies['own'] !== undefined);
  for (const bad of ['@id("own") forbid (principal, action == Action::"readNothing", resource);', '@id("own") forbid (principal, action, resource', 'forbid (principal, action, resource);']) {
    guard(bad);
    assert.throws(() => openPolicies(own), (error: unknown) => error instanceof SpamerError && error.code === 'config_invalid', bad);
  }
});
