import assert from 'node:assert/strict';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { startProgram, temporaryFolder, type Started } from './program.js';

test('a creating request that is sent again after a kill is answered as before, and its token is nowhere at rest [SEALED]', { timeout: 90_000 }, async (t) => {
  const folder = temporaryFolder('idempotency');
  let program: Started = await startProgram(folder.dir);
  t.after(async () => { await program.kill(); folder.remove(); });
  const admin = readFileSync(join(folder.dir, 'admin.token'), 'utf8').trim();
  const post = async (path: string, key: string, body: unknown) => {
    const response = await fetch(new URL(path, program.http), { method: 'POST', headers: { authorization: `Bearer ${admin}`, 'content-type': 'application/json', 'idempotency-key': key }, body: JSON.stringify(body) });
    return { status: response.status, replayed: response.headers.get('idempotency-replayed') === 'true', body: (await response.json()) as Record<string, unknown> };
  };
  const person = { attributes: { name: 'Zanzibar Quellwasser', recordNumber: 'ID-1', birthDate: '1961-05-17', sex: 'F' } };
  const made = await Promise.all(Array.from({ length: 4 }, () => post('/v1/patients', 'key-1', person)));
  assert.deepEqual(made.map(({ status }) => status), [201, 201, 201, 201]);
  assert.equal(new Set(made.map(({ body }) => body['patient'])).size, 1, 'one patient, though four asked at once');
  const token = await post('/v1/tokens', 'key-2', { role: 'researcher', subject: 'notebook', expiresInS: 600 });
  await program.kill();
  program = await startProgram(folder.dir);
  const again = await post('/v1/patients', 'key-1', person);
  assert.deepEqual([again.status, again.replayed, again.body], [201, true, made[0]?.body]);
  assert.deepEqual((await post('/v1/tokens', 'key-2', { role: 'researcher', subject: 'notebook', expiresInS: 600 })).body, token.body);
  assert.equal((await post('/v1/patients', 'key-1', { attributes: { ...person.attributes, name: 'Another' } })).status, 422);
  await program.kill();
  const secret = String(token.body['token']);
  assert.ok(secret.length > 20);
  const files = readdirSync(folder.dir, { recursive: true }).map((name) => join(folder.dir, String(name))).filter((file) => statSync(file).isFile());
  for (const file of files) {
    const bytes = readFileSync(file);
    for (const needle of [secret, person.attributes.name]) assert.ok(!bytes.includes(needle), `${file} holds what nobody may read there`);
  }
});
