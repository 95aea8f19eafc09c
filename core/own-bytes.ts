/**
 * A copy with storage of its own. Small Buffers are pieces of 8 KB that Node shares out: one that is kept keeps all of it, and one
 * that goes to another thread takes all of it along.
 */
export function ownBytes(bytes: Uint8Array): Buffer {
  const own = Buffer.allocUnsafeSlow(bytes.length);
  own.set(bytes);
  return own;
}
