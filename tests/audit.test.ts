import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { api, cli, startProgram, temporaryFolder, until } from './program.js';

const kills = 3;

test(`an act that took effect has its entry after ${kills} kills in the middle of acts, and the export verifies until one byte of it changes [DURABLE]`, { timeout: 180_000 }, async (t) => {
  const folder = temporaryFolder('audit');
  const data = join(folder.dir, 'data');
  const at = (name: string): string => join(folder.dir, name);
  let program = await startProgram(data);
  t.after(async () => { await program.kill(); folder.remove(); });
  let made = 0;
  for (let kill = 0; kill < kills; kill++) {
    const server = api(program, data);
    const adding = Array.from({ length: 200 }, (_, index) =>
      server.post('/v1/patients', { attributes: { name: `Test Person ${kill}-${index}`, recordNumber: `A-${kill}-${index}`, birthDate: '1950-05-05', sex: 'F', zip: '02139' } }).then(() => { made += 1; }, () => undefined));
    // Some are answered, the others are under way.
    const wanted = made + 1 + Math.floor(Math.random() * 20);
    await until('answers', async () => made >= wanted);
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 50));
    await program.kill();
    await Promise.all(adding);
    program = await startProgram(data);
  }
  const server = api(program, data);
  const patients: Array<{ readonly patient: string }> = [];
  for (let cursor: string | null = ''; cursor !== null;) {
    const page: { readonly patients: typeof patients; readonly next: string | null } = await server.get(`/v1/patients?limit=50${cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`}`);
    patients.push(...page.patients);
    cursor = page.next;
  }
  assert.ok(made > 0 && patients.length >= made, `${made} were answered, ${patients.length} exist`);
  for (const { patient } of patients) {
    const { rows } = await server.get<{ rows: ReadonlyArray<{ action: string }> }>(`/v1/audit/search?patient=${patient}`);
    assert.ok(rows.length > 0, 'a patient exists without an entry');
  }

  const run = (args: readonly string[]): ReturnType<typeof cli> => cli(data, ['audit', ...args]);
  assert.equal((await run(['key', '--out', at('key')])).code, 0);
  assert.equal((await run(['checkpoint', '--out', at('checkpoint')])).code, 0);
  assert.equal((await run(['export', '--out', at('export')])).code, 0);
  const valid = await run(['verify', at('export'), '--key', at('key'), '--against', at('checkpoint')]);
  assert.equal(valid.code, 0, valid.out + valid.err);
  const lines = readFileSync(at('export'), 'utf8').split('\n');
  const entry = Math.floor(lines.length / 2);
  const line = lines[entry] ?? '';
  const place = line.length - 12;
  writeFileSync(at('changed'), lines.with(entry, `${line.slice(0, place)}${line[place] === 'A' ? 'B' : 'A'}${line.slice(place + 1)}`).join('\n'));
  assert.equal((await run(['verify', at('changed'), '--key', at('key')])).code, 1);
  writeFileSync(at('shorter'), lines.filter((_, index) => index !== entry).join('\n'));
  assert.equal((await run(['verify', at('shorter'), '--key', at('key')])).code, 1);
  t.diagnostic(`${patients.length} patients, ${made} answered, ${lines.length} lines`);
});
