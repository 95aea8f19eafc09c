import type { Ledger, LedgerChannel } from './ports.js';

export interface LedgerTotals {
  readonly accepted: number;
  readonly stored: number;
  readonly rejected: number;
  readonly held: number;
  readonly erased: number;
  readonly inFlight: number;
  readonly notConsented: number;
  readonly rejectedByReason: Readonly<Record<string, number>>;
  readonly balanced: boolean;
}

/** The sum of channels [LEDGER]; that it adds up is checked again here, not taken over. */
export function totalsOf(channels: readonly LedgerChannel[]): LedgerTotals {
  const sum = { accepted: 0, stored: 0, rejected: 0, held: 0, erased: 0, inFlight: 0, notConsented: 0 };
  const rejectedByReason: Record<string, number> = {};
  for (const channel of channels) {
    sum.accepted += channel.accepted;
    sum.stored += channel.stored;
    sum.rejected += channel.rejected;
    sum.held += channel.held;
    sum.erased += channel.erased;
    sum.inFlight += channel.inFlight;
    sum.notConsented += channel.notConsented;
    for (const [reason, samples] of Object.entries(channel.rejectedByReason)) rejectedByReason[reason] = (rejectedByReason[reason] ?? 0) + samples;
  }
  const adds = sum.accepted === sum.stored + sum.rejected + sum.held + sum.erased + sum.inFlight;
  return { ...sum, rejectedByReason, balanced: adds && channels.every((channel) => channel.balanced) };
}

/** One snapshot for all who ask within `maxAgeMs`: many open pages cost the stores no more than one. */
export class LedgerCache {
  readonly #ledger: Ledger;
  readonly #maxAgeMs: number;
  #taken: { readonly at: number; readonly channels: Promise<readonly LedgerChannel[]> } | undefined;

  constructor(ledger: Ledger, maxAgeMs: number) {
    this.#ledger = ledger;
    this.#maxAgeMs = maxAgeMs;
  }

  snapshot(): Promise<readonly LedgerChannel[]> {
    const now = performance.now();
    if (this.#taken !== undefined && now - this.#taken.at < this.#maxAgeMs) return this.#taken.channels;
    const channels = this.#ledger.snapshot();
    this.#taken = { at: now, channels };
    // A failure is told to those who wait for it, and not kept.
    channels.catch(() => {
      this.#taken = undefined;
    });
    return channels;
  }
}
