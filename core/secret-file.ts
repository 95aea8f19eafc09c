import { closeSync, openSync, readSync } from 'node:fs';

/** No secret is that long; a device or a wrong file may be without end. */
const bytesMax = 64 * 1024;

/** What a file holds that was made for one secret, less the line end that editors leave; or why not. */
export function readSecretFile(path: string): { readonly text: string } | { readonly fault: string } {
  try {
    const bytes = readStart(path);
    return bytes.length > bytesMax ? { fault: 'the file it names is too long' } : { text: bytes.toString('utf8').replace(/\r?\n$/, '') };
  } catch {
    return { fault: 'the file it names cannot be read' };
  }
}

function readStart(path: string): Buffer {
  const file = openSync(path, 'r');
  try {
    const bytes = Buffer.alloc(bytesMax + 1);
    return bytes.subarray(0, readSync(file, bytes));
  } finally {
    closeSync(file);
  }
}
