import { setFlagsFromString } from 'node:v8';

const v8Major = Number.parseInt(process.versions.v8, 10);

/**
 * Has WebAssembly compiled for speed only where it runs for long. PGlite and Cedar run much code once, at a start: V8's own bounds have 1.1
 * of 3.1 CPU seconds of a registry's first opening spent on optimizing what is hardly called again, and no query is faster for it in the end.
 * For the whole process, before the first module is instantiated; versions of V8 that this was not tried with keep their own bounds.
 */
export function optimizeWasmLate(): void {
  if (v8Major < 14) setFlagsFromString('--wasm-tiering-budget=1000000000');
}
