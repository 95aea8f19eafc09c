import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { SealerSource } from '../app/ingest.js';
import { envelopeOverheadBytes } from '../security/envelope.js';
import { Door, tokenOf } from '../tests/door.js';

/**
 * The devices' door and the log behind it, and no stage: `node door.bench.js sealed|clear DEVICES`. Prints {"ingest": url, "tokens": […]},
 * then waits to be stopped and prints how many frames it took and the CPU seconds of all its threads meanwhile.
 * 'clear' exists here only: blocks as long as sealed ones, which hold the frames as they came. Nothing can read them.
 */
const clear: SealerSource = {
  of: async () => ({
    seal: (plain) => {
      const block = Buffer.allocUnsafe(plain.length + envelopeOverheadBytes);
      block.set(plain, envelopeOverheadBytes);
      return block;
    },
  }),
};

const [how, devices] = process.argv.slice(2);
const dir = mkdtempSync(join(tmpdir(), 'spamer-door-bench-'));
const door = new Door(dir);
const server = await door.open(how === 'clear' ? clear : undefined);
const tokens = Array.from({ length: Number(devices) }, () => tokenOf(door.enrol('EdDSA')));
const before = process.cpuUsage();
process.stdout.write(`${JSON.stringify({ ingest: server.url, tokens })}\n`);
process.once('SIGTERM', () => {
  const { frames } = server.counters;
  const { user, system } = process.cpuUsage(before);
  void door.shut().finally(() => {
    rmSync(dir, { recursive: true, force: true });
    process.stdout.write(`${JSON.stringify({ frames, cpuS: (user + system) / 1e6 })}\n`, () => process.exit(0));
  });
});
