import { randomBytes, randomInt } from 'node:crypto';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { unwrapKey, wrapKey } from './jose.js';
import { Keystore, keystorePath } from './keystore.js';
import { Lru } from './lru.js';

/**
 * `node dist/security/keystore.bench.js`: the keystore's size, the time of a puncture and of a look-up after 0, 1,000 and 10,000 earlier
 * erasures spread over a million slots. A puncture is the whole act: derive, seal, write, flush, rename, overwrite, flush.
 */
const slots = 1_000_000;
const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] ?? NaN;

async function timed(times: number, work: (at: number) => unknown): Promise<number> {
  const took: number[] = [];
  for (let at = 0; at < times; at++) {
    const since = performance.now();
    await work(at);
    took.push(performance.now() - since);
  }
  return median(took);
}

const dir = mkdtempSync(join(tmpdir(), 'spamer-keystore-bench-'));
try {
  const keystore = await Keystore.open(dir, { mayCreate: true, passphrase: 'correct horse' });
  const gone = new Set<number>();
  const fresh = (): number => {
    for (;;) {
      const slot = 1 + randomInt(slots);
      if (!gone.has(slot)) return slot;
    }
  };
  for (const earlier of [0, 1_000, 10_000]) {
    const batch: number[] = [];
    while (gone.size < earlier) {
      const slot = fresh();
      gone.add(slot);
      batch.push(slot);
    }
    await keystore.puncture(batch);
    const nodes = keystore.nodeCount;
    const bytes = statSync(keystorePath(dir)).size;
    const kept = Array.from({ length: 2000 }, fresh);
    const cold = await timed(kept.length, (at) => keystore.wrapKey(kept[at] ?? 0));
    const wraps = await Promise.all(kept.slice(0, 200).map(async (slot) => wrapKey(randomBytes(32), keystore.wrapKey(slot) ?? Buffer.alloc(0), `${slot}`)));
    const dataKeys = new Lru<number, Buffer>(1000);
    const look = async (at: number): Promise<Buffer> => {
      const slot = kept[at] ?? 0;
      const known = dataKeys.get(slot);
      if (known !== undefined) return known;
      const key = await unwrapKey(wraps[at] ?? '', keystore.wrapKey(slot) ?? Buffer.alloc(0), `${slot}`);
      dataKeys.set(slot, key);
      return key;
    };
    const coldData = await timed(wraps.length, look);
    const warmData = await timed(wraps.length, look);
    const reopened = await timed(1, () => Keystore.open(dir, { mayCreate: false, passphrase: 'correct horse' }));
    const puncture = await timed(20, () => {
      const slot = fresh();
      gone.add(slot);
      return keystore.puncture([slot]);
    });
    process.stdout.write(
      `${String(earlier).padStart(6)} erasures before: ${nodes} nodes, ${(bytes / 1024).toFixed(1)} KiB; puncture ${puncture.toFixed(1)} ms; wrap key ${(cold * 1000).toFixed(0)} µs; ` +
      `data key cold ${(coldData * 1000).toFixed(0)} µs, warm ${(warmData * 1000).toFixed(2)} µs; open ${reopened.toFixed(0)} ms (scrypt within)\n`,
    );
  }
} finally {
  rmSync(dir, { recursive: true, force: true });
}
