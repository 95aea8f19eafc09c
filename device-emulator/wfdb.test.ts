import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { SpamerError } from '../core/errors.js';
import type { Piece, Source } from './source.js';
import { openWfdb } from './wfdb.js';
import { formatOf } from './wfdb-formats.js';
import { parseHeader } from './wfdb-header.js';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');

// 212: the first bytes of MIT-BIH record 100, whose header names 995 and 1011 as initial values.
const vectors: ReadonlyArray<readonly [format: number, bytes: string, samples: number[]]> = [
  [8, '01 ff 7f', [1, -1, 127]],
  [16, '01 00 ff ff 00 80', [1, -1, -32768]],
  [24, '01 00 00 ff ff ff', [1, -1]],
  [32, '01 00 00 00 00 00 00 80', [1, -(2 ** 31)]],
  [61, '00 01 ff fe', [1, -2]],
  [80, '80 00 ff', [0, -128, 127]],
  [160, '00 80 ff ff', [0, 32767]],
  [212, 'e3 33 f3', [995, 1011]],
  [212, 'ff 8f 00 01 08', [-1, -2048, -2047]],
  [310, '02 08 fe 0f', [1, -1, 33]],
  [310, '02 00 04 00', [1, 2, 0]],
  [311, '01 08 30 00', [1, 2, 3]],
  [311, 'ff ff ff 3f', [-1, -1, -1]],
];
for (const [number, bytes, samples] of vectors) {
  test(`format ${number} reads and writes the bytes ${bytes}`, () => {
    const format = formatOf(number, 'vector');
    assert.deepEqual([...format.read(hex(bytes), samples.length)], samples);
    assert.deepEqual(format.write(samples), hex(bytes));
    assert.equal(format.bytes(samples.length), hex(bytes).length);
  });
}

for (const number of [16, 24, 32, 61, 80, 160, 212, 310, 311]) {
  test(`format ${number} keeps its whole range, for any count of samples`, () => {
    const format = formatOf(number, 'range');
    for (let count = 1; count <= 7; count++) {
      const samples = Int32Array.from({ length: count }, (_, at) => [format.min, format.max, format.missing ?? 0, 0, -1, 1, 5][at] ?? 0);
      assert.deepEqual(format.read(format.write(samples), count), samples);
    }
  });
}

async function folderOf(context: TestContext, files: Readonly<Record<string, string | Buffer>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'spamer-wfdb-'));
  context.after(() => rm(folder, { recursive: true }));
  for (const [name, content] of Object.entries(files)) await writeFile(join(folder, name), content);
  return folder;
}

const all = (source: Source): Promise<readonly Piece[]> => source.read(0, source.durationUs ?? 0);
const plain = (pieces: readonly Piece[]): Array<[number, number, number[]]> => pieces.map(({ signal, index, samples }) => [signal, index, [...samples]]);

test('signals of one file are separated, with several samples a frame, byte offset, gain and baseline', async (context) => {
  const data = Buffer.concat([Buffer.from('head'), formatOf(16, '').write([1, 2, 10, 3, 4, 20])]);
  const folder = await folderOf(context, { 'r.hea': 'r 2 125 2\nr.dat 16x2+4 2963.77(-5)/mV 12 7 1 10 0 II\nr.dat 16+4 10/mmHg 12 0 10 30 0 ABP\n', 'r.dat': data });
  const source = await openWfdb(join(folder, 'r'));
  assert.deepEqual(plain(await all(source)), [[0, 0, [1, 2, 3, 4]], [1, 0, [10, 20]]]);
  assert.deepEqual(source.signals.map(({ hz, periodNs, code }) => [hz, periodNs, code]), [[250, 4_000_000, 131330], [125, 8_000_000, 150036]]);
  assert.equal(source.signals[0]?.scale, 1 / 2963.77);
  assert.equal(source.signals[0].offset, 5 / 2963.77);
});

test('format 8 adds up differences from the initial value, per signal', async (context) => {
  const folder = await folderOf(context, { 'r.hea': 'r 2 100 3\nr.dat 8 200 8 0 100 0 0 I\nr.dat 8 200 8 0 -50 0 0 II\n', 'r.dat': hex('00 00 01 ff 02 fe') });
  assert.deepEqual(plain(await all(await openWfdb(join(folder, 'r'), { verify: false }))), [[0, 0, [100, 101, 103]], [1, 0, [-50, -51, -53]]]);
});

test('a skewed signal is put back in time; its end is missing', async (context) => {
  const folder = await folderOf(context, { 'r.hea': 'r 1 100 4\nr.dat 16:1 200 16 0 9 0 0 I\n', 'r.dat': formatOf(16, '').write([9, 1, 2, 3]) });
  assert.deepEqual(plain(await all(await openWfdb(join(folder, 'r'), { verify: false }))), [[0, 0, [1, 2, 3]]]);
});

test('missing samples are left out, not sent as values', async (context) => {
  const folder = await folderOf(context, { 'r.hea': 'r 1 100 5\nr.dat 212 200 12 0 1 0 0 I\n', 'r.dat': formatOf(212, '').write([1, -2048, -2048, 4, 5]) });
  assert.deepEqual(plain(await all(await openWfdb(join(folder, 'r'), { verify: false }))), [[0, 0, [1]], [0, 3, [4, 5]]]);
});

test('a variable-layout record: signals by name, a gain of its own per segment, gaps for ~ and for a missing file', async (context) => {
  const folder = await folderOf(context, {
    'm.hea': 'm/5 2 100 8\nlay 0\na 2\n~ 2\nlost 2\nb 2\n',
    'lay.hea': 'lay 2 100 0\n~ 0 100/mV 16 0 0 0 0 II\n~ 0 1/mmHg 16 0 0 0 0 ABP\n',
    'a.hea': 'a 1 100 2\na.dat 16 100/mV 16 0 1 3 0 II\n', 'a.dat': formatOf(16, '').write([1, 2]),
    'lost.hea': 'lost 1 100 2\nlost.dat 16 100/mV 16 0 1 3 0 II\n',
    'b.hea': 'b 2 100 2\nb.dat 16 1/mmHg 16 0 5 11 0 ABP\nb.dat 16 50/mV 16 0 7 15 0 II\n', 'b.dat': formatOf(16, '').write([5, 7, 6, 8]),
  });
  const source = await openWfdb(join(folder, 'm'));
  const pieces = await all(source);
  assert.deepEqual(plain(pieces), [[0, 0, [1, 2]], [0, 6, [7, 8]], [1, 6, [5, 6]]]);
  assert.deepEqual(pieces.map(({ scale }) => scale), [undefined, 1 / 50, undefined]);
  assert.match(source.warnings.join(), /segment lost/);
  assert.equal(source.durationUs, 80_000);
});

test('a wrong checksum and a short file are told with the file, never played', async (context) => {
  const folder = await folderOf(context, {
    'sum.hea': 'sum 1 100 2\nd.dat 16 200 16 0 1 4 0 I\n', 'long.hea': 'long 1 100 9\nd.dat 16 200 16 0 1 3 0 I\n', 'd.dat': formatOf(16, '').write([1, 2]),
  });
  for (const name of ['sum', 'long']) {
    const source = await openWfdb(join(folder, name));
    await assert.rejects(all(source), (error) => error instanceof SpamerError && error.code === 'data_damaged' && /d\.dat/.test(error.where ?? ''));
  }
});

test('a header tells base time, defaults and comments; a bad one names its line', () => {
  const header = parseHeader('# note\nr 1 360/1(2) 10 8:26:04.5 26/10/1994\nr.dat 212 0 12 1024\n', 'r.hea');
  assert.equal(header.startUs, Date.UTC(1994, 9, 26, 8, 26, 4) * 1000 + 500_000);
  assert.deepEqual(header.signals.map(({ gain, baseline, initial, units, checksum }) => [gain, baseline, initial, units, checksum]), [[200, 1024, 1024, 'mV', null]]);
  assert.throws(() => parseHeader('r 1 360\nr.dat twelve\n', 'r.hea'), (error) => error instanceof SpamerError && error.where === 'r.hea:2');
});
