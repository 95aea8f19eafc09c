import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { WholeProgram } from '../app/program.js';
import { demoRecordNumber } from '../app/ports.js';
import type { Config } from '../core/config.js';
import { faultOf } from '../core/journal.js';
import { deviceId, studyId, type StudyId } from '../core/ids.js';
import { generateDeviceKey, type KeyFile } from '../device-emulator/key.js';
import { pinnedSocket } from './pinned.js';
import { runWard, wardBeds, type Bed } from '../device-emulator/ward.js';

export interface Ward {
  readonly patients: number;
  stop(): Promise<void>;
}

/** No level without any attribute: the first three to contribute would be let out at it, and all who come after them, and nothing would be left to break down by. */
const demoStudy = {
  id: 'demo', title: 'Demo ward', claim: 'safe-harbor', signals: 'all-numerics', waveforms: false,
  dates: { rule: 'relative', year: true }, attributes: [{ ageYears: 20, sex: true }, { sex: true }], k: 3, minCell: 11,
};

/** Enrols the ward once per data folder, then plays it over the wire until stopped. */
export async function startWard(program: WholeProgram, config: Config): Promise<Ward> {
  const devices = await enrolled(program, config);
  const certificates = program.deviceCertificates;
  const stopping = new AbortController();
  const running = runWard({
    url: program.ingest ?? '',
    devices,
    signal: stopping.signal,
    // A private certificate is of no authority, and these devices are of the program that has it.
    ...(certificates === null ? {} : { connect: (url: URL) => pinnedSocket(url, certificates) }),
    onFailure: (_device, error) => program.journal.warn('a demo device stopped', { stage: 'ward', fault: faultOf(error) }),
  });
  running.catch((error: unknown) => program.journal.warn('the ward stopped', { fault: faultOf(error) }));
  return {
    patients: devices.length,
    stop: async () => {
      stopping.abort();
      await running.catch(() => undefined);
    },
  };
}

async function enrolled(program: WholeProgram, config: Config): Promise<readonly KeyFile[]> {
  const folder = join(config.data_dir, 'demo');
  const file = join(folder, 'ward.keys.json');
  if (existsSync(file)) {
    const known = JSON.parse(readFileSync(file, 'utf8')) as KeyFile[];
    const first = deviceId(known[0]?.device ?? '');
    if (first !== null && (await program.custodian.deviceEntry(first)) !== null) return known;
  }
  const study = studyId(demoStudy.id) as StudyId;
  if (!(await program.custodian.studies()).some((row) => row.study === study)) await program.custodian.addStudy(JSON.stringify(demoStudy));
  const keys: KeyFile[] = [];
  for (const bed of wardBeds()) keys.push(await enrolBed(program, bed, study));
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  writeFileSync(file, JSON.stringify(keys), { mode: 0o600 });
  return keys;
}

async function enrolBed({ custodian }: WholeProgram, { bed, origin, title }: Bed, study: StudyId): Promise<KeyFile> {
  const number = String(bed).padStart(2, '0');
  // Made-up people: nothing here is about anybody.
  const { patient } = await custodian.addPatient({
    name: `Bed ${number} · ${title}`, recordNumber: `${demoRecordNumber(bed, origin)}-${crypto.randomUUID().slice(0, 8)}`,
    birthDate: `${1930 + bed * 5}-06-15`, sex: bed % 2 === 0 ? 'F' : 'M', zip: '02139', demo: true,
  });
  const key = generateDeviceKey();
  const { device } = await custodian.enrollDevice({ publicKey: key.publicKey, patient, from: (Date.now() - 60_000) * 1000 });
  await custodian.enrol(study, [patient]);
  return { device, ...key };
}
