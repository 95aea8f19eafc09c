import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { SpamerError } from '../core/errors.js';
import { silentJournal } from '../core/journal.js';
import type { DeviceId } from '../core/ids.js';
import { limits } from '../core/limits.js';
import { until } from '../tests/program.js';
import type { AuditEntry, Auditor } from '../security/audit.js';
import type { Tombstone } from '../sinks/tombstones.js';
import type { ClusterApi, NodeAbout, NodeApi, SharedRole } from './cluster.js';
import { Hub } from './hub.js';
import { Link } from './link.js';

const secret = 'a secret of more than thirty-two characters';
const shares = 4;
const device = '00000000-0000-4000-8000-000000000001' as DeviceId;

interface Keeper {
  key(): Promise<string>;
}

/** A process that only notes what it is given. */
class FakeNode {
  readonly held: Record<SharedRole, Set<number>> = { ingest: new Set(), processors: new Set(), sinks: new Set() };
  readonly refreshed: string[] = [];
  urls: ReadonlyArray<string | null> = [];
  joins = 0;
  lost = 0;
  /** Answers nothing any more. */
  stuck = false;
  /** How long it takes to give a share back. */
  releaseMs = 0;
  /** It can't read anew what may have changed. */
  blind = false;
  /** What it was asked to bury, in which of its shares. */
  readonly buried: string[] = [];
  link!: Link;
  readonly #id: string;

  constructor(id: string) {
    this.#id = id;
  }

  get about(): NodeAbout {
    return { id: this.#id, roles: ['ingest', 'sinks'], ready: true, ingestUrl: `ws://${this.#id}/v1/stream`, held: { ingest: [...this.held.ingest], sinks: [...this.held.sinks] }, partitions: 4, shares };
  }

  async join(port: number, change: Partial<NodeAbout> = {}): Promise<this> {
    const node = {
      take: async (role: SharedRole, share: number) => void this.held[role].add(share),
      release: async (role: SharedRole, share: number) => {
        await sleep(this.releaseMs);
        this.held[role].delete(share);
      },
      placed: async (urls: ReadonlyArray<string | null>) => { this.urls = urls; },
      refresh: (of: DeviceId) => {
        if (this.stuck) return new Promise<void>(() => undefined);
        this.refreshed.push(of);
        return Promise.resolve();
      },
      keepOut: async (share: number, [one]: readonly Tombstone[]) => {
        await sleep(50);
        this.buried.push(`${share} keeps ${one?.study} out`);
      },
      bury: async ([one]: readonly Tombstone[]) => {
        this.buried.push(`${one?.study} buried`);
        return [{ ...one, rows: 1, samples: 1 }];
      },
      report: () => Promise.reject(new Error('not asked for')),
    } as unknown as NodeApi;
    const onJoined = async (): Promise<void> => {
      if (this.blind) throw new SpamerError('unreachable', 'the registry does not answer');
      this.joins += 1;
    };
    this.link = await Link.join({ to: { host: '127.0.0.1', port }, secret, about: () => ({ ...this.about, ...change }), node, journal: silentJournal, onJoined, onLost: () => { this.lost += 1; } }, 1000);
    return this;
  }
}

async function hubOf(t: TestContext, port = 0, audit: Auditor = { record: async () => undefined }): Promise<Hub> {
  const keeper: Keeper = { key: async () => 'the key' };
  const hub = await Hub.start({ address: { host: '127.0.0.1', port }, secret, deployment: { log: 'log', stores: 'stores' }, partitions: 4, shares, services: { custodian: keeper }, audit, journal: silentJournal });
  t.after(() => hub.stop());
  return hub;
}

async function joined(t: TestContext, id: string, hub: Hub): Promise<FakeNode> {
  const node = await new FakeNode(id).join(hub.port);
  t.after(() => node.link.stop());
  return node;
}

const all = (...nodes: FakeNode[]): number[] => nodes.flatMap(({ held }) => [...held.ingest]).sort();

test('shares are worked out evenly, go back and forth as processes come and leave, and everybody knows where they are', { timeout: 60_000 }, async (t) => {
  const hub = await hubOf(t);
  const first = await joined(t, 'first', hub);
  assert.equal(await first.link.api<Keeper>('custodian').key(), 'the key');
  await until('all shares with the first', async () => all(first).length === shares && first.held.sinks.size === shares);
  const second = await joined(t, 'second', hub);
  await until('half of them with the second', async () => first.held.ingest.size === 2 && second.held.ingest.size === 2 && second.held.sinks.size === 2);
  assert.deepEqual(all(first, second), [0, 1, 2, 3]);
  assert.deepEqual([...first.held.sinks, ...second.held.sinks].sort(), [0, 1, 2, 3]);
  await until('both know', async () => [first, second].every(({ urls }) => urls.length === shares && urls.every((url, share) => url === `ws://${second.held.ingest.has(share) ? 'second' : 'first'}/v1/stream`)));
  await first.link.leave();
  assert.deepEqual([all(first), all(second), second.held.sinks.size], [[], [0, 1, 2, 3], shares], 'when it has left, another has everything');
});

test('[DENY] a change is acted on by every process when it is told, or that process is cut off; back again, it reads everything anew', { timeout: 60_000 }, async (t) => {
  const hub = await hubOf(t);
  const [good, stuck] = [await joined(t, 'good', hub), await joined(t, 'stuck', hub)];
  const api = good.link.api<ClusterApi>('cluster');
  await api.refresh(device);
  assert.deepEqual([good.refreshed, stuck.refreshed], [[device], [device]]);
  stuck.stuck = true;
  const sinceMs = performance.now();
  await api.refresh(device);
  const toldMs = performance.now() - sinceMs;
  assert.ok(toldMs >= limits.lineChangeMs - 50 && toldMs < limits.lineChangeMs + 1500, `told after ${Math.round(toldMs)} ms`);
  assert.equal(good.refreshed.length, 2);
  await until('it to be back', async () => stuck.joins === 2);
  assert.equal(stuck.lost, 0);
});

test('[ERASED] every other share of the sinks keeps an erased patient\'s rows out before the first deletes them; where one is with nobody nothing is deleted', { timeout: 60_000 }, async (t) => {
  const hub = await hubOf(t);
  const graves = [{ study: 'heart', pseudonym: device as string }];
  await assert.rejects(hub.bury(graves), { code: 'unreachable' });
  const [first, second] = [await joined(t, 'first', hub), await joined(t, 'second', hub)];
  await until('shares', async () => first.held.sinks.size === 2 && second.held.sinks.size === 2);
  assert.deepEqual(await hub.bury(graves), [{ ...graves[0], rows: 1, samples: 1 }]);
  const [has, other] = first.held.sinks.has(0) ? [first, second] : [second, first];
  const kept = ({ held }: FakeNode): string[] => [...held.sinks].filter((share) => share !== 0).sort().map((share) => `${share} keeps heart out`);
  assert.deepEqual([has.buried.slice(0, -1).sort(), other.buried.sort()], [kept(has), kept(other)]);
  assert.equal(has.buried.at(-1), 'heart buried');
  await endWithoutAWord(other);
  await until('it to be gone', async () => hub.size === 1);
  await assert.rejects(hub.bury(graves), { code: 'unreachable' });
  assert.equal(has.buried.filter((what) => what === 'heart buried').length, 1);
});

test('a process whose line is cut keeps its shares for a moment, finds the line again, and its calls wait for it; one that stays away loses them', { timeout: 60_000 }, async (t) => {
  const hub = await hubOf(t);
  const { port } = hub;
  const [first, second] = [await joined(t, 'first', hub), await joined(t, 'second', hub)];
  await until('shares', async () => all(first, second).length === shares && second.held.ingest.size === 2);
  const before = [[...first.held.ingest], [...second.held.ingest]];
  await hub.stop();
  await until('the cut to be known', async () => !first.link.joined && !second.link.joined);
  const waiting = first.link.api<Keeper>('custodian').key();
  await sleep(500);
  const again = await hubOf(t, port);
  assert.equal(await waiting, 'the key', 'a call that found no line waited for it');
  await until('both to be back', async () => first.joins === 2 && second.joins === 2);
  await sleep(limits.lineSettleMs + 1500);
  assert.deepEqual([[...first.held.ingest], [...second.held.ingest]], before, 'nothing moved');
  // Killed, from where the others stand: no word, and no way back.
  await endWithoutAWord(second);
  await until('all shares with the first', async () => all(first).length === shares);
  assert.ok(again.size === 1);
});

test('a process that leaves is told of changes until it has given everything back, and nobody gets a share before', { timeout: 60_000 }, async (t) => {
  const hub = await hubOf(t);
  const [first, second] = [await joined(t, 'first', hub), await joined(t, 'second', hub)];
  await until('shares', async () => all(first, second).length === shares && second.held.ingest.size === 2);
  first.releaseMs = 2500;
  const left = first.link.leave();
  const ended = new AbortController();
  void left.finally(() => ended.abort());
  while (!ended.signal.aborted) {
    assert.equal(new Set(all(first, second)).size, all(first, second).length, 'no share is with both');
    await sleep(20);
    if (first.refreshed.length === 0) await hub.refresh(device);
  }
  assert.deepEqual([first.refreshed, all(first), all(second)], [[device], [], [0, 1, 2, 3]]);
});

test('[DENY] a process that finds the line again but cannot read anew what has changed counts as cut off', { timeout: 60_000 }, async (t) => {
  const hub = await hubOf(t);
  const node = await joined(t, 'first', hub);
  const { port } = hub;
  node.blind = true;
  await hub.stop();
  await hubOf(t, port);
  await until('it to be told that it is lost', async () => node.lost === 1, limits.lineLostMs + 5000);
  node.blind = false;
  await until('it to be back', async () => node.joins === 2);
  assert.equal(node.lost, 1);
});

test('settings that must be alike are compared when a process comes', async (t) => {
  const hub = await hubOf(t);
  await assert.rejects(new FakeNode('other').join(hub.port, { shares: 2 }), { code: 'config_invalid', where: 'log_shares' });
  await assert.rejects(new FakeNode('other').join(hub.port, { partitions: 8 }), { code: 'config_invalid', where: 'log_partitions' });
  assert.equal(hub.size, 0);
});

test('[DENY] who joins is an entry of the audit first: without one nothing is served', async (t) => {
  const entries: AuditEntry[] = [];
  let full = false;
  const hub = await hubOf(t, 0, {
    record: async (entry) => {
      if (full) throw new SpamerError('audit_failed', 'no room');
      entries.push(entry);
    },
  });
  const first = await joined(t, 'first', hub);
  await first.link.tell();
  assert.deepEqual(entries.map(({ action, resource, context }) => [action, resource?.id, context['roles']]), [['process.join', 'first', 'ingest,sinks']]);
  full = true;
  await assert.rejects(new FakeNode('second').join(hub.port), { code: 'audit_failed' });
  assert.equal(hub.size, 1);
});

async function endWithoutAWord({ link }: FakeNode): Promise<void> {
  // The line goes down with the process; nobody dials again.
  await Link.prototype.stop.call(link);
}
