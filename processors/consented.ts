import { sampleTimeUs, type DecodedFrame, type DecodedWaveform } from '../schemas/frames.js';

/** [from, until) in microseconds; until null = without end. */
export interface Span {
  readonly from: number;
  readonly until: number | null;
}

/**
 * What of the frames was measured while consent was in force, sample by sample by event time [ANON]. Frames that are covered wholly are
 * returned as they are. Events are not given out, so they are left alone.
 */
export function consented(frames: readonly DecodedFrame[], consents: readonly Span[]): readonly DecodedFrame[] {
  const spans = merged(consents);
  return frames.every((frame) => coversFrame(spans, frame)) ? frames : frames.map((frame) => cutFrame(frame, spans));
}

/** In order, without overlaps: a sample covered twice is one sample. */
function merged(consents: readonly Span[]): readonly Span[] {
  const spans: Span[] = [];
  for (const span of [...consents].sort((a, b) => a.from - b.from)) {
    const last = spans.at(-1);
    if (last !== undefined && endOf(last) >= span.from) spans[spans.length - 1] = { from: last.from, until: endOf(last) >= endOf(span) ? last.until : span.until };
    else spans.push(span);
  }
  return spans;
}

const endOf = ({ until }: Span): number => until ?? Infinity;
const within = ({ from, until }: Span, us: number): boolean => from <= us && (until === null || us < until);

function coversFrame(spans: readonly Span[], { waveforms, numerics }: DecodedFrame): boolean {
  const wave = ({ t0, periodNs, samples }: DecodedWaveform): boolean => samples.length === 0 || spans.some((span) => within(span, t0) && within(span, sampleTimeUs(t0, periodNs, samples.length - 1)));
  return waveforms.every(wave) && numerics.every(({ time }) => spans.some((span) => within(span, time)));
}

function cutFrame(frame: DecodedFrame, spans: readonly Span[]): DecodedFrame {
  const waveforms = frame.waveforms.flatMap((wave) => spans.flatMap((span) => cutWave(wave, span)));
  return { ...frame, waveforms, numerics: frame.numerics.filter(({ time }) => spans.some((span) => within(span, time))) };
}

function cutWave(wave: DecodedWaveform, span: Span): DecodedWaveform[] {
  const first = indexAt(wave, span.from);
  const end = span.until === null ? wave.samples.length : indexAt(wave, span.until);
  return first >= end ? [] : [{ ...wave, t0: sampleTimeUs(wave.t0, wave.periodNs, first), samples: wave.samples.subarray(first, end) }];
}

/** Index of the first sample at or after `us`. */
function indexAt({ t0, periodNs, samples }: DecodedWaveform, us: number): number {
  let low = 0;
  let high = samples.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sampleTimeUs(t0, periodNs, middle) < us) low = middle + 1;
    else high = middle;
  }
  return low;
}
