import { createRequire } from 'node:module';
import type * as Cedar from '@cedar-policy/cedar-wasm/nodejs';

/** The library is 4 MB of WebAssembly in CommonJS; loaded when the first policies are, so commands that decide nothing never pay for it. */
const require = createRequire(import.meta.url);
let library: typeof Cedar | undefined;
export const cedar = (): typeof Cedar => (library ??= require('@cedar-policy/cedar-wasm/nodejs') as typeof Cedar);
