import { SpamerError } from '../core/errors.js';
import type { DeviceId, PatientId } from '../core/ids.js';
import { faultOf, type Journal } from '../core/journal.js';
import { limits } from '../core/limits.js';
import { buryInAll } from './burial.js';
import { isShared, sharedRoles, type ClusterApi, type Deployment, type NodeAbout, type NodeApi, type NodeReport, type SharedRole } from './cluster.js';
import { listenForLines, type LineAddress, type LineServer, type LineSocket } from './line-socket.js';
import { connect, serve, type Remote } from './rpc.js';
import { planShares } from './share-plan.js';
import type { AuditEntry, Auditor } from '../security/audit.js';
import type { CommandAnswer } from '../ingest/commands.js';
import type { ConnectedDevice } from '../ingest/server.js';
import type { Buried, Tombstone } from '../sinks/tombstones.js';

export interface HubParts {
  readonly address: LineAddress;
  readonly secret: string;
  readonly deployment: Deployment;
  readonly partitions: number;
  readonly shares: number;
  /** What is served to every process, by the name of its line. */
  readonly services: Readonly<Record<string, object>>;
  /** Who joins, and may then ask for keys, is an entry first [DENY]. */
  readonly audit: Auditor;
  readonly journal: Journal;
}

interface Member {
  readonly about: NodeAbout;
  readonly api: Remote<NodeApi>;
  readonly line: LineSocket;
  /** Shares it has, or is being given, by role. */
  readonly held: Map<SharedRole, Set<number>>;
}

const roundMs = 1000;

/**
 * Where the processes of a deployment meet: in the one that has the keys. It serves them the keys and the registry, tells all of them what changes,
 * and shares the work out. It decides who should have a share; that no two write for one is the log's to keep, whose newer writer of a name
 * fences the older, and the stores' (decision 0087).
 */
export class Hub {
  readonly name = 'hub';
  readonly #parts: HubParts;
  readonly #members = new Map<string, Member>();
  /** Shares of those who went without a word, and until when nobody else gets them. */
  readonly #away = new Map<string, { readonly held: ReadonlyMap<SharedRole, ReadonlySet<number>>; readonly untilMs: number }>();
  #server: LineServer | undefined;
  #timer: NodeJS.Timeout | undefined;
  #turn: Promise<void> = Promise.resolve();
  readonly #settledMs = performance.now() + limits.lineSettleMs;
  #stopped = false;

  private constructor(parts: HubParts) {
    this.#parts = parts;
  }

  /** @throws SpamerError `port_taken`, `config_invalid` */
  static async start(parts: HubParts): Promise<Hub> {
    const hub = new Hub(parts);
    hub.#server = await listenForLines(parts.address, parts.secret, (line) => hub.#met(line));
    hub.#timer = setInterval(() => void hub.#share(), roundMs).unref();
    return hub;
  }

  get port(): number {
    return this.#server?.port ?? 0;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    await this.#server?.close();
    await this.#turn;
  }

  // What changes, told to all. One that does not act on it in time is cut off, and takes no frames soon after.

  refresh(device: DeviceId): Promise<void> {
    return this.#tell((node) => node.refresh(device));
  }

  renewed(patient: PatientId): Promise<void> {
    return this.#tell((node) => node.renew(patient));
  }

  forget(patient: PatientId): Promise<void> {
    return this.#tell((node) => node.forget(patient));
  }

  bury(tombstones: readonly Tombstone[]): Promise<readonly Buried[]> {
    return buryInAll(this.#parts.shares, (share) => this.#sinks(share), tombstones);
  }

  chunkCount(patient: PatientId): Promise<number> {
    return this.#sinks(0).chunkCount(patient);
  }

  /** For its own metrics and readiness. */
  async reports(): Promise<readonly NodeReport[]> {
    const reports = await Promise.all([...this.#members.values()].map(({ api }) => within(api.report(), limits.reportWaitMs).catch(() => null)));
    return reports.filter((report) => report !== null);
  }

  /** How many processes there are. */
  get size(): number {
    return this.#members.size;
  }

  #sinks(share: number): Remote<NodeApi> {
    for (const { api, held } of this.#members.values()) if (held.get('sinks')?.has(share) === true) return api;
    throw new SpamerError('unreachable', 'no process has the sinks of a share at present', { where: `sinks/${share}` });
  }

  async #tell(change: (node: Remote<NodeApi>) => Promise<void>): Promise<void> {
    await Promise.all([...this.#members.values()].map(async ({ api, about, line }) => {
      try {
        await within(change(api), limits.lineChangeMs);
      } catch (error) {
        this.#parts.journal.warn('a process did not act on a change in time; it is cut off until it has read everything anew', { where: about.id, fault: faultOf(error) });
        line.close();
      }
    }));
  }

  #met(line: LineSocket): void {
    const { api } = connect<NodeApi>(line.port('node'));
    let member: Member | undefined;
    const cluster: ClusterApi = {
      join: async (about) => {
        this.#check(about);
        if (member === undefined) {
          await this.#parts.audit.record(joinEntry(about));
          for (const [name, service] of Object.entries(this.#parts.services)) serve(line.port(name), service);
        }
        member = this.#join(about, api, line);
        return this.#parts.deployment;
      },
      leave: async () => {
        if (member !== undefined) await this.#leave(member);
      },
      renewed: (patient) => this.renewed(patient),
      refresh: (device) => this.refresh(device),
      reports: () => this.reports(),
      connected: () => this.#connected(),
      sendCommand: (device, name, args, timeoutMs) => this.#sendCommand(device, name, args, timeoutMs),
      buried: () => this.#sinks(0).buried(),
      analyticsCounts: () => this.#sinks(0).analyticsCounts(),
      analyticsTotals: () => this.#sinks(0).analyticsTotals(),
      pmrCounts: () => this.#sinks(0).pmrCounts(),
      pmrTotals: () => this.#sinks(0).pmrTotals(),
      setAside: () => this.#sinks(0).setAside(),
      stream: async () => this.#urls().find((url) => url !== null) ?? null,
    };
    serve(line.port('cluster'), cluster);
    line.onClose(() => {
      if (member !== undefined) this.#gone(member);
    });
  }

  #check({ partitions, shares }: NodeAbout): void {
    if (partitions !== this.#parts.partitions) throw new SpamerError('config_invalid', 'the process with the role registry has another number of partitions', { where: 'log_partitions' });
    if (shares !== this.#parts.shares) throw new SpamerError('config_invalid', 'the process with the role registry has another number of shares', { where: 'log_shares' });
  }

  #join(about: NodeAbout, api: Remote<NodeApi>, line: LineSocket): Member {
    const before = this.#members.get(about.id);
    this.#away.delete(about.id);
    const held = new Map<SharedRole, Set<number>>();
    // What it had and somebody else has by now it must give back, by a release in the next round; so it counts as nobody's here.
    for (const role of sharedRoles) held.set(role, new Set((about.held[role] ?? []).filter((share) => !this.#others(about.id, role).has(share))));
    const member = { about, api, line, held };
    this.#members.set(about.id, member);
    this.#placesOwed = true;
    if (before?.line !== line) before?.line.close();
    for (const role of sharedRoles) {
      for (const share of about.held[role] ?? []) if (held.get(role)?.has(share) !== true) void api.release(role, share).catch(() => undefined);
    }
    this.#parts.journal.info('a process has joined', { where: about.id, stage: about.roles.join(',') });
    void this.#share();
    return member;
  }

  #others(id: string, role: SharedRole): Set<number> {
    const held = new Set<number>();
    for (const member of this.#members.values()) if (member.about.id !== id) for (const share of member.held.get(role) ?? []) held.add(share);
    return held;
  }

  /** In the turn of the rounds: nobody gets a share before it was given back. Until then it is told of changes as everybody. */
  async #leave(member: Member): Promise<void> {
    await this.#inTurn(async () => {
      if (this.#members.get(member.about.id) !== member) return;
      await Promise.all([...member.held].flatMap(([role, shares]) => [...shares].map((share) => within(member.api.release(role, share), limits.lineShareMs).catch(() => undefined))));
      this.#members.delete(member.about.id);
      this.#placesOwed = true;
      await this.#round();
    });
    this.#parts.journal.info('a process has left', { where: member.about.id, stage: member.about.roles.join(',') });
  }

  #gone(member: Member): void {
    const { id } = member.about;
    if (this.#members.get(id) !== member) return;
    this.#members.delete(id);
    this.#placesOwed = true;
    this.#away.set(id, { held: member.held, untilMs: performance.now() + limits.lineAwayMs });
    if (!this.#stopped) this.#parts.journal.warn('a process is gone; its shares go to others if it does not come back', { where: id, stage: member.about.roles.join(',') });
  }

  #share(): Promise<void> {
    return this.#inTurn(() => this.#round());
  }

  /** One thing at a time: every move is known before the next is planned. */
  #inTurn(work: () => Promise<void>): Promise<void> {
    this.#turn = this.#turn.then(work).catch((error: unknown) => this.#parts.journal.error('sharing out failed; trying again', { fault: faultOf(error) }));
    return this.#turn;
  }

  async #round(): Promise<void> {
    // Those who worked on while this process was away say first what they have.
    if (this.#stopped || performance.now() < this.#settledMs) return;
    for (const [id, { untilMs }] of this.#away) if (performance.now() > untilMs) this.#away.delete(id);
    let moved = false;
    for (const role of sharedRoles) moved = (await this.#shareRole(role)) || moved;
    if (moved || this.#placesOwed) await this.#place();
  }

  async #shareRole(role: SharedRole): Promise<boolean> {
    const members = [...this.#members.values()].filter(({ about }) => about.ready && about.roles.some((one) => isShared(one) && one === role));
    const away = new Set([...this.#away.values()].flatMap(({ held }) => [...(held.get(role) ?? [])]));
    const holdings = new Map(members.map(({ about, held }) => [about.id, [...(held.get(role) ?? [])]]));
    const moves = planShares(this.#parts.shares, holdings).filter(({ share }) => !away.has(share));
    let moved = false;
    for (const { share, from, to } of moves) moved = (await this.#move(role, share, from, to)) || moved;
    return moved;
  }

  async #move(role: SharedRole, share: number, from: string | null, to: string): Promise<boolean> {
    const [giver, taker] = [from === null ? undefined : this.#members.get(from), this.#members.get(to)];
    if (taker === undefined || (from !== null && giver === undefined)) return false;
    try {
      if (giver !== undefined) {
        await within(giver.api.release(role, share), limits.lineShareMs);
        giver.held.get(role)?.delete(share);
      }
      // From here on it may have it, whatever becomes of the answer.
      taker.held.get(role)?.add(share);
      await within(taker.api.take(role, share), limits.lineShareMs);
      return true;
    } catch (error) {
      const code = error instanceof SpamerError ? error.code : 'internal';
      this.#parts.journal.warn('a share could not be given; trying again', { stage: role, partition: share, where: to, code });
      // Who did not say that it has it may have it, or get it late: it is asked to give it back, and cut off where it does not.
      const release = taker.held.get(role)?.delete(share) === true ? taker : giver;
      if (release !== undefined) await within(release.api.release(role, share), limits.lineChangeMs).then(() => release.held.get(role)?.delete(share), () => release.line.close());
      return true;
    }
  }

  #placesOwed = true;

  #urls(): Array<string | null> {
    return Array.from({ length: this.#parts.shares }, (_, share) => {
      for (const { about, held } of this.#members.values()) if (about.ingestUrl !== null && held.get('ingest')?.has(share) === true) return about.ingestUrl;
      return null;
    });
  }

  async #place(): Promise<void> {
    const urls = this.#urls();
    const doors = [...this.#members.values()].filter(({ about }) => about.ingestUrl !== null);
    const told = await Promise.all(doors.map(({ api }) => within(api.placed(urls), limits.lineChangeMs).then(() => true, () => false)));
    this.#placesOwed = told.includes(false);
  }

  async #connected(): Promise<readonly ConnectedDevice[]> {
    const all = await Promise.all([...this.#members.values()].filter(({ about }) => about.ingestUrl !== null).map(({ api }) => within(api.connected(), limits.reportWaitMs).catch(() => [])));
    return all.flat();
  }

  /** To the process that the device is connected to: the others say so at once. */
  async #sendCommand(device: DeviceId, name: string, args: Record<string, string>, timeoutMs: number): Promise<CommandAnswer> {
    const doors = [...this.#members.values()].filter(({ about }) => about.ingestUrl !== null);
    const answers = await Promise.allSettled(doors.map(({ api }) => api.sendCommand(device, name, args, timeoutMs)));
    const given = answers.find((answer) => answer.status === 'fulfilled');
    if (given !== undefined) return given.value;
    throw new SpamerError('unreachable', 'the device is not connected');
  }
}

const joinEntry = ({ id, roles }: NodeAbout): AuditEntry => ({ action: 'process.join', outcome: 'done', actor: { kind: 'system', id: 'hub' }, resource: { kind: 'process', id }, patient: null, context: { roles: roles.join(',') } });

/** @throws SpamerError `unreachable` when it takes longer. */
async function within<Answer>(asked: Promise<Answer>, ms: number): Promise<Answer> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => { timer = setTimeout(() => reject(new SpamerError('unreachable', 'a process does not answer in time')), ms); });
  try {
    return await Promise.race([asked, late]);
  } finally {
    clearTimeout(timer);
  }
}
