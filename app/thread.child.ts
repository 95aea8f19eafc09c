import { parentPort, resourceLimits } from 'node:worker_threads';
import { serve } from './rpc.js';

/** The thread of `thread.test.ts`. */
if (parentPort !== null) {
  serve(parentPort, {
    start: async () => undefined,
    stop: async () => undefined,
    youngMb: async () => resourceLimits.maxYoungGenerationSizeMb,
    standStill: async (ms: number) => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms),
  });
}
