/**
 * Counters in samples per (device, code) [LEDGER]. Each stage commits them together with the outputs that they count, so a
 * crash leaves both or neither.
 */
export interface SettledCount {
  valid: number;
  rejected: number;
  /** Valid, and every study's output of it was emitted, or no study takes it. */
  settled: number;
  /** Valid, and at least one study still holds the record that it is in. */
  held: number;
  /** Of blocks whose key is destroyed: they are passed over, and nobody can tell any more whether they were valid [ERASED]. Absent: none. */
  erased?: number;
  /** Of `settled` and `held`: some study would take it, and the patient's consent did not cover its time. Absent in books of earlier versions. */
  notConsented?: number;
  rejectedByReason: Record<string, number>;
}

export interface ChunkedCount {
  valid: number;
  rejected: number;
  chunked: number;
  /** As in SettledCount. */
  erased?: number;
}

/** Keys are signal codes; a plain object, so that it is its own JSON. */
export type SettledLedger = Record<string, SettledCount>;
export type ChunkedLedger = Record<string, ChunkedCount>;

/** Ingest seals under keys that are there, so a block whose key is gone is one of an erased patient. */
const erasedReason = 'key_missing';

export type Counts = Map<number, number>;
/** Per code, per reason. */
export type RejectCounts = Map<number, Map<string, number>>;

export function addCount(counts: Counts, code: number, samples: number): void {
  counts.set(code, (counts.get(code) ?? 0) + samples);
}

export function addReject(rejects: RejectCounts, code: number, reason: string, samples: number): void {
  let reasons = rejects.get(code);
  if (reasons === undefined) rejects.set(code, (reasons = new Map<string, number>()));
  reasons.set(reason, (reasons.get(reason) ?? 0) + samples);
}

function settledOf(ledger: SettledLedger, code: number): SettledCount {
  return (ledger[code] ??= { valid: 0, rejected: 0, settled: 0, held: 0, rejectedByReason: {} });
}

/** Books one block of the anonymize stage; `held` are those of `valid` that some study holds, by code. */
export function bookSettled(ledger: SettledLedger, { valid, rejects, held, notConsented }: { readonly valid: Counts; readonly rejects: RejectCounts; readonly held: Counts; readonly notConsented: Counts }): void {
  for (const [code, samples] of valid) {
    const count = settledOf(ledger, code);
    const kept = held.get(code) ?? 0;
    count.valid += samples;
    count.held += kept;
    count.settled += samples - kept;
  }
  for (const [code, samples] of notConsented) {
    const count = settledOf(ledger, code);
    count.notConsented = (count.notConsented ?? 0) + samples;
  }
  for (const [code, reasons] of rejects) {
    const count = settledOf(ledger, code);
    for (const [reason, samples] of reasons) {
      if (reason === erasedReason) {
        count.erased = (count.erased ?? 0) + samples;
        continue;
      }
      count.rejected += samples;
      count.rejectedByReason[reason] = (count.rejectedByReason[reason] ?? 0) + samples;
    }
  }
}

/** Moves a released record's samples from held to settled. */
export function bookReleased(ledger: SettledLedger, counts: ReadonlyArray<{ readonly code: number; readonly samples: number }>): void {
  for (const { code, samples } of counts) {
    const count = settledOf(ledger, code);
    count.held -= samples;
    count.settled += samples;
  }
}

function chunkedOf(ledger: ChunkedLedger, code: number): ChunkedCount {
  return (ledger[code] ??= { valid: 0, rejected: 0, chunked: 0 });
}

/** Books blocks of the record stage whose valid samples are in a chunk of the same commit. */
export function bookChunked(ledger: ChunkedLedger, valid: Counts, rejects: RejectCounts): void {
  for (const [code, samples] of valid) {
    const count = chunkedOf(ledger, code);
    count.valid += samples;
    count.chunked += samples;
  }
  for (const [code, reasons] of rejects) {
    const count = chunkedOf(ledger, code);
    for (const [reason, samples] of reasons) {
      if (reason === erasedReason) count.erased = (count.erased ?? 0) + samples;
      else count.rejected += samples;
    }
  }
}

export function sumOf(counts: Counts): number {
  let sum = 0;
  for (const samples of counts.values()) sum += samples;
  return sum;
}
