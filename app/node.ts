import { randomUUID } from 'node:crypto';
import type { Config, RoleName } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import type { PatientId } from '../core/ids.js';
import type { IngestServer } from '../ingest/server.js';
import { shareWriter, type Writer } from '../log/log.js';
import type { Vault } from '../processors/vault.js';
import type { AnonymizeThread } from './anonymize-thread.js';
import { countChunks } from './chunks.js';
import type { NodeAbout, NodeApi, SharedRole } from './cluster.js';
import type { ProgramLog } from './log.js';
import { localPipeline, type Pipeline } from './pipeline.js';
import type { RecordThread } from './record-thread.js';
import type { Remote } from './rpc.js';
import type { Sealers } from './sealers.js';
import type { StoresThread } from './stores-thread.js';

/** What of the program runs in this process. */
export interface NodeParts {
  readonly log: ProgramLog;
  readonly ingest: { readonly server: IngestServer; readonly sealers: Sealers } | null;
  readonly processors: { readonly anonymize: Remote<AnonymizeThread>; readonly record: Remote<RecordThread> } | null;
  /** The stores, and whether this process may be given the sinks. */
  readonly stores: { readonly api: Remote<StoresThread>; readonly sinks: boolean } | null;
  readonly vault: Vault | null;
}

/** One process of a deployment: has shares of the work as the one with the keys gives them, and acts on what changes. */
export class Node implements NodeApi {
  readonly #config: Config;
  readonly #roles: readonly RoleName[];
  readonly #id = randomUUID();
  readonly #onWriterDeath: (name: string, error: unknown) => void;
  readonly #held: Record<SharedRole, Set<number>> = { ingest: new Set(), processors: new Set(), sinks: new Set() };
  readonly #writers = new Map<number, Writer>();
  /** Takes and releases, one after the other. */
  #turn: Promise<unknown> = Promise.resolve();
  #urls: ReadonlyArray<string | null> = [];
  #parts: NodeParts | null = null;

  constructor(config: Config, roles: readonly RoleName[], onWriterDeath: (name: string, error: unknown) => void) {
    this.#config = config;
    this.#roles = roles;
    this.#onWriterDeath = onWriterDeath;
  }

  /** Its parts run; shares may come. */
  begin(parts: NodeParts): void {
    this.#parts = parts;
  }

  get about(): NodeAbout {
    const { log_partitions: partitions, log_shares: shares, ingest_public_url: url } = this.#config;
    const held = { ingest: [...this.#held.ingest], processors: [...this.#held.processors], sinks: [...this.#held.sinks] };
    return { id: this.#id, roles: this.#roles, ready: this.#parts !== null, ingestUrl: url ?? this.#parts?.ingest?.server.url ?? null, held, partitions, shares };
  }

  get pipeline(): Pipeline {
    const parts = this.#parts;
    return localPipeline({ ingest: parts?.ingest?.server ?? null, anonymize: parts?.processors?.anonymize ?? null, record: parts?.processors?.record ?? null, sinks: parts?.stores?.sinks === true ? parts.stores.api : null });
  }

  /** Whether it knows where devices are let in, having heard it once. Before that it could only refuse them. */
  get knowsPlaces(): boolean {
    return this.#urls.length > 0;
  }

  /** Where devices of a share are let in; null: nobody knows. */
  elsewhere(share: number): string | null {
    const url = this.#urls[share] ?? null;
    // Its own address is an old word: it has given the share back.
    return url === this.about.ingestUrl ? null : url;
  }

  /** Has everything read anew that may have changed while nobody could tell. */
  async readAnew(): Promise<void> {
    const parts = this.#parts;
    parts?.vault?.forget(null);
    await Promise.all([parts?.ingest?.server.refreshAll(), parts?.processors?.anonymize.forget(null), parts?.processors?.record.forget(null)]);
  }

  /** Nobody can tell this process what is revoked: it takes no frames until somebody can. */
  cutOff(): void {
    this.#parts?.ingest?.server.sendAway();
  }

  // What the process with the keys asks for

  take(role: SharedRole, share: number): Promise<void> {
    return this.#alone(() => this.#take(role, share));
  }

  release(role: SharedRole, share: number): Promise<void> {
    return this.#alone(() => this.#release(role, share));
  }

  async #take(role: SharedRole, share: number): Promise<void> {
    if (this.#held[role].has(share)) return;
    const { ingest, processors, stores, log } = this.#running();
    // From here on, whatever comes of it, it may have something of the share.
    this.#held[role].add(share);
    try {
      if (role === 'ingest') {
        if (ingest === null) throw notHere(role);
        const writer = await log.writer(shareWriter('ingest', share, this.#config.log_shares), { thread: true, onDeath: (error) => this.#onWriterDeath('ingest writer', error) });
        this.#writers.set(share, writer);
        await ingest.server.take(share, writer);
      } else if (role === 'processors') {
        if (processors === null) throw notHere(role);
        await Promise.all([processors.anonymize.take(share), processors.record.take(share)]);
      } else {
        if (stores?.sinks !== true) throw notHere(role);
        await stores.api.take(share);
      }
    } catch (error) {
      await this.#release(role, share).catch(() => undefined);
      throw error;
    }
  }

  async #release(role: SharedRole, share: number): Promise<void> {
    if (!this.#held[role].has(share)) return;
    const { ingest, processors, stores } = this.#running();
    if (role === 'ingest') {
      await ingest?.server.release(share);
      await this.#writers.get(share)?.close();
      this.#writers.delete(share);
    } else if (role === 'processors') {
      await Promise.all([processors?.anonymize.release(share), processors?.record.release(share)]);
    } else {
      await stores?.api.release(share);
    }
    this.#held[role].delete(share);
  }

  async placed(urls: ReadonlyArray<string | null>): Promise<void> {
    this.#urls = urls;
  }

  async refresh(...[device]: Parameters<NodeApi['refresh']>): Promise<void> {
    await this.#parts?.ingest?.server.refresh(device);
  }

  async renew(patient: PatientId): Promise<void> {
    const parts = this.#parts;
    await Promise.all([parts?.ingest?.sealers.renew(patient), parts?.processors?.anonymize.forget(patient), parts?.processors?.record.forget(patient)]);
  }

  async forget(patient: PatientId): Promise<void> {
    const parts = this.#parts;
    parts?.vault?.forget(patient);
    await Promise.all([parts?.processors?.anonymize.forget(patient), parts?.processors?.record.forget(patient)]);
  }

  async report(): ReturnType<NodeApi['report']> {
    const { pipeline } = this;
    const [door, anonymize, record, sinks, freshnessMs] = await Promise.all([pipeline.door(), pipeline.anonymize(), pipeline.record(), pipeline.sinks(), pipeline.freshness()]);
    return { door, anonymize, record, sinks, freshnessMs };
  }

  async connected(): ReturnType<NodeApi['connected']> {
    return this.#parts?.ingest?.server.connected() ?? [];
  }

  async sendCommand(...asked: Parameters<NodeApi['sendCommand']>): ReturnType<NodeApi['sendCommand']> {
    const ingest = this.#parts?.ingest;
    if (ingest === null || ingest === undefined) throw new SpamerError('unreachable', 'the device is not connected');
    return ingest.server.sendCommand(...asked);
  }

  keepOut(...asked: Parameters<NodeApi['keepOut']>): ReturnType<NodeApi['keepOut']> {
    return this.#stores().keepOut(...asked);
  }

  bury(...asked: Parameters<NodeApi['bury']>): ReturnType<NodeApi['bury']> {
    return this.#stores().bury(...asked);
  }

  buried(): ReturnType<NodeApi['buried']> {
    return this.#stores().buried();
  }

  analyticsCounts(): ReturnType<NodeApi['analyticsCounts']> {
    return this.#stores().analyticsCounts();
  }

  analyticsTotals(): ReturnType<NodeApi['analyticsTotals']> {
    return this.#stores().analyticsTotals();
  }

  pmrCounts(): ReturnType<NodeApi['pmrCounts']> {
    return this.#stores().pmrCounts();
  }

  pmrTotals(): ReturnType<NodeApi['pmrTotals']> {
    return this.#stores().pmrTotals();
  }

  setAside(): ReturnType<NodeApi['setAside']> {
    return this.#stores().setAside();
  }

  chunkCount(patient: PatientId): Promise<number> {
    return countChunks(this.#stores(), patient);
  }

  #stores(): Remote<StoresThread> {
    const { stores } = this.#running();
    if (stores?.sinks !== true) throw notHere('sinks');
    return stores.api;
  }

  #running(): NodeParts {
    if (this.#parts === null) throw new SpamerError('unreachable', 'this process is still starting');
    return this.#parts;
  }

  #alone<Result>(work: () => Promise<Result>): Promise<Result> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => undefined);
    return done;
  }
}

const notHere = (role: SharedRole): SpamerError => new SpamerError('internal', 'this process has no such role', { where: role });
