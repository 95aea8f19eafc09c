import { contiguous, missingSample, physical, type Piece, type Source } from './source.js';

/**
 * Leaves out readings that a recording's makers wrote for "not measured", such as the 0 of a monitor whose probe was off. Nothing
 * but its description tells that a number means this (a heart rate of 0 may be one), so it must be asked for. Waves are not touched.
 */
export function withoutReadings(source: Source, values: readonly number[]): Source {
  if (values.length === 0) return source;
  return { ...source, read: async (fromUs, toUs) => (await source.read(fromUs, toUs)).flatMap((piece) => kept(source, piece, values)) };
}

function kept(source: Source, piece: Piece, values: readonly number[]): readonly Piece[] {
  const signal = source.signals[piece.signal];
  if (signal === undefined || signal.kind === 'wave') return [piece];
  const { scale = signal.scale, offset = signal.offset } = piece;
  const marked = piece.samples.map((sample) => (values.includes(physical(sample, scale, offset)) ? missingSample : sample));
  return contiguous(piece.signal, piece.index, marked, missingSample).map((part) => ({ ...piece, ...part }));
}
