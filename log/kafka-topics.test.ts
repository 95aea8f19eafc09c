import assert from 'node:assert/strict';
import { test } from 'node:test';
import { declaredTopics, settingsThatDiffer } from './kafka-topics.js';

const [records] = declaredTopics([{ name: 'vitals.raw', partitions: 1, writer: 'ingest', consumers: [], retentionAgeUs: null, retentionBytes: null }], ['ingest'], { replicas: 3, minInSync: 2 });
const declared = records?.config ?? {};
const found = (changed: Record<string, string> = {}) => new Map(Object.entries({ ...declared, ...changed }));

void test('[DURABLE] a topic that acks from memory (Redpanda\'s write.caching), or from fewer replicas than declared, differs', () => {
  assert.deepEqual(settingsThatDiffer(declared, found()), []);
  assert.deepEqual(settingsThatDiffer(declared, found({ 'write.caching': 'false' })), []);
  assert.deepEqual(settingsThatDiffer(declared, found({ 'write.caching': 'true' })), [{ setting: 'write.caching', declared: 'false', found: 'true' }]);
  assert.deepEqual(settingsThatDiffer(declared, found({ 'min.insync.replicas': '1' })), [{ setting: 'min.insync.replicas', declared: '2', found: '1' }]);
});

void test('more than the least that will do is as declared, and so is what the brokers don\'t know', () => {
  assert.deepEqual(settingsThatDiffer(declared, found({ 'min.insync.replicas': '3', 'max.message.bytes': '2147483647' })), []);
  assert.deepEqual(settingsThatDiffer(declared, found({ 'max.message.bytes': '1048588' })).map(({ setting }) => setting), ['max.message.bytes']);
  assert.deepEqual(settingsThatDiffer(declared, new Map()), []);
});

void test('topics of state from before their segments were declared are as declared: only time rests on those', () => {
  assert.deepEqual(settingsThatDiffer({ ...declared, 'segment.bytes': '16777216' }, found({ 'segment.bytes': '1073741824' })), []);
});
