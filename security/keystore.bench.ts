import { randomBytes, randomInt } from 'node:crypto';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { unwrapKey, wrapKey } from './jose.js';
import { Keystore } from './keystore.js';
import { keystorePath } from './keystore-paths.js';
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

/** The keystore after so many erasures. Times are medians, in ms. */
export interface Age {
  readonly earlier: number;
  readonly nodes: number;
  readonly bytes: number;
  readonly punctureMs: number;
  readonly wrapKeyMs: number;
  readonly dataKeyColdMs: number;
  readonly dataKeyWarmMs: number;
  /** scrypt within. */
  readonly openMs: number;
}

export async function keystoreAges(): Promise<Age[]> {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-keystore-bench-'));
  try {
    const keystore = await Keystore.open(dir, { mayCreate: true, passphrase: 'correct horse' });
    const gone = new Set<number>();
    const ages: Age[] = [];
    for (const earlier of [0, 1_000, 10_000]) {
      const batch = Array.from({ length: earlier - gone.size }, () => next(gone));
      await keystore.puncture(batch);
      ages.push(await measured(keystore, dir, earlier, gone));
    }
    return ages;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function fresh(gone: ReadonlySet<number>): number {
  for (;;) {
    const slot = 1 + randomInt(slots);
    if (!gone.has(slot)) return slot;
  }
}

function next(gone: Set<number>): number {
  const slot = fresh(gone);
  gone.add(slot);
  return slot;
}

async function measured(keystore: Keystore, dir: string, earlier: number, gone: Set<number>): Promise<Age> {
  const { nodeCount: nodes } = keystore;
  const bytes = statSync(keystorePath(dir)).size;
  const kept = Array.from({ length: 2000 }, () => fresh(gone));
  const wrapKeyMs = await timed(kept.length, (at) => keystore.wrapKey(kept[at] ?? 0));
  const wraps = await Promise.all(kept.slice(0, 200).map(async (slot) => wrapKey(randomBytes(32), keystore.wrapKey(slot) ?? Buffer.alloc(0), `${slot}`)));
  const dataKeys = new Lru<number, Buffer>(1000);
  const look = async (at: number): Promise<Buffer> => {
    const slot = kept[at] ?? 0;
    const known = dataKeys.get(slot);
    if (known !== undefined) return known;
    const key = unwrapKey(wraps[at] ?? '', keystore.wrapKey(slot) ?? Buffer.alloc(0), `${slot}`);
    dataKeys.set(slot, key);
    return key;
  };
  const dataKeyColdMs = await timed(wraps.length, look);
  const dataKeyWarmMs = await timed(wraps.length, look);
  const openMs = await timed(1, () => Keystore.open(dir, { mayCreate: false, passphrase: 'correct horse' }));
  const punctureMs = await timed(20, () => keystore.puncture([next(gone)]));
  return { earlier, nodes, bytes, punctureMs, wrapKeyMs, dataKeyColdMs, dataKeyWarmMs, openMs };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const { earlier, nodes, bytes, punctureMs, wrapKeyMs, dataKeyColdMs, dataKeyWarmMs, openMs } of await keystoreAges()) {
    process.stdout.write(
      `${String(earlier).padStart(6)} erasures before: ${nodes} nodes, ${(bytes / 1024).toFixed(1)} KiB; puncture ${punctureMs.toFixed(1)} ms; wrap key ${(wrapKeyMs * 1000).toFixed(0)} µs; ` +
      `data key cold ${(dataKeyColdMs * 1000).toFixed(0)} µs, warm ${(dataKeyWarmMs * 1000).toFixed(2)} µs; open ${openMs.toFixed(0)} ms (scrypt within)\n`,
    );
  }
}
