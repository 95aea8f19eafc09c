import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { verdicts } from '../core/errors.js';
import { limits } from '../core/limits.js';
import { schemasFolder } from './avro.js';
import { schemaIds } from './ids.js';

const text = readFileSync(`${schemasFolder}../docs/protocol.md`, 'utf8');
const rows = (pattern: RegExp): ReadonlyArray<readonly string[]> => [...text.matchAll(pattern)].map((match) => match.slice(1));

test('docs/protocol.md quotes the golden vectors as they are', () => {
  const quoted = rows(/^\| `([A-Za-z]+\.\d)` \| `([0-9a-f]+)` \|$/gm);
  assert.equal(quoted.length, 7);
  for (const [name = '', hex] of quoted) {
    assert.equal((JSON.parse(readFileSync(`${schemasFolder}golden/${name}.json`, 'utf8')) as { hex: string }).hex, hex, name);
  }
});

test('the bytes of its drawings are those of the vectors', () => {
  const golden = ['1', '2'].map((n) => (JSON.parse(readFileSync(`${schemasFolder}golden/Frame.${n}.json`, 'utf8')) as { hex: string }).hex);
  const drawings = rows(/```\n((?: *(?:[0-9a-f]{2})+ [^\n]*\n)+)```/g).map(([drawing = '']) => drawing.split('\n').map((line) => (/^ *((?:(?:[0-9a-f]{2})+ )*(?:[0-9a-f]{2})+)(?:  |$)/.exec(`${line}  `)?.[1] ?? '').replaceAll(' ', '')).join(''));
  assert.equal(drawings.length, 2);
  assert.equal(drawings[0], golden[0]);
  assert.ok(golden[1]?.includes(drawings[1] ?? 'nothing'));
});

test('its Nack table says what core/errors.ts says', () => {
  const codes = rows(/^\| `([a-z_]+)` \| (yes|no) \|/gm);
  assert.equal(codes.length, 14);
  for (const [code = '', resend] of codes) {
    assert.equal(verdicts[code as keyof typeof verdicts].retry, resend === 'yes', code);
  }
});

test('its ids and limits are those of the program', () => {
  for (const [id, name = ''] of rows(/^\| (\d+) \| `([A-Za-z]+)` \| (?:device|server)/gm)) assert.equal(schemaIds[name as keyof typeof schemaIds], Number(id));
  const { frameChannelsMax, frameNumericsMax, frameEventsMax, frameBytesMax, messageBytesMax, waveformSamplesMax, windowFrames, windowBytes, idleTimeoutS, deviceTokenAgeMaxS } = limits;
  const spaced = (value: number): string => (value < 10_000 ? String(value) : value.toLocaleString('en').replaceAll(',', ' '));
  for (const phrase of [
    `| ${spaced(frameBytesMax)} (`, `| ${spaced(messageBytesMax)} (`, `${frameChannelsMax}; ${frameChannelsMax}; ${frameNumericsMax}; ${frameEventsMax}`,
    `| ${spaced(waveformSamplesMax)} |`, `${spaced(windowFrames)}; ${spaced(windowBytes)}`, `after ${idleTimeoutS} s without`, `at most ${deviceTokenAgeMaxS} after`,
  ]) assert.ok(text.includes(phrase), phrase);
});
