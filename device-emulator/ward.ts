/** The demo's ward: 12 beds. Some play excerpts of real recordings from `demo/`, in a loop; the others are made up, and say so. */
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';
import { csvMappings, openCsv, type CsvMapping } from './csv.js';
import { runFleet, type DeviceOptions, type DeviceSummary } from './device.js';
import type { Jwk } from './key.js';
import { firstIndexAt, looped, type Piece, type Source } from './source.js';
import { synthetic, type Profile } from './synthetic.js';

export interface Bed {
  /** 1 to 12. */
  readonly bed: number;
  readonly origin: 'recorded' | 'synthetic';
  /** For people: what plays here. */
  readonly title: string;
  /** Endless. */
  readonly open: () => Promise<Source>;
}

/** `demo/` of this package, seen from dist/device-emulator/. */
export const demoFolder = fileURLToPath(new URL('../../demo/', import.meta.url));

/**
 * One source with the signals of several, from when all have begun until the first ends, in whole seconds, so that it loops.
 * Those without a start are taken to begin together.
 */
export function together(name: string, sources: readonly Source[]): Source {
  const begun = Math.max(...sources.map(({ startUs }) => startUs ?? -Infinity));
  const skips = sources.map(({ startUs }) => (startUs === null ? 0 : begun - startUs));
  const shortest = Math.min(...sources.map(({ durationUs }, at) => (durationUs ?? Infinity) - (skips[at] ?? 0)));
  const durationUs = Number.isFinite(shortest) ? Math.floor(shortest / 1e6) * 1e6 : null;
  const firsts = sources.map((_, at) => sources.slice(0, at).reduce((sum, { signals }) => sum + signals.length, 0));
  return {
    name, origin: 'recorded', signals: sources.flatMap(({ signals }) => signals), startUs: null, durationUs, warnings: sources.flatMap(({ warnings }) => warnings),
    read: async (fromUs, toUs) => {
      const pieces: Piece[] = [];
      for (const [at, source] of sources.entries()) {
        const skip = skips[at] ?? 0;
        for (const piece of await source.read(fromUs + skip, toUs + skip)) {
          const signal = source.signals[piece.signal];
          if (signal !== undefined) pieces.push({ ...piece, signal: piece.signal + (firsts[at] ?? 0), index: piece.index - firstIndexAt(signal, skip) });
        }
      }
      return pieces;
    },
  };
}

function recorded(bed: number, title: string, files: ReadonlyArray<readonly [file: string, mapping: CsvMapping]>, folder: string): Bed {
  const open = async (): Promise<Source> => {
    const sources: Source[] = [];
    for (const [file, mapping] of files) sources.push(await openCsv(join(folder, file), mapping));
    return looped(together(title, sources));
  };
  return { bed, origin: 'recorded', title, open };
}

function made(bed: number, title: string, profile: Partial<Profile>): Bed {
  return { bed, origin: 'synthetic', title, open: () => Promise.resolve(synthetic({ seed: 1000 + bed, profile })) };
}

const oximetry = csvMappings['oximetry-hypoxia'];

/** Eleven of them send a heart rate: as many patients as a published cell needs, so that the demo's study has an answer that is shown, and others that are not. */
export function wardBeds(folder: string = demoFolder): readonly Bed[] {
  return [
    recorded(1, 'ECG, pleth and breath at rest (NeuroKit)', [['neurokit-rest.csv', csvMappings.neurokit]], folder),
    made(2, 'adult, at rest', {}),
    recorded(3, 'induced hypoxia, 1 (oximetry-phone-cam-data)', [['oximetry-100001.csv', oximetry]], folder),
    made(4, 'child, fever', { heartRate: 118, breathRate: 24, systolic: 98, diastolic: 58, temperature: 39.1 }),
    recorded(5, 'wrist: pulse wave, heart rate, skin (Empatica E4, FLIRT)', [['e4-bvp.csv', csvMappings['e4-bvp']], ['e4-hr.csv', csvMappings['e4-hr']], ['e4-eda.csv', csvMappings['e4-eda']], ['e4-temp.csv', csvMappings['e4-temp']]], folder),
    made(6, 'athlete, slow heart', { heartRate: 48, breathRate: 11, systolic: 112, diastolic: 64 }),
    recorded(7, 'induced hypoxia, 2 (oximetry-phone-cam-data)', [['oximetry-100002.csv', oximetry]], folder),
    made(8, 'high blood pressure', { heartRate: 84, systolic: 168, diastolic: 98, spo2: 95 }),
    made(9, 'older adult, at rest', { heartRate: 66, breathRate: 16, spo2: 96, systolic: 138, diastolic: 74, temperature: 36.6 }),
    made(10, 'short of breath', { heartRate: 104, breathRate: 29, spo2: 90 }),
    recorded(11, 'induced hypoxia, 3 (oximetry-phone-cam-data)', [['oximetry-100003.csv', oximetry]], folder),
    made(12, 'adult, asleep', { heartRate: 58, breathRate: 12, systolic: 104, diastolic: 62, temperature: 36.4 }),
  ];
}

export interface WardDevice {
  readonly device: string;
  readonly privateKey: Jwk;
}

export interface WardOptions extends Pick<DeviceOptions, 'signal' | 'connect' | 'frameSeconds' | 'faults'> {
  readonly url: string;
  /** One for each bed, in the order of `wardBeds`. */
  readonly devices: readonly WardDevice[];
  readonly folder?: string;
  readonly onEvent?: (deviceId: string, note: Parameters<NonNullable<DeviceOptions['onEvent']>>[0]) => void;
  readonly onFailure?: (deviceId: string, error: unknown) => void;
}

/** Plays the ward in real time until `signal`. */
export async function runWard({ url, devices, folder = demoFolder, onEvent, onFailure = () => undefined, ...rest }: WardOptions): Promise<DeviceSummary[]> {
  const beds = wardBeds(folder);
  const options = await Promise.all(devices.slice(0, beds.length).map(async ({ device, privateKey }, at): Promise<DeviceOptions | null> => {
    const source = await beds[at]?.open();
    if (source === undefined) return null;
    return { ...rest, url, deviceId: device, privateKey, source, ...(onEvent === undefined ? {} : { onEvent: (note) => onEvent(device, note) }) };
  }));
  return runFleet(options.filter((option) => option !== null), onFailure);
}
