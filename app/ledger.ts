import type { LedgerStudy } from '../query/ports.js';

/**
 * [LEDGER] accepted = stored + rejected + held + erased + in flight, in samples, per device and channel.
 *
 * `accepted` was counted by ingest in the commit that made the frames durable. `rejected`, `held` and `settled` were counted by the
 * anonymize stage in the commit of its outputs, `valid` and `chunked` likewise by the record stage. What is *stored* is not
 * taken from anybody's word: it is counted in the stores' own rows. A channel's samples pass both branches in the same order, so
 * the shorter branch tells how many have passed both.
 *
 * After an erasure a branch passes over what the other had perhaps read before: `erased` is what either could not read, but for what
 * the other one had rejected by then, which stays rejected. A sample that one branch stored and the other could not read is erased.
 */
export interface ChannelFacts {
  readonly accepted: number;
  /** Stage anonymize. */
  readonly rejected: number;
  readonly settled: number;
  readonly held: number;
  readonly erased: number;
  /** Rows of the PMR store. */
  readonly recorded: number;
  /** Stage record. */
  readonly recordRejected: number;
  readonly recordErased: number;
}

export interface ChannelLine {
  readonly accepted: number;
  readonly stored: number;
  readonly rejected: number;
  readonly held: number;
  readonly erased: number;
  readonly inFlight: number;
  readonly balanced: boolean;
}

/** @param drained no stage and no sink has anything left to read: then nothing may be in flight any more. */
export function channelLine(facts: ChannelFacts, drained: boolean): ChannelLine {
  const { accepted, rejected, settled, held, recorded } = facts;
  const valid = accepted - rejected;
  // A sample that anonymize rejected and record could not read is rejected; the other way round it is erased.
  const rejectedHere = Math.max(0, Math.min(facts.recordErased, rejected - facts.recordRejected));
  const rejectedThere = Math.max(0, Math.min(facts.erased, facts.recordRejected - rejected));
  const recordPassed = recorded + facts.recordErased - rejectedHere + rejectedThere;
  const anonymizePassed = settled + held + facts.erased;
  // What is held was read before its patient was erased; it ends its hold soon and counts once until then.
  const erased = Math.min(Math.max(facts.erased, facts.recordErased - rejectedHere), valid - held);
  const stored = Math.max(0, Math.min(recordPassed, anonymizePassed) - held - erased);
  const inFlight = valid - held - erased - stored;
  // More in a store than was valid would be a sample stored twice.
  const doubled = recordPassed > valid || anonymizePassed > valid;
  return { accepted, stored, rejected, held, erased, inFlight, balanced: !doubled && inFlight >= 0 && (!drained || inFlight === 0) };
}

/** What was set aside because it could not be read: whether there is any in the log's raw records, and among the chunks of the PMR store. */
export interface Unreadable {
  readonly blocks: boolean;
  readonly chunks: boolean;
}

/** Samples of one channel that nobody can read any more, by reason. */
export type Lost = Readonly<Record<'block_unreadable' | 'chunk_unreadable', number>>;

/**
 * Samples that stood in records which cannot be read [LEDGER]. Their number stands nowhere but in the books: once everything has been
 * read, what was accepted and has come out neither here nor there was in them. So this holds only of a channel that is drained.
 */
export function lostOf(facts: ChannelFacts, { blocks, chunks }: Unreadable): Lost {
  const { inFlight } = channelLine(facts, false);
  const neverOpened = Math.max(0, facts.accepted - facts.rejected - facts.settled - facts.held - facts.erased);
  const inBlocks = blocks ? Math.min(Math.max(0, inFlight), neverOpened) : 0;
  return { block_unreadable: inBlocks, chunk_unreadable: chunks ? Math.max(0, inFlight - inBlocks) : 0 };
}

/** The line with what is lost counted as rejected, and no more of it than is in flight. */
export function withLost(line: ChannelLine, lost: Lost, drained: boolean): ChannelLine {
  const samples = Math.min(Math.max(0, line.inFlight), lost.block_unreadable + lost.chunk_unreadable);
  const inFlight = line.inFlight - samples;
  return { ...line, rejected: line.rejected + samples, inFlight, balanced: line.balanced && (!drained || inFlight === 0) };
}

/** Of a pseudonym whose patient is erased and whose study has the rows deleted: whether they are gone, or are being deleted. */
export type Burial = 'gone' | 'going';

export interface StudyFacts {
  /** Samples by `study/pseudonym/code`: what the anonymize stage emitted, and what the analytics store holds. */
  readonly emitted: ReadonlyMap<string, number>;
  readonly stored: ReadonlyMap<string, number>;
  /** By `study/pseudonym` [ERASED]. */
  readonly buried: ReadonlyMap<string, Burial>;
}

/**
 * emitted = stored + erased + in flight, in samples, per study. The store holds exactly what was emitted (at most that, while its sink lags),
 * per pseudonym and signal, and nothing of a pseudonym that is buried: all that was emitted of it is erased.
 */
export function studyLines({ emitted, stored, buried }: StudyFacts, drained: boolean): LedgerStudy[] {
  const lines = new Map<string, { study: string; emitted: number; stored: number; erased: number; inFlight: number; balanced: boolean }>();
  for (const channel of new Set([...emitted.keys(), ...stored.keys()])) {
    const [study = '', pseudonym = ''] = channel.split('/');
    const line = lines.get(study) ?? { study, emitted: 0, stored: 0, erased: 0, inFlight: 0, balanced: true };
    const [out, held, burial] = [emitted.get(channel) ?? 0, stored.get(channel) ?? 0, buried.get(`${study}/${pseudonym}`)];
    const erased = burial === undefined ? 0 : out - held;
    const inFlight = out - held - erased;
    const whole = held <= out && (burial === 'gone' ? held === 0 : burial === 'going' || !drained || inFlight === 0);
    lines.set(study, { study, emitted: line.emitted + out, stored: line.stored + held, erased: line.erased + erased, inFlight: line.inFlight + inFlight, balanced: line.balanced && whole });
  }
  return [...lines.values()].sort((a, b) => (a.study < b.study ? -1 : 1));
}
