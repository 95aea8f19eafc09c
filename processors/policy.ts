import { SpamerError } from '../core/errors.js';

/** What a study's policy file says about readings (docs/policy.md); what it says about attributes and k the custodian applies. */
export interface StudyPolicy {
  /** Codes that the study receives; null: every signal of the table. */
  readonly signals: ReadonlySet<number> | null;
  /** Waveforms identify people; off unless the policy says otherwise. */
  readonly waveforms: boolean;
  readonly timeBasis: 'RELATIVE' | 'SHIFTED';
  /** Whether the calendar year of a reading goes along. */
  readonly year: boolean;
}

const bad = (where: string): SpamerError => new SpamerError('config_invalid', 'a study policy does not say what it must', { where });

/**
 * Reads the fields `signals` ("all" or codes), `waveforms` (default false), `time` ("relative", default, or "shifted") and
 * `year` (default false). Fails closed: what it does not understand is an error, not a default.
 */
export function readPolicy(json: string): StudyPolicy {
  const fields = parseObject(json);
  const { signals, waveforms = false, time = 'relative', year = false } = fields as { signals?: unknown; waveforms?: unknown; time?: unknown; year?: unknown };
  if (typeof waveforms !== 'boolean') throw bad('waveforms');
  if (typeof year !== 'boolean') throw bad('year');
  if (time !== 'relative' && time !== 'shifted') throw bad('time');
  // Beside a shifted time the true year would give the shift away.
  if (time === 'shifted' && year) throw bad('year');
  return { signals: readSignals(signals), waveforms, timeBasis: time === 'relative' ? 'RELATIVE' : 'SHIFTED', year };
}

function parseObject(json: string): object {
  try {
    const value: unknown = JSON.parse(json);
    if (typeof value === 'object' && value !== null) return value;
  } catch {
    // Told below, without quoting the file.
  }
  throw bad('policy');
}

function readSignals(signals: unknown): ReadonlySet<number> | null {
  if (signals === 'all') return null;
  if (!Array.isArray(signals)) throw bad('signals');
  const codes = signals.map((signal: unknown) => {
    if (!Number.isSafeInteger(signal)) throw bad('signals');
    return signal as number;
  });
  return new Set(codes);
}
