import { SpamerError } from '../core/errors.js';
import { missingSample } from './source.js';

/** Decimals beyond this are converter noise in every set we hold; the reader warns when it rounds. */
const decimalsMax = 6;

export interface Quantizing {
  /** What a warning calls the numbers. */
  readonly label: string;
  /** Decimals that are kept; by default as many as the file has, at most 6. */
  readonly decimals?: number;
  /** physical = number in the file × this. Then decimals count before the factor. */
  readonly factor?: number;
  /** Numbers that mean "no reading". */
  readonly missing?: readonly number[];
}

export interface Quantized {
  readonly samples: Int32Array;
  readonly scale: number;
}

/**
 * Decimal text to integers with a scale that is a power of ten, so that nothing is lost while the file's decimals fit. Empty
 * text, what is no number and what `missing` names become `missingSample`.
 * @throws SpamerError `bad_request` at `where`, when a number does not fit 32 bits.
 */
export function quantize(texts: readonly string[], { label, decimals: wanted, factor = 1, missing = [] }: Quantizing, where: string, warnings: string[]): Quantized {
  const own = texts.reduce((most, text) => Math.max(most, decimalsOf(text)), 0);
  const largest = texts.reduce((most, text) => Math.max(most, Math.abs(Number(text)) || 0), 1);
  // Large numbers with many decimals lose the last of these rather than their head.
  const decimals = wanted ?? Math.min(own, decimalsMax, Math.max(0, Math.floor(Math.log10((2 ** 31 - 1) / largest))));
  if (own > decimals) warnings.push(`${label}: rounded to ${decimals} decimals`);
  const power = 10 ** decimals;
  const samples = Int32Array.from(texts, (text) => {
    const value = text === '' ? NaN : Number(text);
    if (Number.isNaN(value) || missing.includes(value)) return missingSample;
    const sample = Math.round(value * power);
    if (Math.abs(sample) >= 2 ** 31) throw new SpamerError('bad_request', 'a number does not fit 32 bits at this precision', { where });
    return sample;
  });
  return { samples, scale: factor / power };
}

function decimalsOf(text: string): number {
  const [, fraction = '', exponent = '0'] = /^[^.eE]*(?:\.(\d*))?(?:[eE]([-+]?\d+))?$/.exec(text) ?? [];
  // Zeros at the end, as in "821.0", add nothing.
  return Math.max(0, fraction.replace(/0+$/, '').length - Number(exponent));
}
