import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { silentJournal } from '../core/journal.js';
import type { Writer } from '../log/log.js';
import { openLmdbLog, type LmdbLog } from '../log/lmdb.js';
import { numericFrame, startIngest, TestDevice, Ward } from './ingest.fixture.js';

const topic = { name: 'vitals.raw', partitions: 4, writer: 'ingest', consumers: [], retentionAgeUs: null, retentionBytes: null };
const range = (first: number, last: number): number[] => Array.from({ length: last - first + 1 }, (_, i) => first + i);

async function openLog(t: TestContext, dir: string, logBytesMax = 2 ** 30): Promise<{ log: LmdbLog; writer: Writer }> {
  const log = await openLmdbLog({ dir, topics: [topic], logBytesMax, journal: silentJournal });
  t.after(() => log.close());
  return { log, writer: await log.writer('ingest', { thread: true }) };
}

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-ingest-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

async function storedSeqs(log: LmdbLog, ward: Ward): Promise<number[]> {
  const all = { maxRecords: 1e6, maxBytes: 2 ** 30 };
  const records = (await Promise.all(range(0, 3).map((partition) => log.read('vitals.raw', partition, 0, all)))).flat();
  return ward.open(records).map(({ frame }) => frame.seq);
}

test('frames that a device sends again after a restart are in the LMDB log once [ONCE] [DURABLE]', async (t) => {
  const [dir, ward] = [folder(t), new Ward()];
  const id = ward.addDevice();
  const token = ward.token(id);
  const before = await openLog(t, dir);
  const server = await startIngest(before.writer, ward);
  const device = await TestDevice.connect(server.url, token);
  device.send(...range(1, 1000).map((seq) => numericFrame(1, seq)));
  await device.until(() => device.acked === 1000);
  await server.stop();
  await before.writer.close();
  await before.log.close();

  const after = await openLog(t, dir);
  const again = await startIngest(after.writer, ward);
  t.after(() => again.stop());
  await assert.rejects(TestDevice.connect(again.url, token));
  const back = await TestDevice.connect(again.url, ward.token(id));
  assert.equal(back.hello?.durableSeq, 1000);
  back.send(...range(900, 1100).map((seq) => numericFrame(1, seq)));
  await back.until(() => back.acked === 1100);
  assert.deepEqual(await storedSeqs(after.log, ward), range(1, 1100));
});

test('a full log stops acks with disk_full and loses nothing acked [DURABLE]', async (t) => {
  const [dir, ward] = [folder(t), new Ward()];
  const { log, writer } = await openLog(t, dir, 256 * 1024);
  const server = await startIngest(writer, ward, { retryAfterMs: 10 });
  t.after(() => server.stop());
  const device = await TestDevice.connect(server.url, ward.token(ward.addDevice()));
  for (let seq = 1; device.nacks.length === 0; seq += 500) {
    device.send(...range(seq, seq + 499).map((each) => numericFrame(1, each)));
    await device.until(() => device.nacks.length > 0 || device.acked === seq + 499);
  }
  assert.equal(device.nacks[0]?.code, 'disk_full');
  assert.equal(device.nacks[0]?.seq, device.acked + 1);
  assert.deepEqual(await storedSeqs(log, ward), range(1, device.acked));
});
