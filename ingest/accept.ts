import type { ErrorCode } from '../core/errors.js';
import type { Binding } from './bindings.js';
import type { Session } from './sessions.js';

/** What the scan tells of a frame, as far as admission needs it (schemas/scan.ts). */
export interface ScannedFrame {
  readonly start: number;
  readonly end: number;
  readonly epoch: number;
  readonly seq: number;
  readonly timeFirstUs: number;
  readonly timeLastUs: number;
}

/** What the server as a whole can take at this moment. */
export interface Load {
  /** `stopping`, or why the log refused the last commit (`disk_full`, `log_failed`); null when all is well. */
  readonly closed: ErrorCode | null;
  readonly roomBytes: number;
  readonly windowFrames: number;
  readonly windowBytes: number;
  readonly nowUs: number;
}

/**
 * - `take`: into the next flush, sealed for the patient of `binding`; acked when durable [DURABLE].
 * - `duplicate`: passed before; acked again, stored once [ONCE].
 * - `stall`: Nack with resend; later frames are ignored until this one, or a new epoch, comes again.
 * - `skip`: Nack without resend once the skip is durable; its seq counts as passed.
 * - `reject`: Nack without resend at once; no seq of the present epoch is concerned.
 * - `ignore`: behind a stall that was told already.
 */
export type Admission =
  | { readonly kind: 'take'; readonly binding: Binding }
  | { readonly kind: 'stall' | 'skip' | 'reject'; readonly code: ErrorCode }
  | { readonly kind: 'duplicate' | 'ignore' };

const duplicate: Admission = { kind: 'duplicate' };
const ignore: Admission = { kind: 'ignore' };
const epochOld: Admission = { kind: 'reject', code: 'epoch_old' };
const gap = stall('seq_gap');
const windowExceeded = stall('window_exceeded');
const rateExceeded = stall('rate_exceeded');
const overloaded = stall('overloaded');
const notBound: Admission = { kind: 'skip', code: 'not_bound' };

/** The whole admission of a frame. Decides only: `Session` keeps the books. */
export function accept(session: Session, frame: ScannedFrame, load: Load): Admission {
  const { epoch, seq } = session.passed;
  if (frame.epoch < epoch) return epochOld;
  if (frame.epoch === epoch && frame.seq <= seq) return duplicate;
  const next = frame.epoch === epoch ? seq + 1 : 1;
  if (frame.seq !== next) return session.stalled ? ignore : gap;
  if (load.closed !== null) return stall(load.closed);

  const bytes = frame.end - frame.start;
  if (session.unackedFrames >= load.windowFrames || session.unackedBytes + bytes > load.windowBytes) return windowExceeded;
  if (bytes > load.roomBytes) return overloaded;
  if (!session.rate.allows) return rateExceeded;

  const binding = bindingOf(session, frame, load.nowUs);
  return binding === null ? notBound : { kind: 'take', binding };
}

/** The binding that covers the frame's whole time, else the one in force now: validation then judges each channel's time. */
function bindingOf(session: Session, frame: ScannedFrame, nowUs: number): Binding | null {
  for (const binding of session.bindings) if (covers(binding, frame.timeFirstUs, frame.timeLastUs)) return binding;
  for (const binding of session.bindings) if (covers(binding, nowUs, nowUs)) return binding;
  return null;
}

const covers = (binding: Binding, firstUs: number, lastUs: number): boolean =>
  binding.from <= firstUs && (binding.until === null || lastUs < binding.until);

function stall(code: ErrorCode): Admission {
  return { kind: 'stall', code };
}
