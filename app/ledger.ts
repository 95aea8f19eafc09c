/**
 * [LEDGER] accepted = stored + rejected + held + in flight, in samples, per device and channel.
 *
 * `accepted` was counted by ingest in the commit that made the frames durable. `rejected`, `held` and `settled` were counted by the
 * anonymize stage in the commit of its outputs, `valid` and `chunked` likewise by the record stage. What is *stored* is not
 * taken from anybody's word: it is counted in the stores' own rows. A channel's samples pass both branches in the same order, so
 * the shorter branch tells how many have passed both.
 */
export interface ChannelFacts {
  readonly accepted: number;
  /** Stage anonymize. */
  readonly rejected: number;
  readonly settled: number;
  readonly held: number;
  /** Rows of the PMR store. */
  readonly recorded: number;
}

export interface ChannelLine {
  readonly accepted: number;
  readonly stored: number;
  readonly rejected: number;
  readonly held: number;
  readonly inFlight: number;
  readonly balanced: boolean;
}

/** @param drained no stage and no sink has anything left to read: then nothing may be in flight any more. */
export function channelLine(facts: ChannelFacts, drained: boolean): ChannelLine {
  const passed = Math.min(facts.recorded, facts.settled + facts.held);
  const stored = Math.max(0, passed - facts.held);
  const inFlight = facts.accepted - facts.rejected - facts.held - stored;
  const valid = facts.accepted - facts.rejected;
  // More in a store than was valid would be a sample stored twice.
  const doubled = facts.recorded > valid || facts.settled + facts.held > valid;
  return { accepted: facts.accepted, stored, rejected: facts.rejected, held: facts.held, inFlight, balanced: !doubled && inFlight >= 0 && (!drained || inFlight === 0) };
}

/** Whether the analytics store holds exactly what the anonymize stage emitted (at most that, while its sink lags), per study, pseudonym and signal. */
export function analyticsBalanced(emitted: ReadonlyMap<string, number>, stored: ReadonlyMap<string, number>, drained: boolean): boolean {
  for (const [channel, samples] of stored) if (samples > (emitted.get(channel) ?? 0)) return false;
  if (!drained) return true;
  for (const [channel, samples] of emitted) if (samples !== (stored.get(channel) ?? 0)) return false;
  return true;
}
