import assert from 'node:assert/strict';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { signalOf } from '../schemas/signals.js';
import { csvMappings, guessMapping } from './csv.js';
import { cutFrames } from './framer.js';
import { openRecording } from './open.js';
import { columnsSource } from './source.js';
import { demoFolder, together, wardBeds } from './ward.js';

test('the ward has 12 beds, recorded and synthetic, each with signals that the platform knows, moving every second', async () => {
  const beds = wardBeds();
  assert.deepEqual(beds.map(({ bed }) => bed), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
  assert.equal(beds.filter(({ origin }) => origin === 'recorded').length, 5);
  for (const { open, origin, title } of beds) {
    const source = await open();
    assert.equal(source.origin, origin);
    for (const signal of source.signals) assert.ok(signalOf(signal.code)?.units.includes(signal.unit), `${title}: ${signal.label}`);
    let frames = 0;
    for await (const { samples } of cutFrames({ source, startUs: 0, frameSeconds: 1 })) {
      assert.ok(samples > 0);
      // More than one lap of the shortest excerpts.
      if (++frames === 200) break;
    }
    assert.equal(frames, 200, title);
  }
});

test('eleven beds send a heart rate and fewer an oxygen saturation: one signal of the demo reaches the smallest cell that is published, and others do not', async () => {
  const signals = await Promise.all(wardBeds().map(async ({ open }) => (await open()).signals));
  const bedsWith = (name: string): number => signals.filter((of) => of.some(({ code }) => signalOf(code)?.name === name)).length;
  assert.equal(bedsWith('MDC_ECG_HEART_RATE'), 11);
  assert.ok(bedsWith('MDC_PULS_OXIM_SAT_O2') < 11);
});

test('the excerpts are at most 2 MB, and each is named in demo/README.md', async () => {
  const readme = await readFile(join(demoFolder, 'README.md'), 'utf8');
  let bytes = 0;
  for (const name of await readdir(demoFolder)) {
    bytes += (await stat(join(demoFolder, name))).size;
    if (name !== 'README.md') assert.ok(readme.includes(`\`${name}\``), name);
  }
  assert.ok(bytes <= 2_000_000, `${bytes} bytes`);
});

test('every excerpt opens by its name alone, and an unknown name says which mappings there are', async () => {
  for (const name of await readdir(demoFolder)) {
    if (name === 'README.md') continue;
    assert.ok((guessMapping(name) ?? '') in csvMappings, name);
    assert.ok(((await openRecording(join(demoFolder, name))).durationUs ?? 0) > 10e6);
  }
  await assert.rejects(openRecording('unknown.csv'), /bidmc-numerics/);
});

test('signals that began at different times stay aligned when they play together', async () => {
  const column = (from: number): Parameters<typeof columnsSource>[0]['columns'][number] => ({ code: from, unit: 0, hz: 2, periodNs: 5e8, scale: 1, offset: 0, label: '', kind: 'wave', samples: Int32Array.from({ length: 20 }, (_, at) => from + at) });
  const source = together('x', [columnsSource({ name: 'a', startUs: 0, columns: [column(0)] }), columnsSource({ name: 'b', startUs: 3e6, columns: [column(100)] })]);
  assert.equal(source.durationUs, 7e6);
  assert.deepEqual((await source.read(0, 1e6)).map(({ signal, index, samples }) => [signal, index, [...samples]]), [[0, 0, [6, 7]], [1, 0, [100, 101]]]);
});
