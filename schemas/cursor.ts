import { SpamerError } from '../core/errors.js';

/** The longest Avro long: 64 bits, 7 a byte. */
const varintBytesMax = 10;
/** Longs beyond it are not exact as numbers; the same bound as avsc's. */
export const longMax = Number.MAX_SAFE_INTEGER - 1;
/** avsc computes with the zig-zag number, which is exact to 2^53, so it garbles negative longs beyond half of that. */
export const longMin = -(2 ** 52);

/**
 * Reads Avro primitives from bytes of strangers: bounded, exact, no objects made. It knows where in a message it is, so
 * that an error can say so without any value.
 */
export class Cursor {
  bytes: Uint8Array = new Uint8Array(0);
  pos = 0;
  end = 0;
  frame = 0;
  /** 'waveforms', 'numerics', 'events', or '' for a field of the frame itself. */
  list = '';
  index = 0;

  fail(field: string, what: string): never {
    const item = this.list === '' ? '' : `${this.list}[${this.index}].`;
    throw new SpamerError('frame_malformed', what, { where: `frames[${this.frame}].${item}${field}` });
  }

  /** The bytes end within a field: those of the message, or those that one frame may have. */
  early(field: string): never {
    if (this.end < this.bytes.length) throw new SpamerError('frame_too_large', 'more bytes than the limit', { where: `frames[${this.frame}]` });
    return this.fail(field, 'ends early');
  }

  tooLarge(field: string): never {
    throw new SpamerError('frame_too_large', 'more than the limit', { where: `frames[${this.frame}].${field}` });
  }

  /** A signed long of at most 53 bits. */
  long(field: string): number {
    const first = this.bytes[this.pos];
    if (first === undefined || this.pos >= this.end) return this.early(field);
    if (first < 0x80) {
      this.pos += 1;
      return (first >>> 1) ^ -(first & 1);
    }
    return this.#longer(field);
  }

  /** 28 bits, then the rest: exact without BigInt, since bit 0 is the sign and the half of what is left fits a double. */
  #longer(field: string): number {
    const { bytes } = this;
    const stop = Math.min(this.end, this.pos + varintBytesMax);
    let pos = this.pos;
    let low = 0;
    let high = 0;
    let factor = 1;
    let shift = 0;
    for (;;) {
      if (pos >= stop) return stop === this.end ? this.early(field) : this.fail(field, 'varint over 10 bytes');
      const byte = bytes[pos++] ?? 0;
      if (shift < 28) {
        low |= (byte & 0x7f) << shift;
        shift += 7;
      } else {
        high += (byte & 0x7f) * factor;
        factor *= 128;
      }
      if (byte < 0x80) break;
    }
    this.pos = pos;
    const half = high * 0x8000000 + (low >>> 1);
    const value = (low & 1) === 0 ? half : -half - 1;
    if (value > longMax || value < longMin) return this.fail(field, 'beyond 53 bits');
    return value;
  }

  int(field: string): number {
    const value = this.long(field);
    if (value !== (value | 0)) return this.fail(field, 'beyond 32 bits');
    return value;
  }

  /** Passes over a double that must be finite: not all of the 11 exponent bits set. */
  skipFinite(field: string): void {
    const pos = this.pos;
    if (pos + 8 > this.end) this.early(field);
    if (((this.bytes[pos + 7] ?? 0) & 0x7f) === 0x7f && ((this.bytes[pos + 6] ?? 0) & 0xf0) === 0xf0) this.fail(field, 'not finite');
    this.pos = pos + 8;
  }
}
