import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { SpamerError } from '../core/errors.js';
import { uuidBytes, type DeviceId } from '../core/ids.js';
import { partitionOf, type TopicSettings, type WholeState } from '../log/log.js';
import { sharedState } from './state-shares.js';

const partitions = 6;
const bytes = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
const topicsOf = (writer: string, shares: number): TopicSettings[] => [{ name: 'topic', writer, shares, partitions, consumers: [], retentionAgeUs: null, retentionBytes: null }];
const state = (entries: ReadonlyArray<readonly [table: string, key: string, value: unknown]>): WholeState => ({ state: entries.map(([table, key, value]) => ({ table, key, value: bytes(value) })), consumed: [] });
const told = (found: ReadonlyMap<string, WholeState>): ReadonlyArray<readonly [string, string[]]> => [...found].map(([writer, { state: own }]) => [writer, own.map(({ table, key, value }) => `${table} ${key} ${Buffer.from(value).toString()}`).sort()]);

test('[ONCE] [LEDGER] each entry of a writer goes to the share that will ask for it: of a device to one, holds by their partitions, counts that are added up to one, what all must know to all', () => {
  const devices = Array.from({ length: 40 }, () => randomUUID() as string as DeviceId);
  const shareOfDevice = (device: DeviceId): number => partitionOf(uuidBytes(device), partitions) % 2;
  const marks = sharedState(topicsOf('ingest', 2), 'ingest', state([...devices.map((device) => ['devices', device, 7] as const), ['tokens', 'ab12', 9], ['clock', 'receivedAt', 5]]));
  for (const [share, writer] of ['ingest.0', 'ingest.1'].entries()) {
    const own = devices.filter((device) => shareOfDevice(device) === share).map((device) => `devices ${device} 7`);
    assert.ok(own.length > 0);
    assert.deepEqual(new Map(told(marks)).get(writer), [...own, 'clock receivedAt 5', 'tokens ab12 9'].sort(), writer);
  }
  const held = sharedState(topicsOf('anonymize', 2), 'anonymize', state([
    ['holds', 'p/s', { first: { 0: 10, 1: 11, 4: 14 } }], ['holds', 'q/s', { first: { 3: 1 } }], ['released', 's/p/1', 100], ['times', '2', 5], ['unreadable', '3', 1], ['anchors', 'p', 'sealed'],
  ]));
  assert.deepEqual(told(held), [
    ['anonymize.0', ['anchors p "sealed"', 'holds p/s {"first":{"0":10,"4":14}}', 'released s/p/1 100', 'times 2 5']],
    ['anonymize.1', ['anchors p "sealed"', 'holds p/s {"first":{"1":11}}', 'holds q/s {"first":{"3":1}}', 'unreadable 3 1']],
  ]);
});

test('[ONCE] how far a stage is goes with its partitions, under the names of the writers that will ask for it', () => {
  const consumed = [0, 1, 2].map((partition) => ({ consumer: 'record', topic: 'vitals.raw', partition, offset: 10 + partition }));
  const found = sharedState(topicsOf('record', 2), 'record', { state: [], consumed });
  assert.deepEqual([...found].map(([writer, own]) => [writer, own.consumed.map(({ consumer, partition, offset }) => `${consumer} ${partition} ${offset}`)]), [
    ['record.0', ['record.0 0 10', 'record.0 2 12']], ['record.1', ['record.1 1 11']],
  ]);
  const stored = sharedState(topicsOf('record', 2), 'sinks', { state: [], consumed: consumed.map((one) => ({ ...one, consumer: 'pmr', topic: 'pmr.chunks' })) });
  assert.deepEqual([...stored].map(([writer, own]) => [writer, own.consumed.map(({ consumer, partition }) => `${consumer} ${partition}`)]), [['sinks.0', ['pmr 0', 'pmr 2']], ['sinks.1', ['pmr 1']]]);
});

test('a writer that is not shared out keeps all of its own; a table that nobody has thought of ends the move', () => {
  const whole = state([['anything', 'key', 1]]);
  assert.deepEqual([...sharedState(topicsOf('audit', 1), 'audit', whole)], [['audit', whole]]);
  assert.deepEqual([...sharedState(topicsOf('record', 1), 'sinks', whole)], [['sinks', whole]]);
  assert.throws(() => sharedState(topicsOf('record', 2), 'record', whole), (error: unknown) => error instanceof SpamerError && error.code === 'internal' && error.where === 'record/anything');
});
