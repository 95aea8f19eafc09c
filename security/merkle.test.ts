import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { consistencyHolds, consistencyProof, emptyRoot, Frontier, inclusionHolds, inclusionProof, leafHash, rootOf, type NodeSource } from './merkle.js';

const hex = (text: string): Buffer => Buffer.from(text, 'hex');

/** Leaves and roots of the certificate-transparency project's tree test (cpp/merkletree/merkle_tree_test.cc). */
const knownLeaves = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657', '606162636465666768696a6b6c6d6e6f'].map(hex);
const knownRoots = [
  'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
  'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
  'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
  'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
  '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
  '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
  'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
  '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
];
/** From the same test: [leaf counted from 1, size, path] and [first, second, proof]. */
const knownPaths: ReadonlyArray<readonly [number, number, readonly string[]]> = [
  [1, 1, []],
  [1, 8, ['96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7', '5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e', '6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4']],
  [6, 8, ['bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b', 'ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0', 'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7']],
  [3, 3, ['fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125']],
  [2, 5, ['6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d', '5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e', 'bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b']],
];
const knownProofs: ReadonlyArray<readonly [number, number, readonly string[]]> = [
  [1, 1, []],
  [1, 8, ['96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7', '5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e', '6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4']],
  [6, 8, ['0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a', 'ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0', 'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7']],
  [2, 5, ['5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e', 'bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b']],
];

/** The twin: RFC 6962 §2.1 word for word, over lists, with nothing kept. */
const sha256 = (...parts: Uint8Array[]): Buffer => createHash('sha256').update(Buffer.concat(parts)).digest();
const half = (n: number): number => 2 ** (Math.ceil(Math.log2(n)) - 1);
function mth(leaves: readonly Buffer[]): Buffer {
  if (leaves.length === 0) return sha256();
  if (leaves.length === 1) return sha256(Buffer.of(0), leaves[0] as Buffer);
  const k = half(leaves.length);
  return sha256(Buffer.of(1), mth(leaves.slice(0, k)), mth(leaves.slice(k)));
}
function path(m: number, leaves: readonly Buffer[]): Buffer[] {
  if (leaves.length === 1) return [];
  const k = half(leaves.length);
  return m < k ? [...path(m, leaves.slice(0, k)), mth(leaves.slice(k))] : [...path(m - k, leaves.slice(k)), mth(leaves.slice(0, k))];
}
function subproof(m: number, leaves: readonly Buffer[], known: boolean): Buffer[] {
  if (m === leaves.length) return known ? [] : [mth(leaves)];
  const k = half(leaves.length);
  return m <= k ? [...subproof(m, leaves.slice(0, k), known), mth(leaves.slice(k))] : [...subproof(m - k, leaves.slice(k), false), mth(leaves.slice(0, k))];
}

/** Grows a tree and keeps what the store would. */
function grown(leaves: readonly Buffer[]): { frontier: Frontier; nodes: NodeSource; kept: Map<string, Buffer> } {
  const frontier = Frontier.empty();
  const kept = new Map<string, Buffer>();
  for (const leaf of leaves) for (const { level, index, hash } of frontier.append(leafHash(leaf))) kept.set(`${level}/${index}`, hash);
  const nodes: NodeSource = async (level, index) => {
    const hash = kept.get(`${level}/${index}`);
    assert.ok(hash !== undefined, `asked for a subtree that is not complete: ${level}/${index}`);
    return hash;
  };
  return { frontier, nodes, kept };
}
const hexes = (hashes: readonly Uint8Array[]): string[] => hashes.map((hash) => Buffer.from(hash).toString('hex'));
const flipped = (hash: Uint8Array, bit: number): Buffer => {
  const copy = Buffer.from(hash);
  copy[Math.floor(bit / 8) % copy.length] = (copy[Math.floor(bit / 8) % copy.length] ?? 0) ^ (1 << bit % 8);
  return copy;
};

test('roots of the certificate-transparency test tree', () => {
  assert.equal(emptyRoot.toString('hex'), knownRoots[0]);
  knownRoots.forEach((root, size) => {
    assert.equal(grown(knownLeaves.slice(0, size)).frontier.root().toString('hex'), root);
    assert.equal(mth(knownLeaves.slice(0, size)).toString('hex'), root, 'the twin');
  });
});

test('paths and proofs of the certificate-transparency test tree', async () => {
  for (const [leaf, size, known] of knownPaths) assert.deepEqual(hexes(await inclusionProof(grown(knownLeaves.slice(0, size)).nodes, leaf - 1, size)), known);
  for (const [first, second, known] of knownProofs) assert.deepEqual(hexes(await consistencyProof(grown(knownLeaves.slice(0, second)).nodes, first, second)), known);
});

const leavesOf = fc.array(fc.uint8Array({ maxLength: 8 }).map((bytes) => Buffer.from(bytes)), { minLength: 1, maxLength: 70 });

test('equals a plain recursive twin, at every size, also after loading the edge anew', async () => {
  await fc.assert(fc.asyncProperty(leavesOf, fc.nat(), fc.nat(), async (leaves, a, b) => {
    const { frontier, nodes } = grown(leaves);
    const size = leaves.length;
    assert.deepEqual(frontier.root(), mth(leaves));
    assert.deepEqual(await rootOf(nodes, size), mth(leaves));
    const loaded = await Frontier.load(size, nodes);
    assert.deepEqual(loaded.root(), mth(leaves));
    const more = Buffer.from('more');
    loaded.append(leafHash(more));
    assert.deepEqual(loaded.root(), mth([...leaves, more]));
    const index = a % size;
    assert.deepEqual(await inclusionProof(nodes, index, size), path(index, leaves));
    const first = 1 + (b % size);
    assert.deepEqual(await consistencyProof(nodes, first, size), subproof(first, leaves, true));
  }), { numRuns: 300 });
});

test('true proofs hold, and no proof holds after any change', async () => {
  await fc.assert(fc.asyncProperty(leavesOf, fc.nat(), fc.nat(), fc.nat(), async (leaves, a, b, bit) => {
    const { nodes } = grown(leaves);
    const size = leaves.length;
    const root = mth(leaves);
    const index = a % size;
    const leaf = leafHash(leaves[index] as Buffer);
    const inclusion = await inclusionProof(nodes, index, size);
    assert.ok(inclusionHolds(leaf, index, size, inclusion, root));
    assert.ok(!inclusionHolds(flipped(leaf, bit), index, size, inclusion, root));
    assert.ok(!inclusionHolds(leaf, index, size, inclusion, flipped(root, bit)));
    assert.ok(!inclusionHolds(leaf, index, size, [...inclusion, root], root));
    if (inclusion.length > 0) {
      const at = bit % inclusion.length;
      assert.ok(!inclusionHolds(leaf, index, size, inclusion.map((hash, i) => (i === at ? flipped(hash, bit) : hash)), root));
      assert.ok(!inclusionHolds(leaf, index, size, inclusion.slice(0, -1), root));
    }
    const first = 1 + (b % size);
    const old = mth(leaves.slice(0, first));
    const proof = await consistencyProof(nodes, first, size);
    assert.ok(consistencyHolds(first, size, proof, old, root));
    assert.ok(!consistencyHolds(first, size, proof, flipped(old, bit), root));
    assert.ok(!consistencyHolds(first, size, proof, old, flipped(root, bit)));
    assert.ok(!consistencyHolds(first, size, [...proof, root], old, root));
    if (proof.length > 0) {
      const at = bit % proof.length;
      assert.ok(!consistencyHolds(first, size, proof.map((hash, i) => (i === at ? flipped(hash, bit) : hash)), old, root));
      assert.ok(!consistencyHolds(first, size, proof.slice(0, -1), old, root));
    }
  }), { numRuns: 300 });
});

test('no proof joins the two sides of a fork', async () => {
  await fc.assert(fc.asyncProperty(leavesOf, fc.nat(), fc.integer({ min: 1, max: 20 }), async (leaves, at, more) => {
    const forkAt = at % leaves.length;
    const forked = leaves.map((leaf, i) => (i === forkAt ? Buffer.concat([leaf, Buffer.from('!')]) : leaf));
    const longer = [...forked, ...Array.from({ length: more }, (_, i) => Buffer.of(i))];
    const first = forkAt + 1;
    const own = await consistencyProof(grown(longer).nodes, first, longer.length);
    const theirs = await consistencyProof(grown(leaves).nodes, Math.min(first, leaves.length), leaves.length);
    for (const proof of [own, theirs]) assert.ok(!consistencyHolds(first, longer.length, proof, mth(leaves.slice(0, first)), mth(longer)));
  }), { numRuns: 300 });
});
