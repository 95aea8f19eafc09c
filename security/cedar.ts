import { createRequire } from 'node:module';
import { setFlagsFromString } from 'node:v8';
import type * as Cedar from '@cedar-policy/cedar-wasm/nodejs';
import { optimizeWasmLate } from '../core/wasm.js';

/** The library is 4 MB of WebAssembly in CommonJS; loaded when the first policies are, so commands that decide nothing never pay for it. */
const require = createRequire(import.meta.url);
let library: typeof Cedar | undefined;
export const cedar = (): typeof Cedar => (library ??= load());

function load(): typeof Cedar {
  optimizeWasmLate();
  // Node 20's V8 (11.3) inlines hot calls into WebAssembly, and ends the whole process when it has to undo that in the middle of one (decision 0031).
  if (Number.parseInt(process.versions.v8, 10) < 13) setFlagsFromString('--no-turbo-inline-js-wasm-calls');
  return require('@cedar-policy/cedar-wasm/nodejs') as typeof Cedar;
}
