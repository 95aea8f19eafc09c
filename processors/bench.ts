/**
 * Speed of both stages on one thread, log in memory: `node dist/processors/bench.js [frames per block]`. Prints one JSON line.
 * 40 devices at 250 Hz send frames of 250 samples and one reading; half of the studies' patients are given out with waveforms.
 */
import { uuidBytes, type DeviceId } from '../core/ids.js';
import { ecg, FakeCustodian, fakeId, frame, heartRate, MemoryLog, newVault, perMinute, rig, sealBlock, start, wave } from './testing.js';

const framesPerBlock = Number(process.argv[2] ?? 1);
const samplesWanted = Number(process.argv[3] ?? 4_000_000);
const devices = 40;
const partitions = 4;

async function fill(log: MemoryLog, custodian: FakeCustodian): Promise<number> {
  const vault = newVault(custodian);
  const beds = Array.from({ length: devices }, () => ({ device: fakeId<DeviceId>(), patient: custodian.patient() }));
  custodian.study('bench', { signals: 'all', waveforms: true }, 1, beds.map(({ patient }) => patient));
  const beat = Array.from({ length: 250 }, (_, index) => Math.round(60 * Math.sin(index / 8) + 1000 * Math.exp(-(((index - 100) / 4) ** 2))));
  let samples = 0;
  for (let seq = 1; samples < samplesWanted; seq += framesPerBlock) {
    for (const [index, bed] of beds.entries()) {
      const frames = Array.from({ length: framesPerBlock }, (_, at) => {
        const t0 = start + (seq + at) * 1e6;
        return frame(seq + at, { waveforms: [wave(t0, beat, { code: ecg })], numerics: [{ code: heartRate, unit: perMinute, time: t0, value: 70 }] });
      });
      samples += 251 * framesPerBlock;
      const receivedAt = start + (seq + framesPerBlock) * 1e6;
      const rows = log.rows('vitals.raw', index % partitions);
      rows.push({ offset: rows.length, key: uuidBytes(bed.device), timeUs: receivedAt, value: await sealBlock(vault, { ...bed, frames, receivedAt }) });
    }
  }
  return samples;
}

const log = new MemoryLog();
const custodian = new FakeCustodian();
const samples = await fill(log, custodian);
const { stages, anonymize, record } = rig(log, { anonymize: log.writerOf('anonymize'), record: log.writerOf('record') }, custodian, partitions, { bucketUs: 5_000_000 });
const seconds: Record<string, number> = {};
for (const stage of stages) {
  const since = performance.now();
  const cpu = process.cpuUsage();
  stage.start();
  const done = (): number => (stage.name === 'record' ? record.stats.samples : anonymize.stats.samples);
  while (done() < samples) await new Promise((resolve) => setTimeout(resolve, 1));
  seconds[stage.name] = (performance.now() - since) / 1000;
  const used = process.cpuUsage(cpu);
  seconds[`${stage.name}Cpu`] = (used.user + used.system) / 1e6;
  await stage.stop();
}
const rate = (name: string): number => Math.round(samples / (seconds[name] ?? 0));
const both = Math.round(samples / ((seconds['anonymizeCpu'] ?? 0) + (seconds['recordCpu'] ?? 0)));
process.stdout.write(`${JSON.stringify({ framesPerBlock, samples, anonymizePerS: rate('anonymize'), recordPerS: rate('record'), bothPerCpuS: both, commits: stages.map(({ stats }) => stats.commits), chunkBytesPerSample: record.stats.chunkBytes / samples })}\n`);
