/**
 * What `kill.test.ts` kills: both stages over a real log. `node kill.child.js LOG_MODULE DIR fill|run|finish`; the backend's
 * module is an argument, since only app knows product names. `finish` drains, and prints what the outputs then hold.
 */
import { inflateRawSync } from 'node:zlib';
import { silentJournal } from '../core/journal.js';
import { uuidBytes, uuidText, type DeviceId, type PatientId } from '../core/ids.js';
import type { Log, StoredRecord, TopicSettings } from '../log/log.js';
import { decode, encodeBody } from '../schemas/codec.js';
import { decodeChunkContent, samplesOf } from '../schemas/frames.js';
import { FakeCustodian, fakeId, frame, newVault, rig, sealBlock, start, wave } from './testing.js';

const [module = '', dir = '', mode = ''] = process.argv.slice(2);
const partitions = 2;
const blocks = 120;
const beds = ['a', 'b', 'c', 'd'].map((name, index) => ({ name, device: fakeId<DeviceId>(`device ${name}`), partition: index % partitions }));

interface Backend {
  openLmdbLog(settings: object): Promise<Log>;
}

const settings = (name: string, writer: string): TopicSettings => ({ name, writer, partitions, consumers: [], retentionAgeUs: null, retentionBytes: null });
const topics = [settings('vitals.raw', 'ingest'), settings('pmr.chunks', 'record'), ...['rejected', 'held', 'anonymized'].map((name) => settings(`vitals.${name}`, 'anonymize'))];

const custodian = new FakeCustodian();
const patients = new Map<string, PatientId>(beds.map(({ name }) => [name, custodian.patient(name)]));
custodian.study('icu', { signals: 'all', waveforms: true }, 1, [...patients.values()]);
// Only the last run may release what the others held.
const night = custodian.study('night', { signals: 'all', waveforms: true }, beds.length + (mode === 'finish' ? 0 : 1), [...patients.values()]);
if (mode === 'finish') await custodian.contributed(night, [...patients.values()]);

const log = await ((await import(module)) as Backend).openLmdbLog({ dir, topics, logBytesMax: 2 ** 30, journal: silentJournal });

async function fill(): Promise<void> {
  const writer = await log.writer('ingest');
  for (let seq = 1; seq <= blocks; seq++) {
    for (const { name, device, partition } of beds) {
      const receivedAt = start + seq * 20_000;
      const frames = [frame(seq, { waveforms: [wave(receivedAt, [seq, 0, -seq, 5, 9])] })];
      const value = await sealBlock(newVault(custodian), { device, patient: patients.get(name)!, frames, receivedAt });
      await writer.commit({ records: [{ topic: 'vitals.raw', partition, key: uuidBytes(device), timeUs: receivedAt, value }] });
    }
  }
  await writer.close();
}

async function all(topic: string): Promise<StoredRecord[]> {
  const found: StoredRecord[] = [];
  for (let partition = 0; partition < partitions; partition++) {
    for (let at = 0; ; at += 1000) {
      const records = await log.read(topic, partition, at, { maxRecords: 1000, maxBytes: 2 ** 26 });
      found.push(...records);
      if (records.length < 1000) break;
    }
  }
  return found;
}

async function report(): Promise<object> {
  const recorded: Record<string, number[]> = {};
  for (const { value } of await all('pmr.chunks')) {
    const chunk = decode('PmrChunk', value);
    const plain = await newVault(custodian).open(uuidText(chunk.patient), chunk.sealed, encodeBody('PmrChunk', { ...chunk, sealed: Buffer.alloc(0) }));
    (recorded[uuidText(chunk.device)] ??= []).push(...decodeChunkContent(inflateRawSync(plain)).map(({ seq }) => seq));
  }
  const given: Record<string, number[]> = {};
  for (const { key, value } of await all('vitals.anonymized')) (given[uuidText(key)] ??= []).push(samplesOf(decode('AnonymizedRun', value).deltas)[0] ?? 0);
  const ledger = await log.stateScan('anonymize', 'ledger', '');
  return { blocks, recorded, given, held: (await all('vitals.held')).length, ledger: ledger.map(({ value }) => JSON.parse(Buffer.from(value).toString()) as unknown) };
}

if (mode === 'fill') {
  await fill();
} else {
  const writers = { anonymize: await log.writer('anonymize'), record: await log.writer('record') };
  const { stages } = rig(log, writers, custodian, partitions, { maxRecords: 2, bucketUs: 100_000 });
  for (const stage of stages) stage.start();
  process.stdout.write('ready\n');
  const drained = async (): Promise<boolean> => {
    for (const writer of Object.values(writers)) for (let p = 0; p < partitions; p++) if ((await writer.consumed('vitals.raw', p)) < blocks * 2) return false;
    return (await writers.anonymize.stateScan('holds', '')).length === 0;
  };
  while (!(await drained())) await new Promise((resolve) => setTimeout(resolve, 10));
  for (const stage of stages) await stage.stop();
  if (mode === 'finish') process.stdout.write(`${JSON.stringify(await report())}\n`);
  for (const writer of Object.values(writers)) await writer.close();
}
await log.close();
