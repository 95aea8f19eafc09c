import { createRequire } from 'node:module';
import type { Output } from './output.js';

const require = createRequire(import.meta.url);

export interface Progress {
  /** So many more are done. */
  add(count: number): void;
  stop(): void;
}

const none: Progress = { add: () => undefined, stop: () => undefined };

/** How far work is, at which rate, and for how much longer where its end is known; on a terminal only, and not beside --json. Plain text without colour. */
export function openProgress(output: Output, unit: string, total: number | null): Progress {
  if (output.json || !process.stderr.isTTY) return none;
  const format = total === null ? `{value} ${unit} | {rate}/s | {duration_formatted}` : `{bar} {percentage}% | {value}/{total} ${unit} | {rate}/s | {eta_formatted} left`;
  const { SingleBar } = require('cli-progress') as typeof import('cli-progress');
  const bar = new SingleBar({ format, stream: process.stderr, gracefulExit: false, barsize: 24 });
  const begunMs = performance.now();
  let done = 0;
  bar.start(total ?? 0, 0, { rate: '–' });
  return {
    add: (count) => {
      done += count;
      bar.update(done, { rate: rateText(done / ((performance.now() - begunMs) / 1000)) });
    },
    stop: () => bar.stop(),
  };
}

const rateText = (rate: number): string => (rate < 10 ? rate.toFixed(1) : Math.round(rate).toLocaleString('en'));
