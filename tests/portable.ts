import type { KeyObject } from 'node:crypto';
import { compactDecrypt } from 'jose';
import { seriesOfFrames, type Series } from './record.js';

/** What a test reads of one part of a portable record; docs/portable-record.md has all. */
export interface Part {
  readonly patient: string;
  readonly place: string | null;
  readonly signals: ReadonlyArray<{ readonly code: number; readonly name: string }>;
  readonly waves: ReadonlyArray<{ readonly code: number; readonly t0Us: number; readonly periodNs: number; readonly samples: readonly number[] }>;
  readonly numerics: ReadonlyArray<{ readonly code: number; readonly tUs: number; readonly value: number }>;
  readonly gaps: readonly unknown[];
  readonly unreadable: readonly unknown[];
}

/** By `jose`, which this program does not use. */
export const openPart = async (jwe: string, key: KeyObject): Promise<Part> => JSON.parse(Buffer.from((await compactDecrypt(jwe, key)).plaintext).toString()) as Part;

/** As docs/portable-record.md tells a reader to place the samples. */
export function seriesOfParts(parts: readonly Part[]): Series {
  return seriesOfFrames(parts.map(({ waves, numerics }) => ({
    epoch: 1, seq: 1, sentAt: 0, events: [],
    waveforms: waves.map(({ code, t0Us, periodNs, samples }) => ({ code, unit: 0, t0: t0Us, periodNs, scale: 1, offset: 0, samples: Int32Array.from(samples) })),
    numerics: numerics.map(({ code, tUs, value }) => ({ code, unit: 0, time: tUs, value })),
  })));
}
