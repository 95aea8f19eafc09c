import { createHash } from 'node:crypto';
import { z } from 'zod';
import { SpamerError } from '../core/errors.js';
import { studyId, type StudyId } from '../core/ids.js';
import { generalize, type Level } from './groups.js';

/** A study's policy file (DESIGN §7), checked, and its canonical text, whose hash stands on every record made under it. */
export interface Policy {
  readonly id: StudyId;
  readonly title: string;
  /** From fine to coarse. */
  readonly levels: readonly Level[];
  readonly k: number;
  readonly minCell: number;
  readonly json: string;
  readonly hash: string;
}

const level = z.strictObject({
  ageYears: z.number().int().min(1).max(90).optional(),
  sex: z.literal(true).optional(),
  zip3: z.literal(true).optional(),
});

const policyFile = z.strictObject({
  id: z.string().max(64),
  title: z.string().min(1).max(200),
  claim: z.enum(['safe-harbor', 'limited-data-set', 'expert']),
  signals: z.union([z.enum(['all', 'all-numerics']), z.array(z.number().int().positive()).min(1).max(1000)]),
  waveforms: z.boolean().default(false),
  dates: z.strictObject({ rule: z.enum(['relative', 'shift']), year: z.boolean().default(false) }),
  attributes: z.array(level).min(1).max(16),
  k: z.number().int().min(1).max(100_000),
  minCell: z.number().int().min(1).max(100_000).default(11),
  onErasure: z.enum(['unlink', 'delete']).default('unlink'),
});
type PolicyFile = z.output<typeof policyFile>;
/** What becomes of an erased patient's anonymized rows: they stay and nothing leads to the patient any more, or they are deleted too. */
export type OnErasure = PolicyFile['onErasure'];

/**
 * @param given the file's text, or what it parses to
 * @throws SpamerError `bad_request` that names every fault
 */
export function parsePolicy(given: unknown): Policy {
  const parsed = policyFile.safeParse(typeof given === 'string' ? parseJson(given) : given);
  if (!parsed.success) throw invalid(parsed.error.issues.map((issue) => `${issue.path.join('.') || 'policy'}: ${issue.message}`));
  const id = studyId(parsed.data.id);
  const faults = contradictions(parsed.data);
  if (id === null) faults.push('id: use a-z, 0-9 and -');
  if (id === null || faults.length > 0) throw invalid(faults);
  const json = canonical(parsed.data);
  const { title, attributes, k, minCell } = parsed.data;
  return { id, title, levels: attributes, k, minCell, json, hash: createHash('sha256').update(json).digest('hex') };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw invalid(['policy: is not JSON']);
  }
}

const invalid = (faults: readonly string[]): SpamerError => new SpamerError('bad_request', `the policy is not valid: ${faults.join('; ')}`, { where: 'policy' });

function contradictions(file: PolicyFile): string[] {
  const faults: string[] = [];
  // FACTS §4: shifted timestamps are exact to anyone who knows one of them; an ECG identifies its person.
  if (file.claim === 'safe-harbor' && file.dates.rule === 'shift') faults.push('dates.rule: shifted times are not Safe Harbor; use relative, or claim limited-data-set or expert');
  if (file.claim === 'safe-harbor' && file.waveforms) faults.push('waveforms: raw waveforms can identify a person and are not Safe Harbor; claim limited-data-set or expert');
  if (file.dates.rule === 'shift' && file.dates.year) faults.push('dates.year: beside shifted times the true year would give the shift away');
  if (file.signals === 'all-numerics' && file.waveforms) faults.push('waveforms: signals says all-numerics');
  for (const [at, coarse] of file.attributes.entries()) {
    const fine = file.attributes[at - 1];
    if (fine !== undefined && !coarser(fine, coarse)) faults.push(`attributes.${at}: must be coarser than the one before`);
  }
  return faults;
}

function coarser(fine: Level, coarse: Level): boolean {
  const age = coarse.ageYears === undefined || (fine.ageYears !== undefined && coarse.ageYears >= fine.ageYears);
  return age && (coarse.sex === undefined || fine.sex === true) && (coarse.zip3 === undefined || fine.zip3 === true);
}

/** Members in one order, defaults filled in; `time` and `year` as the anonymizing stage reads them. `onErasure` only where it is not `unlink`: policies from before it keep their hash. */
function canonical(file: PolicyFile): string {
  const { id, title, claim, waveforms, dates, attributes, k, minCell } = file;
  const signals = typeof file.signals === 'string' ? 'all' : [...new Set(file.signals)].sort((a, b) => a - b);
  const levels = attributes.map(({ ageYears, sex, zip3 }) => ({ ageYears, sex, zip3 }));
  return JSON.stringify({ id, title, claim, signals, waveforms, time: dates.rule === 'relative' ? 'relative' : 'shifted', year: dates.year, attributes: levels, k, minCell, ...(file.onErasure === 'unlink' ? {} : { onErasure: file.onErasure }) });
}

/** The levels of a policy that `parsePolicy` made canonical. */
export function levelsOf(policyJson: string): readonly Level[] {
  return z.object({ attributes: z.array(level) }).parse(JSON.parse(policyJson)).attributes;
}

export interface Terms {
  readonly minCell: number;
  readonly basis: 'RELATIVE' | 'SHIFTED';
  readonly attributes: readonly string[];
  readonly onErasure: OnErasure;
}

const terms = z.object({ minCell: z.number(), time: z.enum(['relative', 'shifted']), attributes: z.array(level), onErasure: policyFile.shape.onErasure });

/** How the data of a policy that `parsePolicy` made canonical may be asked for, and what an erasure does to them. */
export function termsOf(policyJson: string): Terms {
  const { minCell, time, attributes, onErasure } = terms.parse(JSON.parse(policyJson));
  const names = attributes.flatMap((each) => Object.keys(generalize({ age: null, sex: 'U', zip3: '000' }, each)));
  return { minCell, basis: time === 'relative' ? 'RELATIVE' : 'SHIFTED', attributes: [...new Set(names)], onErasure };
}
